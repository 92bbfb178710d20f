//! What the API is asked and what it answers: the same values for HTTP, controllers, the scheduler and nodes.
//!
//! A request says who asks, what for, and until when; nothing in it comes from a header or a URL any more, so the
//! gateway, a controller and a node session differ only in how they fill it. Bodies may come as bytes (parsed here,
//! so that a parse error is a `Status`) or as a tree (a caller inside the process has no reason to print JSON).

use std::collections::BTreeMap;

use bytes::Bytes;
use kactor_protocol::ids::{Reign, Revision, TraceId};
use kactor_protocol::store::Guard;
use kactor_protocol::time::Deadline;
use kactor_schema::managed::manager_of_user_agent;
use serde_json::Value;

/// The group that may do everything, whatever the policy says.
pub const GROUP_MASTERS: &str = "system:masters";
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const GROUP_NODES: &str = "system:nodes";
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
pub const USER_ANONYMOUS: &str = "system:anonymous";
/// The API talking to itself.
pub const USER_API: &str = "system:apiserver";

/// Who asks, as authentication found it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of `groups` and of `system:authenticated`.
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|it| (*it).to_owned()).collect();
        groups.push(GROUP_AUTHENTICATED.to_owned());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// The API itself: `system:apiserver`, of `system:masters`.
    pub fn api() -> Self {
        Self::authenticated(USER_API, &[GROUP_MASTERS])
    }

    /// A service account, with the groups that its tokens carry.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let of_namespace = format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}");
        Self::authenticated(
            format!("system:serviceaccount:{namespace}:{name}"),
            &[GROUP_SERVICE_ACCOUNTS, &of_namespace],
        )
    }

    /// A controller, under its own account in `kube-system`.
    pub fn controller(name: &str) -> Self {
        Self::service_account("kube-system", name)
    }

    /// The agent of a node: `system:node:NAME`.
    pub fn node(name: &str) -> Self {
        Self::authenticated(format!("system:node:{name}"), &[GROUP_NODES])
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            name: USER_ANONYMOUS.to_owned(),
            groups: vec![GROUP_UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }

    /// The node whose agent this is.
    pub fn node_name(&self) -> Option<&str> {
        if !self.is_in(GROUP_NODES) {
            return None;
        }
        self.name.strip_prefix("system:node:").filter(|it| !it.is_empty())
    }
}

/// Who asks, through what, and because of what.
#[derive(Debug, Clone)]
pub struct Caller {
    pub user: User,
    /// Who really asks, when `user` is impersonated ([`crate::Api::impersonate`] allowed it).
    pub impersonator: Option<User>,
    /// The `fieldManager` option. Else the part of `user_agent` before the first `/`.
    pub field_manager: Option<String>,
    pub user_agent: String,
    pub audit_id: String,
    pub trace: TraceId,
    /// Set by leader actors only: apply refuses the write when another reign has begun.
    pub reign: Option<Reign>,
}

impl Caller {
    /// A caller inside the process; `agent` becomes its field manager.
    pub fn internal(user: User, agent: &str, trace: TraceId) -> Self {
        Self {
            user,
            impersonator: None,
            field_manager: None,
            user_agent: agent.to_owned(),
            audit_id: String::new(),
            trace,
            reign: None,
        }
    }

    /// The name under which `managedFields` keeps what this caller writes.
    pub fn manager(&self) -> String {
        if let Some(name) = self.field_manager.as_ref().filter(|it| !it.is_empty()) {
            return name.clone();
        }
        let name = manager_of_user_agent(&self.user_agent);
        if name.is_empty() { "unknown".to_owned() } else { name }
    }
}

/// What is asked for: a collection, an object, or a subresource of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resource {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    /// Plural: `pods`.
    pub resource: String,
    pub subresource: Option<String>,
    pub namespace: Option<String>,
    pub name: Option<String>,
}

impl Resource {
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn subresource(mut self, subresource: &str) -> Self {
        self.subresource = Some(subresource.to_owned());
        self
    }
}

/// The three patches of Kubernetes, and apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml`: server-side apply
    Apply,
}

/// What is done. A watch is [`WatchRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Get,
    List,
    Create,
    Update,
    Patch(PatchType),
    Delete,
    DeleteCollection,
}

impl Operation {
    /// The verb that policy and audit know it by.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch(_) => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List)
    }
}

