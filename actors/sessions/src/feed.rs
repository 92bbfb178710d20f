//! One feed of a node: a watch under the node's name, cut into batches.
//!
//! It begins behind the node's own position, or with everything at a read-index. When the watch ends it goes on from
//! where it stood; when that is compacted away it begins anew, and says so, so that the node can tell what is gone.
//! Sending waits for the node's mailbox, so a slow node slows its own feed and nobody else's; a watch that fell too
//! far behind meanwhile is closed by the store and resumed here.

use std::time::Duration;

use kactor_api::request::{Bookmarks, InitialEvents};
use kactor_api::{
    Api, Caller, EventType, Form, ObjectWatch, Resource, Status, User, WatchEvent, WatchRequest,
};
use kactor_protocol::TraceId;
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::node::{
    Begin, CHANGES_PER_BATCH_MAX, Feed, FeedPosition, ObjectChange, ObjectsChanged,
};
use kactor_protocol::time::Deadline;
use kactor_runtime::Recipient;
use serde_json::Value;

use crate::call::caller;

/// Wait before a watch that was refused is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// Until when a watch must have begun.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// The bookmark that ends the initial state.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// Which objects a node's feed is made of.
fn source(feed: Feed, node: &str) -> (Resource, Option<String>) {
    match feed {
        Feed::Pods => (Resource::new("", "v1", "pods"), Some(format!("spec.nodeName={node}"))),
        Feed::Services => (Resource::new("", "v1", "services"), None),
        Feed::EndpointSlices => (Resource::new("discovery.k8s.io", "v1", "endpointslices"), None),
        Feed::Nodes => (Resource::new("", "v1", "nodes"), None),
    }
}

/// A running feed.
pub struct FeedTask {
    pub api: Api,
    pub node: String,
    pub feed: Feed,
    pub position: Option<FeedPosition>,
    /// Of the store's state: grows when the cluster is restored.
    pub incarnation: u64,
    pub to: Recipient<ObjectsChanged>,
}

/// Why a watch stopped.
enum Stopped {
    /// Go on from the position.
    Resume,
    /// The position is gone.
    Anew,
    /// The node does not listen any more.
    NodeGone,
}

impl FeedTask {
    /// Runs until the node is gone; the session aborts it when the node follows again.
    pub async fn run(mut self) {
        loop {
            match self.watch_once().await {
                Ok(Stopped::Resume) => {}
                Ok(Stopped::Anew) => self.position = None,
                Ok(Stopped::NodeGone) => return,
                Err(status) => {
                    tracing::debug!(node = self.node, feed = ?self.feed, %status, "a node's feed waits for the API");
                    if status.to_json()["code"] == 410 {
                        self.position = None;
                    }
                    self.api.env().sleep(AGAIN).await;
                }
            }
        }
    }

    fn request(&self) -> WatchRequest {
        let (resource, field_selector) = source(self.feed, &self.node);
        let resume = self.position.filter(|it| it.incarnation == self.incarnation);
        WatchRequest {
            caller: self.caller(),
            resource,
            label_selector: None,
            field_selector,
            resource_version: resume.map(|it| it.revision.0.to_string()),
            version_match: None,
            initial: if resume.is_some() { InitialEvents::Skip } else { InitialEvents::Send },
            bookmarks: Bookmarks::Allow,
            timeout_seconds: None,
            form: Form::Object,
            deadline: Deadline::after(self.api.env().monotonic(), BEGIN_MAX),
        }
    }

    /// Pods are the node's own business; services, their endpoints and the other nodes that of its proxy, which
    /// Kubernetes' default roles know as `system:kube-proxy` (role `system:node-proxier`).
    fn caller(&self) -> Caller {
        match self.feed {
            Feed::Pods => caller(&self.node, TraceId::NONE),
            Feed::Services | Feed::EndpointSlices | Feed::Nodes => {
                let user = User::authenticated("system:kube-proxy", &[]);
                Caller::internal(user, "kube-proxy", TraceId::NONE)
            }
        }
    }

    async fn watch_once(&mut self) -> Result<Stopped, Status> {
        let request = self.request();
        let anew = request.resource_version.is_none();
        let mut request = request;
        if anew {
            // sendInitialEvents asks for the match to be spelt out.
            request.version_match = Some(kactor_api::VersionMatch::NotOlderThan);
        }
        let mut watch = self.api.watch(request).await?;
        if anew && let Some(stopped) = self.send_initial(&mut watch).await {
            return Ok(stopped);
        }
        while let Some(event) = watch.next().await {
            match event.event_type {
                EventType::Error => return Ok(Stopped::Anew),
                EventType::Bookmark => self.at(event.revision),
                _ => {
                    let change = change(&event);
                    self.at(event.revision);
                    if !self.send(Begin::Continue, vec![change]).await {
                        return Ok(Stopped::NodeGone);
                    }
                }
            }
        }
        Ok(Stopped::Resume)
    }

    /// Everything that exists, up to the bookmark that says so. `None` when it is through.
    async fn send_initial(&mut self, watch: &mut ObjectWatch) -> Option<Stopped> {
        let mut batch = Vec::new();
        if !self.send(Begin::Anew, vec![]).await {
            return Some(Stopped::NodeGone);
        }
        loop {
            // Over before it was complete: the node still waits for the end, so it begins anew.
            let Some(event) = watch.next().await else { return Some(Stopped::Anew) };
            match event.event_type {
                EventType::Error => return Some(Stopped::Anew),
                EventType::Bookmark if ends_initial(&event) => {
                    self.at(event.revision);
                    let sent = self.send(Begin::Complete, batch).await;
                    return (!sent).then_some(Stopped::NodeGone);
                }
                EventType::Bookmark => {}
                _ => batch.push(change(&event)),
            }
            if batch.len() >= CHANGES_PER_BATCH_MAX
                && !self.send(Begin::Anew, std::mem::take(&mut batch)).await
            {
                return Some(Stopped::NodeGone);
            }
        }
    }

    fn at(&mut self, revision: Revision) {
        self.position = Some(FeedPosition { incarnation: self.incarnation, revision });
    }

    async fn send(&self, begin: Begin, changes: Vec<ObjectChange>) -> bool {
        let position = self.position.unwrap_or_default();
        let batch = ObjectsChanged { feed: self.feed, begin, position, changes };
        self.to.tell(batch).await.is_ok()
    }
}

fn ends_initial(event: &WatchEvent) -> bool {
    let object: Value = serde_json::from_slice(&event.object).unwrap_or_default();
    object["metadata"]["annotations"][INITIAL_END] == "true"
}

fn change(event: &WatchEvent) -> ObjectChange {
    let object: Value = serde_json::from_slice(&event.object).unwrap_or_default();
    let meta = &object["metadata"];
    let text = |key: &str| meta[key].as_str().unwrap_or_default();
    ObjectChange {
        namespace: text("namespace").to_owned(),
        name: text("name").to_owned(),
        uid: Uid::from(text("uid")),
        revision: event.revision,
        object: (event.event_type != EventType::Deleted).then(|| event.object.clone()),
    }
}
