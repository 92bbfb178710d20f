//! `kactor status`: what runs, and what is wrong, in a sentence.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use kactor_runtime::env::Env;
use serde_json::Value;

use crate::args::{Output, StatusArgs};
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::progress::Progress;

const LOOK_EVERY: Duration = Duration::from_millis(50);

pub fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let dir = DataDir::find(args.connect.data_dir.as_deref())?;
    let status = block_on(async {
        if args.wait {
            wait(&dir, args.timeout).await?;
        }
        let client = Client::of(&dir)?;
        let mut status = client.get("/kactor/v1/status").await?.json()?;
        status["pid"] = client.pid.into();
        Ok(status)
    })?;
    match args.connect.output {
        Output::Json => println!("{status:#}"),
        Output::Text => print!("{}", text(&status)),
    }
    Ok(if status["serves"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Until `/readyz` is 200.
async fn wait(dir: &DataDir, seconds: u64) -> anyhow::Result<()> {
    let env = Env::machine();
    let limit = env.monotonic() + Duration::from_secs(seconds);
    let mut progress = Progress::new(&env);
    loop {
        let last = match ask_ready(dir).await {
            Ok(true) => return Ok(()),
            Ok(false) => "it is not ready yet".to_owned(),
            Err(error) => crate::print::chain(&error),
        };
        if env.monotonic() >= limit {
            bail!(
                "the kactor of {} does not serve after {seconds} s: {last}",
                dir.root().display()
            );
        }
        progress.show(&format!("waiting: {last}"));
        env.sleep(LOOK_EVERY).await;
    }
}

async fn ask_ready(dir: &DataDir) -> anyhow::Result<bool> {
    Ok(Client::of(dir)?.get("/readyz").await?.code == 200)
}

fn text(status: &Value) -> String {
    let host = &status["host"];
    let store = &status["store"];
    let word = |it: &Value| it.as_str().map_or_else(|| it.to_string(), str::to_owned);
    let verdict = match (status["serves"] == true, status["wrong"].as_str()) {
        (true, None) => "serves; nothing is wrong".to_owned(),
        (true, Some(wrong)) => format!("serves, but {wrong}"),
        (false, wrong) => format!("does not serve: {}", wrong.unwrap_or("the reason is not known")),
    };
    let is_worker = status["role"] == "worker";
    let listen = word(&host["listen"]);
    let store = match is_worker {
        true => match status["session"].as_str() {
            Some(it) => ("session", format!("with {it}")),
            None => ("session", "with no control host".to_owned()),
        },
        false => (
            "store",
            format!(
                "revision {}, reign {}, {}",
                store["revision"],
                store["reign"],
                if store["leads"] == true { "leads" } else { "follows" }
            ),
        ),
    };
    let relayed = if is_worker { ", relayed to control hosts" } else { "" };
    let mut rows = vec![
        ("kactor", format!("{} (pid {})", word(&host["version"]), status["pid"])),
        ("node", format!("{} ({})", word(&host["node"]), word(&host["runtime"]))),
        ("API", format!("https://{listen}{relayed}")),
        ("data", word(&host["data_dir"])),
        store,
        ("up for", crate::print::span(status["uptime_seconds"].as_u64().unwrap_or_default())),
    ];
    rows.extend(crate::links::summary(&status["links"]).map(|it| ("links", it)));
    rows.push(("verdict", verdict));
    let mut out: String = rows.iter().map(|(name, value)| format!("{name:<8} {value}\n")).collect();
    let hosts = status["hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if hosts.len() > 1 {
        out.push('\n');
        out.push_str(&hosts_table(hosts));
    }
    out
}

fn hosts_table(hosts: &[Value]) -> String {
    let row = |it: &Value| {
        let word = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        let role = match (it["leads"] == true, it["leaving"] == true) {
            (_, true) => format!("{}, leaves", word("role")),
            (true, _) => format!("{}, leads", word("role")),
            _ => word("role"),
        };
        // Only the leader knows.
        let number = |name: &str, unit: &str| {
            it[name].as_u64().map_or_else(|| "-".to_owned(), |it| format!("{it}{unit}"))
        };
        let (lag, answered) = (number("lag", ""), number("answeredAgoMs", " ms ago"));
        vec![word("name"), role, word("address"), lag, answered, word("version")]
    };
    let head = ["HOST", "ROLE", "ADDRESS", "LAG", "ANSWERED", "VERSION"];
    crate::print::table(&head, &hosts.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_verdict_is_a_sentence() {
        let status =
            json!({ "serves": false, "wrong": "the disk is full", "host": {}, "store": {} });
        assert!(text(&status).ends_with("verdict  does not serve: the disk is full\n"));
        assert!(text(&json!({ "serves": true })).contains("serves; nothing is wrong"));
    }

    #[test]
    fn a_worker_shows_its_session_instead_of_a_store() {
        let host = json!({ "node": "w", "listen": "192.0.2.7:6443" });
        let shown =
            text(&json!({ "role": "worker", "session": "a", "host": host, "serves": true }));
        assert!(
            shown.contains("API      https://192.0.2.7:6443, relayed to control hosts\n"),
            "{shown}"
        );
        assert!(shown.contains("session  with a\n") && !shown.contains("store"), "{shown}");
    }

    #[test]
    fn hosts_are_a_table_where_there_are_several() {
        let host = |name: &str, leads: bool| {
            json!({
                "name": name, "role": "voter", "leads": leads, "address": "192.0.2.1:6443", "version": "0.1.0",
                "lag": if leads { Value::Null } else { json!(7) }, "answeredAgoMs": 40,
            })
        };
        let alone = text(&json!({ "serves": true, "hosts": [host("a", true)] }));
        assert!(!alone.contains("HOST"), "{alone}");
        let two = text(&json!({ "serves": true, "hosts": [host("a", true), host("b", false)] }));
        assert!(
            two.contains("a     voter, leads  192.0.2.1:6443  -    40 ms ago  0.1.0\n"),
            "{two}"
        );
        let link = json!({ "host": "b", "live": true, "round_trip_us": 300 });
        let linked = text(&json!({ "serves": true, "links": { "links": [link] } }));
        assert!(
            linked.contains("links    1 of 1 other hosts linked, slowest 0.3 ms\n"),
            "{linked}"
        );
        assert!(two.contains("b     voter         192.0.2.1:6443  7 "), "{two}");
    }
}