/// `dryRun=All` or a real write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DryRun {
    #[default]
    No,
    All,
}

/// What happens to fields that the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// How `resourceVersion` of a read is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// What becomes of the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Whether a server-side apply takes fields from other managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conflicts {
    #[default]
    Refuse,
    Force,
}

/// What must hold of the object before it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// In which form objects are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Form {
    /// The object itself.
    #[default]
    Object,
    /// `as=Table;g=meta.k8s.io;v=v1`
    Table(IncludeObject),
    /// `as=PartialObjectMetadata` (`PartialObjectMetadataList` for a list)
    Metadata,
}

/// `includeObject`: what a Table's rows carry beside their cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// The query of a request, and the fields of `DeleteOptions`. A body of `DeleteOptions` wins over these.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub dry_run: DryRun,
    pub field_validation: FieldValidation,
    pub conflicts: Conflicts,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub limit: u64,
    pub continue_token: Option<String>,
    /// `None` is absent; `Some("0")` any; else a revision.
    pub resource_version: Option<String>,
    pub version_match: Option<VersionMatch>,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub preconditions: Preconditions,
    pub form: Form,
    /// From inside the process only: keys that the caller's decision relied on (a node's allocation key).
    pub guards: Vec<Guard>,
}

/// What came with the request.
#[derive(Debug, Clone)]
pub enum Body {
    /// Parsed by the API: JSON or YAML by `content_type`.
    Encoded { content_type: String, bytes: Bytes },
    /// From inside the process.
    Tree(Value),
}

impl Body {
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self::Encoded { content_type: "application/json".to_owned(), bytes: bytes.into() }
    }
}

/// One request, except a watch.
#[derive(Debug, Clone)]
pub struct Request {
    pub caller: Caller,
    pub resource: Resource,
    pub operation: Operation,
    pub options: Options,
    pub body: Option<Body>,
    pub deadline: Deadline,
}

/// A request to be told of changes.
#[derive(Debug, Clone)]
pub struct WatchRequest {
    pub caller: Caller,
    /// `name` set: a watch of that object alone.
    pub resource: Resource,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub resource_version: Option<String>,
    pub version_match: Option<VersionMatch>,
    pub initial: InitialEvents,
    pub bookmarks: Bookmarks,
    /// The watch ends after this many seconds; `None` takes a random one of 30 to 60 minutes.
    pub timeout_seconds: Option<u64>,
    pub form: Form,
    /// Until when the watch must have begun.
    pub deadline: Deadline,
}

/// `sendInitialEvents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitialEvents {
    /// As `resourceVersion` says: "" and "0" begin with the present objects.
    #[default]
    Unset,
    Send,
    Skip,
}

/// `allowWatchBookmarks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bookmarks {
    #[default]
    No,
    Allow,
}

/// What is answered when nothing went wrong; what went wrong is a `Status`.
#[derive(Debug, Clone)]
pub struct Response {
    /// 200, 201 (created) or 202.
    pub code: u16,
    pub object: Object,
    /// Each becomes a `Warning: 299 - "..."` header.
    pub warnings: Vec<String>,
    /// The revision of the object (of the list), where there is one.
    pub revision: Option<Revision>,
    /// Of a created object: its path did not say it.
    pub name: Option<String>,
}

/// JSON in pieces that are to be sent one after the other: a list is never copied into one buffer.
#[derive(Debug, Clone, Default)]
pub struct Object {
    chunks: Vec<Bytes>,
}

impl Object {
    pub fn from_chunks(chunks: Vec<Bytes>) -> Self {
        Self { chunks }
    }

    pub fn from_tree(tree: &Value) -> Self {
        let bytes =
            serde_json::to_vec(tree).expect("a tree has string keys only, so it always prints");
        Self { chunks: vec![Bytes::from(bytes)] }
    }

    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    pub fn into_chunks(self) -> Vec<Bytes> {
        self.chunks
    }

    pub fn bytes_len(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// All of it in one buffer; free when it is one piece already.
    pub fn to_bytes(&self) -> Bytes {
        match self.chunks.as_slice() {
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        }
    }

    pub fn to_tree(&self) -> Value {
        serde_json::from_slice(&self.to_bytes())
            .expect("the API answers JSON that it printed or checked itself")
    }
}

impl From<Bytes> for Object {
    fn from(bytes: Bytes) -> Self {
        Self { chunks: vec![bytes] }
    }
}
