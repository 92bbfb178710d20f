//! Hosts and tokens in the store: reading them, and the few transactions that change them.
//!
//! Every write names the revision that it was decided on, so two doors never give one replica id twice and a token for
//! one host never lets in two. What was decided on old records is decided again on the new ones, a bounded number of times.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use kactor_protocol::ids::{Reign, ReplicaId, Revision, TraceId, Uid};
use kactor_protocol::store::{
    Committed, Key, KeyError, Precondition, Propose, ProposeError, Retry, Value, Write,
};
use kactor_protocol::time::Deadline;
use kactor_protocol::{HostId, Timestamp};
use kactor_store::{ReadError, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::admit::{Admission, Applicant, Books, JoinRefused, admit};
use crate::host::{FIRST_REPLICA, GROUP, HostRecord, HostRole, Hosts, KeyHash};
use crate::token::{TTL_MAX, Token, TokenRecord, TokenRole, USES_MAX};

/// Most hosts and tokens that are read at once.
const ROWS_MAX: usize = 10_000;
/// Tokens that are kept at a time.
const TOKENS_MAX: usize = 1000;
/// How often a decision is made anew because somebody else wrote in between.
const TRIES_MAX: u32 = 16;

/// Why hosts or tokens did not change.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Refused(#[from] JoinRefused),
    #[error("the cluster could not be read: {0}")]
    Read(#[from] ReadError),
    #[error("the cluster did not take the change: {0}")]
    Write(#[from] ProposeError),
    #[error("a name can't be kept: {0}")]
    Key(#[from] KeyError),
    #[error("{what}")]
    Invalid { what: String },
    #[error("others change the same records all the time; try again")]
    Contended,
}

/// A record and the revision that it stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found<T> {
    record: T,
    uid: Uid,
    revision: Revision,
}

/// The next replica's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct NextReplica {
    next: u64,
}

/// The records of one cluster.
#[derive(Clone)]
pub struct Records {
    store: Store,
    /// The id of this cluster.
    cluster: String,
}

impl Records {
    pub fn new(store: Store, cluster: String) -> Self {
        Self { store, cluster }
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All hosts, as this replica knows them now.
    pub fn hosts(&self) -> Hosts {
        let named =
            |(key, record): (Key, HostRecord)| Some((HostId::new(key.name()).ok()?, record));
        self.all(&HostRecord::prefix()).into_iter().filter_map(named).collect()
    }

    pub fn host(&self, host: &HostId) -> Option<HostRecord> {
        Some(self.find::<HostRecord>(&HostRecord::key(host).ok()?)?.record)
    }

    /// All tokens by their ids.
    pub fn tokens(&self) -> Vec<(String, TokenRecord)> {
        let tokens = self.all::<TokenRecord>(&TokenRecord::prefix());
        tokens.into_iter().map(|(key, record)| (key.name().to_owned(), record)).collect()
    }

    fn all<T: DeserializeOwned>(&self, prefix: &str) -> Vec<(Key, T)> {
        let Ok(page) = self.store.range(prefix, None, ROWS_MAX, None) else { return Vec::new() };
        let read = |it: kactor_store::Stored| {
            Some((it.key.clone(), serde_json::from_slice(&it.value.body).ok()?))
        };
        page.items.into_iter().filter_map(read).collect()
    }

    fn find<T: DeserializeOwned>(&self, key: &Key) -> Option<Found<T>> {
        let stored = self.store.get(key)?;
        let record = serde_json::from_slice(&stored.value.body).ok()?;
        Some(Found { record, uid: stored.value.uid, revision: stored.modified })
    }

    /// Makes a token and keeps the hash of its secret.
    pub async fn create_token(
        &self,
        ca: KeyHash,
        (role, ttl, uses_max): (TokenRole, Duration, u32),
        deadline: Deadline,
    ) -> Result<Token, RecordError> {
        let invalid = |what: String| Err(RecordError::Invalid { what });
        if ttl.is_zero() || ttl > TTL_MAX {
            return invalid(format!(
                "a token lives for at least a second and at most {} hours",
                TTL_MAX.as_secs() / 3600
            ));
        }
        if !(1..=USES_MAX).contains(&uses_max) {
            return invalid(format!("a token lets in 1 to {USES_MAX} hosts"));
        }
        if self.tokens().len() >= TOKENS_MAX {
            return invalid(format!(
                "there are {TOKENS_MAX} tokens; they go a day after they expired"
            ));
        }
        let env = self.store.env();
        let token = Token::generate(env, ca);
        let now = env.wall();
        let record = TokenRecord {
            secret_hash: token.secret_hash(),
            role,
            created_at: now,
            expires_at: now.plus(ttl),
            uses_max,
            used_by: Vec::new(),
            revoked: false,
        };
        let write = self.put(TokenRecord::key(&token.id)?, None, &record);
        self.commit(None, vec![expiring(write, record.forgotten_at())], deadline).await?;
        Ok(token)
    }

    /// `false`: there is no such token.
    pub async fn revoke_token(&self, id: &str, deadline: Deadline) -> Result<bool, RecordError> {
        let key = TokenRecord::key(id)?;
        for _ in 0..TRIES_MAX {
            self.store.read_index(deadline).await?;
            let Some(found) = self.find::<TokenRecord>(&key) else { return Ok(false) };
            let record = TokenRecord { revoked: true, ..found.record.clone() };
            let write = self.put(key.clone(), Some(&found), &record);
            let write = expiring(write, record.forgotten_at());
            if self.tried(None, vec![write], deadline).await?.is_some() {
                return Ok(true);
            }
        }
        Err(RecordError::Contended)
    }

    /// Lets a host in, by the rules of `admit`: its record, its replica id and the token's use are one transaction.
    pub async fn join(
        &self,
        asks: &Applicant,
        token_id: &str,
        voters: &BTreeSet<ReplicaId>,
        deadline: Deadline,
    ) -> Result<HostRecord, RecordError> {
        let token_key = TokenRecord::key(token_id)?;
        let host_key = HostRecord::key(&asks.host)?;
        let next_key = Key::new(GROUP, "counters", "", "replica")?;
        for _ in 0..TRIES_MAX {
            self.store.read_index(deadline).await?;
            let token = self.find::<TokenRecord>(&token_key);
            let host = self.find::<HostRecord>(&host_key);
            let next = self.find::<NextReplica>(&next_key);
            let books = Books {
                token: token.as_ref().map(|it| &it.record),
                hosts: &self.hosts(),
                voters,
                level: self.store.table().read().feature_level(),
                cluster: &self.cluster,
                next_replica: ReplicaId(
                    next.as_ref().map_or(FIRST_REPLICA.0 + 1, |it| it.record.next),
                ),
            };
            let Admission { record, token: used } = admit(asks, books, self.store.env().wall())?;
            let mut writes = vec![
                expiring(self.put(token_key.clone(), token.as_ref(), &used), used.forgotten_at()),
                self.put(host_key.clone(), host.as_ref(), &record),
            ];
            // Always: two control hosts that join at once meet here.
            let after = books.next_replica.0 + u64::from(record.replica.is_some());
            writes.push(self.put(next_key.clone(), next.as_ref(), &NextReplica { next: after }));
            if self.tried(None, writes, deadline).await?.is_some() {
                return Ok(record);
            }
        }
        Err(RecordError::Contended)
    }

    /// Changes what a host says of itself, if it differs. A host without a record is refused, except the first one,
    /// whose record `new` makes.
    pub async fn update_host(
        &self,
        host: &HostId,
        change: impl Fn(&mut HostRecord),
        new: Option<HostRecord>,
        deadline: Deadline,
    ) -> Result<HostRecord, RecordError> {
        let key = HostRecord::key(host)?;
        for _ in 0..TRIES_MAX {
            let found = self.find::<HostRecord>(&key);
            let mut record = match (&found, &new) {
                (Some(found), _) => found.record.clone(),
                (None, Some(new)) => new.clone(),
                (None, None) => {
                    let what = format!("{host} is no host of this cluster");
                    return Err(RecordError::Invalid { what });
                }
            };
            change(&mut record);
            if found.as_ref().is_some_and(|it| it.record == record) {
                return Ok(record);
            }
            let write = self.put(key.clone(), found.as_ref(), &record);
            if self.tried(None, vec![write], deadline).await?.is_some() {
                return Ok(record);
            }
            self.store.read_index(deadline).await?;
        }
        Err(RecordError::Contended)
    }

    /// Marks a host as leaving; the leader takes it out, step by step. The last control host can't go.
    pub async fn leave(&self, host: &HostId, deadline: Deadline) -> Result<(), RecordError> {
        self.store.read_index(deadline).await?;
        let hosts = self.hosts();
        let is_control = |it: &HostRecord| it.role == HostRole::Control && !it.leaving;
        let others = hosts.iter().filter(|(name, it)| *name != host && is_control(it)).count();
        if hosts.get(host).is_some_and(is_control) && others == 0 {
            let what = format!(
                "{host} is the only control host: without it there is no cluster. `kactor down --purge` ends the cluster"
            );
            return Err(RecordError::Invalid { what });
        }
        self.update_host(host, |it| it.leaving = true, None, deadline).await.map(drop)
    }

    /// Removes the record of a host that left, as the leader of `reign`.
    pub async fn forget(
        &self,
        host: &HostId,
        reign: Reign,
        deadline: Deadline,
    ) -> Result<(), RecordError> {
        let key = HostRecord::key(host)?;
        let Some(found) = self.find::<HostRecord>(&key) else { return Ok(()) };
        let precondition = Precondition::UidAndRevision(found.uid, found.revision);
        self.commit(Some(reign), vec![Write::Delete { key, precondition }], deadline).await?;
        Ok(())
    }

    fn put<T: Serialize>(&self, key: Key, found: Option<&Found<T>>, record: &T) -> Write {
        let (uid, precondition) = match found {
            Some(it) => (it.uid.clone(), Precondition::UidAndRevision(it.uid.clone(), it.revision)),
            None => (self.store.env().random_uuid().into(), Precondition::Absent),
        };
        let body = serde_json::to_vec(record).expect("a record of words and numbers is JSON");
        let value = Value { storage_version: 1, flags: 0, uid, body: Bytes::from(body) };
        Write::Put { key, precondition, value, expires_at: None }
    }

    async fn commit(
        &self,
        reign: Option<Reign>,
        writes: Vec<Write>,
        deadline: Deadline,
    ) -> Result<Committed, ProposeError> {
        let propose = Propose { reign, guards: Vec::new(), writes, trace: TraceId::NONE };
        self.store.propose(propose, deadline).await
    }

    /// `None`: somebody else wrote first, decide again.
    async fn tried(
        &self,
        reign: Option<Reign>,
        writes: Vec<Write>,
        deadline: Deadline,
    ) -> Result<Option<Committed>, ProposeError> {
        match self.commit(reign, writes, deadline).await {
            Ok(committed) => Ok(Some(committed)),
            Err(error) if error.outcome_is_unknown() => Err(error),
            Err(error) if error.retry() == Retry::Replan => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn expiring(write: Write, at: Timestamp) -> Write {
    match write {
        Write::Put { key, precondition, value, .. } => {
            Write::Put { key, precondition, value, expires_at: Some(at) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
