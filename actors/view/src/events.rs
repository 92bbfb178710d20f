//! Notes become Kubernetes Events: repeated ones count up, similar ones are gathered, and no object may flood the store.
//!
//! Pure: it says which request to send. Follows client-go tools/record: equal events within ten minutes are one with a
//! count; more than ten that differ only in their message become one "(combined from similar events)"; each object has a
//! budget of 25, refilled one in five minutes. What is remembered is bounded; forgetting costs a new Event.

#[cfg(feature = "feed")]
pub mod writer;

use std::collections::BTreeMap;
use std::time::Duration;

use kactor_protocol::store::Key;
use kactor_protocol::{Timestamp, Uid};
use serde_json::{Value, json};

/// How bad a note is; all but `Trace` become Events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Recorded for `kactor why` alone.
    Trace,
    Normal,
    Warning,
}

/// Why something is (not) done, about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub about: Key,
    pub severity: Severity,
    /// CamelCase, as in Kubernetes' Events.
    pub reason: &'static str,
    pub message: String,
}

impl Note {
    pub fn new(
        about: &Key,
        severity: Severity,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { about: about.clone(), severity, reason, message: message.into() }
    }
}

const REMEMBERED_MAX: usize = 4096;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
const SIMILAR_MAX: usize = 10;
const BUDGET: f64 = 25.0;
const BUDGET_REFILL: Duration = Duration::from_secs(300);
/// An Event's message is cut to this (apiserver, validateEvent).
const MESSAGE_BYTES_MAX: usize = 1024;

/// (about, uid, reporter, reason): what similar events share.
type Group = (Key, Uid, String, &'static str);

/// `warning pod/web FailedCreate: …`
impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Trace => "note",
            Severity::Normal => "event",
            Severity::Warning => "warning",
        };
        let about = crate::fixture::short(&self.about);
        write!(f, "{severity} {about} {}: {}", self.reason, self.message)
    }
}

#[derive(Debug)]
struct Said {
    key: Key,
    count: i64,
    first: Timestamp,
    last: Timestamp,
}

#[derive(Debug, Default)]
struct Similar {
    by_message: BTreeMap<String, Said>,
    last: Timestamp,
}

#[derive(Debug)]
struct Budget {
    left: f64,
    at: Timestamp,
}

/// What the API is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum EventWrite {
    Create {
        key: Key,
        body: Value,
    },
    /// A merge patch.
    CountUp {
        key: Key,
        patch: Value,
    },
}

/// The object that a note is about, as an Event names it.
#[derive(Debug, Clone)]
pub struct Regarding {
    pub api_version: String,
    pub kind: String,
    pub uid: Uid,
    pub resource_version: String,
}

#[derive(Debug, Default)]
pub struct EventLog {
    groups: BTreeMap<Group, Similar>,
    budgets: BTreeMap<Key, Budget>,
    n_dropped: u64,
    serial: u64,
}

impl EventLog {
    /// What to write for a note; nothing for traces and for what is over budget.
    pub fn record(
        &mut self,
        reporter: &str,
        note: &Note,
        regarding: &Regarding,
        now: Timestamp,
    ) -> Option<EventWrite> {
        if note.severity == Severity::Trace {
            return None;
        }
        if !self.spend(&note.about, now) {
            self.n_dropped += 1;
            return None;
        }
        self.forget(now);
        self.serial += 1;
        let serial = self.serial;
        let group = (note.about.clone(), regarding.uid.clone(), reporter.to_owned(), note.reason);
        let similar = self.groups.entry(group).or_default();
        if now.since(similar.last) > SIMILAR_WINDOW {
            similar.by_message.clear();
        }
        similar.last = now;
        let mut message = cut(&note.message);
        if !similar.by_message.contains_key(&message) && similar.by_message.len() >= SIMILAR_MAX {
            message = format!("(combined from similar events): {message}");
            let combined =
                similar.by_message.keys().find(|it| it.starts_with("(combined")).cloned();
            if let Some(said) = combined.and_then(|it| similar.by_message.remove(&it)) {
                similar.by_message.insert(message.clone(), said);
            }
        }
        if let Some(said) = similar.by_message.get_mut(&message) {
            said.count += 1;
            said.last = now;
            let patch =
                json!({"count": said.count, "lastTimestamp": now.to_string(), "message": message});
            return Some(EventWrite::CountUp { key: said.key.clone(), patch });
        }
        let key = event_key(&note.about, now, serial);
        let said = Said { key: key.clone(), count: 1, first: now, last: now };
        debug_assert!(said.first <= said.last);
        similar.by_message.insert(message.clone(), said);
        let body = body(&key, reporter, note, regarding, (&message, now));
        Some(EventWrite::Create { key, body })
    }

    /// The Event is gone (it expired): the next one is made anew.
    pub fn lost(&mut self, key: &Key) {
        for similar in self.groups.values_mut() {
            similar.by_message.retain(|_, it| it.key != *key);
        }
    }

