//! What is acknowledged is on a quorum, whoever is asked and whoever dies.

use kactor_protocol::store::ProposeError;

use crate::kit::{host_of, run};

#[test]
fn what_the_leader_acknowledges_reaches_every_replica() {
    run(1, |cluster| async move {
        cluster.three().await;
        for nth in 0..50 {
            cluster.write(1, &format!("a{nth}"), b"{}").await.unwrap();
        }
        cluster.agree(&[1, 2, 3]).await;
        assert_eq!(cluster.body(3, "a49").unwrap().as_ref(), b"{}");
        assert_eq!(cluster.store(3).reign(), cluster.store(1).reign());
        assert_eq!(cluster.store(3).leadership().current().leader.unwrap().0, 1);
    });
}

#[test]
fn the_others_elect_when_the_leader_dies_and_it_catches_up_when_it_is_back() {
    for seed in 0..10 {
        run(seed, |cluster| async move {
            cluster.three().await;
            cluster.write(1, "before", b"1").await.unwrap();
            let reign = cluster.store(1).reign();
            cluster.crash(1).await;
            let crashed = cluster.world.now();
            let leader = cluster.leader_of(&[2, 3]).await;
            println!("seed {seed}: the next leader after {:?}", cluster.world.now() - crashed);
            assert!(cluster.store(leader).reign() > reign);
            assert_eq!(cluster.body(leader, "before").unwrap().as_ref(), b"1");
            cluster.write(leader, "after", b"2").await.unwrap();
            cluster.restart(1).await;
            cluster.until("it has what it missed", || cluster.body(1, "after").is_some()).await;
            cluster.agree(&[1, 2, 3]).await;
        });
    }
}

#[test]
fn a_minority_never_acknowledges_and_its_leader_pauses() {
    run(3, |cluster| async move {
        cluster.three().await;
        cluster.mesh.isolate(&host_of(1));
        let refused = cluster.write(1, "lost", b"1").await.unwrap_err();
        let known = [ProposeError::NoQuorum, ProposeError::Timeout];
        assert!(known.contains(&refused), "{refused:?}");
        assert!(!cluster.leads(1), "its leader actors pause");
        let trouble = cluster.store(1).status().trouble.unwrap();
        assert!(
            trouble.contains("no quorum") || trouble.contains("nothing was heard"),
            "{trouble}"
        );
        let leader = cluster.leader_of(&[2, 3]).await;
        cluster.write(leader, "kept", b"2").await.unwrap();
        cluster.mesh.heal();
        cluster.until("it follows", || cluster.body(1, "kept").is_some()).await;
        cluster.agree(&[1, 2, 3]).await;
        assert_eq!(cluster.body(1, "lost"), None, "what no quorum took is gone everywhere");
    });
}
