//! A worker among the cluster's hosts: it tells a control host what it is, again and again, and hands on which there are.
//!
//! The control host that answered last is asked first, so that one which is cut off, and knows old addresses, is not
//! listened to in turns: it cannot answer, because an answer waits until its records are confirmed.

use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::cluster::{AnnounceError, AnnounceHost, HostKind, HostsKnown, KnownPeer};
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation};
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::host::{HostRole, KeyHash, KnownHost};
use crate::hosts_actor::{HOSTS, HostFacts};

/// Its name in the registry.
pub const ANNOUNCE: &str = "announce";
/// How often a worker looks at its own addresses, and asks who the control hosts are.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// After all control hosts refused or were silent.
const PAUSE: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What the actor needs of its host.
#[derive(Clone)]
pub struct OwnWorker {
    /// Looked at again and again: addresses may change.
    pub facts: Arc<dyn Fn() -> HostFacts + Send + Sync>,
    /// The control hosts as they are known, those that are linked first.
    pub candidates: Arc<dyn Fn() -> Vec<HostId> + Send + Sync>,
    /// Told of the control hosts with every answer that names any.
    pub seen: Arc<dyn Fn(Vec<KnownHost>) + Send + Sync>,
    /// Told whether the cluster still knows this host.
    pub belongs: Arc<dyn Fn(bool) + Send + Sync>,
}

pub struct AnnounceActor {
    system: ActorSystem,
    own: OwnWorker,
    /// Who answered last.
    first: Option<HostId>,
    n_told: u64,
    last_failure: Option<String>,
}

/// How one round of asking ended.
enum Round {
    Answered(HostId, HostsKnown),
    Left(HostId),
    Failed(String),
}

impl AnnounceActor {
    pub fn new(system: ActorSystem, own: OwnWorker) -> Self {
        Self { system, own, first: None, n_told: 0, last_failure: None }
    }

    fn tell(&mut self, ctx: &mut Context<Self>) {
        let mut candidates = (self.own.candidates)();
        candidates.sort_by_key(|it| Some(it) != self.first.as_ref()); // Stable: the others keep their order.
        let facts = (self.own.facts)();
        let said = AnnounceHost {
            host: self.system.host().clone(),
            address: facts.address.to_string(),
            version: facts.version,
            level: facts.level,
            started_at: facts.started_at,
        };
        let system = self.system.clone();
        let told = async move {
            let round = round(&system, candidates, said).await;
            let pause = if matches!(round, Round::Failed(_)) { PAUSE } else { TELL_EVERY };
            (round, pause)
        };
        ctx.spawn(told.into_actor(self).map(|(round, pause), actor, ctx| {
            actor.take(round);
            let env = actor.system.env().clone();
            let slept = async move { env.sleep(pause).await };
            ctx.spawn(slept.into_actor(actor).map(|(), actor, ctx| actor.tell(ctx)));
        }));
    }

    fn take(&mut self, round: Round) {
        match round {
            Round::Answered(host, known) => {
                self.n_told += 1;
                (self.first, self.last_failure) = (Some(host), None);
                (self.own.belongs)(true);
                let hosts = hosts(&known);
                // A control host that names none would cut this worker off.
                if !hosts.is_empty() {
                    (self.own.seen)(hosts);
                }
            }
            Round::Left(host) => {
                self.last_failure = Some(format!("{host}: {}", AnnounceError::Left));
                (self.own.belongs)(false);
            }
            Round::Failed(why) => self.last_failure = Some(why),
        }
    }
}

/// The hosts of an answer; one whose address can't be read is of a later kactor, and not dialled by this one.
fn hosts(known: &HostsKnown) -> Vec<KnownHost> {
    let host = |it: &KnownPeer| {
        Some(KnownHost {
            host: it.host.clone(),
            address: it.address.parse().ok()?,
            key_hash: KeyHash(it.key_hash),
            role: match it.kind {
                HostKind::Control => HostRole::Control,
                HostKind::Worker => HostRole::Worker,
            },
        })
    };
    known.peers.iter().filter_map(host).collect()
}

async fn round(system: &ActorSystem, candidates: Vec<HostId>, said: AnnounceHost) -> Round {
    let mut why = "no control host is known".to_owned();
    for host in candidates {
        let name = ActorName::new(HOSTS).expect("a plain word");
        let address = ActorAddress { host: host.clone(), name, incarnation: Incarnation(0) };
        let asked = system.remote_asks::<AnnounceHost>(address);
        match asked.ask(said.clone(), system.deadline(ANSWER_MAX)).await {
            Ok(Ok(known)) => return Round::Answered(host, known),
            Ok(Err(AnnounceError::Left)) => return Round::Left(host),
            Ok(Err(error)) => why = format!("{host}: {error}"),
            Err(refusal) => why = format!("{host}: {refusal}"),
        }
    }
    Round::Failed(why)
}

impl Actor for AnnounceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.tell(ctx);
    }
}

impl Inspect for AnnounceActor {
    const KIND: &'static str = "AnnounceHost";

    fn state(&self) -> Value {
        json!({
            "told": self.n_told,
            "answered_by": self.first,
            "last_failure": self.last_failure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_from_an_answer_as_far_as_they_can_be_read() {
        let peer = |name: &str, address: &str| KnownPeer {
            host: HostId::new(name).unwrap(),
            kind: HostKind::Control,
            address: address.to_owned(),
            key_hash: [7; 32],
        };
        let peers = vec![peer("a", "192.0.2.1:6443"), peer("b", "of a later version")];
        let hosts = hosts(&HostsKnown { peers });
        assert_eq!(hosts.len(), 1);
        assert_eq!((hosts[0].host.as_str(), hosts[0].role), ("a", HostRole::Control));
        assert_eq!(hosts[0].key_hash, KeyHash([7; 32]));
    }
}
