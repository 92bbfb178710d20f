//! A life for an applied store: random commands, applied as the state machine applies them, with the rows that its
//! checkpoints write. Not a test of its own: used by those of sled.

use std::sync::Arc;

use bytes::Bytes;
use kactor_protocol::ids::{ReplicaId, TraceId, Uid};
use kactor_protocol::store::{Key, Precondition, Propose, Value, Write};
use kactor_protocol::time::Timestamp;
use kactor_state::{Applied, ClusterState, Command, VersionRecord};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::applied::{APPLIED_FORMAT, AppliedMeta, Rows};
use crate::record::{LogIdRecord, MembershipRecord};

pub struct Life {
    chance: StdRng,
    state: ClusterState,
    rows: Rows,
    log: Vec<Command>,
}

impl Life {
    pub fn new(seed: u64) -> Self {
        Self {
            chance: StdRng::seed_from_u64(seed),
            state: ClusterState::new(),
            rows: Rows::new(),
            log: Vec::new(),
        }
    }

    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Every command so far; entry `n` of the log is at `n - 1`.
    pub fn log(&self) -> &[Command] {
        &self.log
    }

    /// Applies `n` commands: mostly puts over few keys, deletions, and compactions of the past.
    pub fn work(&mut self, n: usize) {
        for _ in 0..n {
            let command = self.command();
            self.apply(command);
        }
    }

    fn apply(&mut self, command: Command) {
        self.log.push(command.clone());
        let applied = self.state.apply(self.log.len() as u64, command);
        self.collect(&applied);
    }

    /// The same life as it was at `index`, right after a checkpoint.
    pub fn resumed_at(&self, index: usize) -> Self {
        let mut resumed = Self::new(0);
        resumed.catch_up(self, index);
        resumed.rows.clear();
        resumed
    }

    /// Applies the other's log up to `index`.
    pub fn catch_up(&mut self, other: &Self, index: usize) {
        for command in &other.log[self.log.len()..index] {
            self.apply(command.clone());
        }
    }

    fn command(&mut self) -> Command {
        let now = Timestamp(1_000_000 + self.log.len() as u64 * 1000);
        let key =
            Key::new("", "pods", "d", &format!("p{}", self.chance.random_range(0..24))).unwrap();
        let write = match self.chance.random_range(0..20) {
            0 => {
                let revision = self.state.revision();
                return Command::Compact { now, revision };
            }
            1 => return Command::BeginReign { now, leader: ReplicaId(1) },
            2..5 => Write::Delete { key, precondition: Precondition::None },
            _ => {
                // Some are larger than a page, which sled keeps in files of their own.
                let len = if self.chance.random_range(0..12) == 0 { 90_000 } else { 700 };
                let letter = self.chance.random_range(b'a'..=b'z');
                let body = Bytes::from(vec![letter; self.chance.random_range(1..len)]);
                let value = Value { storage_version: 1, flags: 0, uid: Uid::from("u"), body };
                Write::Put { key, precondition: Precondition::None, value, expires_at: None }
            }
        };
        let propose =
            Propose { reign: None, guards: Vec::new(), writes: vec![write], trace: TraceId::NONE };
        Command::Transact { now, propose }
    }

    fn collect(&mut self, applied: &Applied) {
        for change in applied.changes.iter().map(Arc::as_ref) {
            let row =
                VersionRecord::of(change.key.clone(), change.revision, change.current.as_ref());
            self.rows.insert((change.key.clone(), change.revision), Some(row));
        }
        for at in &applied.forgotten {
            self.rows.insert(at.clone(), None);
        }
    }

    /// What a checkpoint made now writes.
    pub fn checkpoint(&mut self) -> (Rows, AppliedMeta) {
        (std::mem::take(&mut self.rows), self.meta())
    }

    pub fn meta(&self) -> AppliedMeta {
        let id = LogIdRecord { term: 1, index: self.log.len() as u64 };
        AppliedMeta {
            format: APPLIED_FORMAT,
            applied: Some(id),
            membership_id: None,
            membership: MembershipRecord::default(),
            state: self.state.meta_record(),
        }
    }
}
