//! What a pod finds in its folders and its environment, and how that follows the objects it comes from.

use kactor_tests::harness::kubectl::newest;

use super::{cluster, pod, reaches, ready};

const OBJECTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: swordfish}
---
"#;

const CONFIGURED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {tier: back}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  initContainers:
  - {name: first, image: busybox:latest, imagePullPolicy: Never, command: [sh, -c, "echo ready > /shared/flag"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: Never
    command: [sh, -c, "cat /shared/flag /settings/colour /keys/password /pod/labels /all/both/password /all/name; echo; echo $COLOUR-$POD-$LIMIT; test -s /all/token && stat -c %a /keys/..data/password; exit 3"]
    resources: {limits: {memory: 64Mi}}
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /settings}
    - {name: keys, mountPath: /keys, readOnly: true}
    - {name: pod, mountPath: /pod}
    - {name: all, mountPath: /all}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - {name: pod, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - name: all
    projected:
      sources:
      - {secret: {name: keys, items: [{key: password, path: both/password}]}}
      - {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
      - {serviceAccountToken: {path: token, audience: me}}
"#;

#[test]
fn a_pod_sees_its_volumes_and_environment_and_its_exit_code_is_kept() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    kubectl.give(&format!("{OBJECTS}{CONFIGURED}"));
    reaches(&kubectl, "configured", ".status.phase", |it| it == "Failed");
    let code =
        kubectl.field("pod/configured", ".status.containerStatuses[0].state.terminated.exitCode");
    assert_eq!(code, "3");
    let log = kubectl.ok(&["logs", "configured"]);
    let expected =
        "ready\nblueswordfishtier=\"back\"swordfishconfigured\nblue-configured-64\n400\n";
    assert_eq!(log, expected);
}

#[test]
fn files_follow_their_objects_and_a_host_folder_is_the_hosts() {
    let Some(cluster) = cluster() else { return };
    let Some(kubectl) = newest(&cluster) else { return };
    kubectl.give(OBJECTS);
    let host = cluster.folder().join("shared");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("from-host"), "hello").unwrap();
    let mounts = "volumeMounts: [{name: settings, mountPath: /settings}, {name: host, mountPath: /host}, \
                  {name: memory, mountPath: /memory}]";
    let volumes = format!(
        "volumes: [{{name: settings, configMap: {{name: settings}}}}, {{name: host, hostPath: {{path: '{}'}}}}, \
         {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}]",
        host.display()
    );
    kubectl.give(&pod("mounted", "exec sleep 100000", mounts, &volumes));
    ready(&kubectl, "mounted");
    let exec = |script: &str| kubectl.run(&["exec", "mounted", "--", "sh", "-c", script]);
    assert_eq!(exec("cat /host/from-host; echo back > /host/from-pod").stdout, "hello");
    assert_eq!(std::fs::read_to_string(host.join("from-pod")).unwrap(), "back\n");
    assert_ne!(exec("dd if=/dev/zero of=/memory/big bs=64k count=64").code, 0, "it is bounded");
    assert!(exec("grep ' /memory ' /proc/mounts").stdout.contains("tmpfs"));
    kubectl.ok(&["patch", "configmap", "settings", "-p", r#"{"data":{"colour":"green"}}"#]);
    kubectl.until(&["exec", "mounted", "--", "cat", "/settings/colour"], |it| it == "green");
    kubectl.ok(&["delete", "pod", "mounted"]);
    assert!(host.join("from-pod").exists(), "a host folder is never emptied");
}
