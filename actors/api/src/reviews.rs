//! Reviews: objects that are answered, never stored — "may I?", "who am I?", "whose token is this?".
//!
//! Each is a function from the posted object to the same object with its `status` filled in. Reference: Kubernetes
//! pkg/registry/authorization and pkg/registry/authentication.

use std::collections::BTreeMap;

use kactor_objects::registry::Kind;
use kactor_objects::status::Status;
use kactor_objects::tree::{at, entries, list, text};
use serde_json::{Value, json};

use crate::api::Api;
use crate::authorize::attributes::Attributes;
use crate::authorize::rule::Rule;
use crate::request::{GROUP_AUTHENTICATED, GROUP_MASTERS, Request, Resource, User};

/// Answers a posted review. `None`: this kind is no review.
pub(crate) fn review(
    api: &Api,
    request: &Request,
    kind: &Kind,
    posted: &Value,
) -> Option<Result<Value, Status>> {
    let user = &request.caller.user;
    let status = match kind.kind {
        "SelfSubjectAccessReview" => access(api, posted, Some(user)),
        "SubjectAccessReview" => access(api, posted, None),
        "LocalSubjectAccessReview" => {
            let namespace = request.resource.namespace.as_deref().unwrap_or_default();
            if text(posted, "spec.resourceAttributes.namespace") == namespace {
                access(api, posted, None)
            } else {
                Err(Status::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {namespace}"
                )))
            }
        }
        "SelfSubjectRulesReview" => rules(api, posted, user),
        "SelfSubjectReview" => Ok(json!({"userInfo": user_tree(user)})),
        "TokenReview" => token(api, posted),
        _ => return None,
    };
    Some(status.map(|status| {
        let mut answer = posted.clone();
        answer["status"] = status;
        answer
    }))
}

fn access(api: &Api, posted: &Value, caller: Option<&User>) -> Result<Value, Status> {
    let spec = at(posted, "spec");
    let user = match caller {
        Some(user) => user.clone(),
        None => reviewed_user(spec)?,
    };
    let (resource, path) = (at(spec, "resourceAttributes"), at(spec, "nonResourceAttributes"));
    let attributes = match (resource.is_object(), path.is_object()) {
        (true, false) => resource_question(&user, resource),
        (false, true) => Attributes::path(&user, text(path, "verb"), text(path, "path")),
        _ => {
            return Err(Status::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
    };
    let decision = api.authorize(&attributes);
    let mut status = json!({"allowed": decision.is_allowed()});
    if !decision.reason().is_empty() {
        status["reason"] = json!(decision.reason());
    }
    Ok(status)
}

fn reviewed_user(spec: &Value) -> Result<User, Status> {
    let texts = |it: &Value, path: &str| {
        list(it, path).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let user = User {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: texts(spec, "groups"),
        extra: entries(spec, "extra")
            .map(|(key, values)| (key.to_owned(), texts(values, "")))
            .collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(Status::bad_request("at least one of user or group must be specified"));
    }
    Ok(user)
}

fn resource_question(user: &User, asked: &Value) -> Attributes {
    let own = |path: &str| Some(text(asked, path).to_owned()).filter(|it| !it.is_empty());
    let resource = Resource {
        group: text(asked, "group").to_owned(),
        version: text(asked, "version").to_owned(),
        resource: text(asked, "resource").to_owned(),
        subresource: own("subresource"),
        namespace: own("namespace"),
        name: own("name"),
    };
    let selector = own("fieldSelector.rawSelector");
    Attributes::new(user, text(asked, "verb"), &resource).selecting(selector.as_deref())
}

fn rules(api: &Api, posted: &Value, user: &User) -> Result<Value, Status> {
    let namespace = text(posted, "spec.namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let mut rules = api.authorizers().with_policy(api.store(), |it| it.rules_for(user, namespace));
    if user.is_in(GROUP_MASTERS) {
        let all = || vec!["*".to_owned()];
        rules.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
        rules.push(Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
    }
    let (paths, resources): (Vec<&Rule>, Vec<&Rule>) =
        rules.iter().partition(|it| !it.non_resource_urls.is_empty());
    let paths: Vec<Value> = paths
        .into_iter()
        .map(|it| json!({"verbs": it.verbs, "nonResourceURLs": it.non_resource_urls}))
        .collect();
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

fn token(api: &Api, posted: &Value) -> Result<Value, Status> {
    let token = text(posted, "spec.token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = list(posted, "spec.audiences")
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let wanted = if audiences.is_empty() { api.config().audiences.clone() } else { audiences };
    match api.verify_token(token, &wanted) {
        Ok(verified) => Ok(json!({
            "authenticated": true,
            "user": user_tree(&verified.user),
            "audiences": verified.audiences,
        })),
        Err(error) => Ok(json!({"authenticated": false, "user": {}, "error": error.to_string()})),
    }
}

/// `UserInfo`.
fn user_tree(user: &User) -> Value {
    let mut tree = json!({"username": user.name});
    if !user.uid.is_empty() {
        tree["uid"] = json!(user.uid);
    }
    let mut groups = user.groups.clone();
    if !groups.iter().any(|it| it == GROUP_AUTHENTICATED)
        && user.name.starts_with("system:serviceaccount:")
    {
        groups.push(GROUP_AUTHENTICATED.to_owned());
    }
    if !groups.is_empty() {
        tree["groups"] = json!(groups);
    }
    let extra: &BTreeMap<String, Vec<String>> = &user.extra;
    if !extra.is_empty() {
        tree["extra"] = json!(extra);
    }
    tree
}
