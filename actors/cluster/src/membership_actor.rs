//! The shell of `decide`: on the leader alone, one step after another, under its reign.
//!
//! It runs on every control host and is quiet where that does not lead. A step that fails is decided again from what is then;
//! nothing of it is remembered but what `inspect` shows.

use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::ids::{Reign, ReplicaId};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::Env;
use kactor_runtime::prelude::*;
use kactor_store::{Command, Members};
use serde_json::json;

use crate::decide::{Change, Picture, decide};
use crate::records::Records;

/// Its name in the registry.
pub const MEMBERSHIP: &str = "membership";
/// How often the members are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a step that failed.
const PAUSE: Duration = Duration::from_secs(2);
const STEP_MAX: Duration = Duration::from_secs(30);

/// What one look came to.
enum Looked {
    NotLeading,
    Quiet,
    Done(Change),
    Failed(Change, String),
}

pub struct MembershipActor {
    records: Records,
    members: Arc<dyn Members>,
    own: ReplicaId,
    /// The reign under which this replica leads, and since when (monotonic).
    leads: Option<(Reign, Duration)>,
    n_steps: u64,
    last_step: Option<String>,
    last_failure: Option<String>,
}

impl MembershipActor {
    pub fn new(records: Records, members: Arc<dyn Members>, own: ReplicaId) -> Self {
        let (n_steps, last_step, last_failure) = (0, None, None);
        Self { records, members, own, leads: None, n_steps, last_step, last_failure }
    }

    fn env(&self) -> &Env {
        self.records.store().env()
    }

    fn look_after(&self, ctx: &mut Context<Self>, pause: Duration) {
        let pause = self.env().sleep(pause);
        ctx.spawn(pause.into_actor(self).map(|(), actor, ctx| actor.look(ctx)));
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = self.env().monotonic();
        let ours = self.records.store().leadership().current().ours;
        self.leads = match (ours, self.leads) {
            (Some(reign), Some((before, since))) if reign == before => Some((reign, since)),
            (Some(reign), _) => Some((reign, now)),
            (None, _) => None,
        };
        let leads = self.leads;
        let (records, members, own) = (self.records.clone(), self.members.clone(), self.own);
        let looked = async move {
            let Some((reign, since)) = leads else { return Looked::NotLeading };
            let led_for = now.saturating_sub(since);
            let Some(change) = next(&records, &*members, own, led_for) else {
                return Looked::Quiet;
            };
            tracing::info!(%change, "the members of the log change");
            match perform(&records, &*members, reign, &change).await {
                Ok(()) => Looked::Done(change),
                Err(why) => Looked::Failed(change, why),
            }
        };
        ctx.spawn(looked.into_actor(self).map(|looked, actor, ctx| actor.looked(looked, ctx)));
    }

    fn looked(&mut self, looked: Looked, ctx: &mut Context<Self>) {
        let pause = match looked {
            Looked::NotLeading | Looked::Quiet => LOOK_EVERY,
            Looked::Done(change) => {
                self.n_steps += 1;
                self.last_step = Some(change.to_string());
                Duration::ZERO
            }
            Looked::Failed(change, why) => {
                tracing::warn!(%change, why, "a change of the log's members failed; tried again");
                self.last_failure = Some(format!("{change}: {why}"));
                PAUSE
            }
        };
        self.look_after(ctx, pause);
    }
}

fn next(
    records: &Records,
    members: &dyn Members,
    own: ReplicaId,
    led_for: Duration,
) -> Option<Change> {
    let level = records.store().table().read().feature_level();
    decide(Picture {
        hosts: &records.hosts(),
        members: &members.state(),
        own,
        led_for,
        level,
        cluster: records.cluster(),
    })
}

async fn perform(
    records: &Records,
    members: &dyn Members,
    reign: Reign,
    change: &Change,
) -> Result<(), String> {
    let store = records.store();
    let deadline = Deadline::after(store.env().monotonic(), STEP_MAX);
    let step = async {
        match change {
            Change::AddLearner { id, host } => {
                members.add_learner(*id, host).await.map_err(|it| it.to_string())
            }
            Change::SetVoters { voters, .. } => {
                members.set_voters(voters.clone()).await.map_err(|it| it.to_string())
            }
            Change::RemoveLearner { id } => {
                members.remove_learner(*id).await.map_err(|it| it.to_string())
            }
            Change::HandOver { to } => {
                members.transfer_leader(*to).await.map_err(|it| it.to_string())
            }
            Change::Forget { host } => {
                records.forget(host, reign, deadline).await.map_err(|it| it.to_string())
            }
            Change::RaiseLevel { level } => {
                let now = store.env().wall();
                let command = Command::SetFeatureLevel { now, level: *level };
                store.submit(command, deadline).await.map(drop).map_err(|it| it.to_string())
            }
        }
    };
    tokio::select! {
        biased;
        done = step => done,
        () = store.env().clock.sleep_until(deadline.at()) => {
            Err(format!("it was not done within {} s", STEP_MAX.as_secs()))
        }
    }
}

impl Actor for MembershipActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Inspect for MembershipActor {
    const KIND: &'static str = "Membership";

    fn state(&self) -> serde_json::Value {
        json!({
            "leads": self.leads.is_some(),
            "steps": self.n_steps,
            "last_step": self.last_step,
            "last_failure": self.last_failure,
        })
    }
}
