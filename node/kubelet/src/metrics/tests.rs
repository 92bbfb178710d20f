//! The pages as they look.

use crate::sample::fixture;

use super::*;

#[test]
fn metrics_server_finds_node_pods_and_containers_with_their_times() {
    expect_test::expect![[r##"
        # HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container in core-seconds
        # TYPE container_cpu_usage_seconds_total counter
        container_cpu_usage_seconds_total{container="app",namespace="default",pod="busy"} 3 12000
        container_cpu_usage_seconds_total{container="side",namespace="default",pod="busy"} 0 12000
        container_cpu_usage_seconds_total{container="app",namespace="default",pod="idle"} 0 12000
        # HELP container_memory_working_set_bytes Current working set of the container in bytes
        # TYPE container_memory_working_set_bytes gauge
        container_memory_working_set_bytes{container="app",namespace="default",pod="busy"} 3072 12000
        container_memory_working_set_bytes{container="side",namespace="default",pod="busy"} 3072 12000
        container_memory_working_set_bytes{container="app",namespace="default",pod="idle"} 0 12000
        # HELP container_start_time_seconds Start time of the container since unix epoch in seconds
        # TYPE container_start_time_seconds gauge
        container_start_time_seconds{container="app",namespace="default",pod="busy"} 1.5
        container_start_time_seconds{container="side",namespace="default",pod="busy"} 1.5
        container_start_time_seconds{container="app",namespace="default",pod="idle"} 1.5
        # HELP node_cpu_usage_seconds_total Cumulative cpu time consumed by the node in core-seconds
        # TYPE node_cpu_usage_seconds_total counter
        node_cpu_usage_seconds_total 8 12000
        # HELP node_memory_working_set_bytes Current working set of the node in bytes
        # TYPE node_memory_working_set_bytes gauge
        node_memory_working_set_bytes 268435456 12000
        # HELP node_swap_usage_bytes Current swap usage of the node in bytes
        # TYPE node_swap_usage_bytes gauge
        node_swap_usage_bytes 0 12000
        # HELP pod_cpu_usage_seconds_total Cumulative cpu time consumed by the pod in core-seconds
        # TYPE pod_cpu_usage_seconds_total counter
        pod_cpu_usage_seconds_total{namespace="default",pod="busy"} 3 12000
        pod_cpu_usage_seconds_total{namespace="default",pod="idle"} 0 12000
        # HELP pod_memory_working_set_bytes Current working set of the pod in bytes
        # TYPE pod_memory_working_set_bytes gauge
        pod_memory_working_set_bytes{namespace="default",pod="busy"} 6144 12000
        pod_memory_working_set_bytes{namespace="default",pod="idle"} 0 12000
        # HELP resource_scrape_error 1 if there was an error while getting container metrics, 0 otherwise
        # TYPE resource_scrape_error gauge
        resource_scrape_error 0
        # HELP scrape_error 1 if there was an error while getting container metrics, 0 otherwise
        # TYPE scrape_error gauge
        scrape_error 0
    "##]].assert_eq(&resource(&fixture::with_rates()));
}

#[test]
fn what_could_not_be_read_is_an_error_of_the_scrape() {
    let mut sample = fixture::sample(1, 1);
    sample.failures.push("gone".to_owned());
    sample.node = None;
    let page = resource(&sample);
    assert!(page.contains("\nscrape_error 1\n"), "{page}");
    assert!(!page.contains("node_cpu"), "what is not known is not shown: {page}");
}

#[test]
fn cadvisors_labels_and_families_are_there() {
    let page = cadvisor(&fixture::with_rates());
    let rows = [
        r#"container_cpu_usage_seconds_total{container="app",cpu="total",id="/kubepods/burstable/poduid-busy/id-app",image="busybox:latest",name="id-app",namespace="default",pod="busy"} 3 12000"#,
        r#"container_cpu_usage_seconds_total{container="",cpu="total",id="/",image="",name="",namespace="",pod=""} 8 12000"#,
        r#"container_memory_failures_total{container="app",failure_type="pgmajfault",id="/kubepods/burstable/poduid-busy/id-app",image="busybox:latest",name="id-app",namespace="default",pod="busy",scope="container"} 1 12000"#,
        r#"container_network_transmit_bytes_total{container="",id="/kubepods/burstable/poduid-busy",image="",interface="eth0",name="",namespace="default",pod="busy"} 20 12000"#,
        r#"container_spec_memory_limit_bytes{container="side",id="/kubepods/burstable/poduid-busy/id-side",image="busybox:latest",name="id-side",namespace="default",pod="busy"} 8192 12000"#,
        "machine_memory_bytes 1073741824",
    ];
    for row in rows {
        assert!(page.lines().any(|it| it == row), "{row}\nis not in\n{page}");
    }
    assert!(!page.contains("container_spec_cpu_quota"), "no container has one: {page}");
}

#[test]
fn probes_are_told_by_kind_and_result() {
    let row = ProbeRow {
        namespace: "default".to_owned(),
        pod: "web".to_owned(),
        uid: "u".to_owned(),
        container: "app".to_owned(),
        kind: ProbeKind::Liveness,
        count: ProbeCount { successful: 3, failed: 0 },
    };
    let page = probes(&[row]);
    let expected = r#"prober_probe_total{container="app",namespace="default",pod="web",pod_uid="u",probe_type="Liveness",result="successful"} 3"#;
    assert_eq!(page.lines().last(), Some(expected));
    assert_eq!(probes(&[]), "");
}
