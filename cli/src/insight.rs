//! The verbs that look inside: questions to the running kactor, answers as tables or JSON.
//!
//! The REPL and the subcommands share `answer`; nothing here decides, the actors' own records are printed.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_protocol::insight::{ActorRow, Insight, InsightReply, NoteRow, RecordRow, TopBy};
use kactor_protocol::{ActorName, Timestamp, TraceId};
use kactor_runtime::env::Env;

use crate::args::{By, Look, Output};
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::print::table;

/// Rows asked for where the command names no limit.
const ROWS: u32 = 1000;
const TAP_EVERY: Duration = Duration::from_millis(100);

pub fn run(look: &Look) -> anyhow::Result<ExitCode> {
    let connect = look.connect();
    let dir = DataDir::find(connect.data_dir.as_deref())?;
    block_on(async {
        let client = Client::of(&dir)?;
        match look {
            Look::Tap { actor, max, .. } => tap(&client, actor, *max, connect.output).await,
            _ => answer(&client, look, connect.output).await,
        }
    })
}

/// Asks one question and prints the answer. Not found is exit code 1.
pub async fn answer(client: &Client, look: &Look, output: Output) -> anyhow::Result<ExitCode> {
    let reply = ask(client, &question(look)?).await?;
    if let (Look::Raft { .. }, InsightReply::Inspect { report }) = (look, &reply) {
        let state = report.state.as_deref().context("the store did not say its state in time")?;
        let state: serde_json::Value = serde_json::from_str(state).context("the store's state")?;
        match output {
            Output::Json => println!("{state:#}"),
            Output::Text => print!("{}", crate::raft::text(&state)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&reply)?),
        Output::Text => print!("{}", text(&reply)),
    }
    Ok(if matches!(reply, InsightReply::NotFound { .. }) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn ask(client: &Client, question: &Insight) -> anyhow::Result<InsightReply> {
    let answer = client.post("/kactor/v1/insight", &serde_json::to_value(question)?).await?;
    serde_json::from_value(answer.json()?).context("the answer is of another version of kactor")
}

fn question(look: &Look) -> anyhow::Result<Insight> {
    let limit = ROWS;
    Ok(match look {
        Look::Actors { prefix, .. } => Insight::Actors { prefix: prefix.clone(), limit },
        Look::Inspect { actor, .. } => Insight::Inspect { actor: name(actor)? },
        Look::Mailbox { actor, .. } => Insight::Mailbox { actor: name(actor)?, limit },
        Look::Tap { .. } => bail!("a tap is followed, not asked once"),
        Look::Trace { what, .. } => match what.parse::<TraceId>() {
            Ok(trace) if what.len() == 16 => Insight::Trace { trace, limit },
            _ => Insight::TraceOf { key: object_key(what)?, limit },
        },
        Look::Why { object, .. } => Insight::Why { key: object_key(object)?, limit },
        Look::Dead { .. } => Insight::Dead { limit },
        Look::Raft { .. } => Insight::Inspect { actor: name("store")? },
        Look::Top { by, .. } => Insight::Top {
            limit: 20,
            by: match by {
                By::Busy => TopBy::Busy,
                By::Handled => TopBy::Handled,
                By::Mailbox => TopBy::Mailbox,
                By::Wait => TopBy::OldestWait,
                By::Restarts => TopBy::Restarts,
            },
        },
    })
}

fn name(text: &str) -> anyhow::Result<ActorName> {
    ActorName::new(text)
        .with_context(|| format!("{text:?} names no actor; `kactor actors` lists them"))
}

/// `pod/web`, `pod/default/web` or `deployments.apps/default/web` as the store's key.
pub fn object_key(text: &str) -> anyhow::Result<String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    let mut parts = text.split('/');
    let kind = parts.next().unwrap_or_default();
    let (plain, group) =
        kind.split_once('.').map_or((kind, None), |(plain, group)| (plain, Some(group)));
    let known = kactor_objects::registry::registry().iter().find(|it| {
        let named = it.resource == plain || it.singular == plain || it.short_names.contains(&plain);
        named && group.is_none_or(|group| group == it.group)
    });
    let known = known.with_context(|| format!("{kind:?} is no kind of object that this kactor knows; `kubectl api-resources` lists them"))?;
    let rest: Vec<&str> = parts.collect();
    let (namespace, object) = match rest.as_slice() {
        [object] if known.is_namespaced() => ("default", *object),
        [object] => ("", *object),
        [namespace, object] => (*namespace, *object),
        _ => bail!("{text:?} is no object; write it as KIND/NAME or KIND/NAMESPACE/NAME"),
    };
    Ok(format!("/{}/{}/{namespace}/{object}", known.group, known.resource))
}

fn text(reply: &InsightReply) -> String {
    match reply {
        InsightReply::Actors { actors } if actors.is_empty() => {
            "no actor's name begins so; `actors` lists all\n".to_owned()
        }
        InsightReply::Actors { actors } | InsightReply::Top { actors } => actors_table(actors),
        InsightReply::Inspect { report } => {
            let mut out = actors_table(std::slice::from_ref(&report.row));
            if let Some(handling) = &report.handling {
                out.push_str(&format!(
                    "at work on {} for {} ms (trace {})\n",
                    handling.message, handling.for_ms, handling.trace
                ));
            }
            match report.state.as_deref().map(serde_json::from_str::<serde_json::Value>) {
                Some(Ok(state)) => out.push_str(&format!("state {state:#}\n")),
                Some(Err(_)) => out
                    .push_str(&format!("state {}\n", report.state.as_deref().unwrap_or_default())),
                None => out.push_str("state: it did not answer in time\n"),
            }
            if !report.children.is_empty() {
                let names: Vec<&str> = report.children.iter().map(ActorName::as_str).collect();
                out.push_str(&format!("children {}\n", names.join(" ")));
            }
            out.push_str(&records(&report.last_inputs));
            out
        }
        InsightReply::Mailbox { letters } if letters.is_empty() => "nothing waits\n".to_owned(),
        InsightReply::Mailbox { letters } => {
            let row = |it: &kactor_protocol::insight::WaitingRow| {
                vec![
                    it.message.clone(),
                    it.from.clone(),
                    format!("{} ms", it.waits_ms),
                    it.trace.to_string(),
                ]
            };
            table(
                &["MESSAGE", "FROM", "WAITS", "TRACE"],
                &letters.iter().map(row).collect::<Vec<_>>(),
            )
        }
        InsightReply::Tap { records: rows, .. } => records(rows),
        InsightReply::Trace { records: rows, notes }
        | InsightReply::TraceOf { records: rows, notes } => {
            if rows.is_empty() && notes.is_empty() {
                return "nothing of it is kept any more\n".to_owned();
            }
            format!("{}{}", records(rows), why(notes))
        }
        InsightReply::Why { notes } if notes.is_empty() => {
            "nothing was noted of it since kactor started; is the name right?\n".to_owned()
        }
        InsightReply::Why { notes } => why(notes),
        InsightReply::Dead { letters, total } => {
            let row = |it: &kactor_protocol::insight::DeadRow| {
                vec![
                    moment(it.at),
                    it.message.clone(),
                    it.from.clone(),
                    it.to.clone(),
                    it.reason.clone(),
                ]
            };
            let rows: Vec<_> = letters.iter().map(row).collect();
            format!(
                "{total} dead letters since the start\n{}",
                if rows.is_empty() {
                    String::new()
                } else {
                    table(&["AT", "MESSAGE", "FROM", "TO", "REASON"], &rows)
                }
            )
        }
        InsightReply::NotFound { what } => {
            format!("{what} is not here; `kactor actors` lists what is\n")
        }
    }
}

/// To the millisecond: within a second much happens.
fn moment(at: Timestamp) -> String {
    let micro = at.rfc3339_micro();
    format!("{}Z", &micro[..micro.len() - 4])
}

fn actors_table(actors: &[ActorRow]) -> String {
    let row = |it: &ActorRow| {
        vec![
            it.address.name.to_string(),
            it.kind.clone(),
            format!("{:?}", it.status),
            it.lane.clone(),
            format!("{}/{}", it.mailbox_len, it.mailbox_len_max),
            it.handled.to_string(),
            format!("{:.1}", it.busy_us as f64 / 1000.0),
            it.restarts.to_string(),
            it.last_error.clone().unwrap_or_default(),
        ]
    };
    let head = [
        "ACTOR",
        "KIND",
        "STATUS",
        "LANE",
        "MAILBOX",
        "HANDLED",
        "BUSY-MS",
        "RESTARTS",
        "LAST-ERROR",
    ];
    table(&head, &actors.iter().map(row).collect::<Vec<_>>())
}

fn records(rows: &[RecordRow]) -> String {
    let row = |it: &RecordRow| {
        vec![
            moment(it.at),
            it.actor.to_string(),
            it.message.clone(),
            it.from.clone(),
            it.trace.to_string(),
            it.note.clone(),
        ]
    };
    if rows.is_empty() {
        return String::new();
    }
    table(
        &["AT", "ACTOR", "MESSAGE", "FROM", "TRACE", "NOTE"],
        &rows.iter().map(row).collect::<Vec<_>>(),
    )
}

fn why(notes: &[NoteRow]) -> String {
    let row = |it: &NoteRow| vec![moment(it.at), it.actor.clone(), it.text.clone()];
    if notes.is_empty() {
        return String::new();
    }
    table(&["AT", "WHO", "WHAT"], &notes.iter().map(row).collect::<Vec<_>>())
}

/// Follows an actor until `max` messages were shown.
pub async fn tap(
    client: &Client,
    actor: &str,
    max: u32,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let (actor, env) = (name(actor)?, Env::machine());
    let mut left = max;
    // What was before the tap is not followed.
    let mut after =
        match ask(client, &Insight::Tap { actor: actor.clone(), after: 0, limit: ROWS }).await? {
            InsightReply::Tap { next, .. } => next,
            other => {
                print!("{}", text(&other));
                return Ok(ExitCode::FAILURE);
            }
        };
    while left > 0 {
        let asked = Insight::Tap { actor: actor.clone(), after, limit: left.min(ROWS) };
        let InsightReply::Tap { records: rows, next } = ask(client, &asked).await? else {
            bail!("the actor {actor} is gone");
        };
        after = next;
        left = left.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        for it in &rows {
            match output {
                Output::Json => println!("{}", serde_json::to_string(it)?),
                Output::Text => println!(
                    "{} {} from {} trace {} {}",
                    moment(it.at),
                    it.message,
                    it.from,
                    it.trace,
                    it.note
                ),
            }
        }
        if rows.is_empty() {
            env.sleep(TAP_EVERY).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_kubectl_names_them() {
        for (text, key) in [
            ("pod/web", "//pods/default/web"),
            ("po/kube-system/dns", "//pods/kube-system/dns"),
            ("deployment/web", "/apps/deployments/default/web"),
            ("deploy/web", "/apps/deployments/default/web"),
            ("deployments.apps/ns/web", "/apps/deployments/ns/web"),
            ("node/n1", "//nodes//n1"),
            ("//pods/a/b", "//pods/a/b"),
        ] {
            assert_eq!(object_key(text).unwrap(), key);
        }
        assert!(object_key("nonsense/x").unwrap_err().to_string().contains("api-resources"));
        assert!(object_key("pod").unwrap_err().to_string().contains("KIND/NAME"));
    }
}
