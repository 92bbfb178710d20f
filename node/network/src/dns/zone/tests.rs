//! Which names of the cluster have which answers.

use expect_test::{Expect, expect};
use kactor_protocol::node::Feed;
use serde_json::{Value, json};

use super::*;

fn view() -> View {
    let mut view = View::default();
    let mut put = |feed, name: &str, object: Value| {
        view.change(feed, ("default".to_owned(), name.to_owned()), Some(&object)).unwrap();
    };
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    put(Feed::Services, "web", json!({"spec": {"clusterIP": "10.96.0.7", "ports": ports}}));
    put(Feed::Services, "db", json!({"spec": {"clusterIP": "None", "ports": ports}}));
    put(Feed::Services, "none", json!({"spec": {"clusterIP": "None", "ports": ports}}));
    let external = json!({"type": "ExternalName", "externalName": "db.example.com"});
    put(Feed::Services, "away", json!({ "spec": external }));
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.244.0.2"], "hostname": "db-0"},
            {"addresses": ["10.244.0.3"]},
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false}},
        ],
    });
    put(Feed::EndpointSlices, "db-1", slice);
    view
}

#[track_caller]
fn check(question: &str, expect: Expect) {
    let zone = Zone::new("cluster.local", "10.96.0.0/16".parse().unwrap()).unwrap();
    let (name, kind) = question.split_once(' ').unwrap();
    let name = Name::from_ascii(name).unwrap();
    let text = match zone.answer(&view(), &name, kind.parse().unwrap()) {
        Answer::Records { answers, additionals } => {
            let lines = answers.iter().chain(&additionals).map(ToString::to_string);
            lines.collect::<Vec<_>>().join("\n")
        }
        other => format!("{other:?}"),
    };
    expect.assert_eq(&text);
}

#[test]
fn a_service_has_its_cluster_address_whatever_the_case() {
    check(
        "WEB.default.svc.Cluster.local. A",
        expect!["WEB.default.svc.Cluster.local. 5 IN A 10.96.0.7"],
    );
    check("web.default.svc.cluster.local. AAAA", expect!["NoData"]);
    check("nope.default.svc.cluster.local. A", expect!["NoSuchName"]);
    check("x.web.default.svc.cluster.local. A", expect!["NoSuchName"]);
}

#[test]
fn a_headless_service_is_its_ready_endpoints() {
    check(
        "db.default.svc.cluster.local. A",
        expect![[r#"
            db.default.svc.cluster.local. 5 IN A 10.244.0.2
            db.default.svc.cluster.local. 5 IN A 10.244.0.3"#]],
    );
    check(
        "db-0.db.default.svc.cluster.local. A",
        expect!["db-0.db.default.svc.cluster.local. 5 IN A 10.244.0.2"],
    );
    check(
        "10-244-0-3.db.default.svc.cluster.local. A",
        expect!["10-244-0-3.db.default.svc.cluster.local. 5 IN A 10.244.0.3"],
    );
    check("10-244-0-4.db.default.svc.cluster.local. A", expect!["NoSuchName"]);
    check("none.default.svc.cluster.local. A", expect!["NoSuchName"]);
}

#[test]
fn named_ports_have_srv_records_with_their_targets_addresses() {
    check(
        "_http._tcp.web.default.svc.cluster.local. SRV",
        expect![[r#"
            _http._tcp.web.default.svc.cluster.local. 5 IN SRV 0 100 80 web.default.svc.cluster.local.
            web.default.svc.cluster.local. 5 IN A 10.96.0.7"#]],
    );
    check(
        "_http._tcp.db.default.svc.cluster.local. SRV",
        expect![[r#"
            _http._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 8080 10-244-0-3.db.default.svc.cluster.local.
            _http._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 8080 db-0.db.default.svc.cluster.local.
            10-244-0-3.db.default.svc.cluster.local. 5 IN A 10.244.0.3
            db-0.db.default.svc.cluster.local. 5 IN A 10.244.0.2"#]],
    );
    check("_http._udp.web.default.svc.cluster.local. SRV", expect!["NoSuchName"]);
    check("_http._tcp.web.default.svc.cluster.local. A", expect!["NoData"]);
}

#[test]
fn pods_external_names_and_the_zone_itself_answer() {
    check(
        "10-244-0-9.default.pod.cluster.local. A",
        expect!["10-244-0-9.default.pod.cluster.local. 5 IN A 10.244.0.9"],
    );
    check("web.default.pod.cluster.local. A", expect!["NoSuchName"]);
    check(
        "away.default.svc.cluster.local. A",
        expect!["away.default.svc.cluster.local. 5 IN CNAME db.example.com."],
    );
    check("default.svc.cluster.local. A", expect!["NoData"]);
    check("other.svc.cluster.local. A", expect!["NoSuchName"]);
    check("cluster.local. A", expect!["NoData"]);
    check("dns-version.cluster.local. TXT", expect!["dns-version.cluster.local. 5 IN TXT 1.1.0"]);
}

#[test]
fn addresses_lead_back_to_names_and_what_is_not_ours_goes_elsewhere() {
    check(
        "7.0.96.10.in-addr.arpa. PTR",
        expect!["7.0.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local."],
    );
    check(
        "2.0.244.10.in-addr.arpa. PTR",
        expect!["2.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.default.svc.cluster.local."],
    );
    check("8.0.96.10.in-addr.arpa. PTR", expect!["NoSuchName"]);
    check("1.2.0.192.in-addr.arpa. PTR", expect!["Elsewhere"]);
    check("www.example.com. A", expect!["Elsewhere"]);
    check("xcluster.local. A", expect!["Elsewhere"]);
}

#[test]
fn a_domain_that_is_none_is_refused() {
    let cidr = "10.96.0.0/16".parse().unwrap();
    assert!(Zone::new(".", cidr).is_err() && Zone::new(&"a".repeat(64), cidr).is_err());
}
