//! Which objects lead to which rules.

use expect_test::{Expect, expect};
use kactor_protocol::node::Feed;
use serde_json::{Value, json};

use super::*;

fn site() -> Site {
    Site {
        table: "kactor_t".to_owned(),
        bridge: "kb-t".to_owned(),
        node_name: "n1".to_owned(),
        pod_cidr: "10.244.0.0/24".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        dns_address: Ipv4Addr::new(10, 96, 0, 10),
        pods: vec![],
    }
}

fn web(spec: Value) -> Value {
    let mut object = json!({
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    });
    let into = object["spec"].as_object_mut().unwrap();
    into.extend(spec.as_object().unwrap().clone());
    object
}

/// An endpoint in words: its address and then `not-ready`, `ending`, `node=NAME`.
fn endpoint(text: &str) -> Value {
    let mut words = text.split_whitespace();
    let mut out = json!({"addresses": [words.next().unwrap()], "conditions": {"ready": true}});
    for word in words {
        match word.split_once('=') {
            Some((_, node)) => out["nodeName"] = json!(node),
            None if word == "ending" => {
                out["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
            }
            None => out["conditions"] = json!({"ready": false}),
        }
    }
    out
}

fn view(service: &Value, endpoints: &[&str]) -> View {
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.iter().map(|it| endpoint(it)).collect::<Vec<_>>(),
    });
    let mut view = View::default();
    let name = |it: &str| ("default".to_owned(), it.to_owned());
    view.change(Feed::Services, name("web"), Some(service)).unwrap();
    view.change(Feed::EndpointSlices, name("web-x1"), Some(&slice)).unwrap();
    view
}

#[track_caller]
fn check(service: Value, endpoints: &[&str], expect: Expect) {
    let text = plan(&site(), &view(&service, endpoints)).to_string();
    let frame = ["table", "10.96.0.0/16 refused"];
    let lines = text.lines().filter(|it| !frame.iter().any(|frame| it.starts_with(frame)));
    let kept: Vec<&str> = lines.collect();
    expect.assert_eq(&kept.join("\n"));
}

#[test]
fn a_cluster_address_leads_to_the_ready_endpoints() {
    check(
        web(json!({})),
        &["10.244.0.3", "10.244.0.2", "10.244.0.4 not-ready", "10.244.0.5 ending"],
        expect![[r#"
            10.96.0.7:80/TCP -> service-default/web/tcp/80
            service-default/web/tcp/80: 10.244.0.2:8080 10.244.0.3:8080"#]],
    );
}

#[test]
fn without_ready_endpoints_those_that_end_still_serve() {
    check(
        web(json!({})),
        &["10.244.0.4 not-ready", "10.244.0.5 ending"],
        expect![[r#"
            10.96.0.7:80/TCP -> service-default/web/tcp/80
            service-default/web/tcp/80: 10.244.0.5:8080"#]],
    );
}

#[test]
fn a_service_without_endpoints_has_no_chain_and_is_refused() {
    check(web(json!({})), &[], expect![""]);
}

#[test]
fn node_ports_and_external_addresses_are_masqueraded_unless_the_policy_is_local() {
    let port = json!([{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]);
    check(
        web(json!({"ports": port, "externalIPs": ["192.0.2.7"]})),
        &["10.244.0.2 node=n1", "10.244.1.2 node=n2"],
        expect![[r#"
            10.96.0.7:80/TCP -> service-default/web/tcp/80
            192.0.2.7:80/TCP -> external-default/web/tcp/80
            *:30080/TCP -> external-default/web/tcp/80
            external-default/web/tcp/80: 10.244.0.2:8080 10.244.1.2:8080 masqueraded
            service-default/web/tcp/80: 10.244.0.2:8080 10.244.1.2:8080"#]],
    );
    check(
        web(json!({"ports": port, "externalTrafficPolicy": "Local"})),
        &["10.244.0.2 node=n1", "10.244.1.2 node=n2"],
        expect![[r#"
            10.96.0.7:80/TCP -> service-default/web/tcp/80
            *:30080/TCP -> external-default/web/tcp/80
            external-default/web/tcp/80: 10.244.0.2:8080
            service-default/web/tcp/80: 10.244.0.2:8080 10.244.1.2:8080"#]],
    );
}

#[test]
fn an_internal_policy_of_local_keeps_to_this_node() {
    check(
        web(json!({"internalTrafficPolicy": "Local", "sessionAffinity": "ClientIP"})),
        &["10.244.0.2 node=n1", "10.244.1.2 node=n2"],
        expect![[r#"
            10.96.0.7:80/TCP -> service-default/web/tcp/80
            service-default/web/tcp/80: 10.244.0.2:8080 by client"#]],
    );
}

#[test]
fn headless_services_external_names_and_the_nameserver_have_no_rules() {
    check(web(json!({"clusterIP": "None"})), &["10.244.0.2"], expect![""]);
    check(
        web(json!({"type": "ExternalName", "externalName": "a.example"})),
        &["10.244.0.2"],
        expect![""],
    );
    check(web(json!({"clusterIP": "10.96.0.10"})), &["10.244.0.2"], expect![""]);
}

#[test]
fn ports_of_another_name_are_not_this_ports() {
    let ports = json!([{"name": "admin", "port": 81, "protocol": "TCP"}]);
    check(web(json!({ "ports": ports })), &["10.244.0.2"], expect![""]);
}

#[test]
fn host_ports_lead_to_their_pod_and_win_over_node_ports() {
    let mut site = site();
    let port = |host_address, host_port| MappedPort {
        host_address,
        host_port,
        pod_port: 53,
        protocol: Protocol::Udp,
    };
    let loopback = Some(Ipv4Addr::new(192, 0, 2, 1));
    site.pods = vec![(Ipv4Addr::new(10, 244, 0, 9), vec![port(None, 5353), port(loopback, 5354)])];
    let ports = json!([{"name": "http", "port": 80, "nodePort": 5353, "protocol": "TCP"}]);
    let text = plan(&site, &view(&web(json!({ "ports": ports })), &["10.244.0.2"])).to_string();
    expect![[r#"
        table kactor_t: pods 10.244.0.0/24 on kb-t
        10.96.0.7:80/TCP -> service-default/web/tcp/80
        192.0.2.1:5354/UDP -> host-192.0.2.1/udp/5354
        *:5353/TCP -> external-default/web/tcp/80
        *:5353/UDP -> host-/udp/5353
        external-default/web/tcp/80: 10.244.0.2:8080 masqueraded
        host-/udp/5353: 10.244.0.9:53
        host-192.0.2.1/udp/5354: 10.244.0.9:53
        service-default/web/tcp/80: 10.244.0.2:8080
        10.96.0.0/16 refused otherwise, but 10.96.0.10"#]]
    .assert_eq(&text);
}
