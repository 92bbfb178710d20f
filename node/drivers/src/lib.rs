//! The driver trait, its conformance suite, and the hollow driver.
