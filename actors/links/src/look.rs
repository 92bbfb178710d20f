//! An operator's question to other hosts, or to all of them: who is asked, and one answer made of many.
//!
//! The answer is that of one host with every row naming its host; who did not answer is named beside it.

use std::time::Duration;

use futures::StreamExt;
use kactor_protocol::insight::{Insight, InsightReply, LookInside, ROWS_MAX, TopBy};
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation};
use kactor_runtime::ActorSystem;
use serde_json::{Value, json};

use crate::host_links::HostLinks;
use crate::links_actor::{LINKS, LinksActor};

const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Hosts that are asked at one time.
const AT_ONCE: usize = 16;

/// Whom a question is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    One(HostId),
    All,
}

impl HostLinks {
    /// Asks, and puts the answers together.
    pub async fn look(&self, system: &ActorSystem, whom: Whom, question: Insight) -> Value {
        let hosts = match whom {
            Whom::One(host) => vec![host],
            Whom::All => {
                let mut hosts: Vec<_> = self.directory().snapshot().into_keys().collect();
                hosts.push(self.host().clone());
                hosts.sort();
                hosts.dedup();
                hosts
            }
        };
        let asks = hosts.into_iter().map(|host| async {
            let answer = self.ask_host(system, &host, question.clone()).await;
            (host, answer)
        });
        let mut asks = futures::stream::iter(asks).buffered(AT_ONCE);
        let mut merged = Merged::new(&question);
        while let Some((host, answer)) = asks.next().await {
            merged.take(&host, answer);
        }
        merged.finish()
    }

    async fn ask_host(
        &self,
        system: &ActorSystem,
        host: &HostId,
        question: Insight,
    ) -> Result<InsightReply, String> {
        if host == self.host() {
            return Ok(system.insight(question).await);
        }
        if self.directory().get(host).is_none() {
            return Err("no host of this cluster has that name".to_owned());
        }
        let name = ActorName::new(LINKS).expect("a plain word");
        let address = ActorAddress { host: host.clone(), name, incarnation: Incarnation(0) };
        let asked = system
            .remote::<LinksActor>(address)
            .ask(LookInside { question }, system.deadline(ANSWER_MAX));
        asked.await.map_err(|it| it.to_string())
    }
}

/// The answers so far. Lists are put together row by row; of what is no list the first host's counts.
struct Merged {
    order: Order,
    limit: usize,
    answer: Option<Value>,
    not_found: Option<InsightReply>,
    unanswered: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    ByName,
    ByTime,
    Greatest(&'static str),
}

impl Merged {
    fn new(question: &Insight) -> Self {
        let (order, limit) = match question {
            Insight::Top { by, limit } => {
                let field = match by {
                    TopBy::Busy => "busy_us",
                    TopBy::Handled => "handled",
                    TopBy::Mailbox => "mailbox_len",
                    TopBy::OldestWait => "oldest_wait_ms",
                    TopBy::Restarts => "restarts",
                };
                (Order::Greatest(field), *limit)
            }
            Insight::Actors { limit, .. } => (Order::ByName, *limit),
            Insight::Trace { limit, .. }
            | Insight::TraceOf { limit, .. }
            | Insight::Why { limit, .. }
            | Insight::Tap { limit, .. }
            | Insight::Dead { limit } => (Order::ByTime, *limit),
            Insight::Inspect { .. } | Insight::Mailbox { .. } => (Order::ByName, ROWS_MAX),
        };
        let limit = limit.min(ROWS_MAX) as usize;
        Self { order, limit, answer: None, not_found: None, unanswered: Vec::new() }
    }

    fn take(&mut self, host: &HostId, answer: Result<InsightReply, String>) {
        let reply = match answer {
            Err(why) => return self.unanswered.push(json!({ "host": host, "why": why })),
            Ok(it @ InsightReply::NotFound { .. }) => {
                self.not_found.get_or_insert(it);
                return;
            }
            Ok(it) => it,
        };
        let Ok(mut tree) = serde_json::to_value(reply) else { return };
        for list in lists(&mut tree) {
            for row in list {
                row["host"] = json!(host);
            }
        }
        let Some(merged) = &mut self.answer else {
            self.answer = Some(tree);
            return;
        };
        for (list, more) in lists(merged).into_iter().zip(lists(&mut tree)) {
            list.append(more);
        }
        if let (Some(total), Some(more)) =
            (merged.pointer_mut("/Dead/total"), tree.pointer("/Dead/total"))
        {
            *total = json!(total.as_u64().unwrap_or(0) + more.as_u64().unwrap_or(0));
        }
        self.arrange();
    }

