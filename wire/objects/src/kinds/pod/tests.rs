//! Pods: defaults, checks, what may change, quality of service.

use super::*;
use crate::field_error::FieldError;

fn printed(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn minimal() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "web:v1"}]}})
}

fn defaulted(mut pod: Value) -> Value {
    default::pod(&mut pod);
    pod
}

/// A valid pod with one change, and what validation says.
fn fault(path: &str, value: Value) -> String {
    let mut pod = defaulted(minimal());
    let spec = pod.pointer_mut("/spec").expect("spec");
    match path.strip_prefix("c.") {
        Some(path) => tree::put(&mut spec["containers"][0], path, value),
        None => tree::put(spec, path, value),
    }
    printed(&validate::pod(&defaulted(pod)))
}

#[test]
fn a_minimal_pod_gets_every_default() {
    expect_test::expect![[r#"
        {
          "metadata": {
            "name": "web"
          },
          "spec": {
            "containers": [
              {
                "image": "web:v1",
                "imagePullPolicy": "IfNotPresent",
                "name": "web",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "terminationGracePeriodSeconds": 30
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&defaulted(minimal())).expect("json"));
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("web:v1", "IfNotPresent"),
        ("reg:5000/web", "Always"),
        ("reg:5000/web:v1", "IfNotPresent"),
        ("web@sha256:aa", "IfNotPresent"),
        ("web:latest@sha256:aa", "IfNotPresent"),
    ] {
        let mut pod = minimal();
        pod["spec"]["containers"][0]["image"] = json!(image);
        assert_eq!(defaulted(pod)["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn probes_volumes_and_resources_are_filled_in() {
    let pod = defaulted(json!({"spec": {
        "hostNetwork": true,
        "serviceAccountName": "robot",
        "containers": [{
            "name": "a", "image": "a:1",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1000m", "memory": "1.5Gi"}, "requests": {"cpu": 0.1}},
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 81}, "periodSeconds": 5},
            "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        }],
        "volumes": [
            {"name": "e"},
            {"name": "s", "secret": {"secretName": "s"}},
            {"name": "h", "hostPath": {"path": "/x"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ],
    }}));
    expect_test::expect![[r#"
        {
          "spec": {
            "containers": [
              {
                "env": [
                  {
                    "name": "X",
                    "valueFrom": {
                      "fieldRef": {
                        "apiVersion": "v1",
                        "fieldPath": "metadata.name"
                      }
                    }
                  }
                ],
                "image": "a:1",
                "imagePullPolicy": "IfNotPresent",
                "livenessProbe": {
                  "failureThreshold": 3,
                  "httpGet": {
                    "path": "/",
                    "port": 80,
                    "scheme": "HTTP"
                  },
                  "periodSeconds": 10,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "name": "a",
                "ports": [
                  {
                    "containerPort": 80,
                    "hostPort": 80,
                    "protocol": "TCP"
                  }
                ],
                "readinessProbe": {
                  "failureThreshold": 3,
                  "grpc": {
                    "port": 81,
                    "service": ""
                  },
                  "periodSeconds": 5,
                  "successThreshold": 1,
                  "timeoutSeconds": 1
                },
                "resources": {
                  "limits": {
                    "cpu": "1",
                    "memory": "1536Mi"
                  },
                  "requests": {
                    "cpu": "100m",
                    "memory": "1536Mi"
                  }
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "hostNetwork": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "robot",
            "serviceAccountName": "robot",
            "terminationGracePeriodSeconds": 30,
            "volumes": [
              {
                "emptyDir": {},
                "name": "e"
              },
              {
                "name": "s",
                "secret": {
                  "defaultMode": 420,
                  "secretName": "s"
                }
              },
              {
                "hostPath": {
                  "path": "/x",
                  "type": ""
                },
                "name": "h"
              },
              {
                "name": "p",
                "projected": {
                  "defaultMode": 420,
                  "sources": [
                    {
                      "serviceAccountToken": {
                        "expirationSeconds": 3600,
                        "path": "token"
                      }
                    }
                  ]
                }
              }
            ]
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&pod).expect("json"));
}

#[test]
fn each_fault_of_a_pod_is_named() {
    let cases = [
        ("containers", json!([])),
        ("restartPolicy", json!("Sometimes")),
        ("dnsPolicy", json!("None")),
        ("activeDeadlineSeconds", json!(0)),
        ("terminationGracePeriodSeconds", json!(-1)),
        ("nodeSelector", json!({"a/b/c": "x"})),
        ("hostname", json!("a.b")),
        (
            "tolerations",
            json!([{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "x", "tolerationSeconds": 1}]),
        ),
        (
            "initContainers",
            json!([{"name": "web", "image": "x:1", "readinessProbe": {"exec": {"command": ["a"]}}}]),
        ),
        (
            "volumes",
            json!([{"name": "v"}, {"name": "v", "hostPath": {"path": "/a/../b"}, "secret": {"secretName": "x"}}]),
        ),
        (
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
        ),
        ("topologySpreadConstraints", json!([{"maxSkew": 0, "whenUnsatisfiable": "Maybe"}])),
        ("c.name", json!("Bad")),
        ("c.image", json!("")),
        ("c.image", json!(" x")),
        ("c.imagePullPolicy", json!("Often")),
        (
            "c.ports",
            json!([{"containerPort": 70000, "name": "a"}, {"containerPort": 1, "name": "a", "protocol": "ICMP"}]),
        ),
        (
            "c.ports",
            json!([{"containerPort": 1, "hostPort": 8}, {"containerPort": 2, "hostPort": 8}]),
        ),
        (
            "c.env",
            json!([{"name": "a=b"}, {"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": ".."}}}]),
        ),
        ("c.envFrom", json!([{}, {"secretRef": {}}])),
        (
            "c.volumeMounts",
            json!([{"name": "none", "mountPath": "/a"}, {"name": "none", "mountPath": "/a", "subPath": "../x"}]),
        ),
        ("c.resources", json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
        (
            "c.resources",
            json!({"requests": {"cpu": "x", "memory": "-1", "odd": "1", "a.b/gpu": "1"}}),
        ),
        (
            "c.livenessProbe",
            json!({"successThreshold": 2, "exec": {"command": []}, "tcpSocket": {"port": 0}}),
        ),
        ("c.lifecycle", json!({"preStop": {}})),
    ];
    let mut out = String::new();
    for (path, value) in cases {
        let faults = fault(path, value.clone());
        assert!(!faults.is_empty(), "{path} {value}");
        out.push_str(&format!("{path} = {value}\n  {}\n", faults.replace('\n', "\n  ")));
    }
    assert_eq!(printed(&validate::pod(&defaulted(minimal()))), "", "the base is valid");
    expect_test::expect![[r#"
        containers = []
          spec.containers: Required value
        restartPolicy = "Sometimes"
          spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"
        dnsPolicy = "None"
          spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None
        activeDeadlineSeconds = 0
          spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
        terminationGracePeriodSeconds = -1
          spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0
        nodeSelector = {"a/b/c":"x"}
          spec.nodeSelector: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
        hostname = "a.b"
          spec.hostname: Invalid value: "a.b": must not contain dots
        tolerations = [{"operator":"Equal"},{"key":"a","operator":"Exists","tolerationSeconds":1,"value":"x"}]
          spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
          spec.tolerations[1].effect: Invalid value: "": effect must be 'NoExecute' when `tolerationSeconds` is set
          spec.tolerations[1].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'
        initContainers = [{"image":"x:1","name":"web","readinessProbe":{"exec":{"command":["a"]}}}]
          spec.initContainers[0].name: Duplicate value: "web"
          spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
        volumes = [{"name":"v"},{"hostPath":{"path":"/a/../b"},"name":"v","secret":{"secretName":"x"}}]
          spec.volumes[1].name: Duplicate value: "v"
          spec.volumes[1].hostPath.path: Invalid value: "/a/../b": must not contain '..'
          spec.volumes[1].secret: Forbidden: may not specify more than 1 volume type
        affinity = {"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[]}}}
          spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term
        topologySpreadConstraints = [{"maxSkew":0,"whenUnsatisfiable":"Maybe"}]
          spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
          spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty
          spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Maybe": supported values: "DoNotSchedule", "ScheduleAnyway"
        c.name = "Bad"
          spec.containers[0].name: Invalid value: "Bad": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        c.image = ""
          spec.containers[0].image: Required value
        c.image = " x"
          spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace
        c.imagePullPolicy = "Often"
          spec.containers[0].imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"
        c.ports = [{"containerPort":70000,"name":"a"},{"containerPort":1,"name":"a","protocol":"ICMP"}]
          spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
          spec.containers[0].ports[1].name: Duplicate value: "a"
          spec.containers[0].ports[1].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
        c.ports = [{"containerPort":1,"hostPort":8},{"containerPort":2,"hostPort":8}]
          spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//8"
        c.env = [{"name":"a=b"},{"name":"A","value":"x","valueFrom":{"secretKeyRef":{"key":"..","name":"s"}}}]
          spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='
          spec.containers[0].env[1].valueFrom: Invalid value: "": may not be specified when `value` is not empty
          spec.containers[0].env[1].valueFrom.secretKeyRef.key: Invalid value: "..": must not be '..'
        c.envFrom = [{},{"secretRef":{}}]
          spec.containers[0].envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
          spec.containers[0].envFrom[1].secretRef.name: Required value
        c.volumeMounts = [{"mountPath":"/a","name":"none"},{"mountPath":"/a","name":"none","subPath":"../x"}]
          spec.containers[0].volumeMounts[0].name: Not found: "none"
          spec.containers[0].volumeMounts[1].name: Not found: "none"
          spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique
          spec.containers[0].volumeMounts[1].subPath: Invalid value: "../x": must not contain '..'
        c.resources = {"limits":{"cpu":"1"},"requests":{"cpu":"2"}}
          spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
        c.resources = {"requests":{"a.b/gpu":"1","cpu":"x","memory":"-1","odd":"1"}}
          spec.containers[0].resources.requests[cpu]: Invalid value: "x": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
          spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0
          spec.containers[0].resources.requests[odd]: Invalid value: "odd": must be a standard resource for containers
          spec.containers[0].resources.requests[a.b/gpu]: Required value: Limit must be set for non overcommitable resources
        c.livenessProbe = {"exec":{"command":[]},"successThreshold":2,"tcpSocket":{"port":0}}
          spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
          spec.containers[0].livenessProbe.exec.command: Required value
          spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
        c.lifecycle = {"preStop":{}}
          spec.containers[0].lifecycle.preStop: Required value: must specify a handler type
    "#]].assert_eq(&out);
}

#[test]
fn only_a_few_fields_of_a_pod_may_change() {
    let old = defaulted(minimal());
    let change = |path: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        printed(&update::validate(&new, &old))
    };
    assert_eq!(change("/spec/containers/0/image", json!("web:v2")), "");
    assert!(
        change("/spec/containers/0/name", json!("other"))
            .contains("pod updates may not change fields")
    );
    assert!(change("/spec/restartPolicy", json!("Never")).ends_with("changed: restartPolicy"));
    assert_eq!(
        change("/spec/containers", json!([])),
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    );
    let mut tolerant = old.clone();
    tolerant["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    assert_eq!(printed(&update::validate(&tolerant, &old)), "", "tolerations may be added");
    assert!(
        printed(&update::validate(&old, &tolerant))
            .contains("existing toleration can not be modified")
    );
    let mut due = old.clone();
    due["spec"]["activeDeadlineSeconds"] = json!(10);
    assert_eq!(printed(&update::validate(&due, &old)), "");
    assert_eq!(
        printed(&update::validate(&old, &due)),
        "spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"
    );
}

#[test]
fn a_container_that_ended_for_good_stays_ended() {
    let with = |policy: &str, state: Value| {
        json!({
            "spec": {"restartPolicy": policy},
            "status": {"containerStatuses": [{"name": "c", "state": state}]},
        })
    };
    let (ok, failed, running) = (
        json!({"terminated": {"exitCode": 0}}),
        json!({"terminated": {"exitCode": 1}}),
        json!({"running": {}}),
    );
    for (policy, from, allowed) in [
        ("Never", &ok, false),
        ("Never", &failed, false),
        ("OnFailure", &failed, true),
        ("OnFailure", &ok, false),
        ("Always", &ok, true),
    ] {
        let errors =
            update::validate_status(&with(policy, running.clone()), &with(policy, from.clone()));
        assert_eq!(errors.is_empty(), allowed, "{policy} {from}");
    }
}

#[test]
fn ephemeral_containers_are_only_ever_added() {
    let old = defaulted(minimal());
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox:1"}]);
    new["spec"]["containers"][0]["image"] = json!("sneaky:1");
    default::pod(&mut new);
    (EPHEMERAL_CONTAINERS.prepare)(&mut new, &old);
    assert_eq!(new["spec"]["containers"], old["spec"]["containers"], "nothing else changes");
    assert_eq!(printed(&(EPHEMERAL_CONTAINERS.validate)(&new, &old)), "");
    assert!(
        printed(&(EPHEMERAL_CONTAINERS.validate)(&old, &new))
            .contains("\"debug\" may not be removed")
    );
}

#[test]
fn resizing_changes_resources_and_not_the_class() {
    let mut old = minimal();
    old["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    let old = defaulted(old);
    let mut new = old.clone();
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2");
    new["spec"]["nodeName"] = json!("n");
    (RESIZE.prepare)(&mut new, &old);
    assert_eq!(new["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    assert!(new["spec"].get("nodeName").is_none());
    assert_eq!(printed(&(RESIZE.validate)(&new, &old)), "");
    new["spec"]["containers"][0]["resources"] = json!({});
    assert!(printed(&(RESIZE.validate)(&new, &old)).contains("Pod QOS Class may not change"));
}

#[test]
fn the_quality_of_service_follows_requests_and_limits() {
    let both = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1024Mi"}});
    for (resources, class) in [
        (vec![json!({})], "BestEffort"),
        (vec![json!({"requests": {"ephemeral-storage": "1Gi"}})], "BestEffort"),
        (vec![json!({"requests": {"cpu": "1"}})], "Burstable"),
        (vec![both.clone()], "Guaranteed"),
        (vec![both.clone(), json!({})], "Burstable"),
        (
            vec![
                both,
                json!({"limits": {"cpu": "1", "memory": "1"}, "requests": {"cpu": "1", "memory": "2"}}),
            ],
            "Burstable",
        ),
    ] {
        let containers: Vec<Value> = resources.iter().map(|it| json!({"resources": it})).collect();
        assert_eq!(qos_class(&json!({"spec": {"containers": containers}})), class, "{resources:?}");
    }
}

#[test]
fn the_grace_period_is_nothing_when_nothing_runs() {
    let pod = |node: &str, phase: &str| {
        json!({
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase},
        })
    };
    for (pod, asked, seconds) in [
        (pod("n", "Running"), None, 30),
        (pod("n", "Running"), Some(5), 5),
        (pod("n", "Running"), Some(0), 0),
        (pod("n", "Running"), Some(-7), 1),
        (pod("", "Pending"), Some(5), 0),
        (pod("n", "Succeeded"), None, 0),
    ] {
        assert_eq!(grace_period_seconds(&pod, asked), seconds, "{pod} {asked:?}");
    }
}

#[test]
fn a_created_pod_is_pending_and_a_gated_one_says_why() {
    let mut pod = defaulted(minimal());
    pod["status"] = json!({"phase": "Running"});
    prepare_create(&mut pod);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    pod["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    prepare_create(&mut pod);
    assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
}
