//! The replica as other replicas reach it: their letters to openraft and its answers back.
//!
//! It decides nothing: who is meant is checked, bytes become openraft's types, and each question is worked on beside the
//! others, so that no heartbeat waits for entries or for a snapshot. It runs on raft's lane.

use std::sync::Arc;

use kactor_protocol::raft::{
    AppendEntries, CompareState, InstallSnapshot, RaftHead, RaftRefusal, RequestVote,
    TransferLeader,
};
use kactor_runtime::StartError;
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;

use crate::receiving::Receiving;
use crate::replica::Replica;

/// Its name in the registry.
pub const RAFT: &str = "raft";
/// Letters that wait in its mailbox: a few of each peer.
const MAILBOX_LEN_MAX: u32 = 256;
/// Questions that are worked on at a time.
const IN_FLIGHT_MAX: usize = 256;

pub struct RaftActor {
    receiving: Arc<Receiving>,
    n_in_flight: usize,
    n_refused: u64,
}

/// Starts it under supervision and opens it to other hosts. The system must stop it before the replica ends.
pub fn start(
    system: &ActorSystem,
    replica: &Arc<Replica>,
) -> Result<ActorRef<RaftActor>, StartError> {
    let receiving = replica.receiving();
    let row = Child::new(RAFT, Lane::Raft).mailbox(MAILBOX_LEN_MAX).stops(Stops::Last);
    let actor = system.start(row, move || RaftActor {
        receiving: receiving.clone(),
        n_in_flight: 0,
        n_refused: 0,
    })?;
    actor
        .open_to_asks::<AppendEntries>()
        .open_to_asks::<RequestVote>()
        .open_to_asks::<InstallSnapshot>()
        .open_to_asks::<CompareState>()
        .open_to_asks::<TransferLeader>();
    Ok(actor)
}

impl Actor for RaftActor {
    type Context = Context<Self>;
}

impl Inspect for RaftActor {
    const KIND: &'static str = "Raft";

    fn state(&self) -> serde_json::Value {
        serde_json::json!({
            "in_flight": self.n_in_flight,
            "refused": self.n_refused,
            "raft": self.receiving.report(),
        })
    }
}

impl RaftActor {
    /// Works on a question beside the others.
    fn work<M, F>(&mut self, ctx: &mut Context<Self>, ask: Ask<M>, work: F)
    where
        M: Letter,
        F: AsyncFnOnce(Arc<Receiving>, M) -> M::Reply + 'static,
    {
        let Ask { body, trail, reply, .. } = ask;
        if self.n_in_flight == IN_FLIGHT_MAX {
            return reply.refuse(Refusal::Overloaded);
        }
        self.n_in_flight += 1;
        let receiving = self.receiving.clone();
        let worked = trail.follow(async move { work(receiving, body).await });
        ctx.spawn(worked.into_actor(self).map(|answer, actor, _| {
            actor.n_in_flight -= 1;
            reply.reply(answer);
        }));
    }

    fn check(&mut self, head: &RaftHead) -> Result<(), RaftRefusal> {
        self.receiving.check(head).inspect_err(|_| self.n_refused += 1)
    }
}

impl Handler<Ask<AppendEntries>> for RaftActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<AppendEntries>, ctx: &mut Context<Self>) {
        remark(format!("{} entries from {}", ask.body.entries.len(), ask.body.head.from.0));
        match self.check(&ask.body.head) {
            Ok(()) => self.work(ctx, ask, async |it, body| it.append(body).await),
            Err(refusal) => ask.reply.reply(Err(refusal)),
        }
    }
}

impl Handler<Ask<RequestVote>> for RaftActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<RequestVote>, ctx: &mut Context<Self>) {
        let RequestVote { head, kind, vote, .. } = &ask.body;
        remark(format!("{kind:?} vote of term {} for {}", vote.term, head.from.0));
        match self.check(&ask.body.head) {
            Ok(()) => self.work(ctx, ask, async |it, body| it.vote(body).await),
            Err(refusal) => ask.reply.reply(Err(refusal)),
        }
    }
}

impl Handler<Ask<InstallSnapshot>> for RaftActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<InstallSnapshot>, ctx: &mut Context<Self>) {
        let InstallSnapshot { head, offset, chunk, .. } = &ask.body;
        remark(format!("{} bytes at {offset} from {}", chunk.len(), head.from.0));
        match self.check(&ask.body.head) {
            Ok(()) => self.work(ctx, ask, async |it, body| it.install(body).await),
            Err(refusal) => ask.reply.reply(Err(refusal)),
        }
    }
}

impl Handler<Ask<CompareState>> for RaftActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<CompareState>, ctx: &mut Context<Self>) {
        match self.check(&ask.body.head) {
            Ok(()) => self.work(ctx, ask, async |it, body| it.compare(body).await),
            Err(refusal) => ask.reply.reply(Err(refusal)),
        }
    }
}

impl Handler<Ask<TransferLeader>> for RaftActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<TransferLeader>, ctx: &mut Context<Self>) {
        remark(format!("{} hands over to {}", ask.body.head.from.0, ask.body.successor.0));
        match self.check(&ask.body.head) {
            Ok(()) => self.work(ctx, ask, async |it, body| it.transfer(body).await),
            Err(refusal) => ask.reply.reply(Err(refusal)),
        }
    }
}
