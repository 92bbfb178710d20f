//! Events about pods: what the agent tells people, as core/v1 Event objects. Pure.
//!
//! The same sentence about the same pod is one Event whose count grows; how many are remembered is bounded, as is
//! how often one is sent (upstream: client-go record EventCorrelator).

use std::collections::BTreeMap;

use kactor_protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::perform::Happened;
use crate::spec::Pod;

/// Sentences remembered for one pod, for counting.
const REMEMBERED_MAX: usize = 32;
/// A sentence that is said again within this time is counted and not sent.
const AGAIN_MS_MIN: u64 = 10_000;

/// One pod's sentences so far.
#[derive(Debug, Default)]
pub struct EventLog {
    said: BTreeMap<(&'static str, String), Said>,
    n_created: u64,
}

#[derive(Debug, Clone)]
struct Said {
    name: String,
    count: u64,
    first: Timestamp,
    sent: Timestamp,
}

/// What to send.
#[derive(Debug, Clone, PartialEq)]
pub enum Send {
    Create(Value),
    /// Merge patch of the Event of that name.
    Patch(String, Value),
    /// Said a moment ago: only counted.
    Nothing,
}

impl EventLog {
    /// Takes a sentence down. `name_suffix` makes a new Event's name unique; by their names Events are in order, and
    /// so clients show them, whose times are whole seconds.
    pub fn say(
        &mut self,
        pod: &Pod,
        node: &str,
        it: &Happened,
        now: Timestamp,
        name_suffix: u64,
    ) -> Send {
        let key = (it.reason, it.message.clone());
        if let Some(said) = self.said.get_mut(&key) {
            said.count += 1;
            if now.0.saturating_sub(said.sent.0) < AGAIN_MS_MIN {
                return Send::Nothing;
            }
            said.sent = now;
            let patch = json!({ "count": said.count, "lastTimestamp": now.to_string() });
            return Send::Patch(said.name.clone(), patch);
        }
        if self.said.len() >= REMEMBERED_MAX {
            let oldest =
                self.said.iter().min_by_key(|(_, it)| it.first).map(|(key, _)| key.clone());
            oldest.and_then(|it| self.said.remove(&it));
        }
        let rank = (self.n_created & 0xff) << 8 | (name_suffix & 0xff);
        self.n_created += 1;
        let name = format!("{}.{:x}{rank:04x}", pod.metadata.name, now.0);
        let said = Said { name: name.clone(), count: 1, first: now, sent: now };
        self.said.insert(key, said);
        Send::Create(event(pod, node, it, now, &name))
    }
}

fn event(pod: &Pod, node: &str, it: &Happened, now: Timestamp, name: &str) -> Value {
    let meta = &pod.metadata;
    let mut about = json!({
        "apiVersion": "v1", "kind": "Pod",
        "namespace": meta.namespace, "name": meta.name, "uid": meta.uid,
    });
    if let Some(container) = &it.container {
        about["fieldPath"] = json!(format!("spec.containers{{{container}}}"));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "namespace": meta.namespace, "name": name },
        "involvedObject": about,
        "reason": it.reason,
        "message": it.message,
        "type": if it.normal { "Normal" } else { "Warning" },
        "source": { "component": "kubelet", "host": node },
        "reportingComponent": "kubelet",
        "reportingInstance": node,
        "firstTimestamp": now.to_string(),
        "lastTimestamp": now.to_string(),
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        crate::spec::parse(
            br#"{"metadata":{"name":"web","namespace":"d","uid":"u"},"spec":{"containers":[]}}"#,
        )
        .unwrap()
    }

    fn happened(message: &str) -> Happened {
        Happened {
            normal: false,
            reason: "BackOff",
            message: message.to_owned(),
            container: Some("a".to_owned()),
        }
    }

    #[test]
    fn the_same_sentence_is_counted_and_sent_seldom() {
        let mut log = EventLog::default();
        let mut say = |at: u64| log.say(&pod(), "n", &happened("x"), Timestamp(at), 7);
        let Send::Create(event) = say(0) else { panic!("not created") };
        assert_eq!(event["involvedObject"]["fieldPath"], "spec.containers{a}");
        assert_eq!(event["type"], "Warning");
        assert_eq!(say(5_000), Send::Nothing);
        let Send::Patch(name, patch) = say(10_000) else { panic!("not patched") };
        assert_eq!((name.as_str(), &patch["count"]), ("web.00007", &json!(3)));
    }

    #[test]
    fn events_of_one_moment_are_named_in_the_order_in_which_they_happened() {
        let mut log = EventLog::default();
        let mut name = |message: &str, at: u64, random: u64| {
            let Send::Create(event) =
                log.say(&pod(), "n", &happened(message), Timestamp(at), random)
            else {
                panic!("not created")
            };
            event["metadata"]["name"].as_str().unwrap().to_owned()
        };
        let at = 1_795_276_325_000;
        let names = [name("pulled", at, 900), name("created", at, 5), name("started", at + 1, 0)];
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut log = EventLog::default();
        for n in 0..100 {
            log.say(&pod(), "n", &happened(&n.to_string()), Timestamp(n), n);
        }
        assert_eq!(log.said.len(), REMEMBERED_MAX);
    }
}
