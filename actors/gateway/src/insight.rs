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

/// In place of a host's name: all of them.
pub const ALL_HOSTS: &str = "*";

/// A file on its way to the operator.
pub type ByteStream = std::pin::Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Answers the operator's questions about this host.
pub trait InsightSource: Send + Sync {
    fn ask(&self, question: Insight) -> BoxFuture<'_, InsightReply>;

    /// Asks another host, or all of them (`*`), and gives their rows as one answer; each row names its host. The error's text is
    /// for the operator.
    fn ask_hosts(&self, host: String, question: Insight) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move {
            if host != ALL_HOSTS {
                return Err(format!("this host has no links to others, so {host} can't be asked"));
            }
            serde_json::to_value(self.ask(question).await).map_err(|it| it.to_string())
        })
    }

    /// What `kactor status` prints: a JSON object.
    fn status(&self) -> BoxFuture<'_, Value>;

    /// What `kactor snapshot save` writes: the state and the cluster's keys. Whoever gets it owns the cluster.
    fn snapshot(&self) -> BoxFuture<'_, Result<ByteStream, String>>;

    /// What `kactor image` asks of the node of this host. The error's text is for the operator.
    fn images(&self, order: ImageOrder) -> BoxFuture<'_, Result<Value, String>>;
}
