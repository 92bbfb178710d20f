//! Answers to `Insight`: what the REPL, `kactor inspect` and `kactor why` show.
//!
//! All but `Inspect` is answered from what the runtime keeps, without a word from the actors; only its state is
//! asked of the actor itself, with a deadline, so that one that hangs is shown as hanging.

use std::cmp::Reverse;
use std::time::Duration;

use kactor_protocol::insight::{
    ActorReport, ActorRow, Insight, InsightReply, NoteRow, ROWS_MAX, RecordRow, TopBy,
};
use kactor_protocol::{ActorName, TraceId};

use crate::recorder::Note;
use crate::system::ActorSystem;

/// How long an actor may take to say its state.
const STATE_TIMEOUT: Duration = Duration::from_secs(1);
/// Letters shown with an actor's state.
const LAST_INPUTS: usize = 10;

impl ActorSystem {
    /// Answers an operator's question about this host.
    pub async fn insight(&self, question: Insight) -> InsightReply {
        match question {
            Insight::Actors { prefix, limit } => {
                let entries = self.entries(&prefix);
                let actors = entries.iter().take(bound(limit)).map(|it| it.row()).collect();
                InsightReply::Actors { actors }
            }
            Insight::Inspect { actor } => self.report(&actor).await,
            Insight::Mailbox { actor, limit } => match self.entry(&actor) {
                Some(entry) => InsightReply::Mailbox { letters: entry.waiting(bound(limit)) },
                None => no_actor(&actor),
            },
            Insight::Tap { actor, after, limit } => self.tap(&actor, after, bound(limit)),
            Insight::Trace { trace, limit } => {
                let (records, notes) = self.of_traces(&[trace], bound(limit));
                InsightReply::Trace { records, notes }
            }
            Insight::TraceOf { key, limit } => {
                let mut traces: Vec<_> = self.notes().of(&key).iter().map(|it| it.trace).collect();
                traces.sort_unstable();
                traces.dedup();
                traces.retain(|it| *it != TraceId::NONE);
                let (records, notes) = self.of_traces(&traces, bound(limit));
                InsightReply::TraceOf { records, notes }
            }
            Insight::Why { key, limit } => {
                let mut notes = self.notes().of(&key);
                // Who wrote later may speak of what began before.
                notes.sort_by_key(|it| it.at);
                let notes = last(notes, bound(limit));
                InsightReply::Why { notes: notes.into_iter().map(Note::row).collect() }
            }
            Insight::Dead { limit } => {
                let (letters, total) = self.dead().last(bound(limit));
                InsightReply::Dead { letters, total }
            }
            Insight::Top { by, limit } => self.top(by, bound(limit)),
        }
    }

    async fn report(&self, actor: &ActorName) -> InsightReply {
        let Some(entry) = self.entry(actor) else { return no_actor(actor) };
        let state = entry.ask_state();
        let state = tokio::select! {
            biased;
            state = state => state.ok(),
            () = self.env().sleep(STATE_TIMEOUT) => None,
        };
        let report = ActorReport {
            row: entry.row(),
            state,
            handling: entry.vitals().handling(self.env().monotonic()),
            last_inputs: entry.vitals().last_inputs(LAST_INPUTS),
            children: self
                .children(actor)
                .iter()
                .map(|it| it.vitals().address.name.clone())
                .collect(),
        };
        InsightReply::Inspect { report: Box::new(report) }
    }

    fn tap(&self, actor: &ActorName, after: u64, limit: usize) -> InsightReply {
        let Some(entry) = self.entry(actor) else { return no_actor(actor) };
        let signs = entry.vitals().signs();
        let newer = signs.records.iter().filter(|it| it.sequence > after).take(limit);
        let records: Vec<_> = newer.map(|it| it.row(actor)).collect();
        // A counter behind `after` is one of an earlier life: the tap begins anew.
        let at = after.min(signs.records.last_sequence());
        let next = records.last().map_or(at, |it| it.sequence);
        InsightReply::Tap { records, next }
    }

    fn of_traces(&self, traces: &[TraceId], limit: usize) -> (Vec<RecordRow>, Vec<NoteRow>) {
        let mut records = Vec::new();
        for entry in self.entries("") {
            let name = &entry.vitals().address.name;
            let signs = entry.vitals().signs();
            let traced = signs.records.iter().filter(|it| traces.contains(&it.trace));
            records.extend(traced.map(|it| it.row(name)));
        }
        // Letters are numbered as they are sent: within one instant that is the order of events.
        records.sort_by_key(|it| (it.at, it.letter));
        let mut notes: Vec<_> =
            traces.iter().flat_map(|it| self.notes().of_trace(*it)).map(Note::row).collect();
        notes.sort_by_key(|it| it.at);
        (last(records, limit), last(notes, limit))
    }

    fn top(&self, by: TopBy, limit: usize) -> InsightReply {
        let mut actors: Vec<ActorRow> = self.entries("").iter().map(|it| it.row()).collect();
        let size = |row: &ActorRow| match by {
            TopBy::Busy => row.busy_us,
            TopBy::Handled => row.handled,
            TopBy::Mailbox => row.mailbox_len.into(),
            TopBy::OldestWait => row.oldest_wait_ms,
            TopBy::Restarts => row.restarts.into(),
        };
        actors.sort_by_key(|it| Reverse(size(it))); // Stable: equals stay by name.
        actors.truncate(limit);
        InsightReply::Top { actors }
    }
}

fn bound(limit: u32) -> usize {
    limit.min(ROWS_MAX) as usize
}

fn last<T>(mut rows: Vec<T>, limit: usize) -> Vec<T> {
    rows.drain(..rows.len().saturating_sub(limit));
    rows
}

fn no_actor(actor: &ActorName) -> InsightReply {
    InsightReply::NotFound { what: format!("actor {actor}") }
}
