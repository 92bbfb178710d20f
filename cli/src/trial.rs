//! What only builds with debug assertions do, because only tests ask for it: passes of a controller that panic.
//!
//! This file is no part of a release build (`tests/tests/tidy.rs` keeps that), so no user can trigger it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use kactor_controllers::start::BeforePass;
use kactor_protocol::store::Key;

/// `CONTROLLER KEY TIMES`, such as `deployment-controller /apps/deployments/default/web 1`.
pub const PANIC_VARIABLE: &str = "KACTOR_TEST_PANIC";

/// The passes that shall panic, if the environment names some.
pub fn panics() -> anyhow::Result<Option<BeforePass>> {
    match std::env::var(PANIC_VARIABLE) {
        Ok(text) => parse(&text).map(Some).with_context(|| format!("{PANIC_VARIABLE}={text:?}")),
        Err(_) => Ok(None),
    }
}

fn parse(text: &str) -> anyhow::Result<BeforePass> {
    let words: Vec<&str> = text.split(' ').collect();
    let [controller, key, times] = words[..] else {
        bail!("three words are needed: CONTROLLER KEY TIMES");
    };
    let (controller, key) = (controller.to_owned(), key.to_owned());
    let left = AtomicU32::new(times.parse().context("TIMES is no number")?);
    Ok(Arc::new(move |name: &'static str, at: &Key| {
        let is_meant = name == controller && at.to_string() == key;
        let take = |it: u32| it.checked_sub(1);
        if is_meant && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            panic!("a test asked for this pass to panic");
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_pass_panics_as_often_as_was_asked_and_no_other() {
        let key = Key::new("apps", "deployments", "default", "web").expect("a key");
        let before = parse(&format!("c {key} 1")).expect("three words");
        let panics = |name: &'static str| {
            let pass = std::panic::AssertUnwindSafe(|| before(name, &key));
            std::panic::catch_unwind(pass).is_err()
        };
        assert_eq!([panics("other"), panics("c"), panics("c")], [false, true, false]);
        assert!(parse("c").is_err() && parse("c k often").is_err());
    }
}
