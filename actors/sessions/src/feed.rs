//! One feed of a node: a watch under the node's name, cut into batches.
//!
//! It begins behind the node's own position, or with everything at a read-index. When the watch ends it goes on from
//! where it stood; when that is compacted away it begins anew, and says so, so that the node can tell what is gone.
//! Each batch waits until the node has taken the one before, so a slow node slows its own feed and nobody else's, and
//! a batch that was not answered is sent again: a full mailbox or a broken link leaves no gap. What changes meanwhile
//! shares the next batch; a watch that fell too far behind is closed by the store and resumed here.

use std::time::Duration;

use futures::FutureExt;
use kactor_api::request::{Bookmarks, InitialEvents};
use kactor_api::{
    Api, Caller, EventType, Form, ObjectWatch, Resource, Status, User, VersionMatch, WatchEvent,
    WatchRequest,
};
use kactor_protocol::TraceId;
use kactor_protocol::frame::Refusal;
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::node::{
    Begin, CHANGES_PER_BATCH_MAX, Feed, FeedPosition, ObjectChange, ObjectsChanged,
};
use kactor_protocol::time::Deadline;
use kactor_runtime::Asker;
use serde_json::Value;

use crate::call::caller;

/// Wait before a watch that was refused is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// Until when a watch must have begun.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// Wait before a batch that the node did not take is sent again.
const SEND_AGAIN: Duration = Duration::from_millis(100);
/// How long a node may take over one batch before it is sent again.
const BATCH_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of objects that fill a batch: a frame takes 8 MiB, and one object is at most about a quarter of that.
const BATCH_BYTES_MAX: usize = 1 << 20;
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
    pub to: Asker<ObjectsChanged>,
}

/// Which history a feed's revisions belong to: the same on all control hosts, grows when the cluster is restored.
pub fn epoch(api: &Api) -> u64 {
    api.store().table().read().epoch()
}

/// What the node gets next.
#[derive(Default)]
struct Batch {
    changes: Vec<ObjectChange>,
    bytes: usize,
    /// Of the last event, also when nothing of it concerns the node.
    upto: Option<Revision>,
}

impl Batch {
    fn push(&mut self, change: ObjectChange) {
        self.bytes += change.object.as_ref().map_or(0, bytes::Bytes::len);
        self.upto = Some(change.revision);
        self.changes.push(change);
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES_PER_BATCH_MAX || self.bytes >= BATCH_BYTES_MAX
    }
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

    fn request(&self, epoch: u64) -> WatchRequest {
        let (resource, field_selector) = source(self.feed, &self.node);
        let resume = self.position.filter(|it| it.incarnation == epoch);
        WatchRequest {
            caller: self.caller(),
            resource,
            label_selector: None,
            field_selector,
            resource_version: resume.map(|it| it.revision.0.to_string()),
            // Whoever says whether initial events shall come must spell the match out.
            version_match: Some(VersionMatch::NotOlderThan),
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
        let epoch = epoch(&self.api);
        let request = self.request(epoch);
        let anew = request.resource_version.is_none();
        let mut watch = self.api.watch(request).await?;
        if anew && let Some(stopped) = self.send_initial(&mut watch, epoch).await {
            return Ok(stopped);
        }
        let mut batch = Batch::default();
        loop {
            // What is ready goes along; when nothing is, the batch goes.
            let ready = match batch.upto {
                None => Some(watch.next().await),
                Some(_) if batch.is_full() => None,
                Some(_) => watch.next().now_or_never(),
            };
            match ready {
                Some(Some(event)) => match event.event_type {
                    EventType::Error => return Ok(Stopped::Anew),
                    EventType::Bookmark => batch.upto = Some(event.revision),
                    _ => batch.push(change(&event)),
                },
                Some(None) if batch.upto.is_none() => return Ok(Stopped::Resume),
                None | Some(None) => {
                    let Batch { changes, upto, .. } = std::mem::take(&mut batch);
                    let revision = upto.unwrap_or_default();
                    let position = FeedPosition { incarnation: epoch, revision };
                    if !self.send(Begin::Continue, changes, position).await {
                        return Ok(Stopped::NodeGone);
                    }
                    self.position = Some(position);
                }
            }
        }
    }

    /// Everything that exists, up to the bookmark that says so. `None` when it is through.
    async fn send_initial(&mut self, watch: &mut ObjectWatch, epoch: u64) -> Option<Stopped> {
        let begins = FeedPosition { incarnation: epoch, revision: Revision::default() };
        let mut batch = Batch::default();
        // Empty: the node forgets what a beginning before this one had named.
        if !self.send(Begin::Anew, vec![], begins).await {
            return Some(Stopped::NodeGone);
        }
        loop {
            // Over before it was complete: the node still waits for the end, so it begins anew.
            let Some(event) = watch.next().await else { return Some(Stopped::Anew) };
            match event.event_type {
                EventType::Error => return Some(Stopped::Anew),
                EventType::Bookmark if ends_initial(&event) => {
                    let position = FeedPosition { incarnation: epoch, revision: event.revision };
                    let sent = self.send(Begin::Complete, batch.changes, position).await;
                    self.position = Some(position);
                    return (!sent).then_some(Stopped::NodeGone);
                }
                EventType::Bookmark => {}
                _ => batch.push(change(&event)),
            }
            if batch.is_full() {
                let Batch { changes, .. } = std::mem::take(&mut batch);
                if !self.send(Begin::Anew, changes, begins).await {
                    return Some(Stopped::NodeGone);
                }
            }
        }
    }

    /// Sends until the node has taken it; says no when it never will.
    async fn send(&self, begin: Begin, changes: Vec<ObjectChange>, position: FeedPosition) -> bool {
        let batch = ObjectsChanged { feed: self.feed, begin, position, changes };
        let env = self.api.env();
        loop {
            let deadline = Deadline::after(env.monotonic(), BATCH_TIME_MAX);
            match self.to.ask(batch.clone(), deadline).await {
                Ok(()) => return true,
                Err(refusal) if is_passing(&refusal) => env.sleep(SEND_AGAIN).await,
                Err(refusal) => {
                    tracing::debug!(node = self.node, feed = ?self.feed, %refusal, "a node's feed ends");
                    return false;
                }
            }
        }
    }
}

/// Whether the node may take the batch later. What its agent did not answer, it does not want from here any more.
fn is_passing(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Overloaded
            | Refusal::DeadlinePassed
            | Refusal::Unreachable { .. }
            | Refusal::Lost { .. }
    )
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
