//! One host's actors: starting, finding, watching and stopping them.
//!
//! The registry maps names to cells; everything that ends leaves it. What can't be delivered comes here to be buried.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kactor_protocol::address::NameError;
use kactor_protocol::insight::DeadRow;
use kactor_protocol::{ActorAddress, ActorName, Deadline, HostId, Incarnation, LetterId, TraceId};
use tokio::sync::Notify;

use crate::actor_ref::{ActorRef, Recipient};
use crate::cell::{Cell, Entry, Inspect, Signals, Vitals};
use crate::env::Env;
use crate::letter::{Letter, Origin, Trail, current, current_trace};
use crate::mailbox::{FIRST_LETTER, Mailbox};
use crate::recorder::{DeadLetters, Note, Notes};
use crate::remote::Transport;
use crate::supervise::{Child, LastRites, Stops, supervise};

/// Most watches on one actor and on one peer.
pub const WATCHES_MAX: usize = 64;
/// How long a stopping actor may take before it is aborted.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How letters between actors of one host travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// They are moved.
    Moved,
    /// What may cross hosts is encoded and decoded all the same: tests find what would not survive the wire.
    Encoded,
}

/// All actors of one host. A clone is the same system.
#[derive(Clone)]
pub struct ActorSystem(Arc<Inner>);

struct Inner {
    env: Env,
    host: HostId,
    incarnation: Incarnation,
    delivery: Delivery,
    transport: Option<Arc<dyn Transport>>,
    registry: Mutex<Registry>,
    dead: DeadLetters,
    notes: Notes,
    next_letter: AtomicU64,
    next_trace: AtomicU64,
    trace_mask: u64,
    n_started: AtomicU64,
    failure: Mutex<Option<String>>,
    failed: Notify,
}

#[derive(Default)]
struct Registry {
    actors: BTreeMap<ActorName, Arc<dyn Entry>>,
    watches: BTreeMap<ActorName, Vec<Recipient<ActorDown>>>,
    peer_watches: BTreeMap<HostId, Vec<Recipient<PeerDown>>>,
}

/// An actor that was watched is gone. Told once per watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorDown {
    pub actor: ActorName,
    pub reason: DownReason,
}

impl Letter for ActorDown {
    type Reply = ();
    const NAME: &'static str = "ActorDown";
}

/// Why an actor is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownReason {
    /// It ended by itself or was stopped.
    Stopped,
    /// Its restarts were exhausted.
    GaveUp { error: String },
    /// Its task was dropped: the host stops.
    Aborted,
    /// There was none when the watch began.
    NotFound,
}

/// A host that was watched can't be reached any more. Told once per watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerDown {
    pub host: HostId,
    pub reason: String,
}

impl Letter for PeerDown {
    type Reply = ();
    const NAME: &'static str = "PeerDown";
}

/// Why an actor was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("an actor named {name} runs already")]
    NameTaken { name: ActorName },
    #[error("{name:?} can't name an actor")]
    Name {
        name: String,
        #[source]
        source: NameError,
    },
    #[error("the parent {parent} of {name} does not run")]
    NoParent { name: ActorName, parent: ActorName },
}

/// Why a watch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{watched} has {WATCHES_MAX} watches already")]
pub struct TooManyWatches {
    pub watched: String,
}

impl ActorSystem {
    /// A system without a way to other hosts.
    pub fn new(env: Env, host: HostId, incarnation: Incarnation, delivery: Delivery) -> Self {
        Self::build(env, host, incarnation, delivery, None)
    }

    pub fn with_transport(
        env: Env,
        host: HostId,
        incarnation: Incarnation,
        delivery: Delivery,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self::build(env, host, incarnation, delivery, Some(transport))
    }

    fn build(
        env: Env,
        host: HostId,
        incarnation: Incarnation,
        delivery: Delivery,
        transport: Option<Arc<dyn Transport>>,
    ) -> Self {
        let trace_mask = env.random_u64();
        Self(Arc::new(Inner {
            env,
            host,
            incarnation,
            delivery,
            transport,
            registry: Mutex::default(),
            dead: DeadLetters::default(),
            notes: Notes::default(),
            next_letter: AtomicU64::new(FIRST_LETTER.0),
            next_trace: AtomicU64::new(1),
            trace_mask,
            n_started: AtomicU64::new(0),
            failure: Mutex::default(),
            failed: Notify::new(),
        }))
    }

    pub fn env(&self) -> &Env {
        &self.0.env
    }

    pub fn host(&self) -> &HostId {
        &self.0.host
    }

    pub fn delivery(&self) -> Delivery {
        self.0.delivery
    }

    pub(crate) fn transport(&self) -> Option<&Arc<dyn Transport>> {
        self.0.transport.as_ref()
    }

    /// `timeout` from now: what `ActorRef::ask` takes.
    pub fn deadline(&self, timeout: Duration) -> Deadline {
        Deadline::after(self.0.env.monotonic(), timeout)
    }

