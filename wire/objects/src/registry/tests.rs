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
