//! A log of one process: commands are applied as they come. For tests and long simulations of what is above the log.
//!
//! It keeps nothing durable and cannot lose a quorum; the simulator wraps it to answer late, unknown or NotLeader.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::store::ProposeError;
use kactor_protocol::time::Deadline;
use kactor_runtime::env::Env;
use kactor_state::{ClusterState, Command, FEATURE_LEVEL_MAX, Outcome};

use crate::leadership::LeadershipState;
use crate::log::{CheckpointStatus, Log, LogStatus, ReadError, SyncLatency, WriteState};
use crate::table::Table;

const REPLICA: ReplicaId = ReplicaId(1);

pub struct ModelLog {
    table: Arc<Table>,
    /// Held while a command is applied: the order of the log.
    last_index: Mutex<u64>,
}

impl ModelLog {
    pub fn new(env: Env) -> Self {
        let log = Self { table: Table::new(ClusterState::new()), last_index: Mutex::new(0) };
        let now = env.wall();
        log.append(Command::SetFeatureLevel { now, level: FEATURE_LEVEL_MAX });
        let began = log.append(Command::BeginReign { now, leader: REPLICA });
        let Outcome::ReignBegan(reign) = began else { unreachable!("a reign begins") };
        let ours = LeadershipState { leader: Some(REPLICA), ours: Some(reign) };
        log.table.set_leadership(ours);
        log
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Applies a command at once.
    pub fn append(&self, command: Command) -> Outcome {
        let mut last_index = self.last_index.lock().unwrap_or_else(PoisonError::into_inner);
        *last_index += 1;
        self.table.apply(*last_index, command).outcome
    }

    fn index(&self) -> u64 {
        *self.last_index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Log for ModelLog {
    async fn submit(&self, command: Command, _: Deadline) -> Result<Outcome, ProposeError> {
        if self.table.is_stopped() {
            return Err(ProposeError::Stopped);
        }
        Ok(self.append(command))
    }

    async fn read_index(&self, _: Deadline) -> Result<u64, ReadError> {
        Ok(self.index())
    }

    fn status(&self) -> LogStatus {
        let index = self.index();
        LogStatus {
            replica: REPLICA,
            term: 1,
            leader: Some(REPLICA),
            last_index: index,
            committed_index: index,
            applied_index: index,
            checkpoint: CheckpointStatus::default(),
            journal_bytes: 0,
            journal_segments: 0,
            n_syncs: 0,
            sync_us_last: 0,
            sync_us_max: 0,
            sync_latency: SyncLatency::default(),
            stopped: None,
            writes: WriteState::Open,
            trouble: None,
        }
    }
}
