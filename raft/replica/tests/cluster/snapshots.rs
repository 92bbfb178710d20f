//! A replica that is too far behind for entries gets the whole state.

use std::rc::Rc;

use kactor_protocol::ids::ReplicaId;
use kactor_replica::Start;

use crate::kit::{Cluster, host_of, run};

/// Writes through `id` until its journal forgot where it began.
async fn fill(cluster: &Rc<Cluster>, id: u64, n: usize) {
    for nth in 0..n {
        let body = vec![b'a' + (nth % 20) as u8; 20_000];
        cluster.write(id, &format!("f{nth}"), &body).await.unwrap();
    }
    cluster.replica(id).checkpoint().await.unwrap();
    let few = || cluster.store(id).status().journal_segments <= 3;
    cluster.until("the journal forgot its beginning", few).await;
}

#[test]
fn a_learner_joins_by_snapshot_and_follows_from_there() {
    run(1, |cluster| async move {
        cluster.start(1, Start::NewCluster).await;
        cluster.until("the first leads", || cluster.leads(1)).await;
        fill(&cluster, 1, 150).await;
        let members = cluster.replica(1).members();
        for id in [2, 3] {
            cluster.start(id, Start::Joining).await;
            members.add_learner(ReplicaId(id), &host_of(id)).await.unwrap();
        }
        cluster
            .until("they have it", || [2, 3].iter().all(|id| cluster.body(*id, "f149").is_some()))
            .await;
        let installed = cluster.store(2).status().checkpoint.index;
        assert!(installed.is_some(), "it came as a whole, and is durable");
        cluster.set_voters(1, [1, 2, 3]).await;
        cluster.write(3, "later", b"1").await.unwrap();
        cluster.agree(&[1, 2, 3]).await;
        cluster.crash(1).await;
        cluster.leader_of(&[2, 3]).await;
        cluster.write(2, "latest", b"1").await.unwrap();
    });
}

#[test]
fn a_replica_that_was_away_too_long_catches_up_while_clients_write() {
    run(2, |cluster| async move {
        cluster.three().await;
        cluster.crash(3).await;
        fill(&cluster, 1, 150).await;
        cluster.restart(3).await;
        for nth in 0..50 {
            cluster.write(2, &format!("g{nth}"), b"1").await.unwrap();
        }
        cluster.until("it has the last", || cluster.body(3, "g49").is_some()).await;
        cluster.agree(&[1, 2, 3]).await;
        assert!(cluster.leads(1), "the snapshot delayed no heartbeat");
    });
}

#[test]
fn a_transfer_that_is_cut_begins_again_and_installs_nothing_half() {
    run(3, |cluster| async move {
        cluster.three().await;
        cluster.crash(3).await;
        fill(&cluster, 1, 300).await;
        cluster.restart(3).await;
        for _ in 0..5 {
            // The state has some twenty pieces.
            let goal = cluster.mesh.n_frames() + 8;
            cluster.until("pieces are sent", || cluster.mesh.n_frames() >= goal).await;
            cluster.mesh.cut(&host_of(1), &host_of(3));
            cluster.world.sleep(std::time::Duration::from_millis(300)).await;
            let n_objects = cluster.store(3).table().read().n_objects();
            assert!(n_objects == 0 || n_objects >= 300, "{n_objects} objects of a part");
            cluster.mesh.heal();
        }
        cluster.until("it has the last", || cluster.body(3, "f299").is_some()).await;
        let leader = cluster.leader_of(&[1, 2, 3]).await;
        cluster.write(leader, "later", b"1").await.unwrap();
        cluster.agree(&[1, 2, 3]).await;
    });
}
