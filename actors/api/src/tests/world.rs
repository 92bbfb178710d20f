//! An API on an empty store in memory, and short ways to ask it: the one place that knows how requests are made.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kactor_objects::status::Status;
use kactor_protocol::ids::TraceId;
use kactor_protocol::time::Deadline;
use kactor_runtime::env::Env;
use kactor_store::Store;
use serde_json::{Value, json};

use crate::{
    Api, ApiConfig, Body, Caller, Discard, EncryptionKey, Endpoint, Note, NoteSink, Operation,
    Options, PatchType, Request, Resource, TokenKeys, User, WatchEvent, WatchRequest,
};

pub struct World {
    pub api: Api,
    pub notes: Arc<Kept>,
}

/// Keeps the notes.
#[derive(Default)]
pub struct Kept(pub Mutex<Vec<Note>>);

impl NoteSink for Kept {
    fn note(&self, note: Note) {
        self.0.lock().unwrap().push(note);
    }
}

impl World {
    /// With the namespaces, roles and the Service `kubernetes` in place, and a service account in `default`.
    pub async fn new() -> Self {
        let world = Self::empty();
        world.api.bootstrap(world.deadline()).await.unwrap();
        world.create("serviceaccounts", json!({"metadata": {"name": "default"}})).await.unwrap();
        world
    }

    pub fn empty() -> Self {
        let env = Env::machine();
        let notes = Arc::new(Kept::default());
        let config = ApiConfig {
            service_range: "10.96.0.0/28".parse().unwrap(),
            node_ports: 30000..=30003,
            encryption_keys: vec![EncryptionKey::generate(&env, 1)],
            token_keys: vec![TokenKeys::generate().unwrap()],
            issuer: "https://kubernetes.default.svc.cluster.local".into(),
            audiences: vec!["https://kubernetes.default.svc.cluster.local".into()],
            endpoint: Endpoint { address: [192, 0, 2, 1].into(), port: 6443 },
            notes: notes.clone(),
            audit: Arc::new(Discard),
        };
        Self { api: Api::new(Store::in_memory(env.clone()), env, config).unwrap(), notes }
    }

    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.api.env().monotonic(), Duration::from_secs(20))
    }

    /// `pods/web/status` in the namespace `default`, where the kind has namespaces.
    pub fn resource(&self, path: &str) -> Resource {
        let mut parts = path.split('/');
        let mut resource = resource(parts.next().unwrap());
        resource.name = parts.next().map(str::to_owned);
        resource.subresource = parts.next().map(str::to_owned);
        resource
    }

    pub fn request(
        &self,
        user: &User,
        operation: Operation,
        resource: Resource,
        body: Option<Value>,
    ) -> Request {
        let mut caller = Caller::internal(user.clone(), "test/1.0", TraceId(7));
        caller.field_manager = None;
        Request {
            caller,
            resource,
            operation,
            options: Options::default(),
            body: body.map(Body::Tree),
            deadline: self.deadline(),
        }
    }

    pub async fn ask(&self, request: Request) -> Result<Value, Status> {
        self.api.handle(request).await.map(|it| it.object.to_tree())
    }

    pub async fn as_user(
        &self,
        user: &User,
        operation: Operation,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Status> {
        self.ask(self.request(user, operation, self.resource(path), body)).await
    }

    pub async fn create(&self, path: &str, body: Value) -> Result<Value, Status> {
        self.as_user(&User::api(), Operation::Create, path, Some(body)).await
    }

    pub async fn get(&self, path: &str) -> Result<Value, Status> {
        self.as_user(&User::api(), Operation::Get, path, None).await
    }

    pub async fn update(&self, path: &str, body: Value) -> Result<Value, Status> {
        self.as_user(&User::api(), Operation::Update, path, Some(body)).await
    }

    pub async fn patch(
        &self,
        path: &str,
        patch_type: PatchType,
        body: Value,
    ) -> Result<Value, Status> {
        self.as_user(&User::api(), Operation::Patch(patch_type), path, Some(body)).await
    }

    pub async fn delete(&self, path: &str, options: Value) -> Result<Value, Status> {
        self.as_user(&User::api(), Operation::Delete, path, Some(options)).await
    }

    pub async fn list(
        &self,
        path: &str,
        change: impl FnOnce(&mut Options),
    ) -> Result<Value, Status> {
        let mut request = self.request(&User::api(), Operation::List, self.resource(path), None);
        change(&mut request.options);
        self.ask(request).await
    }

    pub fn watch_request(&self, path: &str) -> WatchRequest {
        WatchRequest {
            caller: Caller::internal(User::api(), "test/1.0", TraceId(7)),
            resource: self.resource(path),
            label_selector: None,
            field_selector: None,
            resource_version: None,
            version_match: None,
            initial: Default::default(),
            bookmarks: Default::default(),
            timeout_seconds: Some(3600),
            form: Default::default(),
            deadline: self.deadline(),
        }
    }
}

fn resource(name: &str) -> Resource {
    let (group, resource, namespaced) = match name {
        "deployments" | "replicasets" => ("apps", name, true),
        "leases" => ("coordination.k8s.io", name, true),
        "roles" | "rolebindings" => ("rbac.authorization.k8s.io", name, true),
        "clusterroles" | "clusterrolebindings" => ("rbac.authorization.k8s.io", name, false),
        "selfsubjectaccessreviews" | "subjectaccessreviews" | "selfsubjectrulesreviews" => {
            ("authorization.k8s.io", name, false)
        }
        "poddisruptionbudgets" => ("policy", name, true),
        "tokenreviews" | "selfsubjectreviews" => ("authentication.k8s.io", name, false),
        "namespaces" | "nodes" => ("", name, false),
        _ => ("", name, true),
    };
    let resource = Resource::new(group, "v1", resource);
    if namespaced { resource.in_namespace("default") } else { resource }
}

/// `names(list)` → `["a", "b"]`.
pub fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list has items");
    items.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

pub fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}},
           "spec": {"containers": [{"name": "main", "image": "busybox"}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
                     "spec": {"containers": [{"name": "main", "image": "busybox"}]}},
    }})
}

/// `ADDED a@5` for each event.
pub fn shown(event: &WatchEvent) -> String {
    let object: Value = serde_json::from_slice(&event.object).unwrap();
    let name = object["metadata"]["name"].as_str().unwrap_or("-");
    assert_eq!(
        object["metadata"]["resourceVersion"].as_str().unwrap_or_default(),
        event.revision.to_string(),
        "the object carries the event's revision"
    );
    format!("{} {name}", event.event_type.as_str())
}
