//! Namespace controller: what a terminating Namespace contains is deleted, then its finalizer is taken away.
//!
//! Follows kubernetes pkg/controller/namespace. It deletes and waits: the Namespace is finalized only at a view in
//! which nothing of it is left, and the API admits nothing new into a terminating Namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Condition, Meta, Namespace, Object};
use serde_json::{Value, json};

use crate::conditions::{self, WholeSeconds};
use crate::controller::{Controller, NoMemory, Pass};
use crate::owner;
use crate::plan::{Pace, Plan, Propagation, Request};

/// Most deletions of one pass; the next follows when they are seen.
const DELETES_PER_PASS_MAX: usize = 200;
const FINALIZER: &str = "kubernetes";

pub struct NamespaceController;

impl Controller for NamespaceController {
    const NAME: &'static str = "namespace-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        if let Some(Object::Namespace(namespace)) = changed.object() {
            return vec![namespace.meta.key.clone()];
        }
        let key = match changed.key.namespace() {
            "" => return Vec::new(),
            name => namespace_key(name),
        };
        let is_terminating = view.namespaces().get(&key).is_some_and(|it| it.meta.is_terminating());
        if is_terminating { vec![key] } else { Vec::new() }
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let Some(namespace) = pass.view.namespaces().get(pass.key) else {
            return plan;
        };
        if !namespace.meta.is_terminating() {
            return plan;
        }
        let contents: Vec<&Arc<Meta>> = pass
            .view
            .contents(namespace.meta.name())
            .filter(|it| !it.api_version.is_empty()) // the store's own keys are no objects
            .collect();
        plan.pace = Pace::Abreast;
        for object in contents.iter().filter(|it| !it.is_terminating()).take(DELETES_PER_PASS_MAX) {
            plan.delete_with(object, Some(Propagation::Background), None);
        }
        report(&mut plan, namespace, &contents, pass);
        if contents.is_empty() {
            finalize(&mut plan, namespace);
        }
        plan
    }
}

pub(crate) fn namespace_key(name: &str) -> Key {
    Key::new("", "namespaces", "", name).expect("the name of a namespace that is stored")
}

fn finalize(plan: &mut Plan, namespace: &Namespace) {
    let meta = &namespace.meta;
    if namespace.spec_finalizers.is_empty() {
        // All said and done; a second deletion removes what an earlier one had to leave.
        if meta.finalizers.is_empty() {
            plan.delete(meta);
        }
        return;
    }
    let left: Vec<&String> =
        namespace.spec_finalizers.iter().filter(|it| *it != FINALIZER).collect();
    if left.len() == namespace.spec_finalizers.len() {
        plan.trace(&meta.key, "FinalizersRemain", format!("{left:?} are for others to remove"));
        return;
    }
    let body = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": meta.name(),
            "uid": meta.uid.as_str(),
            "resourceVersion": meta.revision.to_string(),
            "labels": meta.labels,
            "annotations": meta.annotations,
            "finalizers": meta.finalizers,
            "ownerReferences": meta.owners.iter().map(owner::to_value).collect::<Vec<_>>(),
            "creationTimestamp": meta.created.to_string(),
            "deletionTimestamp": meta.deleting.map(|it| it.to_string()),
        },
        "spec": {"finalizers": left},
        "status": {"phase": "Terminating"},
    });
    // The status patch of the same pass would take the revision that this update assumes.
    plan.effects.retain(|it| it.key != meta.key);
    plan.add(meta.key.clone(), Request::Update { subresource: "finalize", body });
}

/// Phase and the two conditions that tell a waiting user what is left.
fn report(plan: &mut Plan, namespace: &Namespace, contents: &[&Arc<Meta>], pass: &Pass<'_>) {
    let mut by_resource: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_finalizer: BTreeMap<&str, usize> = BTreeMap::new();
    for object in contents {
        let (resource, group) = (object.key.resource(), object.key.group());
        let name =
            if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        *by_resource.entry(name).or_insert(0) += 1;
        for finalizer in &object.finalizers {
            *by_finalizer.entry(finalizer).or_insert(0) += 1;
        }
    }
    let some_content: Vec<String> = by_resource
        .iter()
        .map(|(resource, n)| format!("{resource} has {n} resource instances"))
        .collect();
    let some_finalizers: Vec<String> = by_finalizer
        .iter()
        .map(|(finalizer, n)| format!("{finalizer} in {n} resource instances"))
        .collect();
    let told = [
        condition(
            "NamespaceContentRemaining",
            ("SomeResourcesRemain", "ContentRemoved"),
            ("Some resources are remaining", "All content successfully removed"),
            &some_content,
        ),
        condition(
            "NamespaceFinalizersRemaining",
            ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
            (
                "Some content in the namespace has finalizers remaining",
                "All content-preserving finalizers finished",
            ),
            &some_finalizers,
        ),
    ];
    let mut all: Vec<Condition> = namespace.conditions.clone();
    for mut fresh in told {
        let before = Condition::find(&all, &fresh.kind);
        if before.is_some_and(|it| it.status == fresh.status && it.message == fresh.message) {
            continue;
        }
        let since = before.filter(|it| it.status == fresh.status).and_then(|it| it.last_transition);
        fresh.last_transition = since.or(Some(pass.now.whole_seconds()));
        all.retain(|it| it.kind != fresh.kind);
        all.push(fresh);
    }
    if all != namespace.conditions || namespace.phase != "Terminating" {
        let status = json!({"phase": "Terminating", "conditions": conditions::values(&all)});
        plan.patch_status(&namespace.meta, status);
    }
}

