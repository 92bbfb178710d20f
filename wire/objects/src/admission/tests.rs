//! What admission adds to pods.

use super::*;

fn pod() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "initContainers": [{"name": "init"}],
            "containers": [
                {"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]},
                {"name": "b", "volumeMounts": [{"name": "own", "mountPath": TOKEN_PATH}]},
            ],
        },
    })
}

#[test]
fn the_token_is_mounted_where_nothing_is_and_the_volume_added_once() {
    let mut pod = pod();
    inject_service_account(&mut pod, &json!({"imagePullSecrets": [{"name": "reg"}]}), "abcde");
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["imagePullSecrets"], json!([{"name": "reg"}]));
    let mount = json!({"name": "kube-api-access-abcde", "mountPath": TOKEN_PATH, "readOnly": true});
    assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([mount]));
    assert_eq!(spec["containers"][0]["volumeMounts"][1], mount);
    assert_eq!(spec["containers"][1]["volumeMounts"].as_array().map(Vec::len), Some(1));
    expect_test::expect![[r#"
        [
          {
            "name": "kube-api-access-abcde",
            "projected": {
              "defaultMode": 420,
              "sources": [
                {
                  "serviceAccountToken": {
                    "expirationSeconds": 3607,
                    "path": "token"
                  }
                },
                {
                  "configMap": {
                    "items": [
                      {
                        "key": "ca.crt",
                        "path": "ca.crt"
                      }
                    ],
                    "name": "kube-root-ca.crt"
                  }
                },
                {
                  "downwardAPI": {
                    "items": [
                      {
                        "fieldRef": {
                          "apiVersion": "v1",
                          "fieldPath": "metadata.namespace"
                        },
                        "path": "namespace"
                      }
                    ]
                  }
                }
              ]
            }
          }
        ]"#]]
    .assert_eq(&serde_json::to_string_pretty(&spec["volumes"]).expect("json"));

    let before = pod.clone();
    inject_service_account(&mut pod, &json!({}), "zzzzz");
    assert_eq!(pod, before, "a second injection adds nothing");
}

#[test]
fn the_pods_wish_counts_before_the_accounts() {
    for (pod_wish, account_wish, mounted) in [
        (Value::Null, Value::Null, true),
        (Value::Null, json!(false), false),
        (json!(true), json!(false), true),
        (json!(false), json!(true), false),
    ] {
        let mut pod = pod();
        pod["spec"]["automountServiceAccountToken"] = pod_wish.clone();
        let account = json!({"automountServiceAccountToken": account_wish});
        inject_service_account(&mut pod, &account, "abcde");
        assert_eq!(
            !tree::list(&pod, "spec.volumes").is_empty(),
            mounted,
            "{pod_wish} {account_wish}"
        );
    }
}

#[test]
fn mirror_pods_get_no_account() {
    let mut pod = pod();
    meta::put_annotation(&mut pod, MIRROR_POD, "x");
    let before = pod.clone();
    inject_service_account(&mut pod, &json!({}), "abcde");
    assert_eq!(pod, before);
}

#[test]
fn tolerations_are_added_unless_the_pod_has_its_own() {
    let mut pod = json!({"spec": {"tolerations": [
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
    ]}});
    default_tolerations(&mut pod);
    let all = tree::list(&pod, "spec.tolerations");
    assert_eq!(all.len(), 2);
    assert_eq!(all[1]["key"], "node.kubernetes.io/unreachable");
    assert_eq!(all[1]["tolerationSeconds"], 300);
    let mut tolerant = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    default_tolerations(&mut tolerant);
    assert_eq!(tree::list(&tolerant, "spec.tolerations").len(), 1);
}

#[test]
fn priority_comes_from_the_class() {
    let mut pod = json!({"spec": {}});
    default_priority(&mut pod).expect("no class");
    assert_eq!(pod["spec"], json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
    let mut critical = json!({"spec": {"priorityClassName": "system-node-critical"}});
    default_priority(&mut critical).expect("built in");
    assert_eq!(critical["spec"]["priority"], 2_000_001_000);
    let mut unknown = json!({"spec": {"priorityClassName": "x"}});
    let why = default_priority(&mut unknown).expect_err("unknown");
    assert_eq!(why.to_string(), "no PriorityClass with name x was found");
}
