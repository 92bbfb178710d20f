//! `kactor token`: what lets further hosts in.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use kactor_gateway::ClusterOrder;
use serde_json::Value;

use crate::args::{Output, TokenCommand};
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::print;

pub fn run(command: &TokenCommand) -> anyhow::Result<ExitCode> {
    let (connect, order) = match command {
        TokenCommand::Create { role, ttl, uses, connect } => {
            let role = format!("{role:?}").to_lowercase();
            (connect, ClusterOrder::CreateToken { role, ttl_seconds: ttl.as_secs(), uses: *uses })
        }
        TokenCommand::List { connect } => (connect, ClusterOrder::ListTokens),
        TokenCommand::Revoke { id, connect } => {
            (connect, ClusterOrder::RevokeToken { id: public_part(id).to_owned() })
        }
    };
    let dir = DataDir::find(connect.data_dir.as_deref())?;
    let answer = block_on(async { give(&Client::of(&dir)?, &order).await })?;
    if connect.output == Output::Json {
        println!("{answer:#}");
        return Ok(ExitCode::SUCCESS);
    }
    match command {
        TokenCommand::Create { .. } => print!("{}", created(&answer)),
        TokenCommand::List { .. } => print!("{}", list(&answer)),
        TokenCommand::Revoke { id, .. } => {
            println!("revoked {}; hosts that it let in stay", public_part(id));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives an order to the running kactor.
pub async fn give(client: &Client, order: &ClusterOrder) -> anyhow::Result<Value> {
    client.post("/kactor/v1/cluster", &serde_json::to_value(order)?).await?.json()
}

/// A whole token names itself by its first part.
fn public_part(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

fn created(answer: &Value) -> String {
    let word = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let hosts = match answer["uses"].as_u64() {
        Some(1) => "one host".to_owned(),
        n => format!("up to {} hosts", n.unwrap_or_default()),
    };
    let role = match answer["role"].as_str() {
        Some("control") => "as control hosts",
        Some("worker") => "as workers",
        _ => "as control hosts until there are three, then as workers",
    };
    format!(
        "On the next host:\n\n  {}\n\nThe token is valid until {} and lets in {hosts}, {role}. Whoever has it can join: keep it secret.\n",
        word("line"),
        word("expiresAt"),
    )
}

fn list(answer: &Value) -> String {
    let tokens = answer["tokens"].as_array().cloned().unwrap_or_default();
    if tokens.is_empty() {
        return "there are no tokens; `kactor token create` makes one\n".to_owned();
    }
    let row = |it: &Value| {
        let word = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        let used_by: Vec<&str> =
            it["usedBy"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        vec![
            word("id"),
            word("role"),
            word("state"),
            word("expiresAt"),
            format!("{}/{}", used_by.len(), it["uses"]),
            used_by.join(" "),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    print::table(&["TOKEN", "ROLE", "STATE", "EXPIRES", "USES", "USED-BY"], &rows)
}

/// `90s`, `30m`, `12h`, `7d`.
pub fn span(text: &str) -> anyhow::Result<Duration> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let number: u64 = digits.parse().with_context(|| format!("{text:?} is no time such as 1h"))?;
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => bail!("{text:?} is no time; write 90s, 30m, 12h or 7d"),
    };
    let all = number.checked_mul(seconds).with_context(|| format!("{text:?} is too long"))?;
    Ok(Duration::from_secs(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_written_with_a_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(span(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for wrong in
            ["", "1", "h", "1w", "-1h", "1h30m", "99999999999999999999d", "9999999999999999d"]
        {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_shown_as_the_line_to_paste_and_listed_without_its_secret() {
        let answer = json!({
            "line": "kactor up --join 192.0.2.1:6443 --token a.b.c", "expiresAt": "2026-11-21T20:00:00Z",
            "uses": 1, "role": "worker",
        });
        let text = created(&answer);
        assert!(text.contains("\n  kactor up --join 192.0.2.1:6443 --token a.b.c\n"), "{text}");
        assert!(text.contains("one host, as workers"), "{text}");
        let token = json!({
            "id": "0a1b2c3d", "role": "any", "state": "used", "expiresAt": "2026-11-21T20:00:00Z",
            "uses": 2, "usedBy": ["n2", "n3"],
        });
        let table = list(&json!({ "tokens": [token] }));
        assert!(
            table.contains("0a1b2c3d  any   used   2026-11-21T20:00:00Z  2/2   n2 n3"),
            "{table}"
        );
        assert_eq!(public_part("0a1b2c3d.secret.hash"), "0a1b2c3d");
    }
}
