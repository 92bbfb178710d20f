//! Keeping a lane to a host connected: dial, wait, dial again, with growing pauses.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::HostId;
use kactor_protocol::message::Lane;
use quinn::Runtime;
use tokio::sync::watch;

use crate::links::Links;

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A cut link that heals is found soon: packets to nowhere are sent again ever more rarely within one attempt.
pub(crate) const DIAL_TIME_MAX: Duration = Duration::from_secs(2);
/// The host with the larger name dials this much later at first: mostly one connection comes about, not two.
const COURTESY: Duration = Duration::from_millis(100);

/// What a lane's dialer must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where to dial; `None`: do not.
    pub address: Option<SocketAddr>,
    pub is_live: bool,
    /// Counts up when a connection with new credentials shall take the place of a live one.
    pub renewal: u64,
}

/// Runs until the peer is forgotten.
pub(crate) async fn keep(
    links: Links,
    peer: HostId,
    lane: Lane,
    mut wanted: watch::Receiver<Wanted>,
) {
    let mut pause = PAUSE_MIN;
    let mut renewed = wanted.borrow().renewal;
    if links.me() > &peer {
        sleep(links.runtime(), COURTESY).await;
    }
    loop {
        let now = *wanted.borrow_and_update();
        let address = now.address.filter(|_| !now.is_live || now.renewal != renewed);
        let Some(address) = address else {
            pause = PAUSE_MIN;
            if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        let is_renewal = now.is_live;
        match links.dial(&peer, lane, address).await {
            Ok(()) => renewed = now.renewal,
            Err(error) => links.note_error(&peer, lane, &error.to_string()),
        }
        if is_renewal && renewed == now.renewal {
            continue;
        }
        // Even after a success: a connection that is closed at once must not be dialed in a tight loop.
        tokio::select! {
            biased;
            () = sleep(links.runtime(), pause) => {}
            changed = wanted.wait_for(|it| it.address != now.address) => {
                if changed.is_err() {
                    return;
                }
                pause = PAUSE_MIN;
            }
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// By QUIC's own runtime: links keep its clock.
pub(crate) async fn sleep(runtime: &Arc<dyn Runtime>, time: Duration) {
    let mut timer: Pin<Box<dyn quinn::AsyncTimer>> = runtime.new_timer(runtime.now() + time);
    std::future::poll_fn(|context| timer.as_mut().poll(context)).await;
}