    /// Starts an actor under its row; `make` builds each of its lives on the row's lane.
    pub fn start<A: Inspect>(
        &self,
        child: Child,
        make: impl Fn() -> A + Send + 'static,
    ) -> Result<ActorRef<A>, StartError> {
        let name = checked(&child.name)?;
        let parent = child.parent.as_deref().map(checked).transpose()?;
        let nth = self.0.n_started.fetch_add(1, Ordering::Relaxed);
        let address = ActorAddress {
            host: self.0.host.clone(),
            name: name.clone(),
            incarnation: Incarnation((self.0.incarnation.0 << 32) + nth + 1),
        };
        let cell = Arc::new(Cell {
            env: self.0.env.clone(),
            vitals: Vitals::new(address, A::KIND, &child, parent.clone()),
            mailbox: Mailbox::new(child.mailbox_len_max),
            routes: Mutex::default(),
            signals: Signals::default(),
        });
        {
            let mut registry = self.registry();
            if registry.actors.contains_key(&name) {
                return Err(StartError::NameTaken { name });
            }
            if let Some(parent) = parent
                && !registry.actors.contains_key(&parent)
            {
                return Err(StartError::NoParent { name, parent });
            }
            registry.actors.insert(name, cell.clone());
        }
        let task = self.0.env.spawner.spawn_on(child.lane, {
            let last_rites = LastRites::new(self.clone(), cell.clone());
            Box::new(move || Box::pin(supervise(last_rites, child.restart, make)))
        });
        *cell.signals.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(ActorRef::local(self.clone(), cell))
    }

    /// The running actor of that name, if it is of that type.
    pub fn find<A: Inspect>(&self, name: &str) -> Option<ActorRef<A>> {
        let cell = self.entry(&ActorName::new(name).ok()?)?.as_any().downcast::<Cell<A>>().ok()?;
        Some(ActorRef::local(self.clone(), cell))
    }

    /// An actor of another host; its messages go through the transport.
    pub fn remote<A: Inspect>(&self, address: ActorAddress) -> ActorRef<A> {
        ActorRef::remote(self.clone(), address)
    }

    /// Stops an actor and its children, and waits until they are gone. Letters that wait become dead letters.
    pub async fn stop(&self, name: &ActorName) {
        if let Some(entry) = self.entry(name) {
            entry.request_stop();
            self.until_gone(entry).await;
        }
    }

    /// Stops all actors, each root with its children: first those that others don't rely on, then those that stop last.
    pub async fn stop_all(&self) {
        for stage in [Stops::WithTheOthers, Stops::Last] {
            let is_due = |it: &Arc<dyn Entry>| {
                let vitals = it.vitals();
                vitals.parent.is_none() && vitals.stops <= stage
            };
            let roots: Vec<_> = self.entries("").into_iter().filter(is_due).collect();
            roots.iter().for_each(|it| it.request_stop());
            for root in roots {
                self.until_gone(root).await;
            }
        }
    }

    async fn until_gone(&self, entry: Arc<dyn Entry>) {
        let signals = entry.signals();
        let gone = async {
            loop {
                let finish = signals.finish.notified();
                if signals.finished.load(Ordering::Acquire) {
                    return;
                }
                finish.await;
            }
        };
        tokio::select! {
            biased;
            () = gone => {}
            () = self.0.env.sleep(STOP_GRACE) => {
                tracing::warn!(actor = %entry.vitals().address, "it did not stop in time and is aborted");
                let task = signals.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
                task.into_iter().for_each(|it| it.abort());
            }
        }
    }

    pub(crate) async fn stop_children(&self, parent: &ActorName) {
        let children = self.request_stop_of_children(parent);
        for child in children {
            self.until_gone(child).await;
        }
    }

    pub(crate) fn request_stop_of_children(&self, parent: &ActorName) -> Vec<Arc<dyn Entry>> {
        let children = self.children(parent);
        children.iter().for_each(|it| it.request_stop());
        children
    }

    pub(crate) fn children(&self, parent: &ActorName) -> Vec<Arc<dyn Entry>> {
        let is_child = |it: &Arc<dyn Entry>| it.vitals().parent.as_ref() == Some(parent);
        self.entries("").into_iter().filter(is_child).collect()
    }

    /// Tells `watcher` once when the actor of that name is gone; at once if there is none.
    pub fn watch(
        &self,
        actor: ActorName,
        watcher: Recipient<ActorDown>,
    ) -> Result<(), TooManyWatches> {
        let mut registry = self.registry();
        if !registry.actors.contains_key(&actor) {
            drop(registry);
            self.tell_soon(watcher, ActorDown { actor, reason: DownReason::NotFound });
            return Ok(());
        }
        let watches = registry.watches.entry(actor.clone()).or_default();
        if watches.len() == WATCHES_MAX {
            return Err(TooManyWatches { watched: actor.to_string() });
        }
        watches.push(watcher);
        Ok(())
    }

