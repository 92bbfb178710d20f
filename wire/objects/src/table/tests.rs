//! Tables of every kind as kubectl shows them, wide columns in brackets.

use super::*;
use crate::registry::registry;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

fn ago(seconds: u64) -> String {
    NOW.minus(std::time::Duration::from_secs(seconds)).rfc3339()
}

/// Prints objects of one resource as `kubectl get -o wide` would, columns separated by ` | `.
fn printed(resource: &str, mut objects: Vec<Value>) -> String {
    let kind = registry().iter().find(|it| it.resource == resource).expect(resource);
    let title = |it: &Column| match it.priority {
        0 => it.name.to_uppercase(),
        _ => format!("[{}]", it.name.to_uppercase()),
    };
    let mut lines = vec![kind.printer.columns.iter().map(title).collect::<Vec<_>>().join(" | ")];
    for object in &mut objects {
        object["metadata"]["creationTimestamp"] = json!(ago(190));
        let row = row(&kind.printer, object, IncludeObject::None, NOW);
        let cells = row["cells"].as_array().expect("cells").iter().map(|it| match it {
            Value::String(it) => it.clone(),
            it => it.to_string(),
        });
        lines.push(cells.collect::<Vec<_>>().join(" | "));
    }
    lines.join("\n") + "\n"
}

mod pods;

#[test]
fn nodes() {
    let node = |name: &str, ready: &str, extra: Value| {
        let mut it = json!({
            "metadata": {"name": name, "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "kactor://0.1"},
            },
        });
        for (key, value) in extra.as_object().expect("a map") {
            it[key] = value.clone();
        }
        it
    };
    expect_test::expect![[r#"
        NAME | STATUS | ROLES | AGE | VERSION | [INTERNAL-IP] | [EXTERNAL-IP] | [OS-IMAGE] | [KERNEL-VERSION] | [CONTAINER-RUNTIME]
        a | Ready | control-plane,worker | 3m10s | v1.36.0 | 10.0.0.1 | <none> | Debian | 6.1 | kactor://0.1
        b | NotReady,SchedulingDisabled | control-plane,worker | 3m10s | v1.36.0 | 10.0.0.1 | <none> | Debian | 6.1 | kactor://0.1
        c | Unknown | <none> | 3m10s |  | <none> | <none> | <unknown> | <unknown> | <unknown>
    "#]].assert_eq(&printed("nodes", vec![
        node("a", "True", json!({})),
        node("b", "False", json!({"spec": {"unschedulable": true}})),
        json!({"metadata": {"name": "c"}}),
    ]));
}

