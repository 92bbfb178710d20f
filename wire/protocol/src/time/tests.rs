//! Calendar edges and deadline arithmetic.

use std::time::Duration;

use proptest::prelude::*;

use super::{Deadline, TIMESTAMP_MS_MAX, Timestamp, TimestampError};

#[test]
fn prints_and_parses_known_instants() {
    for (ms, text, micro) in [
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"),
        (951_782_400_250, "2000-02-29T00:00:00Z", "2000-02-29T00:00:00.250000Z"),
        (1_795_262_399_001, "2026-11-21T11:59:59Z", "2026-11-21T11:59:59.001000Z"),
        (TIMESTAMP_MS_MAX, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999000Z"),
    ] {
        assert_eq!(Timestamp(ms).to_string(), text);
        assert_eq!(Timestamp(ms).rfc3339_micro(), micro);
        assert_eq!(text.parse(), Ok(Timestamp(ms / 1000 * 1000)));
        assert_eq!(micro.parse(), Ok(Timestamp(ms)));
    }
}

#[test]
fn takes_offsets_and_fractions_of_any_length() {
    for (text, same_as) in [
        ("2026-11-21T13:00:00+01:00", "2026-11-21T12:00:00Z"),
        ("2026-11-20T23:30:00-12:30", "2026-11-21T12:00:00Z"),
        ("2026-11-21t12:00:00.1z", "2026-11-21T12:00:00.100000Z"),
        ("2026-11-21T12:00:00.123456789Z", "2026-11-21T12:00:00.123Z"),
    ] {
        assert_eq!(text.parse::<Timestamp>(), same_as.parse(), "{text}");
    }
}

#[test]
fn refuses_what_is_no_instant_and_names_the_field() {
    for text in [
        "",
        "now",
        "2026-11-21",
        "2026-11-21 12:00:00Z",
        "2026-11-21T12:00:00",
        "2026-11-21T12:00:00.Z",
        "2026-11-21T12:00:00+24:00",
        "2026-11-21T12:00:00Zjunk",
    ] {
        let refused = text.parse::<Timestamp>();
        assert!(matches!(refused, Err(TimestampError::Malformed { .. })), "{text}: {refused:?}");
    }
    for (text, wrong) in [
        ("2026-13-01T00:00:00Z", "month"),
        ("2026-02-29T00:00:00Z", "day"),
        ("2026-01-01T24:00:00Z", "hour"),
        ("2026-01-01T00:60:00Z", "minute"),
        ("2026-01-01T00:00:60Z", "second"),
        ("9999-12-31T23:59:59-01:00", "year"),
    ] {
        match text.parse::<Timestamp>() {
            Err(TimestampError::OutOfRange { field, .. }) => assert_eq!(field, wrong, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(
        "1969-12-31T23:59:59Z".parse::<Timestamp>(),
        Err(TimestampError::BeforeEpoch { .. })
    ));
}

#[test]
fn a_deadline_never_comes_early_and_never_goes_negative() {
    let now = Duration::from_micros(1_000_500);
    let deadline = Deadline::after(now, Duration::from_millis(10));
    assert_eq!(deadline, Deadline(1011));
    assert!(!deadline.is_past(Duration::from_micros(1_010_999)));
    assert!(deadline.is_past(Duration::from_millis(1011)));
    assert_eq!(deadline.remaining(Duration::from_secs(9)), Duration::ZERO);
    assert_eq!(Deadline::after(Duration::MAX, Duration::MAX), Deadline(u64::MAX));
}

proptest! {
    #[test]
    fn every_instant_survives_its_text(ms in 0..=TIMESTAMP_MS_MAX) {
        prop_assert_eq!(Timestamp(ms).rfc3339_micro().parse(), Ok(Timestamp(ms)));
        prop_assert_eq!(Timestamp(ms).rfc3339().parse(), Ok(Timestamp(ms / 1000 * 1000)));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,70}") {
        let _ = text.parse::<Timestamp>();
    }

    #[test]
    fn no_digits_make_the_parser_panic(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?[Z+-][0-9:]{0,5}") {
        let _ = text.parse::<Timestamp>();
    }
}
