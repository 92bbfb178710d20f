//! Watches: what changed, as one watcher may see it.
//!
//! A watch is a pull: `next` waits for the store's feed, judges each change against the watcher's selector on both sides,
//! and gives ADDED, MODIFIED or DELETED; DELETED carries the last state that the watcher knew, at the deletion's revision.
//! Without a selector no body is parsed. A bookmark carries the revision up to which this watcher got everything.
//! A watcher that is too slow is closed (the client resumes); 410 is an ERROR event. Invariant: no change
//! that the selector matches is skipped between two events of one watch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::{Either, select};
use kactor_objects::registry::{Kind, Verb};
use kactor_objects::status::Status;
use kactor_objects::table::{self, Columns};
use kactor_protocol::ids::Revision;
use kactor_protocol::store::Key;
use kactor_store::{Change, Stored, Watch, WatchClosed, WatchItem};
use serde_json::json;

use crate::api::Api;
use crate::authorize::attributes::Attributes;
use crate::freshness::{Named, invalid_options};
use crate::perform::kind_of;
use crate::representation::{print, table_of};
use crate::request::{Bookmarks, Form, InitialEvents, VersionMatch, WatchRequest};
use crate::selection::Selection;

/// Between two bookmarks of one watch.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` lives this long, and up to as much again.
const TIMEOUT_MIN: Duration = Duration::from_secs(30 * 60);
/// Objects of the initial state that are encoded at a time.
const INITIAL_PAGE_LEN: usize = 200;
/// The annotation on the bookmark that ends the initial state.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// The `type` of a watch event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    /// The object is a `Status`; the watch ends behind it.
    Error,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// One event. `object` is JSON with its `resourceVersion` inside.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    pub event_type: EventType,
    pub object: Bytes,
    pub revision: Revision,
}

impl WatchEvent {
    /// The event as one line of the answer: `{"type":"ADDED","object":{…}}` and a newline.
    pub fn to_line(&self) -> Bytes {
        let mut line = BytesMut::with_capacity(self.object.len() + 40);
        line.put_slice(b"{\"type\":\"");
        line.put_slice(self.event_type.as_str().as_bytes());
        line.put_slice(b"\",\"object\":");
        line.put_slice(&self.object);
        line.put_slice(b"}\n");
        line.freeze()
    }
}

/// A running watch. Dropping it ends it.
pub struct ObjectWatch {
    api: Api,
    kind: &'static Kind,
    selection: Selection,
    form: Form,
    bookmarks: Bookmarks,
    feed: Watch,
    initial: Option<Initial>,
    ready: VecDeque<WatchEvent>,
    /// Everything up to here was given.
    seen: Revision,
    ends_at: Duration,
    bookmark_at: Duration,
    columns: Columns,
    over: bool,
}

/// The part of the present state that is still to be sent.
struct Initial {
    at: Revision,
    after: Option<Key>,
    /// Whether a bookmark says that it is complete.
    announced: bool,
}

impl Api {
    /// Begins a watch. Refusals come here; what ends it later is an event.
    pub async fn watch(&self, request: WatchRequest) -> Result<ObjectWatch, Status> {
        let outcome = self.begin_watch(&request).await;
        self.tell_watch(&request, outcome.as_ref().map(drop));
        outcome
    }

    async fn begin_watch(&self, request: &WatchRequest) -> Result<ObjectWatch, Status> {
        let question = Attributes::new(&request.caller.user, "watch", &request.resource)
            .selecting(request.field_selector.as_deref());
        self.require(&question)?;
        let kind = kind_of(&request.resource)?;
        if request.resource.subresource.is_some() || !kind.allows(Verb::Watch) {
            return Err(Status::method_not_allowed(kind, "watch"));
        }
        let (labels, fields) =
            (request.label_selector.as_deref(), request.field_selector.as_deref());
        let selection = Selection::of(kind, &request.resource, labels, fields)?;
        check_options(request)?;
        let named = Named::parse(request.resource_version.as_deref())?;
        self.freshen(named, request.deadline).await?;
        let local = self.store().revision();
        let (from, initial) = match (request.initial, named) {
            (InitialEvents::Send, _) => (local, true),
            (InitialEvents::Unset, Named::Latest | Named::Any) => (local, true),
            (InitialEvents::Skip, Named::Latest | Named::Any) => (local, false),
            (_, Named::At(revision)) => (revision, false),
        };
        let feed = selection.feed(self.store(), from);
        let Ok(feed) = feed else {
            return self.expired_watch(request, kind, selection, from);
        };
        let initial = initial.then_some(Initial {
            at: from,
            after: None,
            announced: request.initial == InitialEvents::Send
                && request.bookmarks == Bookmarks::Allow,
        });
        Ok(self.object_watch(request, kind, selection, feed, (from, initial)))
    }

