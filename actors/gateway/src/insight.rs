//! The seam to what this host knows of its own inside: the REPL's questions and `kactor status`.
//!
//! The gateway only authorises and carries; the composition root implements it over the actor runtime.

use kactor_protocol::insight::{Insight, InsightReply};
use kactor_streams::BoxFuture;
use serde_json::Value;

/// Answers the operator's questions about this host.
pub trait InsightSource: Send + Sync {
    fn ask(&self, question: Insight) -> BoxFuture<'_, InsightReply>;

    /// What `kactor status` prints: a JSON object.
    fn status(&self) -> BoxFuture<'_, Value>;
}
