//! The one write pipeline, and reads and watches beside it.