    pub fn n_dropped(&self) -> u64 {
        self.n_dropped
    }

    fn spend(&mut self, about: &Key, now: Timestamp) -> bool {
        let full = Budget { left: BUDGET, at: now };
        let budget = self.budgets.entry(about.clone()).or_insert(full);
        let refill = now.since(budget.at).as_secs_f64() / BUDGET_REFILL.as_secs_f64();
        budget.left = (budget.left + refill).min(BUDGET);
        budget.at = now;
        let has_any = budget.left >= 1.0;
        if has_any {
            budget.left -= 1.0;
        }
        has_any
    }

    fn forget(&mut self, now: Timestamp) {
        if self.groups.len() >= REMEMBERED_MAX {
            self.groups.retain(|_, it| now.since(it.last) <= SIMILAR_WINDOW);
        }
        while self.groups.len() >= REMEMBERED_MAX {
            self.groups.pop_first();
        }
        while self.budgets.len() >= REMEMBERED_MAX {
            self.budgets.pop_first();
        }
    }
}

fn cut(message: &str) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX - "(combined from similar events): ".len());
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

/// `web.17a3f…`: the object's name and a number that grows. Cluster-scoped objects' Events lie in `default`.
fn event_key(about: &Key, now: Timestamp, serial: u64) -> Key {
    let namespace = if about.namespace().is_empty() { "default" } else { about.namespace() };
    let mut base = about.name();
    base = &base[..base.len().min(200)]; // names are ASCII
    let name = format!("{base}.{:x}{serial:04x}", now.0);
    Key::new("", "events", namespace, &name).expect("made from names that are stored")
}

fn body(
    key: &Key,
    reporter: &str,
    note: &Note,
    regarding: &Regarding,
    (message, now): (&str, Timestamp),
) -> Value {
    let kind = match note.severity {
        Severity::Warning => "Warning",
        _ => "Normal",
    };
    let mut involved = json!({
        "apiVersion": regarding.api_version,
        "kind": regarding.kind,
        "name": note.about.name(),
        "uid": regarding.uid.as_str(),
        "resourceVersion": regarding.resource_version,
    });
    if !note.about.namespace().is_empty() {
        involved["namespace"] = note.about.namespace().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": key.name(), "namespace": key.namespace()},
        "involvedObject": involved,
        "type": kind,
        "reason": note.reason,
        "message": message,
        "source": {"component": reporter},
        "reportingComponent": reporter,
        "reportingInstance": "",
        "firstTimestamp": now.to_string(),
        "lastTimestamp": now.to_string(),
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::key_of;

    fn regarding() -> Regarding {
        Regarding {
            api_version: "v1".into(),
            kind: "Pod".into(),
            uid: "u".into(),
            resource_version: "1".into(),
        }
    }

    fn say(log: &mut EventLog, message: &str, seconds: u64) -> Option<EventWrite> {
        let note = Note::new(&key_of("pod/a"), Severity::Normal, "Pulled", message);
        log.record("me", &note, &regarding(), Timestamp::from_seconds(seconds))
    }

    #[test]
    fn the_same_note_counts_up() {
        let mut log = EventLog::default();
        let Some(EventWrite::Create { key, body }) = say(&mut log, "x", 1) else { panic!() };
        assert_eq!((&body["count"], &body["involvedObject"]["name"]), (&json!(1), &json!("a")));
        let Some(EventWrite::CountUp { key: same, patch }) = say(&mut log, "x", 2) else {
            panic!()
        };
        assert_eq!((same, &patch["count"]), (key.clone(), &json!(2)));
        log.lost(&key);
        assert!(matches!(say(&mut log, "x", 3), Some(EventWrite::Create { .. })));
    }

    #[test]
    fn many_similar_notes_become_one() {
        let mut log = EventLog::default();
        for n in 0..SIMILAR_MAX {
            assert!(matches!(say(&mut log, &format!("m{n}"), 1), Some(EventWrite::Create { .. })));
        }
        let Some(EventWrite::Create { body, .. }) = say(&mut log, "m10", 1) else { panic!() };
        assert_eq!(body["message"], "(combined from similar events): m10");
        let Some(EventWrite::CountUp { patch, .. }) = say(&mut log, "m11", 1) else { panic!() };
        assert_eq!(patch["message"], "(combined from similar events): m11");
    }

    #[test]
    fn an_object_has_a_budget_that_refills() {
        let mut log = EventLog::default();
        let n_written = (0..100).filter(|_| say(&mut log, "x", 1).is_some()).count();
        assert_eq!((n_written, log.n_dropped()), (25, 75));
        assert!(say(&mut log, "x", 301).is_some());
        assert!(say(&mut log, "x", 301).is_none());
    }

    #[test]
    fn traces_are_no_events() {
        let note = Note::new(&key_of("pod/a"), Severity::Trace, "Because", "x");
        assert_eq!(EventLog::default().record("me", &note, &regarding(), Timestamp(0)), None);
    }
}
