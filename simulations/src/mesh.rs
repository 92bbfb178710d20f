//! A network of memory between the actor systems of several hosts: cuts, also one way, and delays.
//!
//! It stands where QUIC's links stand, above bytes: frames keep their order per direction, come at most once, and one that
//! meets a cut vanishes without a word, so that senders learn of it by their deadlines alone. `lose` also tells both
//! systems, as links do when a connection ends. It runs on any `Env`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kactor_protocol::HostId;
use kactor_protocol::frame::Refusal;
use kactor_protocol::message::{Peer, Role};
use kactor_runtime::env::{BoxFuture, Env, Lane};
use kactor_runtime::{ActorSystem, Transport};
use tokio::sync::{mpsc, oneshot};

/// Two delayed frames of one direction arrive at least so long after each other: that keeps their order.
const STEP: Duration = Duration::from_millis(1);
/// Frames that wait for the network to take them.
const IN_FLIGHT_MAX: usize = 4096;

/// A clone is the same network.
#[derive(Clone)]
pub struct Mesh {
    env: Env,
    state: Arc<Mutex<State>>,
    frames: mpsc::Sender<BoxFuture<()>>,
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<HostId, Attached>,
    cut: BTreeSet<(HostId, HostId)>,
    delay: BTreeMap<(HostId, HostId), Duration>,
    /// Which life of a host may send: a host that lost its power sends nothing more, whatever of it still runs.
    life: BTreeMap<HostId, u64>,
    /// When the last delayed frame of a direction arrives.
    last: BTreeMap<(HostId, HostId), Duration>,
    n_frames: u64,
}

struct Attached {
    system: ActorSystem,
    roles: Vec<Role>,
}

/// Carries frames beside each other; each begins its way in the order in which it was sent.
async fn carry_all(mut queue: mpsc::Receiver<BoxFuture<()>>) {
    let mut carried = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            frame = queue.recv() => match frame {
                Some(frame) => carried.push(frame),
                None => return,
            },
            Some(()) = carried.next() => {}
        }
    }
}

/// What a frame meets.
enum Way {
    Open(Option<Duration>),
    Cut,
}

impl Mesh {
    /// Called on a lane of `env`: the network itself runs as a task of it.
    pub fn new(env: Env) -> Self {
        let (frames, queue) = mpsc::channel(IN_FLIGHT_MAX);
        env.spawn(Lane::Control, carry_all(queue));
        Self { env, state: Arc::default(), frames }
    }

    /// In the network's own task: a frame that was sent arrives, whether or not its sender still waits.
    fn send(&self, carried: impl Future<Output = ()> + Send + 'static) -> Result<(), Refusal> {
        self.frames.try_send(Box::pin(carried)).map_err(|_| Refusal::Overloaded)
    }

    /// What `host`'s actor system is made with; it works until the host is detached.
    pub fn transport(&self, host: &HostId) -> Arc<dyn Transport> {
        let life = self.locked().life.get(host).copied().unwrap_or_default();
        Arc::new(Port { mesh: self.clone(), host: host.clone(), life })
    }

    /// From now on others reach this system; a system of the same host that was there before is gone.
    pub fn attach(&self, system: &ActorSystem, roles: &[Role]) {
        let attached = Attached { system: system.clone(), roles: roles.to_vec() };
        self.locked().hosts.insert(system.host().clone(), attached);
    }

    /// The host is off: nobody reaches it, and nothing that was made for it sends any more.
    pub fn detach(&self, host: &HostId) {
        let mut state = self.locked();
        state.hosts.remove(host);
        *state.life.entry(host.clone()).or_default() += 1;
    }

    /// Frames from `from` to `to` vanish.
    pub fn cut_one_way(&self, from: &HostId, to: &HostId) {
        self.locked().cut.insert((from.clone(), to.clone()));
    }

    pub fn cut(&self, one: &HostId, other: &HostId) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Cuts `host` off from all that are attached.
    pub fn isolate(&self, host: &HostId) {
        let others: Vec<HostId> = self.locked().hosts.keys().cloned().collect();
        others.iter().filter(|it| *it != host).for_each(|it| self.cut(host, it));
    }

