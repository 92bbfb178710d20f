//! `kactor links` and `kactor certs`: the report of the actor `links` in words and units.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::print::{bytes, table};

/// One row for each lane to each host.
pub fn text(state: &Value) -> String {
    let rows: Vec<_> = state["links"].as_array().into_iter().flatten().map(link).collect();
    let head =
        format!("host {}, listens on {}/udp\n", word(&state["host"]), word(&state["listen"]));
    match rows.is_empty() {
        true => format!("{head}no links: this host knows no other\n"),
        false => {
            let columns = [
                "HOST",
                "LANE",
                "STATE",
                "ADDRESS",
                "ROUND-TRIP",
                "SENT",
                "RECEIVED",
                "LAST-ERROR",
            ];
            format!("{head}{}", table(&columns, &rows))
        }
    }
}

fn link(it: &Value) -> Vec<String> {
    let carried = |frames: &str, size: &str| {
        let number = |field: &str| it[field].as_u64().unwrap_or_default();
        format!("{} in {}", bytes(number(size)), number(frames))
    };
    vec![
        word(&it["host"]).to_owned(),
        word(&it["lane"]).to_owned(),
        if it["live"] == true { "live" } else { "down" }.to_owned(),
        word(&it["address"]).to_owned(),
        round_trip(it),
        carried("sent_frames", "sent_bytes"),
        carried("received_frames", "received_bytes"),
        it["last_error"].as_str().unwrap_or_default().to_owned(),
    ]
}

fn round_trip(link: &Value) -> String {
    match link["round_trip_us"].as_u64() {
        Some(us) => format!("{:.1} ms", us as f64 / 1000.0),
        None => "-".to_owned(),
    }
}

/// The links in a few words, for `kactor status`; `None` where there are no other hosts.
pub fn summary(state: &Value) -> Option<String> {
    let links: Vec<&Value> = state["links"].as_array().into_iter().flatten().collect();
    let hosts = |is_live: bool| -> BTreeSet<&str> {
        let lanes = links.iter().filter(|it| !is_live || it["live"] == true);
        lanes.map(|it| word(&it["host"])).collect()
    };
    let (all, live) = (hosts(false), hosts(true));
    if all.is_empty() {
        return None;
    }
    let slowest = links.iter().filter_map(|it| it["round_trip_us"].as_u64()).max();
    let slowest =
        slowest.map_or(String::new(), |us| format!(", slowest {:.1} ms", us as f64 / 1000.0));
    let down = all.difference(&live).map(|host| {
        let lanes = links.iter().filter(|it| it["host"] == **host);
        let error = lanes.filter_map(|it| it["last_error"].as_str()).next();
        format!("; {host} is not linked: {}", error.unwrap_or("it was not reached yet"))
    });
    let down: String = down.collect();
    Some(format!("{} of {} other hosts linked{slowest}{down}", live.len(), all.len()))
}

/// One row for this host, and one for each host that showed its certificate.
pub fn certificates(state: &Value) -> String {
    let own = &state["certificate"];
    let mut rows = vec![vec![
        format!("{} (this host)", word(&state["host"])),
        word(&own["until"]).to_owned(),
        word(&own["renews_at"]).to_owned(),
    ]];
    for it in state["links"].as_array().into_iter().flatten() {
        let Some(until) = it["certificate_until"].as_str() else { continue };
        let row = vec![word(&it["host"]).to_owned(), until.to_owned(), "-".to_owned()];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    table(&["HOST", "VALID-UNTIL", "RENEWS-AT"], &rows)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state() -> Value {
        let lane = |lane: &str, live: bool| {
            json!({
                "host": "n2", "lane": lane, "live": live, "address": "192.0.2.2:6443",
                "round_trip_us": live.then_some(450), "last_error": (!live).then_some("timed out"),
                "certificate_until": live.then_some("2027-01-01T00:00:00Z"),
                "sent_frames": 3, "sent_bytes": 2048, "received_frames": 1, "received_bytes": 10,
            })
        };
        json!({
            "host": "n1", "listen": "192.0.2.1:6443",
            "certificate": { "until": "2027-02-01T00:00:00Z", "renews_at": "2026-10-01T00:00:00Z" },
            "links": [lane("latency", true), lane("bulk", false)],
        })
    }

    #[test]
    fn each_lane_says_how_it_is() {
        let shown = text(&state());
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "host n1, listens on 192.0.2.1:6443/udp");
        assert!(lines[2].contains("live") && lines[2].contains("0.5 ms"), "{shown}");
        assert!(lines[3].contains("down") && lines[3].ends_with("timed out"), "{shown}");
        let alone = json!({ "host": "n1", "listen": "192.0.2.1:6443", "links": [] });
        assert!(text(&alone).contains("knows no other"));
    }

    #[test]
    fn a_summary_names_who_is_not_linked_and_why() {
        let mut state = state();
        assert_eq!(summary(&state).unwrap(), "1 of 1 other hosts linked, slowest 0.5 ms");
        state["links"].as_array_mut().unwrap().remove(0);
        assert_eq!(
            summary(&state).unwrap(),
            "0 of 1 other hosts linked; n2 is not linked: timed out"
        );
        state["links"] = json!([]);
        assert_eq!(summary(&state), None);
    }

    #[test]
    fn each_host_has_one_certificate() {
        let shown = certificates(&state());
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(shown.contains("n1 (this host)") && shown.contains("2027-01-01"), "{shown}");
    }
}
