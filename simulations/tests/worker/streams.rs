//! Logs of pods on workers, from control hosts with and without the node's session.

use std::time::Duration;

use futures::StreamExt;
use kactor_streams::node_streams::{NodeStreams, StreamError};

use crate::kit::{self, host, logs_of, state_of};

#[test]
fn every_control_host_reads_the_logs_of_a_pod_on_a_worker() {
    kit::run(21, |cluster| async move {
        let controls = [cluster.control("c1", None), cluster.control("c2", Some("c1"))];
        let worker = cluster.ready_worker("w1").await;
        cluster.create_pod("web", "w1").await;
        cluster.until("the pod runs", || cluster.pod_runs("web")).await;
        for control in &controls {
            let log = control.streams.open_logs(logs_of("w1", "web", false)).await.unwrap();
            let pieces: Vec<_> = log.map(|it| it.unwrap()).collect().await;
            let text = String::from_utf8(pieces.concat()).unwrap();
            assert_eq!(text, "a pretends to run busybox\n");
        }
        let no_pod = controls[0].streams.open_logs(logs_of("w1", "nobody", false)).await;
        assert!(matches!(no_pod, Err(StreamError::NotFound { .. })));
        assert_eq!(state_of(&worker.system, "node-streams").await["open"], 0);
    });
}

#[test]
fn a_node_that_is_not_there_is_named_with_the_reason() {
    kit::run(22, |cluster| async move {
        let control = cluster.control("c1", None);
        let opened = control.streams.open_logs(logs_of("w9", "web", false)).await;
        let Err(StreamError::NodeUnreachable { node, why }) = opened else { panic!("it opened") };
        assert_eq!(node, "w9");
        assert!(why.contains("w9") && why.contains("nobody is there"), "{why}");
    });
}

#[test]
fn a_lost_link_ends_a_stream_on_both_sides_with_the_reason() {
    kit::run(23, |cluster| async move {
        let control = cluster.control("c1", None);
        let worker = cluster.ready_worker("w1").await;
        cluster.create_pod("web", "w1").await;
        cluster.until("the pod runs", || cluster.pod_runs("web")).await;
        let mut log = control.streams.open_logs(logs_of("w1", "web", true)).await.unwrap();
        assert_eq!(&log.next().await.unwrap().unwrap()[..], b"a pretends to run busybox\n");
        assert_eq!(state_of(&worker.system, "node-streams").await["open"], 1);

        cluster.mesh.lose(&host("c1"), &host("w1"));
        let end = log.next().await.unwrap().unwrap_err();
        let StreamError::Failed(why) = end else { panic!("{end:?}") };
        assert!(why.starts_with("the link to node w1 was lost"), "{why}");
        assert!(log.next().await.is_none());
        cluster.world.sleep(Duration::from_secs(1)).await;
        assert_eq!(state_of(&worker.system, "node-streams").await["open"], 0);
        assert_eq!(state_of(&control.system, "streams").await["open"], 0);

        cluster.mesh.heal();
        let again = control.streams.open_logs(logs_of("w1", "web", false)).await;
        assert!(again.is_ok(), "the next one works when the link is back");
    });
}
