//! The rows agree with discovery's facts and with themselves.

use super::*;

#[test]
fn rows_are_what_discovery_says() {
    let mut out = String::new();
    for it in registry().iter() {
        let verbs: Vec<&str> = it.verbs.iter().map(|it| it.as_str()).collect();
        out.push_str(&format!(
            "{} {} {} {:?} {:?} {:?} [{}]\n",
            it.api_version(),
            it.resource,
            it.kind,
            it.scope,
            it.short_names,
            it.categories,
            verbs.join(",")
        ));
        for sub in it.subresources {
            let verbs: Vec<&str> = sub.verbs.iter().map(|it| it.as_str()).collect();
            out.push_str(&format!(
                "    {} {}/{} {} [{}]\n",
                sub.name,
                sub.group,
                sub.version,
                sub.kind,
                verbs.join(",")
            ));
        }
    }
    expect_test::expect![[r#"
        v1 bindings Binding Namespaced [] [] [create]
        v1 configmaps ConfigMap Namespaced ["cm"] [] [create,delete,deletecollection,get,list,patch,update,watch]
        v1 endpoints Endpoints Namespaced ["ep"] [] [create,delete,deletecollection,get,list,patch,update,watch]
        v1 events Event Namespaced ["ev"] [] [create,delete,deletecollection,get,list,patch,update,watch]
        v1 namespaces Namespace Cluster ["ns"] [] [create,delete,get,list,patch,update,watch]
            finalize /v1 Namespace [update]
            status /v1 Namespace [get,patch,update]
        v1 nodes Node Cluster ["no"] [] [create,delete,deletecollection,get,list,patch,update,watch]
            proxy /v1 NodeProxyOptions [create,delete,get,patch,update]
            status /v1 Node [get,patch,update]
        v1 pods Pod Namespaced ["po"] ["all"] [create,delete,deletecollection,get,list,patch,update,watch]
            attach /v1 PodAttachOptions [create,get]
            binding /v1 Binding [create]
            ephemeralcontainers /v1 Pod [get,patch,update]
            eviction policy/v1 Eviction [create]
            exec /v1 PodExecOptions [create,get]
            log /v1 Pod [get]
            portforward /v1 PodPortForwardOptions [create,get]
            resize /v1 Pod [get,patch,update]
            status /v1 Pod [get,patch,update]
        v1 secrets Secret Namespaced [] [] [create,delete,deletecollection,get,list,patch,update,watch]
        v1 serviceaccounts ServiceAccount Namespaced ["sa"] [] [create,delete,deletecollection,get,list,patch,update,watch]
            token authentication.k8s.io/v1 TokenRequest [create]
        v1 services Service Namespaced ["svc"] ["all"] [create,delete,deletecollection,get,list,patch,update,watch]
            status /v1 Service [get,patch,update]
        apps/v1 deployments Deployment Namespaced ["deploy"] ["all"] [create,delete,deletecollection,get,list,patch,update,watch]
            scale autoscaling/v1 Scale [get,patch,update]
            status apps/v1 Deployment [get,patch,update]
        apps/v1 replicasets ReplicaSet Namespaced ["rs"] ["all"] [create,delete,deletecollection,get,list,patch,update,watch]
            scale autoscaling/v1 Scale [get,patch,update]
            status apps/v1 ReplicaSet [get,patch,update]
        authentication.k8s.io/v1 selfsubjectreviews SelfSubjectReview Cluster [] [] [create]
        authentication.k8s.io/v1 tokenreviews TokenReview Cluster [] [] [create]
        authorization.k8s.io/v1 localsubjectaccessreviews LocalSubjectAccessReview Namespaced [] [] [create]
        authorization.k8s.io/v1 selfsubjectaccessreviews SelfSubjectAccessReview Cluster [] [] [create]
        authorization.k8s.io/v1 selfsubjectrulesreviews SelfSubjectRulesReview Cluster [] [] [create]
        authorization.k8s.io/v1 subjectaccessreviews SubjectAccessReview Cluster [] [] [create]
        apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition Cluster ["crd", "crds"] ["api-extensions"] [get,list,watch]
        coordination.k8s.io/v1 leases Lease Namespaced [] [] [create,delete,deletecollection,get,list,patch,update,watch]
        discovery.k8s.io/v1 endpointslices EndpointSlice Namespaced [] [] [create,delete,deletecollection,get,list,patch,update,watch]
        events.k8s.io/v1 events Event Namespaced ["ev"] [] [create,delete,deletecollection,get,list,patch,update,watch]
        policy/v1 poddisruptionbudgets PodDisruptionBudget Namespaced ["pdb"] [] [create,delete,deletecollection,get,list,patch,update,watch]
            status policy/v1 PodDisruptionBudget [get,patch,update]
        rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding Cluster [] [] [create,delete,deletecollection,get,list,patch,update,watch]
        rbac.authorization.k8s.io/v1 clusterroles ClusterRole Cluster [] [] [create,delete,deletecollection,get,list,patch,update,watch]
        rbac.authorization.k8s.io/v1 rolebindings RoleBinding Namespaced [] [] [create,delete,deletecollection,get,list,patch,update,watch]
        rbac.authorization.k8s.io/v1 roles Role Namespaced [] [] [create,delete,deletecollection,get,list,patch,update,watch]
    "#]].assert_eq(&out);
}

#[test]
fn every_row_is_found_by_resource_and_by_kind() {
    for it in registry().iter() {
        assert!(std::ptr::eq(
            registry().by_resource(it.group, it.version, it.resource).expect("by resource"),
            it
        ));
        assert!(std::ptr::eq(
            registry().by_api_version(&it.api_version(), it.kind).expect("by kind"),
            it
        ));
        assert_eq!(it.singular, it.kind.to_lowercase());
    }
    assert!(registry().by_resource("apps", "v1", "daemonsets").is_none(), "not served yet");
    assert!(registry().by_resource("", "v2", "pods").is_none());
}

#[test]
fn cells_and_columns_agree_for_an_empty_object_of_every_kind() {
    for it in registry().iter() {
        let cells = (it.printer.cells)(&serde_json::json!({}), kactor_protocol::Timestamp::EPOCH);
        assert_eq!(cells.len(), it.printer.columns.len(), "{}", it.kind);
    }
}

#[test]
fn defaulting_any_kind_twice_changes_nothing_more() {
    for it in registry().iter() {
        let mut once = serde_json::json!({"metadata": {"name": "a"}, "spec": {}, "roleRef": {}});
        (it.strategy.default)(&mut once);
        let mut twice = once.clone();
        (it.strategy.default)(&mut twice);
        assert_eq!(once, twice, "{}", it.kind);
    }
}

#[test]
fn names_of_subresources_are_unique() {
    for it in registry().iter() {
        let mut names: Vec<&str> = it.subresources.iter().map(|it| it.name).collect();
        names.sort_unstable();
        let n_names = names.len();
        names.dedup();
        assert_eq!(names.len(), n_names, "{}", it.kind);
    }
}

/// One object of each kind with every field set, from upstream's tree (testdata/NOTICE).
fn samples() -> Vec<(&'static Kind, serde_json::Value)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the testdata folder") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_some_and(|it| it == "json") {
            let bytes = std::fs::read(&path).expect("a readable file");
            let object: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            let (version, kind) = (crate::meta::api_version(&object), crate::meta::kind(&object));
            found.push((registry().by_api_version(version, kind).expect(kind), object));
        }
    }
    found.sort_by_key(|(kind, _)| (kind.group, kind.resource));
    found
}

