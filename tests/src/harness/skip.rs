//! Tests that cannot run here say why; where CI demands all of them, that is a failure.

/// Says why a test does nothing here.
///
/// # Panics
/// With `KACTOR_E2E=1`, where any skip is a failure.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(!demanded(), "KACTOR_E2E=1 allows no skip: {reason}");
    println!("skipped: {reason}");
}

/// Whether this run must try everything, at full length.
pub fn demanded() -> bool {
    std::env::var("KACTOR_E2E").is_ok_and(|it| it == "1")
}
