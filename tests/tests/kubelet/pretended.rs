//! With pods that pretend: who is let in, what is answered, and where it listens.

use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::kubectl::with_each;
use kactor_tests::harness::{Access, Cluster, Kubectl, Runtime};
use nix::sys::signal::Signal;

use crate::asking::{Kubelet, port_of, read};

fn running(kubectl: &Kubectl, pod: &str) {
    kubectl.ok(&["run", pod, "--image=example.org/app:1"]);
    kubectl.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"]);
}

fn account(kubectl: &Kubectl, name: &str) -> String {
    kubectl.ok(&["create", "serviceaccount", name]);
    kubectl.ok(&["create", "token", name]).trim().to_owned()
}

#[test]
fn nobody_is_401_a_token_without_rights_403_and_with_them_200() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        let kubelet = Kubelet::of(&cluster);
        let config = cluster.kubeconfig();
        let anonymous = || Access::anonymous(&config).unwrap();
        for path in ["/healthz", "/metrics/resource", "/pods", "/nothing"] {
            let reply = kubelet.ask(anonymous(), path);
            assert_eq!((reply.code, reply.text().as_str()), (401, "Unauthorized"), "{path}");
        }
        let nonsense = Access::with_token(&config, "a.b.c").unwrap();
        assert_eq!(kubelet.ask(nonsense, "/healthz").code, 401);

        let stranger = Access::with_token(&config, &account(kubectl, "stranger")).unwrap();
        let refused = kubelet.ask(stranger, "/metrics/resource");
        assert_eq!(refused.code, 403);
        assert!(refused.text().contains("verb=get, resource=nodes"), "{}", refused.text());

        let token = account(kubectl, "scraper");
        let namespace =
            kubectl.ok(&["get", "sa", "scraper", "-o", "jsonpath={.metadata.namespace}"]);
        let role = format!("scraper-{namespace}");
        let subject = format!("--serviceaccount={namespace}:scraper");
        let resource = "--resource=nodes/metrics";
        kubectl.ok(&["create", "clusterrole", &role, "--verb=get", resource]);
        kubectl.ok(&["create", "clusterrolebinding", &role, "--clusterrole", &role, &subject]);
        let scraper = || Access::with_token(&config, &token).unwrap();
        let who = format!("--as=system:serviceaccount:{namespace}:scraper");
        let can = ["auth", "can-i", "get", "nodes", "--subresource=metrics", &who];
        kubectl.until(&can, |it| it.trim() == "yes");
        for path in ["/metrics/resource", "/metrics/cadvisor", "/metrics", "/metrics/probes"] {
            let reply = kubelet.ask(scraper(), path);
            assert_eq!(reply.code, 200, "{path}: {}", reply.text());
            read(&reply.text());
        }
        for path in ["/stats/summary", "/pods", "/healthz", "/containerLogs/a/b/c"] {
            assert_eq!(kubelet.ask(scraper(), path).code, 403, "{path}");
        }
        let admin = kubelet.ask(Access::admin(&cluster), "/healthz");
        assert_eq!((admin.code, admin.text().as_str()), (200, "ok"));
        kubectl.ok(&["delete", "clusterrole,clusterrolebinding", &role]);
    });
}

#[test]
fn pods_and_their_numbers_are_told_on_every_page() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        running(kubectl, "web");
        let kubelet = Kubelet::of(&cluster);
        let namespace = kubectl.field("pod/web", ".metadata.namespace");
        let of_pod = [("namespace", namespace.as_str()), ("pod", "web"), ("container", "web")];

        let page = kubelet.page(&cluster, "/metrics/resource");
        let cpu = page.one("container_cpu_usage_seconds_total", &of_pod);
        assert_eq!(cpu.value, 0.0, "a pod that pretends uses nothing");
        assert!(cpu.at_ms.is_some_and(|it| it > 1_700_000_000_000), "{cpu:?}");
        assert!(page.one("node_cpu_usage_seconds_total", &[]).value > 0.0);
        assert!(page.one("node_memory_working_set_bytes", &[]).value > 1e6);
        assert!(page.one("container_start_time_seconds", &of_pod).value > 1.7e9);
        assert_eq!(page.rows("pod_memory_working_set_bytes", &of_pod[..2]).len(), 1);
        assert_eq!(page.one("scrape_error", &[]).value, 0.0);

        let page = kubelet.page(&cluster, "/metrics/cadvisor");
        let row = page.one("container_memory_working_set_bytes", &of_pod);
        assert_eq!(row.labels["image"], "example.org/app:1");
        assert!(page.one("container_cpu_usage_seconds_total", &[("id", "/")]).value > 0.0);

        let summary = kubelet.json(&cluster, "/stats/summary");
        assert_eq!(summary["node"]["nodeName"], NODE);
        let pods = summary["pods"].as_array().unwrap();
        let pod = pods.iter().find(|it| it["podRef"]["namespace"] == namespace.as_str()).unwrap();
        assert_eq!(pod["containers"][0]["name"], "web");

        let uid = kubectl.field("pod/web", ".metadata.uid");
        for path in ["/pods", "/runningpods/"] {
            let list = kubelet.json(&cluster, path);
            assert_eq!(list["kind"], "PodList");
            let found = list["items"].as_array().unwrap().iter();
            assert_eq!(
                found.filter(|it| it["metadata"]["uid"] == uid.as_str()).count(),
                1,
                "{path}"
            );
        }
        assert_eq!(kubelet.page(&cluster, "/metrics").one("kubelet_node_name", &[]).value, 1.0);
        let config = kubelet.json(&cluster, "/configz");
        assert_eq!(config["kubeletconfig"]["port"].to_string(), port_of(&cluster).to_string());
        let log =
            kubelet.text(&cluster, &format!("/containerLogs/{namespace}/web/web?tailLines=1"));
        assert_eq!(log, kubectl.ok(&["logs", "web", "--tail=1"]));
        for (path, code) in [
            (format!("/containerLogs/{namespace}/none/web"), 404),
            (format!("/containerLogs/{namespace}/web/web?tailLines=x"), 400),
            ("/logs/".to_owned(), 404),
            (format!("/exec/{namespace}/web/web?command=ls&output=1"), 400),
        ] {
            assert_eq!(kubelet.ask(Access::admin(&cluster), &path).code, code, "{path}");
        }
    });
}

