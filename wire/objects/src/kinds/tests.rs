//! Faults of the kinds other than pods, each named in upstream's words.

use serde_json::{Value, json};

use crate::registry::{Kind, registry};
use crate::writes::{self, Birth};

fn kind(resource: &str) -> &'static Kind {
    registry().iter().find(|it| it.resource == resource).expect(resource)
}

/// Creates `object` and prints what is wrong with it, one fault a line.
fn faults(resource: &str, mut object: Value) -> String {
    let kind = kind(resource);
    if object.pointer("/metadata/name").is_none() {
        object["metadata"] = json!({"name": "a"});
    }
    let birth = Birth {
        namespace: if kind.is_namespaced() { "default" } else { "" },
        uid: "u".into(),
        now: kactor_protocol::Timestamp::EPOCH,
        suffix: "abcde",
    };
    writes::prepare_create(kind, &mut object, &birth).expect("prepared");
    lines(&writes::check_create(kind, &object))
}

/// Changes a created object from `old` to `new` and prints what is wrong with that.
fn change(resource: &str, old: &Value, new: &Value) -> String {
    let kind = kind(resource);
    let (mut old, mut new) = (old.clone(), new.clone());
    for it in [&mut old, &mut new] {
        it["metadata"] = json!({"name": "a", "namespace": "default", "uid": "u"});
        (kind.strategy.default)(it);
    }
    writes::prepare_update(kind, &mut new, &old).expect("prepared");
    lines(&writes::check_update(kind, &new, &old))
}

fn lines(errors: &[crate::FieldError]) -> String {
    errors.iter().map(|it| format!("{it}\n")).collect()
}

fn workload(selector: Value, labels: Value) -> Value {
    json!({"spec": {"selector": selector, "template": {
        "metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a:1"}]},
    }}})
}

