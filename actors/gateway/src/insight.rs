//! The seam to what this host knows of its own inside: the REPL's questions and `kactor status`.
//!
//! The gateway only authorises and carries; the composition root implements it over the actor runtime.

use bytes::Bytes;
use futures::Stream;
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_streams::BoxFuture;
use serde_json::Value;

/// An order of `kactor image`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageOrder {
    /// Takes the images of a tarball of this host, by its absolute path.
    Import {
        path: std::path::PathBuf,
    },
    List,
    Remove {
        reference: String,
    },
}

/// A file on its way to the operator.
pub type ByteStream = std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Answers the operator's questions about this host.
pub trait InsightSource: Send + Sync {
    fn ask(&self, question: Insight) -> BoxFuture<'_, InsightReply>;

    /// What `kactor status` prints: a JSON object.
    fn status(&self) -> BoxFuture<'_, Value>;

    /// What `kactor snapshot save` writes: the state and the cluster's keys. Whoever gets it owns the cluster.
    fn snapshot(&self) -> BoxFuture<'_, Result<ByteStream, String>>;

    /// What `kactor image` asks of the node of this host. The error's text is for the operator.
    fn images(&self, order: ImageOrder) -> BoxFuture<'_, Result<Value, String>>;
}