#[test]
fn there_is_a_sample_of_every_stored_kind_that_can_be_made() {
    let samples = samples();
    let stored = registry().iter().filter(|it| it.stored().is_some());
    for it in stored.filter(|it| it.allows(Verb::Create)) {
        assert!(samples.iter().any(|(kind, _)| std::ptr::eq(*kind, it)), "{}", it.kind);
    }
}

#[test]
fn full_objects_go_through_every_function_and_defaults_keep_what_is_set() {
    for (kind, object) in samples() {
        let mut defaulted = object.clone();
        (kind.strategy.default)(&mut defaulted);
        assert_kept(&object, &defaulted, kind.kind);
        let mut created = defaulted.clone();
        (kind.strategy.prepare_create)(&mut created);
        (kind.strategy.validate)(&created);
        (kind.strategy.validate_update)(&created, &defaulted);
        for sub in kind.subresources {
            if let Access::Object(strategy) = sub.access {
                let mut new = defaulted.clone();
                (strategy.prepare)(&mut new, &created);
                (strategy.validate)(&new, &created);
            }
        }
        let now = kactor_protocol::Timestamp::from_seconds(1_800_000_000);
        assert_eq!((kind.printer.cells)(&object, now).len(), kind.printer.columns.len());
        if let Some(stored) = kind.stored() {
            let there = (stored.to_storage)(object.clone());
            assert_eq!(crate::meta::api_version(&there), stored.api_version);
            assert_eq!((stored.from_storage)(there), object, "{}", kind.kind);
        }
    }
}

/// What the client set is still there; quantities and fields that stand for another are left out.
fn assert_kept(before: &serde_json::Value, after: &serde_json::Value, at: &str) {
    use serde_json::Value;
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "stringData" | "serviceAccount"))
            {
                let kept = after.get(key);
                assert!(kept.is_some(), "{at}.{key} was dropped");
                assert_kept(value, kept.unwrap_or(value), &format!("{at}.{key}"));
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len(), "{at}");
            before.iter().zip(after).for_each(|(before, after)| assert_kept(before, after, at));
        }
        (before, after) => assert_eq!(before, after, "{at}"),
    }
}
