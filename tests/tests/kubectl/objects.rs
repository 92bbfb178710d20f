//! Writing objects: apply in both ways, patches, labels, conflicts, strict validation, finalizers, owners.

use kactor_tests::harness::kubectl::with_each;
use kactor_tests::{harness::Cluster, harness::Runtime};

const CONFIG: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {x: '1', k: '1'}\n";

#[test]
fn apply_creates_changes_and_prunes_fields_that_left_the_manifest() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        assert_eq!(kubectl.give(CONFIG).trim(), "configmap/c created");
        assert_eq!(kubectl.give(CONFIG).trim(), "configmap/c unchanged");
        let without_k = CONFIG.replace(", k: '1'", "");
        assert!(kubectl.ok_with(&["diff", "-f", "-"], CONFIG).is_empty());
        let diff = kubectl.run_with(&["diff", "-f", "-"], &without_k);
        assert_eq!(diff.code, 1, "{diff:?}");
        assert!(diff.stdout.lines().any(|it| it == "-  k: \"1\""), "{diff:?}");
        assert_eq!(kubectl.give(&without_k).trim(), "configmap/c configured");
        assert_eq!(kubectl.field("configmap/c", ".data"), r#"{"x":"1"}"#);
    });
}

#[test]
fn server_side_apply_keeps_owners_and_names_the_one_in_conflict() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        let apply = ["apply", "--server-side", "--field-manager=first", "-f", "-"];
        assert_eq!(kubectl.ok_with(&apply, CONFIG).trim(), "configmap/c serverside-applied");
        let other = ["apply", "--server-side", "--field-manager=second", "-f", "-"];
        let theirs = CONFIG.replace("x: '1', k: '1'", "x: '2'");
        let refused = kubectl.refused_with(&other, &theirs);
        assert!(refused.contains("conflict with \"first\": .data.x"), "{refused}");
        assert_eq!(kubectl.field("configmap/c", ".data.x"), "1");
        let forced =
            ["apply", "--server-side", "--force-conflicts", "--field-manager=second", "-f", "-"];
        kubectl.ok_with(&forced, &theirs);
        assert_eq!(kubectl.field("configmap/c", ".data"), r#"{"k":"1","x":"2"}"#);
        kubectl.ok_with(&apply, &CONFIG.replace("x: '1', k: '1'", "z: '1'"));
        assert_eq!(kubectl.field("configmap/c", ".data"), r#"{"x":"2","z":"1"}"#);
    });
}

#[test]
fn labels_annotations_and_the_three_patches_change_what_they_say() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.give(CONFIG);
        kubectl.ok(&["label", "configmap", "c", "tier=front"]);
        assert_eq!(
            kubectl.ok(&["get", "cm", "-l", "tier=front", "-o", "name"]).trim(),
            "configmap/c"
        );
        let again = kubectl.refused(&["label", "configmap", "c", "tier=back"]);
        assert!(again.contains("already has a value (front)"), "{again}");
        kubectl.ok(&["label", "configmap", "c", "tier-"]);
        assert!(kubectl.ok(&["get", "cm", "-l", "tier", "-o", "name"]).is_empty());
        kubectl.ok(&["annotate", "configmap", "c", "note=hello"]);
        assert_eq!(kubectl.field("configmap/c", ".metadata.annotations.note"), "hello");
        for (kind, patch, expected) in [
            ("merge", r#"{"data":{"x":"m","k":null}}"#, r#"{"x":"m"}"#),
            ("json", r#"[{"op":"add","path":"/data/j","value":"1"}]"#, r#"{"j":"1","x":"m"}"#),
            ("strategic", r#"{"data":{"j":null,"s":"1"}}"#, r#"{"s":"1","x":"m"}"#),
        ] {
            kubectl.ok(&["patch", "configmap", "c", "--type", kind, "-p", patch]);
            assert_eq!(kubectl.field("configmap/c", ".data"), expected, "{kind}");
        }
    });
}

#[test]
fn a_stale_resource_version_is_a_conflict_and_changes_nothing() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.give(CONFIG);
        let mut stale = kubectl.json(&["get", "configmap", "c"]);
        kubectl.ok(&["patch", "configmap", "c", "-p", r#"{"data":{"x":"new"}}"#]);
        stale["data"]["x"] = "old".into();
        let refused = kubectl.refused_with(&["replace", "-f", "-"], &stale.to_string());
        assert!(refused.contains("(Conflict)"), "{refused}");
        assert!(
            refused.contains("the object has been modified; please apply your changes"),
            "{refused}"
        );
        assert_eq!(kubectl.field("configmap/c", ".data.x"), "new");
    });
}

#[test]
fn unknown_fields_are_named_when_strict_and_warned_of_else() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        let wrong = CONFIG.replace("\ndata:", "\nnonsense: 1\ndata:");
        let strict = kubectl.refused_with(&["apply", "--validate=strict", "-f", "-"], &wrong);
        assert!(strict.contains("strict decoding error: unknown field \"nonsense\""), "{strict}");
        assert!(kubectl.refused(&["get", "configmap", "c"]).contains("not found"));
        let warned = kubectl.run_with(&["apply", "--validate=warn", "-f", "-"], &wrong);
        assert!(
            warned.is_ok() && warned.stderr.contains("Warning: unknown field \"nonsense\""),
            "{warned:?}"
        );
    });
}

#[test]
fn an_object_with_a_finalizer_waits_for_it() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        kubectl.give(&CONFIG.replace("{name: c}", "{name: c, finalizers: [example.com/hold]}"));
        kubectl.ok(&["delete", "configmap", "c", "--wait=false"]);
        assert!(!kubectl.field("configmap/c", ".metadata.deletionTimestamp").is_empty());
        let added = kubectl.refused(&[
            "patch",
            "configmap",
            "c",
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":["example.com/hold","example.com/more"]}}"#,
        ]);
        assert!(added.contains("no new finalizers can be added"), "{added}");
        kubectl.ok(&[
            "patch",
            "configmap",
            "c",
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ]);
        kubectl.until_refused(&["get", "configmap", "c"], "configmaps \"c\" not found");
    });
}

#[test]
fn what_an_object_owns_goes_with_it_unless_it_is_orphaned() {
    let cluster = Cluster::start(Runtime::None);
    with_each(&cluster, |kubectl| {
        for (flag, stays) in [("background", false), ("foreground", false), ("orphan", true)] {
            kubectl.ok(&["create", "configmap", "owner"]);
            let uid = kubectl.field("configmap/owner", ".metadata.uid");
            kubectl.give(&format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  ownerReferences:\n  \
                 - {{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}, blockOwnerDeletion: true}}\n"
            ));
            kubectl.ok(&["delete", "configmap", "owner", &format!("--cascade={flag}")]);
            if stays {
                let left = kubectl.until(
                    &["get", "configmap", "owned", "-o", "jsonpath={.metadata.ownerReferences}"],
                    str::is_empty,
                );
                assert_eq!(left, "");
            } else {
                kubectl.until_refused(&["get", "configmap", "owned"], "not found");
            }
        }
    });
}