    /// A watch from a compacted revision: it says so in its only event.
    fn expired_watch(
        &self,
        request: &WatchRequest,
        kind: &'static Kind,
        selection: Selection,
        from: Revision,
    ) -> Result<ObjectWatch, Status> {
        let status = Status::revision_too_old(from.0, self.store().compacted().0);
        let feed = self
            .store()
            .watch(&selection.prefix, self.store().revision())
            .map_err(|_| status.clone())?;
        let mut watch = self.object_watch(request, kind, selection, feed, (from, None));
        watch.fail(&status);
        Ok(watch)
    }

    fn object_watch(
        &self,
        request: &WatchRequest,
        kind: &'static Kind,
        selection: Selection,
        feed: Watch,
        (from, initial): (Revision, Option<Initial>),
    ) -> ObjectWatch {
        let now = self.env().monotonic();
        let life = match request.timeout_seconds {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds.min(24 * 3600)),
            _ => {
                TIMEOUT_MIN
                    + Duration::from_millis(
                        self.env().random_u64() % TIMEOUT_MIN.as_millis() as u64,
                    )
            }
        };
        ObjectWatch {
            api: self.clone(),
            kind,
            selection,
            form: request.form,
            bookmarks: request.bookmarks,
            feed,
            initial,
            ready: VecDeque::new(),
            seen: from,
            ends_at: now + life,
            bookmark_at: now + BOOKMARK_INTERVAL.min(life / 2),
            columns: Columns::Given,
            over: false,
        }
    }
}

