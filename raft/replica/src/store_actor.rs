//! The store as an actor: supervised, inspected, asked to propose by other hosts, and the last to stop.
//!
//! On its own host everybody uses the `Store` handle, which goes to the log without a mailbox; the actor adds what the
//! handle lacks: a name, a state that `inspect` shows, the leader's maintenance as a part of its life, and an orderly end.
//! A new life after a panic goes on with the same replica; only the end of the host stops it.

use std::sync::Arc;

use kactor_protocol::raft::ReadIndex;
use kactor_protocol::store::{Propose, ProposeError};
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use kactor_runtime::{Origin, StartError};
use kactor_store::CompactionPolicy;

use crate::replica::Replica;
use crate::report::report;

/// Its name in the registry.
pub const STORE: &str = "store";
/// Proposals of other hosts that wait at a time; more are refused as overload.
const IN_FLIGHT_MAX: usize = 1024;

pub struct StoreActor {
    replica: Arc<Replica>,
    n_in_flight: usize,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NotAsked,
    Ending,
    Ended,
}

impl StoreActor {
    pub fn new(replica: Arc<Replica>) -> Self {
        Self { replica, n_in_flight: 0, end: End::NotAsked }
    }
}

/// Starts it under supervision and opens it to other control hosts. It ends the replica when it stops, last of all.
pub fn start(
    system: &ActorSystem,
    replica: &Arc<Replica>,
) -> Result<ActorRef<StoreActor>, StartError> {
    let replica = replica.clone();
    let row = Child::new(STORE, Lane::Control).stops(Stops::Last);
    let actor = system.start(row, move || StoreActor::new(replica.clone()))?;
    actor.open_to_asks::<Propose>().open_to_asks::<ReadIndex>();
    Ok(actor)
}

impl Actor for StoreActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let store = self.replica.store().clone();
        let work = kactor_store::maintain(store, CompactionPolicy::default());
        ctx.spawn(work.into_actor(self));
    }

    /// Stays until raft has ended, so that who waits for this actor waits for that.
    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        match self.end {
            End::Ended => return Running::Stop,
            End::Ending => {}
            End::NotAsked => {
                self.end = End::Ending;
                let replica = self.replica.clone();
                let ending = async move { replica.end().await };
                ctx.spawn(ending.into_actor(self).map(|(), actor, ctx| {
                    actor.end = End::Ended;
                    ctx.stop();
                }));
            }
        }
        Running::Continue
    }
}

impl Inspect for StoreActor {
    const KIND: &'static str = "Store";

    fn state(&self) -> serde_json::Value {
        report(self.replica.store())
    }
}

impl Handler<Ask<Propose>> for StoreActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Propose>, ctx: &mut Context<Self>) {
        let Ask { body, trail, deadline, reply } = ask;
        remark(format!("{} writes", body.writes.len()));
        if self.n_in_flight == IN_FLIGHT_MAX {
            return reply.reply(Err(ProposeError::Overloaded));
        }
        self.n_in_flight += 1;
        // Another host asks the leader: what is not the leader says so, and forwards nothing.
        let is_forwarded = matches!(trail.from, Origin::Peer { .. });
        let replica = self.replica.clone();
        let proposed = trail.follow(async move {
            match is_forwarded {
                true => replica.propose_here(body, deadline).await,
                false => replica.store().propose(body, deadline).await,
            }
        });
        ctx.spawn(proposed.into_actor(self).map(|answer, actor, _| {
            actor.n_in_flight -= 1;
            reply.reply(answer);
        }));
    }
}

impl Handler<Ask<ReadIndex>> for StoreActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<ReadIndex>, ctx: &mut Context<Self>) {
        let Ask { trail, reply, .. } = ask;
        if self.n_in_flight == IN_FLIGHT_MAX {
            return reply.refuse(Refusal::Overloaded);
        }
        self.n_in_flight += 1;
        let replica = self.replica.clone();
        let confirmed = trail.follow(async move { replica.log().read_index_here().await });
        ctx.spawn(confirmed.into_actor(self).map(|answer, actor, _| {
            actor.n_in_flight -= 1;
            reply.reply(answer);
        }));
    }
}