    /// Cuts both ways, and both systems hear that the other is lost.
    pub fn lose(&self, one: &HostId, other: &HostId) {
        self.cut(one, other);
        let systems =
            |it: &State| [one, other].map(|host| it.hosts.get(host).map(|it| it.system.clone()));
        let [first, second] = systems(&self.locked());
        if let Some(system) = first {
            system.peer_down(other, "the link is cut");
        }
        if let Some(system) = second {
            system.peer_down(one, "the link is cut");
        }
    }

    /// Ends all cuts and delays.
    pub fn heal(&self) {
        let mut state = self.locked();
        state.cut.clear();
        state.delay.clear();
    }

    /// Frames from `from` to `to` take so long.
    pub fn delay(&self, from: &HostId, to: &HostId, time: Duration) {
        self.locked().delay.insert((from.clone(), to.clone()), time);
    }

    /// Frames that were taken so far, those that vanished included.
    pub fn n_frames(&self) -> u64 {
        self.locked().n_frames
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, from: &HostId, to: &HostId) -> Way {
        let mut state = self.locked();
        state.n_frames += 1;
        let pair = (from.clone(), to.clone());
        if state.cut.contains(&pair) {
            return Way::Cut;
        }
        let Some(delay) = state.delay.get(&pair).copied() else { return Way::Open(None) };
        let last = state.last.get(&pair).copied().unwrap_or_default();
        let at = (self.env.monotonic() + delay).max(last + STEP);
        state.last.insert(pair, at);
        Way::Open(Some(at))
    }

    /// Hands a frame to `to` when it has arrived; `None` when it vanished.
    async fn carry(&self, from: &HostId, to: &HostId) -> Option<(ActorSystem, Peer)> {
        match self.way(from, to) {
            Way::Cut => return None,
            Way::Open(Some(at)) => self.env.clock.sleep_until(at).await,
            Way::Open(None) => {}
        }
        let state = self.locked();
        let roles = state.hosts.get(from)?.roles.clone();
        let system = state.hosts.get(to)?.system.clone();
        Some((system, Peer { host: from.clone(), roles }))
    }
}

/// One host's end of the network, in one of its lives.
struct Port {
    mesh: Mesh,
    host: HostId,
    life: u64,
}

impl Port {
    /// A host that is off refuses connections: the sender hears so, unless the way there is cut.
    fn unreachable(&self, to: &HostId) -> Option<Refusal> {
        let state = self.mesh.locked();
        let is_off = state.life.get(&self.host).copied().unwrap_or_default() != self.life;
        let is_cut = state.cut.contains(&(self.host.clone(), to.clone()));
        let is_there = state.hosts.contains_key(to);
        (is_off || (!is_cut && !is_there)).then(|| Refusal::Unreachable {
            host: to.to_string(),
            reason: "nobody is there".into(),
        })
    }
}

impl Transport for Port {
    fn tell(&self, to: &HostId, frame: Bytes) -> BoxFuture<Result<(), Refusal>> {
        if let Some(refusal) = self.unreachable(to) {
            return Box::pin(std::future::ready(Err(refusal)));
        }
        let (mesh, from, to) = (self.mesh.clone(), self.host.clone(), to.clone());
        let sent = self.mesh.send(async move {
            if let Some((system, peer)) = mesh.carry(&from, &to).await {
                system.receive(&peer, frame).await;
            }
        });
        Box::pin(std::future::ready(sent))
    }

    fn ask(&self, to: &HostId, frame: Bytes) -> BoxFuture<Result<Bytes, Refusal>> {
        if let Some(refusal) = self.unreachable(to) {
            return Box::pin(std::future::ready(Err(refusal)));
        }
        let (mesh, from, to) = (self.mesh.clone(), self.host.clone(), to.clone());
        let (done, answer) = oneshot::channel();
        let sent = self.mesh.send(async move {
            let answered = async {
                let (system, peer) = mesh.carry(&from, &to).await?;
                let answer = system.receive(&peer, frame).await?;
                // Back the same way: it too may be cut or slow.
                mesh.carry(&to, &from).await?;
                Some(answer)
            };
            if let Some(answer) = answered.await {
                let _ = done.send(answer);
            }
        });
        Box::pin(async move {
            sent?;
            match answer.await {
                Ok(answer) => Ok(answer),
                // It vanished on its way: who asked hears nothing, until its own deadline.
                Err(_) => std::future::pending().await,
            }
        })
    }
}