impl ObjectWatch {
    /// The next event; `None` when the watch is over. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if self.initial.is_some() {
                self.more_initial();
                continue;
            }
            let timer = self.api.env().clock.sleep_until(self.ends_at.min(self.bookmark_at));
            let item = {
                let feed = std::pin::pin!(self.feed.next());
                match select(feed, timer).await {
                    Either::Left((item, _)) => Some(item),
                    Either::Right(_) => None,
                }
            };
            match item {
                Some(Ok(WatchItem::Change(change))) => self.take(&change),
                Some(Ok(WatchItem::Progress(revision))) => self.seen = self.seen.max(revision),
                Some(Err(closed)) => self.close(closed),
                None => self.tick(),
            }
        }
    }

    /// The revision up to which everything was given.
    pub fn revision(&self) -> Revision {
        self.seen
    }

    fn tick(&mut self) {
        let now = self.api.env().monotonic();
        self.over = now >= self.ends_at;
        self.bookmark_at = now + BOOKMARK_INTERVAL;
        if self.bookmarks == Bookmarks::Allow {
            let event = self.bookmark(self.seen, false);
            self.ready.push_back(event);
        }
    }

    fn close(&mut self, closed: WatchClosed) {
        match closed {
            WatchClosed::Compacted | WatchClosed::Restored => {
                let status = Status::revision_too_old(self.seen.0, self.api.store().compacted().0);
                self.fail(&status);
            }
            WatchClosed::Slow | WatchClosed::Stopped => self.over = true,
        }
    }

    fn fail(&mut self, status: &Status) {
        self.over = true;
        self.ready.push_back(WatchEvent {
            event_type: EventType::Error,
            object: Bytes::from(print(&status.to_json())),
            revision: self.seen,
        });
    }

    /// One more page of the present state.
    fn more_initial(&mut self) {
        let Some(initial) = self.initial.take() else {
            return;
        };
        let store = self.api.store().clone();
        let (items, last) = match &self.selection.key {
            Some(key) => match store.get_at(key, initial.at) {
                Ok(found) => (found.into_iter().collect(), None),
                Err(_) => return self.close(WatchClosed::Compacted),
            },
            None => {
                let after = initial.after.as_ref();
                match store.range(&self.selection.prefix, after, INITIAL_PAGE_LEN, Some(initial.at))
                {
                    Ok(page) => {
                        let last = page
                            .items
                            .last()
                            .map(|it| it.key.clone())
                            .filter(|_| page.remaining > 0);
                        (page.items, last)
                    }
                    Err(_) => return self.close(WatchClosed::Compacted),
                }
            }
        };
        for stored in &items {
            if self.selects(stored) {
                self.push(EventType::Added, stored, stored.modified);
            }
        }
        match last {
            Some(_) => self.initial = Some(Initial { after: last, ..initial }),
            None if initial.announced => {
                let event = self.bookmark(initial.at, true);
                self.ready.push_back(event);
            }
            None => {}
        }
    }

    fn take(&mut self, change: &Arc<Change>) {
        self.seen = self.seen.max(change.revision);
        if !self.selection.has_key(&change.key) {
            return;
        }
        let before = change.previous.as_ref().filter(|it| self.selects(it));
        let after = change.current.as_ref().filter(|it| self.selects(it));
        match (before, after) {
            (None, Some(now)) => self.push(EventType::Added, now, now.modified),
            (Some(_), Some(now)) => self.push(EventType::Modified, now, now.modified),
            (Some(last), None) => self.push(EventType::Deleted, last, change.revision),
            (None, None) => {}
        }
    }

    fn selects(&self, stored: &Stored) -> bool {
        if self.selection.is_everything() {
            return true;
        }
        let tree = self.api.shared_tree(self.kind, stored);
        tree.is_ok_and(|it| self.selection.matches(&it))
    }

    fn push(&mut self, event_type: EventType, stored: &Stored, revision: Revision) {
        let encoded = match self.form {
            Form::Table(include) => self.api.tree(self.kind, stored, revision).map(|tree| {
                let columns = std::mem::replace(&mut self.columns, Columns::Omitted);
                Bytes::from(print(&table_of(
                    self.kind,
                    &tree,
                    include,
                    self.api.env().wall(),
                    columns,
                )))
            }),
            form => self.api.shared_encoding(self.kind, stored, revision, form),
        };
        match encoded {
            Ok(object) => self.ready.push_back(WatchEvent { event_type, object, revision }),
            Err(status) => self.fail(&status),
        }
    }

    fn bookmark(&mut self, at: Revision, ends_initial: bool) -> WatchEvent {
        let mut metadata = json!({"resourceVersion": at.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({INITIAL_END: "true"});
        }
        let (api_version, kind) = match self.form {
            Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
            _ => (self.kind.api_version(), self.kind.kind),
        };
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if let Form::Table(_) = self.form {
            let row = json!({"cells": [], "object": object});
            let metadata = json!({"resourceVersion": at.to_string()});
            object = table::table(&self.kind.printer, metadata, vec![row], self.columns);
        }
        WatchEvent {
            event_type: EventType::Bookmark,
            object: Bytes::from(print(&object)),
            revision: at,
        }
    }
}

/// The rules on `sendInitialEvents` and `resourceVersionMatch`.
fn check_options(request: &WatchRequest) -> Result<(), Status> {
    match (request.initial, request.version_match) {
        (InitialEvents::Unset, Some(_)) => Err(invalid_options(
            "ListOptions",
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
        (InitialEvents::Unset, None) => Ok(()),
        (_, Some(VersionMatch::NotOlderThan)) => Ok(()),
        (_, None) => Err(invalid_options(
            "ListOptions",
            "resourceVersionMatch",
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        (_, Some(VersionMatch::Exact)) => Err(invalid_options(
            "ListOptions",
            "resourceVersionMatch",
            "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"",
        )),
    }
}