#[test]
fn deployments() {
    let web = json!({"matchLabels": {"app": "web"}});
    assert_eq!(faults("deployments", workload(web.clone(), json!({"app": "web"}))), "");
    let mut out = faults("deployments", workload(Value::Null, json!({})));
    out += &faults("deployments", workload(json!({}), json!({"app": "web"})));
    out += &faults("deployments", workload(web.clone(), json!({"app": "other"})));
    let mut odd = workload(web.clone(), json!({"app": "web"}));
    odd["spec"]["replicas"] = json!(-1);
    odd["spec"]["minReadySeconds"] = json!(600);
    odd["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}});
    odd["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    odd["spec"]["template"]["spec"]["containers"][0]["image"] = json!("");
    out += &faults("deployments", odd.clone());
    odd["spec"]["strategy"] = json!({"type": "Recreate", "rollingUpdate": {}});
    out += &faults("deployments", odd.clone());
    odd["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": "x", "maxUnavailable": "120%"}});
    out += &faults("deployments", odd);
    let old = workload(web, json!({"app": "web"}));
    let new = workload(json!({"matchLabels": {"app": "x"}}), json!({"app": "x"}));
    out += &change("deployments", &old, &new);
    expect_test::expect![[r#"
        spec.selector: Required value
        spec.selector: Invalid value: {}: empty selector is invalid for deployment
        spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`
        spec.replicas: Invalid value: -1: must be greater than or equal to 0
        spec.template.spec.containers[0].image: Required value
        spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
        spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0
        spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds
        spec.replicas: Invalid value: -1: must be greater than or equal to 0
        spec.template.spec.containers[0].image: Required value
        spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
        spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
        spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds
        spec.replicas: Invalid value: -1: must be greater than or equal to 0
        spec.template.spec.containers[0].image: Required value
        spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
        spec.strategy.rollingUpdate.maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')
        spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "120%": must not be greater than 100%
        spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds
        spec.selector: Invalid value: {"matchLabels":{"app":"x"}}: field is immutable
    "#]].assert_eq(&out);
}

#[test]
fn services() {
    let service = |spec: Value| json!({"spec": spec});
    let good = service(json!({"ports": [{"port": 80}], "selector": {"app": "web"}}));
    assert_eq!(faults("services", good.clone()), "");
    assert_eq!(faults("services", service(json!({"clusterIP": "None"}))), "");
    let mut out = String::new();
    for spec in [
        json!({}),
        json!({"type": "Odd", "ports": [{"port": 80}]}),
        json!({"ports": [{"port": 0}, {"port": 80, "name": "a", "targetPort": "Bad_"}, {"port": 80, "name": "a"}]}),
        json!({"ports": [{"port": 80, "nodePort": 30080}]}),
        json!({"type": "NodePort", "ports": [{"port": 80, "name": "a", "nodePort": 80}, {"port": 81, "name": "b", "nodePort": 30080}, {"port": 82, "name": "c", "nodePort": 30080}]}),
        json!({"type": "ExternalName"}),
        json!({"type": "LoadBalancer", "clusterIP": "None", "ports": [{"port": 80}]}),
        json!({"clusterIP": "x", "sessionAffinity": "Odd", "externalIPs": ["127.0.0.1"], "ports": [{"port": 80, "protocol": "ICMP"}]}),
    ] {
        out += &faults("services", service(spec));
    }
    let mut named = good;
    named["metadata"] = json!({"name": "1a"});
    out += &faults("services", named);
    expect_test::expect![[r#"
        spec.ports: Required value
        spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
        spec.ports[0].name: Required value
        spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
        spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
        spec.ports[1].targetPort: Invalid value: "Bad_": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
        spec.ports[2].name: Duplicate value: "a"
        spec.ports[2]: Duplicate value: {"port":80,"protocol":"TCP"}
        spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
        spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767
        spec.ports[2].nodePort: Duplicate value: 30080
        spec.externalName: Required value
        spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for LoadBalancer services
        spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
        spec.sessionAffinity: Unsupported value: "Odd": supported values: "ClientIP", "None"
        spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
        metadata.name: Invalid value: "1a": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
    "#]].assert_eq(&out);
}

#[test]
fn a_service_keeps_what_was_given_out() {
    let old = json!({"spec": {
        "type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}],
    }});
    let kind = kind("services");
    let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
    (kind.strategy.prepare_update)(&mut new, &old);
    assert_eq!(new["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
    let mut moved = old.clone();
    moved["spec"]["clusterIP"] = json!("10.96.0.2");
    moved["spec"]["clusterIPs"] = json!(["10.96.0.2"]);
    assert_eq!(
        change("services", &old, &moved),
        "spec.clusterIPs[0]: Invalid value: \"10.96.0.2\": field is immutable\n"
    );
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com", "clusterIP": "10.96.0.1"}});
    assert_eq!(change("services", &old, &external), "");
}

#[test]
fn config_maps_and_secrets() {
    let mut out = faults(
        "configmaps",
        json!({"data": {"..": "", "a": ""}, "binaryData": {"a": "eA==", "b": "?"}}),
    );
    out += &faults("configmaps", json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}}));
    for (kind, data) in [
        ("kubernetes.io/tls", json!({})),
        ("kubernetes.io/service-account-token", json!({})),
        ("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "eA=="})),
        ("kubernetes.io/basic-auth", json!({})),
        ("kubernetes.io/ssh-auth", json!({})),
    ] {
        out += &faults("secrets", json!({"type": kind, "data": data}));
    }
    let fixed = json!({"immutable": true, "data": {"a": "eA=="}});
    out +=
        &change("secrets", &fixed, &json!({"immutable": true, "data": {"a": "eQ=="}, "type": "x"}));
    out += &change("configmaps", &fixed, &json!({"data": {"a": "eA=="}}));
    expect_test::expect![[r#"
        data[..]: Invalid value: "..": must not be '..'
        data[a]: Invalid value: "a": duplicate of key present in binaryData
        binaryData[b]: Invalid value: null: must be base64, with padding, of the standard alphabet
        []: Too long: may not be more than 1048576 bytes
        data[tls.crt]: Required value
        data[tls.key]: Required value
        metadata.annotations[kubernetes.io/service-account.name]: Required value
        data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": must be valid JSON
        data[username]: Required value
        data[password]: Required value
        data[ssh-privatekey]: Required value
        type: Invalid value: "x": field is immutable
        data: Forbidden: field is immutable when `immutable` is set
        immutable: Forbidden: field is immutable when `immutable` is set
    "#]]
    .assert_eq(&out);
}

#[test]
fn roles_and_bindings() {
    let mut out = faults(
        "roles",
        json!({"rules": [{}, {"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["a"]}]}),
    );
    assert_eq!(
        faults("clusterroles", json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
        ""
    );
    out += &faults("clusterroles", json!({"aggregationRule": {"clusterRoleSelectors": []}}));
    out += &faults(
        "rolebindings",
        json!({"roleRef": {"kind": "Odd", "name": "a/b"}, "subjects": [
            {"kind": "User", "name": ""}, {"kind": "ServiceAccount", "name": "s"}, {"kind": "Dog", "name": "d"},
        ]}),
    );
    out += &faults("clusterrolebindings", json!({"roleRef": {"kind": "Role", "name": ""}}));
    let to = |name: &str| json!({"roleRef": {"apiGroup": super::rbac::GROUP, "kind": "Role", "name": name}});
    out += &change("rolebindings", &to("a"), &to("b"));
    expect_test::expect![[r#"
        rules[0].verbs: Required value: verbs must contain at least one value
        rules[0].apiGroups: Required value: resource rules must supply at least one api group
        rules[0].resources: Required value: resource rules must supply at least one resource
        rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs
        rules[1].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs
        aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil
        roleRef.kind: Unsupported value: "Odd": supported values: "ClusterRole", "Role"
        roleRef.name: Invalid value: "a/b": may not contain '/'
        subjects[0].name: Required value
        subjects[1].namespace: Required value
        subjects[2].kind: Unsupported value: "Dog": supported values: "Group", "ServiceAccount", "User"
        roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
        roleRef.name: Required value
        roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: cannot change roleRef
    "#]].assert_eq(&out);
    assert_eq!(faults("roles", json!({"metadata": {"name": "system:a:b"}})), "");
}

#[test]
fn endpoints_and_slices() {
    let mut out = faults(
        "endpoints",
        json!({"subsets": [{}, {"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}], "ports": [{"port": 1}, {"port": 0, "name": "b"}]}]}),
    );
    out += &faults("endpointslices", json!({}));
    out += &faults(
        "endpointslices",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": []}, {"addresses": ["fd00::1", "x"]}],
        "ports": [{"port": 1}, {"port": 2}, {"name": "a", "protocol": "X"}]}),
    );
    let many: Vec<Value> = (0..1001).map(|_| json!({"addresses": ["10.0.0.1"]})).collect();
    out += &faults("endpointslices", json!({"addressType": "IPv4", "endpoints": many}));
    out +=
        &change("endpointslices", &json!({"addressType": "IPv4"}), &json!({"addressType": "IPv6"}));
    expect_test::expect![[r#"
        subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`
        subsets[1].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
        subsets[1].addresses[1].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        subsets[1].ports[0].name: Required value
        subsets[1].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive
        addressType: Required value
        endpoints[0].addresses: Required value: must contain at least 1 address
        endpoints[1].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address
        endpoints[1].addresses[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        ports[1].name: Duplicate value: ""
        ports[2].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"
        endpoints: Too many: 1001: must have at most 1000 items
        addressType: Invalid value: "IPv6": field is immutable
    "#]].assert_eq(&out);
}

#[test]
fn nodes_leases_budgets_and_reviews() {
    let mut out = faults(
        "nodes",
        json!({"spec": {"taints": [
        {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "-", "effect": "Odd"},
    ]}, "status": {"capacity": {"cpu": "-1", "memory": "x"}}}),
    );
    out += &faults(
        "leases",
        json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "x"}}),
    );
    out += &faults(
        "poddisruptionbudgets",
        json!({"spec": {"minAvailable": -1, "maxUnavailable": "101%"}}),
    );
    out += &faults("subjectaccessreviews", json!({"spec": {}}));
    out += &faults(
        "selfsubjectaccessreviews",
        json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": {}}}),
    );
    out += &faults(
        "localsubjectaccessreviews",
        json!({"spec": {"user": "u", "resourceAttributes": {"namespace": "x"}}}),
    );
    out += &faults(
        "namespaces",
        json!({"metadata": {"name": "a.b"}, "spec": {"finalizers": ["odd"]}}),
    );
    expect_test::expect![[r#"
        spec.taints[1]: Duplicate value: {"effect":"NoSchedule","key":"a"}: taints must be unique by key and effect pair
        spec.taints[2].key: Invalid value: "-": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        spec.taints[2].effect: Unsupported value: "Odd": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"
        status.capacity[cpu]: Invalid value: "-1": must be greater than or equal to 0
        status.capacity[memory]: Invalid value: "x": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
        status.allocatable[cpu]: Invalid value: "-1": must be greater than or equal to 0
        status.allocatable[memory]: Invalid value: "x": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
        spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
        spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0
        spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined
        spec: Invalid value: {"maxUnavailable":"101%","minAvailable":-1}: minAvailable and maxUnavailable cannot be both set
        spec.minAvailable: Invalid value: -1: must be greater than or equal to 0
        spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%
        spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified
        spec.user: Invalid value: "": at least one of user or group must be specified
        spec.nonResourceAttributes: Invalid value: {}: cannot be specified in combination with resourceAttributes
        spec.resourceAttributes.namespace: Invalid value: "x": must match metadata.namespace
        metadata.name: Invalid value: "a.b": must not contain dots
        spec.finalizers[0]: Invalid value: "odd": name is neither a standard finalizer name nor is it fully qualified
    "#]].assert_eq(&out);
}

#[test]
fn a_new_node_keeps_its_status_and_allocatable_follows_capacity() {
    let mut node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2000m"}}});
    (kind("nodes").strategy.default)(&mut node);
    (kind("nodes").strategy.prepare_create)(&mut node);
    assert_eq!(node["status"], json!({"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}));
}

#[test]
fn ip_families_follow_a_single_stack_cluster() {
    for (mut service, policy) in [
        (json!({"spec": {"selector": {"a": "b"}}}), json!("SingleStack")),
        (json!({"spec": {"selector": {"a": "b"}, "clusterIP": "None"}}), json!("SingleStack")),
        (json!({"spec": {"clusterIP": "None"}}), json!("RequireDualStack")),
        (json!({"spec": {"type": "ExternalName"}}), Value::Null),
    ] {
        super::service::default_ip_families(&mut service);
        assert_eq!(service["spec"]["ipFamilyPolicy"], policy, "{service}");
    }
}