    fn arrange(&mut self) {
        let (order, limit) = (self.order, self.limit);
        for list in self.answer.as_mut().map(lists).into_iter().flatten() {
            let number = |row: &Value, field: &str| row[field].as_u64().unwrap_or_default();
            let text = |row: &Value, at: &str| {
                row.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            // Stable: within a host the order is the host's own.
            match order {
                Order::ByTime => {
                    list.sort_by_key(|it| number(it, "at"));
                    list.drain(..list.len().saturating_sub(limit));
                }
                Order::ByName => {
                    list.sort_by_cached_key(|it| (text(it, "/address/name"), text(it, "/host")));
                    list.truncate(limit);
                }
                Order::Greatest(field) => {
                    list.sort_by_key(|it| std::cmp::Reverse(number(it, field)));
                    list.truncate(limit);
                }
            }
        }
    }

    fn finish(self) -> Value {
        let Self { answer, not_found, unanswered, .. } = self;
        let mut answer = answer.unwrap_or_else(|| {
            let what = || match unanswered.first() {
                Some(it) => format!("an answer of {}", it["host"].as_str().unwrap_or("a host")),
                None => "an answer".to_owned(),
            };
            let reply = not_found.unwrap_or_else(|| InsightReply::NotFound { what: what() });
            serde_json::to_value(reply).unwrap_or_default()
        });
        if !unanswered.is_empty() {
            answer["unanswered"] = Value::Array(unanswered);
        }
        answer
    }
}

/// The lists of an answer, in the order of their names.
fn lists(answer: &mut Value) -> Vec<&mut Vec<Value>> {
    let variants = answer.as_object_mut().into_iter().flat_map(|it| it.values_mut());
    let fields = variants.filter_map(Value::as_object_mut).flat_map(|it| it.values_mut());
    fields.filter_map(Value::as_array_mut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kactor_protocol::insight::NoteRow;
    use kactor_protocol::{LetterId, Timestamp, TraceId};

    fn host(name: &str) -> HostId {
        HostId::new(name).unwrap()
    }

    fn notes(moments: &[u64]) -> InsightReply {
        let note = |at: &u64| NoteRow {
            at: Timestamp(*at),
            actor: "scheduler".into(),
            key: "//pods/default/web".into(),
            trace: TraceId(1),
            cause: LetterId(0),
            text: "bound".into(),
        };
        InsightReply::Why { notes: moments.iter().map(note).collect() }
    }

    #[test]
    fn rows_of_all_hosts_stand_by_time_name_their_host_and_are_still_an_answer_of_one() {
        let question = Insight::Why { key: String::new(), limit: 3 };
        let mut merged = Merged::new(&question);
        merged.take(&host("a"), Ok(notes(&[10, 30])));
        merged.take(&host("b"), Ok(notes(&[20, 40])));
        merged.take(&host("c"), Err("it is gone".to_owned()));
        let answer = merged.finish();
        let rows = answer["Why"]["notes"].as_array().unwrap();
        let seen: Vec<_> = rows.iter().map(|it| (it["at"].clone(), it["host"].clone())).collect();
        let row = |at: u64, host: &str| (json!(at), json!(host));
        assert_eq!(seen, [row(20, "b"), row(30, "a"), row(40, "b")], "the last of all");
        assert_eq!(answer["unanswered"], json!([{ "host": "c", "why": "it is gone" }]));
        let mut plain = answer.clone();
        plain.as_object_mut().unwrap().remove("unanswered");
        assert_eq!(serde_json::from_value::<InsightReply>(plain).unwrap(), notes(&[20, 30, 40]));
    }

    #[test]
    fn dead_letters_are_counted_together_and_nothing_found_is_not_found() {
        let mut merged = Merged::new(&Insight::Dead { limit: 5 });
        for name in ["a", "b"] {
            merged.take(&host(name), Ok(InsightReply::Dead { letters: Vec::new(), total: 4 }));
        }
        assert_eq!(merged.finish(), json!({ "Dead": { "letters": [], "total": 8 } }));
        let mut merged = Merged::new(&Insight::Dead { limit: 5 });
        merged.take(&host("a"), Err("it is gone".to_owned()));
        assert_eq!(merged.finish()["NotFound"]["what"], "an answer of a");
    }
}
