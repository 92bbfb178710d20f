//! One leads at a time, and gives way when it should.

use std::time::Duration;

use kactor_protocol::ids::ReplicaId;
use kactor_protocol::store::{Precondition, Propose, ProposeError};
use kactor_replica::Start;
use kactor_store::MembersError;

use crate::kit::{host_of, put, run};

#[test]
fn a_leader_that_ends_hands_over_and_nothing_is_lost() {
    run(1, |cluster| async move {
        cluster.three().await;
        cluster.write(1, "a", b"1").await.unwrap();
        let reign = cluster.store(1).reign();
        cluster.replica(1).hand_over().await.unwrap();
        let leader = cluster.leader_of(&[2, 3]).await;
        assert!(!cluster.leads(1));
        assert!(cluster.store(leader).reign() > reign);
        cluster.write(1, "b", b"2").await.unwrap();
        cluster.agree(&[1, 2, 3]).await;
        assert_eq!(cluster.replica(1).hand_over().await, Ok(()), "it has nothing to hand over");
    });
}

#[test]
fn leading_goes_to_the_voter_that_was_asked_and_to_no_learner() {
    run(2, |cluster| async move {
        cluster.three().await;
        cluster.start(4, Start::Joining).await;
        let members = cluster.replica(1).members();
        members.add_learner(ReplicaId(4), &host_of(4)).await.unwrap();
        let refused = members.transfer_leader(ReplicaId(4)).await;
        assert!(matches!(refused, Err(MembersError::Refused { .. })), "{refused:?}");
        members.transfer_leader(ReplicaId(3)).await.unwrap();
        assert_eq!(cluster.leader_of(&[1, 2, 3]).await, 3);
        let refused = members.transfer_leader(ReplicaId(2)).await;
        assert!(matches!(refused, Err(MembersError::NotLeader { .. })), "{refused:?}");
    });
}

#[test]
fn what_a_deposed_leaders_actors_decided_changes_nothing() {
    run(3, |cluster| async move {
        cluster.three().await;
        let reign = cluster.store(1).reign();
        cluster.mesh.isolate(&host_of(1));
        let leader = cluster.leader_of(&[2, 3]).await;
        cluster.mesh.heal();
        let late = |name| {
            let mut propose = Propose::one(put(name, Precondition::None, b"late"));
            propose.reign = Some(reign);
            propose
        };
        for id in [1, leader] {
            let refused = cluster.store(id).propose(late("a"), cluster.deadline(id, 30)).await;
            assert!(matches!(refused, Err(ProposeError::Deposed { .. })), "{refused:?}");
        }
        cluster.agree(&[1, 2, 3]).await;
        assert_eq!(cluster.body(leader, "a"), None);
    });
}

#[test]
fn a_leader_whose_disk_is_slow_lets_another_lead() {
    run(4, |cluster| async move {
        cluster.three().await;
        cluster.host(1).disk().set_sync_time(Duration::from_secs(3));
        cluster.write(1, "a", b"1").await.unwrap();
        cluster.leader_of(&[2, 3]).await;
        cluster.host(1).disk().set_sync_time(Duration::ZERO);
        cluster.write(1, "b", b"1").await.unwrap();
        cluster.agree(&[1, 2, 3]).await;
    });
}

#[test]
fn slow_disks_of_followers_make_writes_slow_and_depose_nobody() {
    run(5, |cluster| async move {
        cluster.three().await;
        let reign = cluster.store(1).reign();
        for id in [2, 3] {
            cluster.host(id).disk().set_sync_time(Duration::from_millis(1500));
        }
        let mut leadership = cluster.store(1).leadership();
        leadership.current();
        let writes = async {
            for nth in 0..5 {
                cluster.write(2, &format!("a{nth}"), b"1").await.unwrap();
            }
        };
        let lapse = async {
            loop {
                let now = leadership.changed().await.unwrap();
                assert!(now.ours.is_some(), "its leader actors pause while everybody answers");
            }
        };
        tokio::select! {
            () = writes => {}
            () = lapse => {}
        }
        assert_eq!(cluster.store(1).reign(), reign);
    });
}

#[test]
fn a_replica_that_lost_its_disk_is_named_and_harms_nobody() {
    run(6, |cluster| async move {
        cluster.three().await;
        for nth in 0..20 {
            cluster.write(1, &format!("a{nth}"), b"1").await.unwrap();
        }
        cluster.agree(&[1, 2, 3]).await;
        cluster.wipe(3).await;
        cluster.start(3, Start::Joining).await;
        let named =
            || cluster.store(1).status().trouble.is_some_and(|it| it.contains("replica 3 on h3"));
        cluster.until("the leader says so", named).await;
        cluster.write(1, "b", b"1").await.unwrap();
        assert!(cluster.leads(1));
        assert_eq!(cluster.body(3, "b"), None, "it is given nothing under its old name");
        // As another replica it is welcome.
        cluster.set_voters(1, [1, 2]).await;
        let members = cluster.replica(1).members();
        members.remove_learner(ReplicaId(3)).await.unwrap();
        cluster.wipe(3).await;
        cluster.start(4, Start::Joining).await;
        members.add_learner(ReplicaId(4), &host_of(4)).await.unwrap();
        cluster.until("it has all", || cluster.body(4, "b").is_some()).await;
        cluster.replica(1).compare_states().await.unwrap();
        assert_eq!(cluster.store(1).status().trouble, None);
    });
}

#[test]
fn a_full_disk_stops_neither_the_cluster_nor_for_ever_its_host() {
    run(7, |cluster| async move {
        cluster.three().await;
        for full in [1, 3] {
            // A leader's first, then a follower's.
            cluster.host(full).disk().set_capacity(1);
            let others: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != full).collect();
            let leader = cluster.leader_of(&others).await;
            for nth in 0..20 {
                cluster.write(leader, &format!("a{full}-{nth}"), b"1").await.unwrap();
            }
            let trouble = cluster.store(full).status().trouble.unwrap();
            assert!(trouble.contains("almost full"), "{trouble}");
            cluster.host(full).disk().set_capacity(1 << 40);
            let last = format!("a{full}-19");
            cluster.until("it catches up", || cluster.body(full, &last).is_some()).await;
            cluster.agree(&[1, 2, 3]).await;
            assert_eq!(cluster.store(full).status().trouble, None);
        }
    });
}

#[test]
fn a_host_that_is_cut_off_says_so_and_stops_saying_so() {
    run(8, |cluster| async move {
        cluster.three().await;
        cluster.mesh.isolate(&host_of(3));
        let says =
            |text: &str| cluster.store(3).status().trouble.is_some_and(|it| it.contains(text));
        cluster.until("it says so", || says("nothing was heard")).await;
        assert_eq!(cluster.store(2).status().trouble, None);
        cluster.mesh.heal();
        cluster.until("all is well", || cluster.store(3).status().trouble.is_none()).await;
        assert!(cluster.leads(1), "it came back without an election");
    });
}
