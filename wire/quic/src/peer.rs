//! What is kept of one peer: a state for each lane, and how `status` shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::HostId;
use kactor_protocol::ids::LetterId;
use kactor_protocol::message::Lane;
use kactor_protocol::time::Timestamp;
use quinn::Connection;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::connection::{Channel, Traffic};
use crate::dial::Wanted;
use crate::hello::Follows;
use crate::turn::Turns;

/// Asks of one host that we work on at one time, per lane; more are answered `Overloaded`.
const WORK_MAX: usize = 4096;

/// One lane to one host, as `links` in inspection and `status` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    pub host: HostId,
    pub lane: Lane,
    /// Where the live connection goes, else where it would be dialed.
    pub address: Option<SocketAddr>,
    pub is_live: bool,
    pub round_trip: Option<Duration>,
    /// When the certificate that the peer shows on the live connection ends.
    pub certificate_ends: Option<Timestamp>,
    pub last_error: Option<String>,
    pub sent_frames: u64,
    pub sent_bytes: u64,
    pub received_frames: u64,
    pub received_bytes: u64,
    /// Asks of ours that wait for an answer.
    pub waiting: usize,
}

#[derive(Default)]
pub(crate) struct Peer {
    pub lanes: [LaneState; 2],
    pub is_found: bool,
}

pub(crate) struct LaneState {
    pub current: Option<Arc<Channel>>,
    /// Counts our streams.
    pub generation: u64,
    /// Whether the stream before was finished, for the next hello.
    pub follows: Follows,
    pub last_error: Option<String>,
    /// Present while this host dials the peer.
    pub wanted: Option<watch::Sender<Wanted>>,
    pub waiting: BTreeMap<LetterId, Waiting>,
    pub turns: Arc<Turns>,
    pub work: Arc<Semaphore>,
    pub traffic: Arc<Traffic>,
}

pub(crate) struct Waiting {
    pub generation: u64,
    pub answer: oneshot::Sender<Result<Bytes, String>>,
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            current: None,
            generation: 0,
            follows: Follows::Abandoned,
            last_error: None,
            wanted: None,
            waiting: BTreeMap::new(),
            turns: Arc::default(),
            work: Arc::new(Semaphore::new(WORK_MAX)),
            traffic: Arc::default(),
        }
    }
}

impl LaneState {
    pub fn tell_dialer(&self) {
        let is_live = self.current.is_some();
        if let Some(wanted) = &self.wanted {
            wanted.send_if_modified(|it| std::mem::replace(&mut it.is_live, is_live) != is_live);
        }
    }
}

pub(crate) fn status(host: &HostId, lane: Lane, state: &LaneState) -> LinkStatus {
    let live = state.current.as_ref().map(|it| &it.connection);
    let dialed = state.wanted.as_ref().and_then(|it| it.borrow().address);
    let load = |it: &AtomicU64| it.load(Ordering::Relaxed);
    LinkStatus {
        host: host.clone(),
        lane,
        address: live.map(Connection::remote_address).or(dialed),
        is_live: live.is_some(),
        round_trip: live.map(Connection::rtt),
        certificate_ends: state.current.as_ref().map(|it| it.identity.not_after),
        last_error: state.last_error.clone(),
        sent_frames: load(&state.traffic.sent_frames),
        sent_bytes: load(&state.traffic.sent_bytes),
        received_frames: load(&state.traffic.received_frames),
        received_bytes: load(&state.traffic.received_bytes),
        waiting: state.waiting.len(),
    }
}
