//! What the committed facts say, where a wrong extraction would hurt most.

use super::*;

fn deployment() -> &'static Schema {
    Schema::of("apps", "v1", "Deployment").expect("a built-in kind")
}

#[test]
fn fields_are_found_by_path_through_lists() {
    for (path, go_type) in [
        ("spec.replicas", "int32"),
        ("spec.template.spec.containers", "[]v1.Container"),
        ("spec.template.spec.containers.image", "string"),
        ("spec.template.spec.containers.resources.limits", "map[string]resource.Quantity"),
        ("spec.strategy.rollingUpdate.maxSurge", "intstr.IntOrString"),
        ("metadata.creationTimestamp", "v1.Time"),
        ("metadata.labels.anything", "string"),
    ] {
        let node = deployment().at(path).unwrap_or_else(|| panic!("{path} is a field"));
        assert_eq!(node.go_type(), go_type, "{path}");
    }
    assert!(deployment().at("spec.replica").is_none());
    assert!(deployment().at("spec.replicas.deeper").is_none());
}

#[test]
fn list_types_and_keys_are_those_of_the_api() {
    let list = |path| deployment().at(path).and_then(Node::list).expect("a list");
    let ports = list("spec.template.spec.containers.ports");
    assert_eq!(ports.list_type, ListType::Map);
    assert_eq!(
        ports.keys.iter().map(|key| &**key).collect::<Vec<_>>(),
        ["containerPort", "protocol"]
    );
    assert_eq!(list("metadata.finalizers").list_type, ListType::Set);
    assert_eq!(list("spec.template.spec.containers.command").list_type, ListType::Atomic);
}

#[test]
fn patch_strategies_are_those_of_the_api() {
    let Some(Shape::Struct(spec)) = deployment().at("spec.template.spec").map(Node::shape) else {
        panic!("a pod spec is a struct");
    };
    let containers = spec.field("containers").expect("a field");
    assert!(containers.strategy().merge && containers.required());
    assert_eq!(containers.merge_key(), Some("name"));
    let volumes = spec.field("volumes").expect("a field");
    assert!(volumes.strategy().merge && volumes.strategy().retain_keys);
    assert!(!spec.field("tolerations").expect("a field").strategy().merge);
}

#[test]
fn atomic_maps_and_structs_are_marked() {
    assert!(deployment().at("spec.selector").is_some_and(Node::is_atomic));
    assert!(deployment().at("spec.template.spec.nodeSelector").is_some_and(Node::is_atomic));
    assert!(!deployment().at("metadata.labels").is_some_and(Node::is_atomic));
    let volume = Schema::of("", "v1", "PersistentVolume").expect("a built-in kind");
    assert!(!volume.at("spec.claimRef").is_some_and(Node::is_atomic), "granular wins");
}

#[test]
fn kinds_that_do_not_exist_have_no_schema() {
    assert!(Schema::of("apps", "v1", "Pod").is_none());
    assert!(Schema::of("", "v1", "PodList").is_some());
    assert_eq!(deployment().api_version(), "apps/v1");
}
