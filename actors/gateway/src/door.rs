//! The seam to who is in the cluster: new hosts at the door, and orders about tokens and hosts.
//!
//! The gateway carries and bounds; the composition root implements it over `kactor-cluster`. Joining is the one thing
//! that is served to who has no identity yet, so it is paced: tries beyond the pace are refused before they are read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kactor_api::Status;
use kactor_protocol::time::Deadline;
use kactor_streams::BoxFuture;
use serde_json::Value;

/// A request to join is a token, a name and a certificate request.
pub(crate) const JOIN_BYTES_MAX: usize = 64 * 1024;
/// Tries to join that may come at once, and how soon another is allowed.
const JOINS_AT_ONCE: u32 = 32;
const JOIN_EVERY: Duration = Duration::from_millis(100);

/// An operator's order about tokens and hosts.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ClusterOrder {
    CreateToken {
        /// `any`, `control` or `worker`.
        role: String,
        ttl_seconds: u64,
        uses: u32,
    },
    ListTokens,
    RevokeToken {
        id: String,
    },
    /// A host leaves for good. `None`: the host that is asked.
    Leave {
        host: Option<String>,
    },
}

/// Lets hosts in, and changes who is in the cluster.
pub trait ClusterDoor: Send + Sync {
    /// The cluster's CA certificate, PEM.
    fn authority(&self) -> String;

    /// Judges a host that wants to join; whoever asks has shown nothing yet but this body.
    fn join(&self, body: Bytes, deadline: Deadline) -> BoxFuture<'_, Result<Value, Status>>;

    /// Whoever asks may do everything.
    fn order(
        &self,
        order: ClusterOrder,
        deadline: Deadline,
    ) -> BoxFuture<'_, Result<Value, Status>>;
}

/// How quickly joins may be tried: a bucket that time fills.
pub(crate) struct JoinPace(Mutex<Bucket>);

struct Bucket {
    n_left: u32,
    filled_at: Duration,
}

impl Default for JoinPace {
    fn default() -> Self {
        Self(Mutex::new(Bucket { n_left: JOINS_AT_ONCE, filled_at: Duration::ZERO }))
    }
}

impl JoinPace {
    /// Takes one try, on the monotonic clock.
    pub fn enter(&self, now: Duration) -> Result<(), Status> {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = now.saturating_sub(bucket.filled_at);
        let n_more = u32::try_from(waited.as_millis() / JOIN_EVERY.as_millis()).unwrap_or(u32::MAX);
        if n_more > 0 {
            bucket.n_left = bucket.n_left.saturating_add(n_more).min(JOINS_AT_ONCE);
            bucket.filled_at = now;
        }
        let Some(n_left) = bucket.n_left.checked_sub(1) else {
            let why = "too many hosts try to join at once; try again in a second";
            return Err(Status::too_many_requests(why, 1));
        };
        bucket.n_left = n_left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_to_join_are_paced() {
        let pace = JoinPace::default();
        let at = Duration::from_secs(9);
        let n_at_once = (0..100).filter(|_| pace.enter(at).is_ok()).count();
        assert_eq!(n_at_once, JOINS_AT_ONCE as usize);
        assert_eq!(pace.enter(at).unwrap_err().code, 429);
        assert!(pace.enter(at + JOIN_EVERY / 2).is_err());
        assert!(pace.enter(at + JOIN_EVERY).is_ok());
        assert!(pace.enter(at + JOIN_EVERY).is_err(), "one more, not a bucketful");
    }
}
