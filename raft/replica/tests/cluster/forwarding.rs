//! Every replica takes writes and consistent reads; the leader alone decides.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kactor_protocol::store::{Changed, Committed, Precondition, Propose, ProposeError};

use crate::kit::{host_of, key, put, run};

#[test]
fn who_writes_through_a_follower_reads_its_own_write_there() {
    run(1, |cluster| async move {
        cluster.three().await;
        // News from the leader come late.
        cluster.mesh.delay(&host_of(1), &host_of(3), Duration::from_millis(150));
        for nth in 0..10 {
            let name = format!("a{nth}");
            let committed = cluster.write(3, &name, b"{}").await.unwrap();
            let found = cluster.store(3).get(&key(&name)).expect("it is applied here");
            assert_eq!(found.modified, committed.outcomes[0].revision);
        }
    });
}

#[test]
fn a_consistent_read_on_a_follower_sees_what_was_acknowledged_before_it_began() {
    run(2, |cluster| async move {
        cluster.three().await;
        cluster.mesh.delay(&host_of(1), &host_of(3), Duration::from_millis(200));
        for nth in 0..10 {
            let text = nth.to_string();
            cluster.write(1, "a", text.as_bytes()).await.unwrap();
            cluster.store(3).read_index(cluster.deadline(3, 10)).await.unwrap();
            assert_eq!(cluster.body(3, "a").unwrap().as_ref(), text.as_bytes());
        }
    });
}

#[test]
fn a_follower_that_is_cut_off_confirms_no_read_and_no_write() {
    run(3, |cluster| async move {
        cluster.three().await;
        cluster.write(1, "a", b"1").await.unwrap();
        cluster.agree(&[1, 2, 3]).await;
        cluster.mesh.isolate(&host_of(3));
        assert!(cluster.store(3).read_index(cluster.deadline(3, 5)).await.is_err());
        assert!(cluster.write(3, "b", b"1").await.is_err());
        assert_eq!(cluster.body(3, "a").unwrap().as_ref(), b"1", "what it has can be read");
        cluster.mesh.heal();
        cluster.until("it is back", || !cluster.leads(3)).await;
        cluster.write(3, "c", b"1").await.unwrap();
    });
}

#[test]
fn a_deposed_leader_confirms_no_read_from_before_the_others_went_on() {
    run(4, |cluster| async move {
        cluster.three().await;
        cluster.write(1, "a", b"1").await.unwrap();
        cluster.mesh.isolate(&host_of(1));
        let leader = cluster.leader_of(&[2, 3]).await;
        cluster.write(leader, "a", b"2").await.unwrap();
        let read = cluster.store(1).read_index(cluster.deadline(1, 5)).await;
        assert!(read.is_err(), "{read:?}: it would read {:?}", cluster.body(1, "a"));
    });
}

#[test]
fn a_write_waits_for_the_next_leader_and_is_made_once() {
    for seed in 0..5 {
        run(seed, |cluster| async move {
            cluster.three().await;
            cluster.crash(1).await;
            cluster.write(3, "a", b"1").await.unwrap();
            let leader = cluster.leader_of(&[2, 3]).await;
            cluster.agree(&[2, 3]).await;
            assert_eq!(cluster.body(leader, "a").unwrap().as_ref(), b"1");
        });
    }
}

/// Each adds to one number through its own replica, and decides again when somebody else was faster.
#[test]
fn no_increment_through_any_replica_is_lost() {
    run(6, |cluster| async move {
        cluster.three().await;
        cluster.write(1, "n", b"0").await.unwrap();
        let add = async |id: u64| {
            for _ in 0..20 {
                loop {
                    let store = cluster.store(id);
                    let Some(found) = store.get(&key("n")) else {
                        store.read_index(cluster.deadline(id, 10)).await.unwrap();
                        continue;
                    };
                    let text = std::str::from_utf8(&found.value.body).unwrap();
                    // Two that saw the same number write the same bytes: only one of them has added.
                    let next = (text.parse::<u64>().unwrap() + 1).to_string();
                    let write = put("n", Precondition::Revision(found.modified), next.as_bytes());
                    match store.propose(Propose::one(write), cluster.deadline(id, 30)).await {
                        Ok(_) => break,
                        Err(ProposeError::Conflict { current, .. }) => {
                            assert!(
                                store.revision() >= current,
                                "it is decided on what was refused for"
                            );
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        };
        tokio::join!(add(1), add(2), add(3));
        cluster.agree(&[1, 2, 3]).await;
        assert_eq!(cluster.body(2, "n").unwrap().as_ref(), b"60");
    });
}

/// A write through host 2 that the leader, host 1, takes and commits with host 3; its answer never arrives, and host 1
/// dies. What became of the write is what the closure sees, within the patience of a test: long before its deadline.
fn answered_after_the_leader_died(
    seed: u64,
    precondition: Precondition,
    told: impl Fn(Result<Committed, ProposeError>) + 'static,
) {
    run(seed, |cluster| async move {
        cluster.three().await;
        cluster.mesh.cut_one_way(&host_of(1), &host_of(2));
        let propose = Propose::one(put("a", precondition, b"1"));
        let (store, deadline) = (cluster.store(2), cluster.deadline(2, 3600));
        let answer = Rc::new(RefCell::new(None));
        let asked = async {
            *answer.borrow_mut() = Some(store.propose(propose, deadline).await);
        };
        let rest = async {
            cluster.until("the leader has committed it", || cluster.body(1, "a").is_some()).await;
            assert!(answer.borrow().is_none(), "the answer is on no link");
            cluster.crash(1).await;
            cluster.mesh.heal();
            cluster.until("the write is answered", || answer.borrow().is_some()).await;
        };
        futures::join!(asked, rest);
        assert_eq!(cluster.body(2, "a").unwrap().as_ref(), b"1");
        told(answer.borrow_mut().take().unwrap());
        cluster.agree(&[2, 3]).await;
    });
}

#[test]
fn a_create_whose_leader_died_is_asked_of_the_next_one_and_known_again() {
    for seed in 0..5 {
        answered_after_the_leader_died(seed, Precondition::Absent, |answer| {
            let committed = answer.expect("it was committed, and the next leader says so");
            assert_eq!(committed.outcomes[0].changed, Changed::Unchanged);
        });
    }
}

#[test]
fn a_write_over_anything_is_never_sent_twice_and_its_fate_is_called_unknown() {
    answered_after_the_leader_died(7, Precondition::None, |answer| {
        assert_eq!(answer.unwrap_err(), ProposeError::Timeout);
    });
}
