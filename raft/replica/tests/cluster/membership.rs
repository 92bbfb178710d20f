//! Who votes changes without a moment in which two majorities are possible.

use std::collections::BTreeSet;

use kactor_protocol::ids::ReplicaId;
use kactor_replica::Start;
use kactor_store::MembersError;

use crate::kit::{host_of, run};

#[test]
fn two_learners_become_voters_in_one_change() {
    run(1, |cluster| async move {
        cluster.start(1, Start::NewCluster).await;
        cluster.until("the first leads", || cluster.leads(1)).await;
        cluster.write(1, "a", b"1").await.unwrap();
        let members = cluster.replica(1).members();
        for id in [2, 3] {
            cluster.start(id, Start::Joining).await;
            members.add_learner(ReplicaId(id), &host_of(id)).await.unwrap();
        }
        let state = members.state();
        assert_eq!(state.learners().map(|(id, _)| id.0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(state.hosts[&ReplicaId(3)], host_of(3));
        let caught_up = |id| {
            let state = members.state();
            state
                .progress
                .get(&ReplicaId(id))
                .is_some_and(|it| it.matched_index == state.last_index)
        };
        cluster.until("they have the log", || caught_up(2) && caught_up(3)).await;
        let voters: BTreeSet<_> = [1, 2, 3].map(ReplicaId).into();
        members.set_voters(voters.clone()).await.unwrap();
        let state = members.state();
        assert_eq!((state.voters, state.is_committed), (vec![voters], true));
        cluster.agree(&[1, 2, 3]).await;
        assert_eq!(cluster.body(2, "a").unwrap().as_ref(), b"1");
    });
}

#[test]
fn only_the_leader_changes_who_belongs() {
    run(2, |cluster| async move {
        cluster.three().await;
        let refused = cluster.replica(2).members().add_learner(ReplicaId(4), &host_of(4)).await;
        assert_eq!(refused, Err(MembersError::NotLeader { leader: Some(ReplicaId(1)) }));
        let refused = cluster.replica(1).members().remove_learner(ReplicaId(3)).await;
        assert!(matches!(refused, Err(MembersError::Refused { .. })), "{refused:?}");
    });
}

#[test]
fn a_removed_replica_takes_no_part_any_more() {
    run(3, |cluster| async move {
        cluster.three().await;
        let members = cluster.replica(1).members();
        cluster.set_voters(1, [1, 2]).await;
        members.remove_learner(ReplicaId(3)).await.unwrap();
        assert!(!members.state().hosts.contains_key(&ReplicaId(3)));
        cluster.write(1, "later", b"1").await.unwrap();
        cluster.agree(&[1, 2]).await;
        assert_eq!(cluster.body(3, "later"), None);
        assert!(cluster.leads(1), "it disturbs nobody");
    });
}
