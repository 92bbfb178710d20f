//! Nobody grants what they do not have: the check on writes of roles and bindings.
//!
//! A role may hold only rules that its author holds (or the author may `escalate` it); a binding may grant only a role
//! whose rules its author holds (or the author may `bind` it). Reference: Kubernetes pkg/registry/rbac and
//! rbac/policybased. The API's own bootstrap is `system:masters` and passes.

use kactor_objects::status::{GroupResource, Status};
use serde_json::Value;

use super::attributes::Attributes;
use super::policy::RoleRef;
use super::rule::{Rule, uncovered};
use crate::api::Api;
use crate::request::{GROUP_MASTERS, Resource, User};

/// The group of all four kinds.
pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding that would grant more than its author has. `old` is what stood before: an update that
/// changes no right is always allowed.
pub(crate) fn check(
    api: &Api,
    user: &User,
    resource: &Resource,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    if resource.group != RBAC_GROUP || user.is_in(GROUP_MASTERS) {
        return Ok(());
    }
    let name = new.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let namespace = resource.namespace.as_deref().unwrap_or_default();
    let target = Resource { name: Some(name.to_owned()), subresource: None, ..resource.clone() };
    let wanted = match resource.resource.as_str() {
        "roles" | "clusterroles" => {
            let unchanged = old.is_some_and(|old| {
                old.get("rules") == new.get("rules")
                    && old.get("aggregationRule") == new.get("aggregationRule")
            });
            if unchanged || may(api, user, "escalate", &target) {
                return Ok(());
            }
            if new.get("aggregationRule").is_some_and(|it| !it.is_null()) {
                return check_aggregation(api, user, resource, name);
            }
            Rule::all_of(new)
        }
        "rolebindings" | "clusterrolebindings" => {
            let unchanged = old.is_some_and(|old| {
                old.get("roleRef") == new.get("roleRef")
                    && old.get("subjects") == new.get("subjects")
            });
            let Some(role) = RoleRef::of(new, namespace) else {
                return Ok(()); // Validation has refused it.
            };
            if unchanged || may(api, user, "bind", &role_resource(&role)) {
                return Ok(());
            }
            match api.authorizers().with_policy(api.store(), |it| it.rules_of(&role)) {
                Some(rules) => rules,
                None => return Err(missing_role(&role)),
            }
        }
        _ => return Ok(()),
    };
    let owned = api.authorizers().with_policy(api.store(), |it| it.rules_for(user, namespace));
    let missing = uncovered(&owned, &wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing.iter().map(Rule::to_string).collect();
    let groups: Vec<String> = user.groups.iter().map(|it| format!("{it:?}")).collect();
    Err(Status::forbidden(
        GroupResource { group: &resource.group, resource: &resource.resource },
        name,
        &format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            lines.join("\n")
        ),
    ))
}

/// An aggregating role may become anything, so only who has everything may write one.
fn check_aggregation(
    api: &Api,
    user: &User,
    resource: &Resource,
    name: &str,
) -> Result<(), Status> {
    let all = || vec!["*".to_owned()];
    let everything = [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ];
    let owned = api.authorizers().with_policy(api.store(), |it| it.rules_for(user, ""));
    if uncovered(&owned, &everything).is_empty() {
        return Ok(());
    }
    Err(Status::forbidden(
        GroupResource { group: &resource.group, resource: &resource.resource },
        name,
        "must have cluster-admin privileges to use the aggregationRule",
    ))
}

fn may(api: &Api, user: &User, verb: &str, target: &Resource) -> bool {
    api.authorize(&Attributes::new(user, verb, target)).is_allowed()
}

fn role_resource(role: &RoleRef) -> Resource {
    match role {
        RoleRef::ClusterRole(name) => Resource::new(RBAC_GROUP, "v1", "clusterroles").named(name),
        RoleRef::Role { namespace, name } => {
            Resource::new(RBAC_GROUP, "v1", "roles").in_namespace(namespace).named(name)
        }
    }
}

fn missing_role(role: &RoleRef) -> Status {
    let of = |resource| GroupResource { group: RBAC_GROUP, resource };
    match role {
        RoleRef::ClusterRole(name) => Status::not_found(of("clusterroles"), name),
        RoleRef::Role { name, .. } => Status::not_found(of("roles"), name),
    }
}
