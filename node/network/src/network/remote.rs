//! Keeps the ways to pods of other nodes in the kernel: after every change, and now and then, because a link that
//! goes down takes its routes along and nobody tells.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{Either, select};
use sha2::{Digest, Sha256};

use super::{Network, RETRY_MAX, RETRY_MIN, chain};
use crate::links::remote::{self, TunnelEnd};
use crate::ways::{self, Place, Ways};

const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What the kernel was last told.
#[derive(PartialEq, Eq)]
struct Held {
    ways: Ways,
    is_whole: bool,
}

impl Network {
    pub(super) async fn keep_ways(self: Arc<Self>) {
        let mut held: Option<Held> = None;
        let mut retry = RETRY_MIN;
        loop {
            let is_alone = held.as_ref().is_none_or(|it| it.ways.is_empty());
            let was_told = if is_alone {
                self.wake_ways.notified().await;
                true
            } else {
                let told = std::pin::pin!(self.wake_ways.notified());
                let later = std::pin::pin!(self.env.sleep(LOOK_EVERY));
                let was_told = matches!(select(told, later).await, Either::Left(_));
                was_told
            };
            let wanted = self.wanted.load(Ordering::SeqCst);
            match self.hold_ways(held.as_ref().filter(|_| was_told)) {
                Ok(now) => {
                    let left_out = &now.ways.left_out;
                    self.note_ways((!left_out.is_empty()).then(|| left_out.join("; ")));
                    held = Some(now);
                    retry = RETRY_MIN;
                    self.ways_written.send_replace(wanted);
                }
                Err(text) => {
                    self.note_ways(Some(text));
                    held = None;
                    self.env.sleep(retry).await;
                    retry = (retry * 2).min(RETRY_MAX);
                    self.wake_ways.notify_one();
                }
            }
        }
    }

    /// Brings the kernel up to date, unless what is wanted is what `held` has.
    fn hold_ways(&self, held: Option<&Held>) -> Result<Held, String> {
        let (pod_cidr, gateway) = {
            let ledger = self.ledger();
            let ledger = ledger.as_ref().ok_or("the node has no pod CIDR yet")?;
            (ledger.cidr(), ledger.gateway())
        };
        let host = remote::host_addresses(&self.names).map_err(|it| chain(&it))?;
        let place = Place {
            node_name: &self.config.node_name,
            pod_cidr,
            service_cidr: self.service_cidr,
            host: &host,
        };
        let now = {
            let view = self.view();
            Held { ways: ways::plan(&place, &view), is_whole: view.has_all_nodes() }
        };
        if held != Some(&now) {
            let end = TunnelEnd { pod_cidr, gateway, network_id: self.network_id() };
            remote::hold(&self.names, &end, &now.ways, now.is_whole).map_err(|it| chain(&it))?;
        }
        Ok(now)
    }

    /// All hosts of a cluster have one network of services, and two clusters on one host cannot.
    fn network_id(&self) -> u32 {
        let digest = Sha256::digest(self.service_cidr.to_string().as_bytes());
        u32::from_be_bytes([0, digest[0], digest[1], digest[2]]).max(1)
    }

    fn note_ways(&self, problem: Option<String>) {
        let mut noted = self.ways_problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if problem.is_some() && *noted != problem {
            let text = problem.as_deref().unwrap_or_default();
            tracing::warn!(text, "not all pods of other nodes are reached from this host");
        }
        *noted = problem;
    }
}
