//! Replicas that differ are found, and the object is named.

use kactor_protocol::ids::ReplicaId;
use kactor_replica::CompareError;

use crate::kit::run;

#[test]
fn equal_states_are_found_equal_also_while_clients_write() {
    run(1, |cluster| async move {
        cluster.three().await;
        for nth in 0..20 {
            cluster.write(1, &format!("a{nth}"), b"{}").await.unwrap();
        }
        let replica = cluster.replica(1);
        let writes = async {
            for nth in 0..200 {
                cluster.write(2, &format!("b{nth}"), b"{}").await.unwrap();
            }
        };
        let (compared, ()) = tokio::join!(replica.compare_states(), writes);
        let compared = compared.unwrap();
        assert_eq!(compared.differ, []);
        assert_eq!(compared.equal, [ReplicaId(2), ReplicaId(3)], "{compared:?}");
        let refused = cluster.replica(2).compare_states().await;
        assert_eq!(refused, Err(CompareError::NotLeader));
    });
}

#[test]
fn a_replica_that_differs_is_named_with_its_object_until_it_is_right_again() {
    run(2, |cluster| async move {
        cluster.three().await;
        for name in ["a", "b", "c"] {
            cluster.write(1, name, b"right").await.unwrap();
        }
        cluster.agree(&[1, 2, 3]).await;
        cluster.tamper(3, "b", b"wrong").await;
        cluster.restart(3).await;
        let leader = cluster.leader_of(&[1, 2]).await;
        cluster.until("it is back", || cluster.body(3, "b").is_some()).await;
        let compared = cluster.replica(leader).compare_states().await.unwrap();
        let [(id, text)] = &compared.differ[..] else { panic!("{compared:?}") };
        assert_eq!(*id, ReplicaId(3));
        assert!(text.contains("//configmaps/default/b") && text.contains("h3"), "{text}");
        let trouble = cluster.store(leader).status().trouble.unwrap();
        assert!(trouble.contains("//configmaps/default/b"), "{trouble}");
        cluster.write(leader, "b", b"written anew").await.unwrap();
        cluster.agree(&[1, 2, 3]).await;
        let compared = cluster.replica(leader).compare_states().await.unwrap();
        assert_eq!(compared.equal.len(), 2, "{compared:?}");
        assert_eq!(cluster.store(leader).status().trouble, None);
    });
}
