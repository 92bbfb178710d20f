//! Runs the binary itself. It also makes `cargo test --workspace` build it: the black-box tests in `tests/` use what lies
//! in the build folder, and without a test here that would be missing, or an old one.

use std::process::Command;

#[test]
fn the_binary_says_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_kactor")).arg("version").output();
    let output = output.expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
}