#[test]
fn kubectl_reaches_the_kubelet_through_the_nodes_proxy_with_the_right_to() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        running(kubectl, "web");
        let at = |path: &str| format!("/api/v1/nodes/{NODE}/proxy/{path}");
        let page = kubectl.ok(&["get", "--raw", &at("metrics/resource")]);
        let namespace = kubectl.field("pod/web", ".metadata.namespace");
        let of_pod = [("namespace", namespace.as_str()), ("pod", "web")];
        assert_eq!(read(&page).rows("pod_cpu_usage_seconds_total", &of_pod).len(), 1);
        let summary = kubectl.ok(&["get", "--raw", &at("stats/summary")]);
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["node"]["nodeName"], NODE);
        let with_port = format!("/api/v1/nodes/https:{NODE}:{}/proxy/healthz", port_of(&cluster));
        assert_eq!(kubectl.ok(&["get", "--raw", &with_port]), "ok");
        kubectl.refused(&["get", "--raw", &format!("/api/v1/nodes/{NODE}:1/proxy/healthz")]);
        kubectl.refused(&["get", "--raw", "/api/v1/nodes/none/proxy/healthz"]);

        let token = account(kubectl, "stranger");
        let stranger = kubectl.with_token("stranger", &token);
        let refused = stranger.refused(&["get", "--raw", &at("healthz")]);
        assert!(refused.contains("nodes/proxy") || refused.contains("forbidden"), "{refused}");
    });
}

#[test]
fn two_on_one_machine_have_ports_of_their_own_and_keep_them() {
    let first = Cluster::start(Runtime::Hollow);
    let mut second = Cluster::start(Runtime::Hollow);
    let (one, two) = (port_of(&first), port_of(&second));
    assert_ne!(one, two);
    assert!(second.output().contains(&format!("kubelet    https://127.0.0.1:{two}")));
    assert!(second.end(Signal::SIGTERM).success());
    second.restart();
    assert_eq!(port_of(&second), two, "the node is found where it was");
    assert_eq!(Kubelet::at(two).text(&second, "/healthz"), "ok");
}

#[test]
fn the_apis_own_metrics_are_read_by_strict_scrapers_and_show_the_actors() {
    let cluster = Cluster::start(Runtime::Hollow);
    with_each(&cluster, |kubectl| {
        kubectl.ok(&["get", "nodes"]);
        let page = read(&kubectl.ok(&["get", "--raw", "/metrics"]));
        let listed = [("verb", "LIST"), ("resource", "nodes"), ("code", "200")];
        assert!(page.one("apiserver_request_total", &listed).value >= 1.0);
        let timed = [("verb", "LIST"), ("resource", "nodes"), ("__part__", "_count")];
        assert!(page.one("apiserver_request_duration_seconds", &timed).value >= 1.0);
        let agent = [("actor", "agent"), ("kind", "NodeAgent")];
        assert!(page.one("kactor_actor_handled_total", &agent).value > 0.0);
        assert_eq!(page.one("kactor_actor_restarts_total", &agent).value, 0.0);
        assert!(page.one("kactor_actor_mailbox_letters_max", &agent).value > 0.0);
        let verbose = kubectl.ok(&["get", "--raw", "/readyz?verbose"]);
        assert!(verbose.contains("[+]store ok"), "{verbose}");
        assert!(verbose.contains("readyz check passed"), "{verbose}");
    });
}
