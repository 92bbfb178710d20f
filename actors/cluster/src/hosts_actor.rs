//! This host among the others: it tells what it is when that changes, and hands on who the others are.
//!
//! A control host writes its own record; a worker tells a control host (`AnnounceHost`), which writes it. What is told is
//! where the host is reached and what it runs, never its role or its key: those were decided at the door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::cluster::{AnnounceError, AnnounceHost, HostKind, HostsKnown, KnownPeer};
use kactor_protocol::ids::{ReplicaId, Revision};
use kactor_protocol::time::Deadline;
use kactor_protocol::{HostId, Timestamp};
use kactor_runtime::env::Env;
use kactor_runtime::prelude::*;
use kactor_store::WatchItem;
use serde_json::json;

use crate::host::{HostRecord, HostRole, Hosts, KeyHash};
use crate::records::{RecordError, Records};

/// Its name in the registry.
pub const HOSTS: &str = "hosts";
/// How often a host looks at its own addresses.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After a telling that failed.
const PAUSE: Duration = Duration::from_secs(1);
const TELL_MAX: Duration = Duration::from_secs(5);
/// Announcements of workers that are worked on at a time.
const IN_FLIGHT_MAX: usize = 256;

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    pub address: SocketAddr,
    pub version: String,
    pub level: u32,
    pub started_at: Timestamp,
}

impl HostFacts {
    fn write_to(&self, record: &mut HostRecord) {
        record.address = self.address;
        record.version = self.version.clone();
        record.level = self.level;
        record.started_at = self.started_at;
    }
}

/// What the actor needs of its host.
#[derive(Clone)]
pub struct OwnHost {
    pub host: HostId,
    pub key_hash: KeyHash,
    /// Only the first replica of a cluster makes its own record; all others were let in.
    pub first: Option<ReplicaId>,
    /// Looked at again and again: addresses may change.
    pub facts: Arc<dyn Fn() -> HostFacts + Send + Sync>,
    /// Told at the start and whenever a host's record changed.
    pub seen: Arc<dyn Fn(&Hosts) + Send + Sync>,
}

pub struct HostsActor {
    records: Records,
    own: OwnHost,
    n_in_flight: usize,
    n_seen: u64,
    last_failure: Option<String>,
}

impl HostsActor {
    pub fn new(records: Records, own: OwnHost) -> Self {
        Self { records, own, n_in_flight: 0, n_seen: 0, last_failure: None }
    }

    fn env(&self) -> &Env {
        self.records.store().env()
    }

    /// Writes the own record if it differs, and looks again later.
    fn tell(&mut self, ctx: &mut Context<Self>) {
        let (records, own) = (self.records.clone(), self.own.clone());
        let env = self.env().clone();
        let told = async move {
            let told = tell(&records, &own).await;
            env.sleep(if told.is_ok() { LOOK_EVERY } else { PAUSE }).await;
            told
        };
        ctx.spawn(told.into_actor(self).map(|told, actor, ctx| {
            actor.last_failure = told.err().map(|it| it.to_string());
            actor.tell(ctx);
        }));
    }

    /// Hands on what is known now, and again after the next change.
    fn look(&mut self, ctx: &mut Context<Self>, after: Option<Revision>) {
        if after.is_none() {
            self.hand_on();
        }
        let after = after.unwrap_or_else(|| self.records.store().revision());
        let (store, env) = (self.records.store().clone(), self.env().clone());
        let changed = async move {
            let Ok(mut watch) = store.watch(&HostRecord::prefix(), after) else { return None };
            loop {
                match watch.next().await {
                    Ok(WatchItem::Change(change)) => return Some(change.revision),
                    Ok(WatchItem::Progress(_)) => {}
                    Err(_) => {
                        env.sleep(PAUSE).await; // The store stops, or was restored: looked at anew.
                        return None;
                    }
                }
            }
        };
        ctx.spawn(changed.into_actor(self).map(|revision, actor, ctx| {
            actor.hand_on();
            actor.look(ctx, revision);
        }));
    }

    fn hand_on(&mut self) {
        self.n_seen += 1;
        (self.own.seen)(&self.records.hosts());
    }
}

