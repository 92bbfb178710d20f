//! Who may do what: policy through the API, escalation, impersonation, nodes, tokens, and Secrets at rest.

use kactor_protocol::store::Key;
use serde_json::{Value, json};

use super::world::{World, names, pod};
use crate::{Attributes, Operation, Resource, User};

fn role(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"metadata": {"name": "r"}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": resources}]})
}

fn binding(role: &str, user: &str) -> Value {
    json!({"metadata": {"name": format!("{role}-{user}")},
           "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
           "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]})
}

#[tokio::test]
async fn a_refusal_reads_as_in_kubernetes_and_a_binding_lifts_it_at_once() {
    let world = World::new().await;
    let jane = User::authenticated("jane", &[]);
    let status = world.as_user(&jane, Operation::List, "pods", None).await.unwrap_err();
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            403,
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
        )
    );
    world.create("roles", role(&["list"], &["pods"])).await.unwrap();
    world.create("rolebindings", binding("r", "jane")).await.unwrap();
    assert_eq!(names(&world.as_user(&jane, Operation::List, "pods", None).await.unwrap()), [""; 0]);
    assert_eq!(world.as_user(&jane, Operation::Get, "pods/a", None).await.unwrap_err().code, 403);
    world.delete("rolebindings/r-jane", json!({})).await.unwrap();
    assert_eq!(world.as_user(&jane, Operation::List, "pods", None).await.unwrap_err().code, 403);
}