/// True with the first of each pair while something is left, else false with the second.
fn condition(kind: &str, reasons: (&str, &str), texts: (&str, &str), left: &[String]) -> Condition {
    let (status, reason, message) = if left.is_empty() {
        ("False", reasons.1, texts.1.to_owned())
    } else {
        ("True", reasons.0, format!("{}: {}", texts.0, left.join(", ")))
    };
    Condition {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition: None,
        last_update: None,
        last_heartbeat: None,
    }
}

/// An object that every Namespace which is not terminating should have.
pub(crate) fn is_open(namespace: &Namespace) -> bool {
    !namespace.meta.is_terminating() && namespace.phase != "Terminating"
}

/// The namespace's name, as JSON.
pub(crate) fn metadata(namespace: &Namespace, name: &str) -> Value {
    json!({"name": name, "namespace": namespace.meta.name()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(cluster: &str, expect: Expect) {
        expect.assert_eq(&testing::plan(&NamespaceController, cluster, 50).to_string());
    }

    #[test]
    fn contents_are_deleted_once_and_waited_for() {
        check(
            "
ns/shop        deleting=10 phase=Terminating  <- subject
pod/shop/a     deleting=10 finalizer=example.com/hold
cm/shop/b
deploy/shop/c
cm/other/d
alloc/shop/x   .apiVersion=null
",
            expect![[r#"
                delete cm/shop/b Background
                delete deploy/shop/c Background
                status ns/shop {"conditions":[{"lastTransitionTime":"1970-01-01T00:00:50Z","message":"Some resources are remaining: configmaps has 1 resource instances, deployments.apps has 1 resource instances, pods has 1 resource instances","reason":"SomeResourcesRemain","status":"True","type":"NamespaceContentRemaining"},{"lastTransitionTime":"1970-01-01T00:00:50Z","message":"Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances","reason":"SomeFinalizersRemain","status":"True","type":"NamespaceFinalizersRemaining"}],"phase":"Terminating"}
            "#]],
        );
    }

    #[test]
    fn an_empty_namespace_is_finalized_and_keeps_its_labels() {
        let cluster = "ns/shop deleting=10 phase=Terminating labels=team:a <- subject";
        let plan = testing::plan(&NamespaceController, cluster, 50);
        let [effect] = &plan.effects[..] else { panic!("{plan}") };
        let Request::Update { subresource: "finalize", body } = &effect.request else {
            panic!("{plan}")
        };
        assert_eq!(body["spec"]["finalizers"], json!([]));
        assert_eq!(body["metadata"]["labels"]["team"], "a");
    }

    #[test]
    fn others_finalizers_are_waited_for() {
        check(
            r#"ns/shop deleting=10 phase=Terminating .spec.finalizers=["example.com/x"] .status.conditions=[{"type":"NamespaceContentRemaining","status":"False","message":"All\u0020content\u0020successfully\u0020removed"},{"type":"NamespaceFinalizersRemaining","status":"False","message":"All\u0020content-preserving\u0020finalizers\u0020finished"}] <- subject"#,
            expect![[r#"
                note ns/shop FinalizersRemain: ["example.com/x"] are for others to remove
            "#]],
        );
    }

    #[test]
    fn a_living_namespace_is_left_alone() {
        check("ns/shop <- subject\npod/shop/a", expect![""]);
    }

    #[test]
    fn contents_wake_their_namespace_only_while_it_ends() {
        let mut world = kactor_view::fixture::parse("ns/shop deleting=1\nns/open");
        let gone = world.line("pod/shop/a");
        assert_eq!(NamespaceController.wakes(&gone, world.view()), [namespace_key("shop")]);
        let other = world.line("pod/open/a");
        assert!(NamespaceController.wakes(&other, world.view()).is_empty());
    }
}
