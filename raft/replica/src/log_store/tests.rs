//! The journal-backed log against openraft's own suite for log storage.

use std::sync::Arc;

use kactor_runtime::env::Env;
use kactor_store::Table;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::LogStore;
use crate::applied::ModelStore;
use crate::journal::Journal;
use crate::raft_types::Types;
use crate::space::Space;
use crate::state_machine::StateMachine;
use crate::writer::Writer;

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let env = Env::machine();
        let folder = tempfile::tempdir().unwrap();
        let (journal, recovered) =
            Journal::open(env.disk.clone(), &folder.path().join("journal"), 64 << 10, None)
                .await
                .unwrap();
        let log = LogStore::new(recovered, Writer::start(&env, journal));
        let table = Table::new(kactor_state::ClusterState::new());
        let store = Box::new(ModelStore::default());
        let space = Space::new(env.clone(), "/data".into(), 0);
        let machine = StateMachine::new(&env, table, store, None, space);
        Ok((folder, log, machine))
    }
}

#[test]
fn openraft_s_own_suite_for_log_storage_passes() {
    let env = Arc::new(kactor_runtime::env::Machine::with_gateway_lanes(1));
    env.block_on(async { Suite::test_all(Builder).await }).unwrap().unwrap();
}