#[tokio::test]
async fn default_roles_let_everybody_see_discovery_and_admins_work_in_their_namespace() {
    let world = World::new().await;
    let jane = User::authenticated("jane", &[]);
    let path = |path: &str| world.api.authorize(&Attributes::path(&jane, "get", path)).is_allowed();
    assert!(path("/api") && path("/apis/apps/v1") && !path("/metrics"));
    let mut admin = binding("admin", "jane");
    admin["roleRef"]["kind"] = json!("ClusterRole");
    world.create("rolebindings", admin).await.unwrap();
    for (verb, group, resource, namespace, expected) in [
        ("create", "apps", "deployments", "default", true),
        ("get", "", "secrets", "default", true),
        ("create", "apps", "deployments", "kube-system", false),
        ("delete", "", "nodes", "", false),
    ] {
        let mut target = Resource::new(group, "v1", resource);
        target.namespace = Some(namespace.to_owned());
        let decision = world.api.authorize(&Attributes::new(&jane, verb, &target));
        assert_eq!(decision.is_allowed(), expected, "{verb} {resource} {namespace}");
    }
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_have() {
    let world = World::new().await;
    let eve = User::authenticated("eve", &[]);
    let mut manages = role(&["list"], &["pods"]);
    manages["rules"].as_array_mut().unwrap().push(json!({
        "verbs": ["create", "update"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"],
    }));
    world.create("roles", manages).await.unwrap();
    world.create("rolebindings", binding("r", "eve")).await.unwrap();
    let mut more = role(&["list", "delete"], &["pods"]);
    more["metadata"]["name"] = json!("more");
    let status =
        world.as_user(&eve, Operation::Create, "roles", Some(more.clone())).await.unwrap_err();
    assert_eq!(status.code, 403);
    assert!(status.message.contains(r#"user "eve" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:"#), "{status}");
    assert!(
        status.message.contains(r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#),
        "{status}"
    );
    let mut same = role(&["list"], &["pods"]);
    same["metadata"]["name"] = json!("same");
    world.as_user(&eve, Operation::Create, "roles", Some(same)).await.unwrap();
    world.create("roles", more).await.unwrap();
    let grant =
        world.as_user(&eve, Operation::Create, "rolebindings", Some(binding("more", "eve"))).await;
    assert_eq!(grant.unwrap_err().code, 403, "binding a stronger role is granting it");
}

#[tokio::test]
async fn impersonation_is_a_right_of_its_own() {
    let world = World::new().await;
    let wanted = User { name: "jane".into(), groups: vec!["devs".into()], ..User::default() };
    let status = world.api.impersonate(&User::authenticated("eve", &[]), &wanted).unwrap_err();
    assert!(
        status.message.contains(r#"User "eve" cannot impersonate resource "users""#),
        "{status}"
    );
    let acting = world.api.impersonate(&User::api(), &wanted).unwrap();
    assert_eq!(acting.groups, ["devs", "system:authenticated"]);
}

#[tokio::test]
async fn access_reviews_answer_as_the_authorizer_does() {
    let world = World::new().await;
    let review = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let mine = |user: User| {
        let review = review.clone();
        let world = &world;
        async move {
            let it = world
                .as_user(&user, Operation::Create, "selfsubjectaccessreviews", Some(review))
                .await
                .unwrap();
            it["status"]["allowed"].clone()
        }
    };
    assert_eq!(mine(User::api()).await, true);
    assert_eq!(mine(User::authenticated("jane", &[])).await, false);
    let rules = world
        .create("selfsubjectrulesreviews", json!({"spec": {"namespace": "default"}}))
        .await
        .unwrap();
    assert!(
        rules["status"]["resourceRules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|it| it["verbs"] == json!(["*"]))
    );
    let me = world.create("selfsubjectreviews", json!({})).await.unwrap();
    assert_eq!(me["status"]["userInfo"]["username"], "system:apiserver");
}

#[tokio::test]
async fn a_node_sees_and_writes_its_own_things_only() {
    let world = World::new().await;
    let node = User::node("n1");
    for name in ["own", "other"] {
        world
            .create("secrets", json!({"metadata": {"name": name}, "stringData": {"k": "v"}}))
            .await
            .unwrap();
    }
    let mut body = pod("a");
    body["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "own"}}]);
    world.create("pods", body).await.unwrap();
    assert_eq!(
        world.as_user(&node, Operation::Get, "secrets/own", None).await.unwrap_err().code,
        403
    );
    world
        .create("pods/a/binding", json!({"metadata": {"name": "a"}, "target": {"name": "n1"}}))
        .await
        .unwrap();
    world.as_user(&node, Operation::Get, "secrets/own", None).await.unwrap();
    assert_eq!(
        world.as_user(&node, Operation::Get, "secrets/other", None).await.unwrap_err().code,
        403
    );
    assert_eq!(world.as_user(&node, Operation::List, "secrets", None).await.unwrap_err().code, 403);
    let own = json!({"metadata": {"name": "n1"}});
    world.as_user(&node, Operation::Create, "nodes", Some(own)).await.unwrap();
    let foreign = json!({"metadata": {"name": "n2"}});
    assert_eq!(
        world.as_user(&node, Operation::Create, "nodes", Some(foreign)).await.unwrap_err().code,
        403
    );
    let mut status = world.get("pods/a").await.unwrap();
    status["status"]["phase"] = json!("Running");
    world.as_user(&node, Operation::Update, "pods/a/status", Some(status.clone())).await.unwrap();
    status["metadata"]["resourceVersion"] = json!("");
    let other =
        world.as_user(&User::node("n2"), Operation::Update, "pods/a/status", Some(status)).await;
    assert_eq!(other.unwrap_err().code, 403);
}

#[tokio::test]
async fn a_token_ends_with_the_account_and_the_pod_it_is_bound_to() {
    let world = World::new().await;
    let pod = world.create("pods", pod("a")).await.unwrap();
    let bound = json!({"spec": {"audiences": [], "boundObjectRef": {
        "kind": "Pod", "apiVersion": "v1", "name": "a", "uid": pod["metadata"]["uid"]}}});
    let answer = world.create("serviceaccounts/default/token", bound).await.unwrap();
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let audiences = world.api.config().audiences.clone();
    let verified = world.api.verify_token(&token, &audiences).unwrap();
    assert_eq!(verified.user.name, "system:serviceaccount:default:default");
    assert_eq!(verified.user.extra["authentication.kubernetes.io/pod-name"], ["a"]);
    assert!(world.api.verify_token(&token, &["other".to_owned()]).is_err());
    let review = world.create("tokenreviews", json!({"spec": {"token": token}})).await.unwrap();
    assert_eq!(review["status"]["authenticated"], true);
    world.delete("pods/a", json!({})).await.unwrap();
    assert!(world.api.verify_token(&token, &audiences).is_err(), "the pod is gone");
    let short = json!({"spec": {"expirationSeconds": 5}});
    assert_eq!(world.create("serviceaccounts/default/token", short).await.unwrap_err().code, 422);
}

#[tokio::test]
async fn a_secret_is_ciphertext_in_the_store_and_plain_to_who_may_read_it() {
    let world = World::new().await;
    let made = world
        .create(
            "secrets",
            json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2-hunter2"}}),
        )
        .await
        .unwrap();
    let key = Key::new("", "secrets", "default", "s").unwrap();
    let stored = world.api.store().get(&key).unwrap();
    let body = String::from_utf8_lossy(&stored.value.body).into_owned();
    for plain in ["hunter2", "aHVudGVyMi1odW50ZXIy", "password", "metadata"] {
        assert!(!body.contains(plain), "{plain} stands in the store");
    }
    assert_ne!(stored.value.flags, 0);
    assert_eq!(made["data"]["password"], "aHVudGVyMi1odW50ZXIy");
    assert_eq!(world.get("secrets/s").await.unwrap(), made);
    let list = world.list("secrets", |it| it.label_selector = Some("!x".into())).await.unwrap();
    assert_eq!(names(&list), ["s"]);
}

#[tokio::test]
async fn a_new_pod_gets_its_account_token_tolerations_and_priority() {
    let world = World::new().await;
    let it = world.create("pods", pod("a")).await.unwrap();
    assert_eq!(it["spec"]["serviceAccountName"], "default");
    assert_eq!(it["spec"]["priority"], 0);
    assert_eq!(it["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let mount = &it["spec"]["containers"][0]["volumeMounts"][0]["mountPath"];
    assert_eq!(mount, "/var/run/secrets/kubernetes.io/serviceaccount");
    let mut other = pod("b");
    other["spec"]["serviceAccountName"] = json!("nobody");
    let status = world.create("pods", other).await.unwrap_err();
    assert!(
        status.code == 403 && status.message.contains(r#"serviceaccount "nobody" not found"#),
        "{status}"
    );
}
