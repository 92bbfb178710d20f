//! Authorization: `system:masters`, then the node authorizer, then role-based access control.
//!
//! The first that allows decides; when none does, the request is refused with the text that Kubernetes prints. Both
//! authorizers read mirrors of the store that are drained before every answer (`follow.rs`), so a new
//! binding counts as soon as its write was answered.

use std::sync::{Mutex, PoisonError};

use kactor_objects::status::{GroupResource, Status};
use kactor_store::Store;
use serde_json::Value;

use crate::api::Api;
use crate::follow::{Follower, Step};
use crate::request::{
    GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_UNAUTHENTICATED, Resource, USER_ANONYMOUS, User,
};

pub mod attributes;
pub mod escalation;
pub mod node;
pub mod policy;
pub mod rule;

use attributes::{Attributes, Decision, refusal};
use node::NodeGraph;
use policy::Policy;

/// The mirrors that the authorizers read.
pub(crate) struct Authorizers {
    policy: Mutex<(Follower, Policy)>,
    nodes: Mutex<(Follower, NodeGraph)>,
}

impl Authorizers {
    pub fn new() -> Self {
        Self {
            policy: Mutex::new((Follower::new("/rbac.authorization.k8s.io/"), Policy::default())),
            nodes: Mutex::new((Follower::new("//pods/"), NodeGraph::default())),
        }
    }

    /// Answers from the policy as it stands in the store now.
    pub fn with_policy<T>(&self, store: &Store, ask: impl FnOnce(&Policy) -> T) -> T {
        let mut guard = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let (follower, policy) = &mut *guard;
        follower.drain(store, |step| match step {
            Step::Reset => *policy = Policy::default(),
            Step::Put(it) => {
                let object: Option<Value> = serde_json::from_slice(&it.value.body).ok();
                policy.set(it.key.resource(), it.key.namespace(), it.key.name(), object.as_ref());
            }
            Step::Gone(key) => policy.set(key.resource(), key.namespace(), key.name(), None),
        });
        ask(policy)
    }

    /// Answers from the pods as they are bound to nodes now.
    pub fn with_nodes<T>(&self, store: &Store, ask: impl FnOnce(&NodeGraph) -> T) -> T {
        let mut guard = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let (follower, graph) = &mut *guard;
        follower.drain(store, |step| match step {
            Step::Reset => *graph = NodeGraph::default(),
            Step::Put(it) => match serde_json::from_slice::<Value>(&it.value.body) {
                Ok(pod) => graph.set(it.key.namespace(), it.key.name(), Some(&pod)),
                Err(_) => graph.set(it.key.namespace(), it.key.name(), None),
            },
            Step::Gone(key) => graph.set(key.namespace(), key.name(), None),
        });
        ask(graph)
    }
}

/// Whom a request wants to act as (`Impersonate-*` headers).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Impersonation {
    pub user: User,
}

impl Api {
    /// Whether the user may do it, and which binding says so.
    pub fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.is_in(GROUP_MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let store = self.store();
        if let Some(name) = attributes.user.node_name() {
            let decision =
                self.authorizers().with_nodes(store, |graph| graph.decide(name, attributes));
            if decision.is_allowed() {
                return decision;
            }
            // What remains of a node's rights is a role without a binding: system:node.
            let general = self
                .authorizers()
                .with_policy(store, |policy| node::decide_by_role(policy, attributes));
            if general.is_allowed() || !decision.reason().is_empty() {
                return if general.is_allowed() { general } else { decision };
            }
        }
        self.authorizers().with_policy(store, |policy| policy.decide(attributes))
    }

    /// The refusal of what [`Api::authorize`] does not allow, as Kubernetes words it; else what allowed it.
    pub fn require(&self, attributes: &Attributes) -> Result<String, Status> {
        match self.authorize(attributes) {
            Decision::Allow { reason } => Ok(reason),
            Decision::Refuse { reason } => Err(refused(attributes, &reason)),
        }
    }

    /// Checks that `user` may act as `wanted` and answers the user to act as: with the groups that Kubernetes adds.
    pub fn impersonate(&self, user: &User, wanted: &User) -> Result<User, Status> {
        let ask = |group: &str,
                   resource: &str,
                   sub: Option<&str>,
                   namespace: Option<&str>,
                   name: &str| {
            let mut target = Resource::new(group, "v1", resource).named(name);
            target.subresource = sub.map(str::to_owned);
            target.namespace = namespace.map(str::to_owned);
            self.require(&Attributes::new(user, "impersonate", &target)).map(drop)
        };
        const AUTHN: &str = "authentication.k8s.io";
        let account =
            wanted.name.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'));
        match account {
            Some((namespace, name)) => ask("", "serviceaccounts", None, Some(namespace), name)?,
            None => ask("", "users", None, None, &wanted.name)?,
        }
        for group in &wanted.groups {
            ask("", "groups", None, None, group)?;
        }
        if !wanted.uid.is_empty() {
            ask(AUTHN, "uids", None, None, &wanted.uid)?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                ask(AUTHN, "userextras", Some(key), None, value)?;
            }
        }
        let mut acting = wanted.clone();
        if let Some((namespace, name)) = account
            && acting.groups.is_empty()
        {
            acting.groups = User::service_account(namespace, name).groups;
        }
        let general =
            if acting.name == USER_ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
        if !acting.is_in(general) {
            acting.groups.push(general.to_owned());
        }
        Ok(acting)
    }
}

fn refused(attributes: &Attributes, reason: &str) -> Status {
    let text = refusal(attributes, reason);
    match attributes.resource() {
        Some(it) => {
            let of = GroupResource { group: &it.group, resource: &it.resource };
            Status::forbidden(of, it.name.as_deref().unwrap_or_default(), &text)
        }
        None => Status::forbidden(GroupResource { group: "", resource: "" }, "", &text),
    }
}