#[test]
fn workloads() {
    let spec = json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}},
    });
    let status =
        json!({"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2});
    let object = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
    let mut out = printed("deployments", vec![object.clone()]);
    out += &printed("replicasets", vec![object]);
    expect_test::expect![[r#"
        NAME | READY | UP-TO-DATE | AVAILABLE | AGE | [CONTAINERS] | [IMAGES] | [SELECTOR]
        web | 2/3 | 1 | 2 | 3m10s | a,b | x:1,y | app=web
        NAME | DESIRED | CURRENT | READY | AGE | [CONTAINERS] | [IMAGES] | [SELECTOR]
        web | 3 | 3 | 2 | 3m10s | a,b | x:1,y | app=web
    "#]]
    .assert_eq(&out);
}

#[test]
fn services_and_their_endpoints() {
    let mut out = printed(
        "services",
        vec![
            json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "selector": {"app": "web"},
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!({"metadata": {"name": "np"}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.2", "externalIPs": ["1.2.3.4"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}}),
            json!({"metadata": {"name": "lb"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.3", "ports": []}}),
            json!({"metadata": {"name": "up"}, "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.3"},
            "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}, {"hostname": "lb.example"}]}}}),
            json!({"metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
            json!({"metadata": {"name": "headless"}, "spec": {"type": "ClusterIP", "clusterIP": "None"}}),
        ],
    );
    let addresses = json!([{"ip": "10.1.0.1"}, {"ip": "10.1.0.2"}]);
    out += &printed(
        "endpoints",
        vec![
            json!({"metadata": {"name": "none"}}),
            json!({"metadata": {"name": "web"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}, {"port": 81}]}]}),
            json!({"metadata": {"name": "bare"}, "subsets": [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}]}),
            json!({"metadata": {"name": "unready"}, "subsets": [{"notReadyAddresses": addresses}]}),
        ],
    );
    out += &printed(
        "endpointslices",
        vec![
            json!({"metadata": {"name": "web-x"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "b"}],
            "endpoints": [{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"]}]}),
            json!({"metadata": {"name": "empty"}, "addressType": "IPv4"}),
        ],
    );
    expect_test::expect![[r#"
        NAME | TYPE | CLUSTER-IP | EXTERNAL-IP | PORT(S) | AGE | [SELECTOR]
        web | ClusterIP | 10.96.0.1 | <none> | 80/TCP,53/UDP | 3m10s | app=web
        np | NodePort | 10.96.0.2 | 1.2.3.4 | 80:30080/TCP | 3m10s | <none>
        lb | LoadBalancer | 10.96.0.3 | <pending> | <none> | 3m10s | <none>
        up | LoadBalancer | 10.96.0.3 | 5.6.7.8,lb.example | <none> | 3m10s | <none>
        ext | ExternalName | <none> | example.com | <none> | 3m10s | <none>
        headless | ClusterIP | None | <none> | <none> | 3m10s | <none>
        NAME | ENDPOINTS | AGE
        none | <none> | 3m10s
        web | 10.1.0.1:80,10.1.0.1:81,10.1.0.2:80 + 1 more... | 3m10s
        bare | [fd00::1]:80 | 3m10s
        unready | <none> | 3m10s
        NAME | ADDRESSTYPE | PORTS | ENDPOINTS | AGE
        web-x | IPv4 | 80,b | 10.1.0.1,10.1.0.2,10.1.0.3 + 2 more... | 3m10s
        empty | IPv4 | <unset> | <unset> | 3m10s
    "#]]
    .assert_eq(&out);
}

#[test]
fn configuration_and_identities() {
    let named = |name: &str| json!({"metadata": {"name": name}});
    let mut out = printed(
        "namespaces",
        vec![json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}})],
    );
    out += &printed(
        "configmaps",
        vec![
            json!({"metadata": {"name": "a"}, "data": {"x": "", "y": ""}, "binaryData": {"z": ""}}),
        ],
    );
    out += &printed(
        "secrets",
        vec![json!({"metadata": {"name": "a"}, "type": "Opaque", "data": {"x": ""}})],
    );
    out += &printed("serviceaccounts", vec![named("a")]);
    out += &printed(
        "leases",
        vec![json!({"metadata": {"name": "a"}, "spec": {"holderIdentity": "h"}})],
    );
    out += &printed("clusterroles", vec![named("a")]);
    out += &printed(
        "rolebindings",
        vec![json!({
            "metadata": {"name": "a"}, "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [
                {"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "Group", "name": "g"},
                {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
            ],
        })],
    );
    out += &printed(
        "poddisruptionbudgets",
        vec![
            json!({"metadata": {"name": "a"}, "spec": {"minAvailable": 1}, "status": {"disruptionsAllowed": 2}}),
            json!({"metadata": {"name": "b"}, "spec": {"maxUnavailable": "30%"}}),
        ],
    );
    expect_test::expect![[r#"
        NAME | STATUS | AGE
        a | Active | 3m10s
        NAME | DATA | AGE
        a | 3 | 3m10s
        NAME | TYPE | DATA | AGE
        a | Opaque | 1 | 3m10s
        NAME | SECRETS | AGE
        a | 0 | 3m10s
        NAME | HOLDER | AGE
        a | h | 3m10s
        NAME | CREATED AT
        a | 2027-01-15T07:56:50Z
        NAME | ROLE | AGE | [USERS] | [GROUPS] | [SERVICEACCOUNTS]
        a | Role/r | 3m10s | u, v | g | n/s
        NAME | MIN AVAILABLE | MAX UNAVAILABLE | ALLOWED DISRUPTIONS | AGE
        a | 1 | N/A | 2 | 3m10s
        b | N/A | 30% | 0 | 3m10s
    "#]]
    .assert_eq(&out);
}

#[test]
fn events() {
    expect_test::expect![[r#"
        LAST SEEN | TYPE | REASON | OBJECT | [SUBOBJECT] | [SOURCE] | MESSAGE | [FIRST SEEN] | [COUNT] | [NAME]
        5s | Normal | Started | pod/web | spec.containers{a} | agent, n1 | hi | 10m | 4 | old
        60s | Warning | Failed | node |  | scheduler | no | 60s | 1 | new
        3s |  |  | pod/x |  |  |  | 15m | 7 | series
    "#]].assert_eq(&printed("events", vec![
        json!({"metadata": {"name": "old"}, "type": "Normal", "reason": "Started", "message": " hi \n", "count": 4,
            "firstTimestamp": ago(600), "lastTimestamp": ago(5), "source": {"component": "agent", "host": "n1"},
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"}}),
        json!({"metadata": {"name": "new"}, "type": "Warning", "reason": "Failed", "message": "no", "eventTime": ago(60),
            "reportingComponent": "scheduler", "involvedObject": {"kind": "Node"}}),
        json!({"metadata": {"name": "series"}, "eventTime": ago(900), "series": {"count": 7, "lastObservedTime": ago(3)},
            "involvedObject": {"kind": "Pod", "name": "x"}}),
    ]));
}

#[test]
fn a_table_has_typed_columns_and_rows_with_what_was_asked_for() {
    let printer = &Printer::PLAIN;
    let object = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "resourceVersion": "5"}, "spec": 1});
    let rows = [IncludeObject::None, IncludeObject::Metadata, IncludeObject::Object]
        .map(|include| row(printer, &object, include, NOW));
    let metadata = json!({"resourceVersion": "9"});
    let table = table(printer, metadata, rows.to_vec(), Columns::Given);
    expect_test::expect![[r#"
        {
          "apiVersion": "meta.k8s.io/v1",
          "columnDefinitions": [
            {
              "description": "Name of the object, unique within its namespace.",
              "format": "name",
              "name": "Name",
              "priority": 0,
              "type": "string"
            },
            {
              "description": "Time since the object was created.",
              "format": "",
              "name": "Age",
              "priority": 0,
              "type": "string"
            }
          ],
          "kind": "Table",
          "metadata": {
            "resourceVersion": "9"
          },
          "rows": [
            {
              "cells": [
                "a",
                "<unknown>"
              ],
              "object": null
            },
            {
              "cells": [
                "a",
                "<unknown>"
              ],
              "object": {
                "apiVersion": "meta.k8s.io/v1",
                "kind": "PartialObjectMetadata",
                "metadata": {
                  "name": "a",
                  "resourceVersion": "5"
                }
              }
            },
            {
              "cells": [
                "a",
                "<unknown>"
              ],
              "object": {
                "apiVersion": "v1",
                "kind": "X",
                "metadata": {
                  "name": "a",
                  "resourceVersion": "5"
                },
                "spec": 1
              }
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&table).expect("json"));
    assert_eq!(IncludeObject::parse(""), Some(IncludeObject::Metadata));
    assert_eq!(IncludeObject::parse("All"), None);
}