async fn tell(records: &Records, own: &OwnHost) -> Result<HostRecord, RecordError> {
    let facts = (own.facts)();
    let now = records.store().env().monotonic();
    let deadline = Deadline::after(now, TELL_MAX);
    let cluster = records.cluster().to_owned();
    // One that left does not come back by itself: only a cluster without a control host, new or restored, begins so.
    let begins =
        !records.hosts().values().any(|it| it.is_control() && it.cluster == records.cluster());
    let new = own.first.filter(|_| begins).map(|replica| HostRecord {
        key_hash: own.key_hash,
        role: HostRole::Control,
        replica: Some(replica),
        cluster: cluster.clone(),
        address: facts.address,
        version: facts.version.clone(),
        level: facts.level,
        joined_at: records.store().env().wall(),
        started_at: facts.started_at,
        leaving: false,
    });
    if records.host(&own.host).is_none() {
        // It may not have come here yet.
        records.store().read_index(deadline).await?;
    }
    let first = own.first;
    let change = move |record: &mut HostRecord| {
        facts.write_to(record);
        if first.is_some() {
            // After a restore the log and its members begin anew with this host.
            (record.replica, record.role) = (first, HostRole::Control);
            record.cluster = cluster.clone();
            record.key_hash = own.key_hash;
        }
    };
    records.update_host(&own.host, change, new, deadline).await
}

/// Writes what a worker says of itself, and answers whom it can reach.
async fn announced(
    records: &Records,
    said: AnnounceHost,
    deadline: Deadline,
) -> Result<HostsKnown, AnnounceError> {
    let invalid = |reason: String| AnnounceError::Refused { reason };
    let address =
        said.address.parse().map_err(|_| invalid(format!("{} is no address", said.address)))?;
    let facts = HostFacts {
        address,
        version: said.version,
        level: said.level,
        started_at: said.started_at,
    };
    // What is known here may be old: a host that has just joined would be told that it left, and another where hosts were.
    let unavailable = |it: String| AnnounceError::Unavailable { reason: it };
    records.store().read_index(deadline).await.map_err(|it| unavailable(it.to_string()))?;
    let told = records.update_host(&said.host, |it| facts.write_to(it), None, deadline).await;
    match told {
        Ok(record) if record.leaving => return Err(AnnounceError::Left),
        Ok(_) => {}
        Err(RecordError::Invalid { .. }) => return Err(AnnounceError::Left),
        Err(error) => return Err(unavailable(error.to_string())),
    }
    let hosts = records.hosts();
    let peer = |(host, it): (&HostId, &HostRecord)| KnownPeer {
        host: host.clone(),
        kind: match it.role {
            HostRole::Control => HostKind::Control,
            HostRole::Worker => HostKind::Worker,
        },
        address: it.address.to_string(),
        key_hash: it.key_hash.0,
    };
    let is_control = |it: &(&HostId, &HostRecord)| it.1.is_control();
    Ok(HostsKnown { peers: hosts.iter().filter(is_control).map(peer).collect() })
}

impl Actor for HostsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx, None);
        self.tell(ctx);
    }
}

impl Handler<Ask<AnnounceHost>> for HostsActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<AnnounceHost>, ctx: &mut Context<Self>) {
        let Ask { body, trail, deadline, reply } = ask;
        // A worker speaks for itself alone, whatever it says.
        let speaks_for_itself = match &trail.from {
            kactor_runtime::Origin::Peer { host, .. } => *host == body.host,
            kactor_runtime::Origin::Local(_) => true,
        };
        if !speaks_for_itself {
            let reason = format!("{} speaks for {}", trail.from, body.host);
            return reply.reply(Err(AnnounceError::Refused { reason }));
        }
        if self.n_in_flight == IN_FLIGHT_MAX {
            let reason = "too many hosts speak at once".to_owned();
            return reply.reply(Err(AnnounceError::Unavailable { reason }));
        }
        self.n_in_flight += 1;
        let records = self.records.clone();
        let told = trail.follow(async move { announced(&records, body, deadline).await });
        ctx.spawn(told.into_actor(self).map(|answer, actor, _| {
            actor.n_in_flight -= 1;
            reply.reply(answer);
        }));
    }
}

impl Inspect for HostsActor {
    const KIND: &'static str = "Hosts";

    fn state(&self) -> serde_json::Value {
        let hosts = self.records.hosts();
        json!({
            "hosts": hosts.keys().map(HostId::as_str).collect::<Vec<_>>(),
            "changes_seen": self.n_seen,
            "last_failure": self.last_failure,
        })
    }
}
