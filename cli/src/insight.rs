//! The verbs that look inside: questions to the running kactor, answers as tables or JSON.
//!
//! The REPL and the subcommands share `answer`; nothing here decides, the actors' own records are printed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_gateway::ALL_HOSTS;
use kactor_protocol::insight::{ActorRow, Insight, InsightReply, NoteRow, RecordRow, TopBy};
use kactor_protocol::{ActorName, Timestamp, TraceId};
use kactor_runtime::env::Env;
use serde_json::Value;

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
            Look::Tap { .. } => tap(&client, look, connect.output).await,
            _ => answer(&client, look, connect.output).await,
        }
    })
}

/// Asks one question and prints the answer. Not found is exit code 1.
pub async fn answer(client: &Client, look: &Look, output: Output) -> anyhow::Result<ExitCode> {
    let asked = Asked::of(look)?;
    let told = ask(client, &asked).await?;
    for it in &told.unanswered {
        eprintln!("host {} did not answer: {}", word(&it["host"]), word(&it["why"]));
    }
    let reply = told.reply()?;
    if let (Look::Links { .. } | Look::Certs { .. }, InsightReply::Inspect { report }) =
        (look, &reply)
    {
        let state = report.state.as_deref().context("the links did not say their state in time")?;
        let state: Value = serde_json::from_str(state).context("the state of the links")?;
        match (output, look) {
            (Output::Json, _) => println!("{state:#}"),
            (Output::Text, Look::Certs { .. }) => print!("{}", crate::links::certificates(&state)),
            (Output::Text, _) => print!("{}", crate::links::text(&state)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let (Look::Raft { .. }, InsightReply::Inspect { report }) = (look, &reply) {
        let state = report.state.as_deref().context("the store did not say its state in time")?;
        let state: Value = serde_json::from_str(state).context("the store's state")?;
        match output {
            Output::Json => println!("{state:#}"),
            Output::Text => print!("{}", crate::raft::text(&state)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    match output {
        Output::Json => println!("{:#}", told.tree),
        Output::Text => print!("{}", text(&reply, &told.hosts())),
    }
    Ok(if matches!(reply, InsightReply::NotFound { .. }) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A question, and whom it is for.
struct Asked {
    question: Insight,
    /// `None`: the host that is spoken to.
    host: Option<String>,
}

impl Asked {
    /// What spreads over hosts is asked of all of them, unless one is named.
    fn of(look: &Look) -> anyhow::Result<Self> {
        let spreads = matches!(
            look,
            Look::Actors { .. }
                | Look::Trace { .. }
                | Look::Why { .. }
                | Look::Dead { .. }
                | Look::Top { .. }
        );
        let named = match look {
            Look::Inspect { actor, .. } | Look::Mailbox { actor, .. } | Look::Tap { actor, .. } => {
                actor.split_once('@').map(|(_, host)| host)
            }
            _ => None,
        };
        let host = look.host().or(named).or(spreads.then_some(ALL_HOSTS));
        if let Some(host) = host
            && let Some(odd) = host.chars().find(|it| !it.is_alphanumeric() && !"-.*".contains(*it))
        {
            bail!("{host:?} names no host: it has {odd:?}");
        }
        Ok(Self { question: question(look)?, host: host.map(str::to_owned) })
    }
}

/// What came back: the answer as it is, and who did not answer.
struct Told {
    tree: Value,
    unanswered: Vec<Value>,
}

impl Told {
    fn reply(&self) -> anyhow::Result<InsightReply> {
        serde_json::from_value(self.tree.clone())
            .context("the answer is of another version of kactor")
    }

    /// The hosts of the rows of each list, where they are of several hosts.
    fn hosts(&self) -> Hosts {
        let fields = self.tree.as_object().into_iter().flat_map(|it| it.values());
        let lists = fields.filter_map(Value::as_object).flatten();
        let lists = lists.filter_map(|(name, it)| Some((name.clone(), it.as_array()?)));
        let host = |row: &Value| word(&row["host"]).to_owned();
        let hosts: Hosts =
            lists.map(|(name, rows)| (name, rows.iter().map(host).collect())).collect();
        let all: BTreeSet<&String> = hosts.values().flatten().collect();
        if all.len() > 1 { hosts } else { Hosts::new() }
    }
}

/// Of each list of an answer the host of every row; nothing when one host has all.
type Hosts = BTreeMap<String, Vec<String>>;

/// A table whose rows name their hosts first, where they are of several.
fn hosted(hosts: &Hosts, list: &str, head: &[&str], mut rows: Vec<Vec<String>>) -> String {
    let Some(hosts) = hosts.get(list).filter(|it| it.len() == rows.len()) else {
        return table(head, &rows);
    };
    for (row, host) in rows.iter_mut().zip(hosts) {
        row.insert(0, host.clone());
    }
    table(&[&["HOST"], head].concat(), &rows)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn ask(client: &Client, asked: &Asked) -> anyhow::Result<Told> {
    let path = match &asked.host {
        Some(host) => format!("/kactor/v1/insight?host={host}"),
        None => "/kactor/v1/insight".to_owned(),
    };
    let answer = client.post(&path, &serde_json::to_value(&asked.question)?).await?;
    let mut tree = answer.json()?;
    let unanswered = tree.as_object_mut().and_then(|it| it.remove("unanswered"));
    let unanswered = unanswered.and_then(|it| it.as_array().cloned()).unwrap_or_default();
    Ok(Told { tree, unanswered })
}

fn question(look: &Look) -> anyhow::Result<Insight> {
    let limit = ROWS;
    Ok(match look {
        Look::Actors { prefix, .. } => Insight::Actors { prefix: prefix.clone(), limit },
        Look::Inspect { actor, .. } => Insight::Inspect { actor: name(actor)? },
        Look::Mailbox { actor, .. } => Insight::Mailbox { actor: name(actor)?, limit },
        Look::Tap { actor, .. } => Insight::Tap { actor: name(actor)?, after: 0, limit },
        Look::Trace { what, .. } => match what.parse::<TraceId>() {
            Ok(trace) if what.len() == 16 => Insight::Trace { trace, limit },
            _ => Insight::TraceOf { key: object_key(what)?, limit },
        },
        Look::Why { object, .. } => Insight::Why { key: object_key(object)?, limit },
        Look::Dead { .. } => Insight::Dead { limit },
        Look::Raft { .. } => Insight::Inspect { actor: name("store")? },
        Look::Links { .. } | Look::Certs { .. } => Insight::Inspect { actor: name("links")? },
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
    let text = text.split_once('@').map_or(text, |(actor, _)| actor);
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

fn text(reply: &InsightReply, hosts: &Hosts) -> String {
    match reply {
        InsightReply::Actors { actors } if actors.is_empty() => {
            "no actor's name begins so; `actors` lists all\n".to_owned()
        }
        InsightReply::Actors { actors } | InsightReply::Top { actors } => {
            actors_table(actors, hosts)
        }
        InsightReply::Inspect { report } => {
            let mut out = actors_table(std::slice::from_ref(&report.row), hosts);
            if let Some(handling) = &report.handling {
                out.push_str(&format!(
                    "at work on {} for {} ms (trace {})\n",
                    handling.message, handling.for_ms, handling.trace
                ));
            }
            match report.state.as_deref().map(serde_json::from_str::<Value>) {
                Some(Ok(state)) => out.push_str(&format!("state {state:#}\n")),
                Some(Err(_)) => out
                    .push_str(&format!("state {}\n", report.state.as_deref().unwrap_or_default())),
                None => out.push_str("state: it did not answer in time\n"),
            }
            if !report.children.is_empty() {
                let names: Vec<&str> = report.children.iter().map(ActorName::as_str).collect();
                out.push_str(&format!("children {}\n", names.join(" ")));
            }
            out.push_str(&records(&report.last_inputs, hosts));
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
        InsightReply::Tap { records: rows, .. } => records(rows, hosts),
        InsightReply::Trace { records: rows, notes }
        | InsightReply::TraceOf { records: rows, notes } => {
            if rows.is_empty() && notes.is_empty() {
                return "nothing of it is kept any more\n".to_owned();
            }
            format!("{}{}", records(rows, hosts), why(notes, hosts))
        }
        InsightReply::Why { notes } if notes.is_empty() => {
            "nothing was noted of it since kactor started; is the name right?\n".to_owned()
        }
        InsightReply::Why { notes } => why(notes, hosts),
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
                    hosted(hosts, "letters", &["AT", "MESSAGE", "FROM", "TO", "REASON"], rows)
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

fn actors_table(actors: &[ActorRow], hosts: &Hosts) -> String {
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
    hosted(hosts, "actors", &head, actors.iter().map(row).collect())
}

fn records(rows: &[RecordRow], hosts: &Hosts) -> String {
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
    let head = ["AT", "ACTOR", "MESSAGE", "FROM", "TRACE", "NOTE"];
    hosted(hosts, "records", &head, rows.iter().map(row).collect())
}

fn why(notes: &[NoteRow], hosts: &Hosts) -> String {
    let row = |it: &NoteRow| vec![moment(it.at), it.actor.clone(), it.text.clone()];
    if notes.is_empty() {
        return String::new();
    }
    hosted(hosts, "notes", &["AT", "WHO", "WHAT"], notes.iter().map(row).collect())
}

/// Follows an actor until `max` messages were shown.
pub async fn tap(client: &Client, look: &Look, output: Output) -> anyhow::Result<ExitCode> {
    let Look::Tap { actor, max, .. } = look else { bail!("only `tap` follows an actor") };
    let (actor, env) = (name(actor)?, Env::machine());
    let host = Asked::of(look)?.host;
    let asked = |after, limit| Asked {
        question: Insight::Tap { actor: actor.clone(), after, limit },
        host: host.clone(),
    };
    let mut left = *max;
    // What was before the tap is not followed.
    let first = ask(client, &asked(0, ROWS)).await?;
    let mut after = match first.reply()? {
        InsightReply::Tap { next, .. } => next,
        other => {
            print!("{}", text(&other, &Hosts::new()));
            return Ok(ExitCode::FAILURE);
        }
    };
    while left > 0 {
        let told = ask(client, &asked(after, left.min(ROWS))).await?;
        let InsightReply::Tap { records: rows, next } = told.reply()? else {
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
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        look: Look,
    }

    #[test]
    fn what_spreads_over_hosts_is_asked_of_all_and_an_actor_may_name_its_host() {
        for (line, host) in [
            ("actors", Some("*")),
            ("trace pod/web", Some("*")),
            ("why pod/web --host n2", Some("n2")),
            ("inspect store", None),
            ("inspect store@n2", Some("n2")),
            ("mailbox store@n2", Some("n2")),
            ("tap store@n2 --max 1", Some("n2")),
            ("links", None),
            ("links --host n3", Some("n3")),
        ] {
            let look = Line::try_parse_from(format!("kactor {line}").split(' ')).unwrap().look;
            let asked = Asked::of(&look).unwrap();
            assert_eq!(asked.host.as_deref(), host, "{line}");
            if let Insight::Inspect { actor } | Insight::Mailbox { actor, .. } = asked.question {
                assert!(["store", "links"].contains(&actor.as_str()), "{line}: {actor}");
            }
        }
        let odd = Line::try_parse_from(["kactor", "dead", "--host", "a&b"]).unwrap().look;
        assert!(Asked::of(&odd).is_err());
    }

    #[test]
    fn rows_name_their_hosts_where_they_are_of_several() {
        let note = |host: &str| {
            json!({ "at": 1, "actor": "scheduler", "key": "k", "trace": 1, "cause": 0,
                "text": "bound", "host": host })
        };
        let told = |hosts: [&str; 2]| Told {
            tree: json!({ "Why": { "notes": hosts.map(note) } }),
            unanswered: Vec::new(),
        };
        let lines = |told: &Told| text(&told.reply().unwrap(), &told.hosts());
        assert!(lines(&told(["a", "b"])).starts_with("HOST"), "{}", lines(&told(["a", "b"])));
        assert!(lines(&told(["a", "a"])).starts_with("AT"));
    }

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