    /// Tells `watcher` once when the transport loses that host; at once if there is no link to it.
    pub fn watch_peer(
        &self,
        host: HostId,
        watcher: Recipient<PeerDown>,
    ) -> Result<(), TooManyWatches> {
        {
            let mut registry = self.registry();
            let watches = registry.peer_watches.entry(host.clone()).or_default();
            if watches.len() == WATCHES_MAX {
                return Err(TooManyWatches { watched: host.to_string() });
            }
            watches.push(watcher);
        }
        // Asked after the watch was noted: a host that is lost in between is told by one of the two.
        if self.transport().is_some_and(|it| !it.is_linked(&host)) {
            self.peer_down(&host, "it is not linked");
        }
        Ok(())
    }

    /// The transport lost a host.
    pub fn peer_down(&self, host: &HostId, reason: &str) {
        let watchers = self.registry().peer_watches.remove(host).unwrap_or_default();
        for watcher in watchers {
            self.tell_soon(watcher, PeerDown { host: host.clone(), reason: reason.into() });
        }
    }

    /// Completes when a root actor exhausted its restarts: the host can't do its work and should stop.
    pub async fn failed(&self) -> String {
        loop {
            let failed = self.0.failed.notified();
            let failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match failure {
                Some(failure) => return failure,
                None => failed.await,
            }
        }
    }

    pub(crate) fn escalate(&self, child: &Vitals, error: &str) {
        let failure = format!("{} gave up: {error}", child.address.name);
        match child.parent.as_ref().and_then(|it| self.entry(it)) {
            Some(parent) => {
                let signals = parent.signals();
                *signals.escalated.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                signals.escalate.notify_one();
            }
            None => {
                *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
                self.0.failed.notify_waiters();
            }
        }
    }

    /// Takes an actor out of the registry and tells those who watch it.
    pub(crate) fn forget(&self, address: &ActorAddress, reason: DownReason) {
        let watchers = {
            let mut registry = self.registry();
            registry.actors.remove(&address.name);
            registry.watches.remove(&address.name).unwrap_or_default()
        };
        for watcher in watchers {
            let down = ActorDown { actor: address.name.clone(), reason: reason.clone() };
            self.tell_soon(watcher, down);
        }
    }

    /// Told from a task of its own: whoever brings the news may not wait for room.
    fn tell_soon<M: Letter>(&self, to: Recipient<M>, letter: M) {
        let telling = to.tell(letter);
        self.0.env.spawn(crate::env::Lane::Control, async move {
            let _ = telling.await; // Undelivered, it is a dead letter already.
        });
    }

    /// What objects were noted for: `kactor why` reads it.
    pub fn notes(&self) -> &Notes {
        &self.0.notes
    }

    /// Notes a decision, a wait or a refusal about an object, with the trace and the actor that run on this thread.
    pub fn note(&self, key: impl Into<String>, text: impl Into<String>) {
        let (trace, cause) = current_trace();
        let actor =
            current().and_then(|it| it.actor).map_or_else(|| "-".into(), |it| it.to_string());
        let at = self.0.env.wall();
        self.0.notes.write(Note { at, actor, key: key.into(), trace, cause, text: text.into() });
    }

    /// A trace that nobody else has.
    pub fn new_trace(&self) -> TraceId {
        // Odd multiplier: distinct counters give distinct traces; the mask makes hosts differ.
        let n = self.0.next_trace.fetch_add(1, Ordering::Relaxed);
        TraceId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.0.trace_mask)
    }

    /// The trail of a letter that is sent now on this thread.
    pub(crate) fn trail(&self) -> Trail {
        let letter = LetterId(self.0.next_letter.fetch_add(1, Ordering::Relaxed));
        let step = current();
        let (trace, cause) = current_trace();
        let trace = if trace == TraceId::NONE { self.new_trace() } else { trace };
        Trail { trace, letter, cause, from: Origin::Local(step.and_then(|it| it.actor)) }
    }

    /// Keeps a letter that could not be delivered.
    pub(crate) fn bury(&self, to: &ActorAddress, trail: &Trail, message: &str, reason: &str) {
        self.0.dead.push(DeadRow {
            at: self.0.env.wall(),
            to: to.to_string(),
            from: trail.from.to_string(),
            message: message.into(),
            trace: trail.trace,
            reason: reason.into(),
        });
    }

    pub(crate) fn dead(&self) -> &DeadLetters {
        &self.0.dead
    }

    pub(crate) fn entry(&self, name: &ActorName) -> Option<Arc<dyn Entry>> {
        self.registry().actors.get(name).cloned()
    }

    /// Actors by name.
    pub(crate) fn entries(&self, prefix: &str) -> Vec<Arc<dyn Entry>> {
        let registry = self.registry();
        let from = ActorName::new(prefix).map_or(Bound::Unbounded, Bound::Included);
        let named = registry.actors.range((from, Bound::Unbounded));
        named
            .take_while(|(name, _)| name.as_str().starts_with(prefix))
            .map(|(_, entry)| entry.clone())
            .collect()
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checked(name: &str) -> Result<ActorName, StartError> {
    ActorName::new(name).map_err(|source| StartError::Name { name: name.into(), source })
}

/// What `future` sends is the start of `trace`: the gateway wraps each request in it.
pub fn traced<F: Future>(trace: TraceId, future: F) -> impl Future<Output = F::Output> {
    Trail::start(trace, future)
}
