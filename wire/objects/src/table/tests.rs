//! Tests; see the module above.
