//! Points in time as they cross boundaries: wall-clock milliseconds and monotonic deadlines.

use serde::{Deserialize, Serialize};

/// Wall time, milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);
