//! `/healthz`, `/livez`, `/readyz`: whether this host serves, check by check, in upstream's text form.
//!
//! The composition root says what is checked; the gateway adds `ping` and, for readiness, `shutdown`. A failed
//! check never says why to whom may not know it (upstream: "reason withheld"); the log does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kactor_api::Status;

use crate::query::Query;
use crate::reply::{self, Reply};
use crate::route::Probe;

/// One named check. It must not wait.
#[derive(Clone)]
pub struct Check {
    pub name: String,
    /// Which probes ask it.
    pub asked: Asked,
    pub probe: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// A check of readiness alone fails while the host starts, drains or lacks a quorum: no reason to restart it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Always,
    ForReadiness,
}

pub struct Health {
    checks: Vec<Check>,
    draining: Arc<AtomicBool>,
}

impl Health {
    pub fn new(checks: Vec<Check>) -> Self {
        let draining = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&draining);
        let mut all = vec![Check {
            name: "ping".to_owned(),
            asked: Asked::Always,
            probe: Arc::new(|| Ok(())),
        }];
        all.extend(checks);
        all.push(Check {
            name: "shutdown".to_owned(),
            asked: Asked::ForReadiness,
            probe: Arc::new(move || match flag.load(Ordering::Relaxed) {
                true => Err("the process is shutting down".to_owned()),
                false => Ok(()),
            }),
        });
        Self { checks: all, draining }
    }

    /// From now on it is not ready: load balancers look elsewhere while requests in flight end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn answer(&self, probe: Probe, check: Option<&str>, query: &Query) -> Reply {
        let asked: Vec<&Check> = self
            .checks
            .iter()
            .filter(|it| it.asked == Asked::Always || probe != Probe::Livez)
            .collect();
        match check {
            Some(name) => match asked.iter().find(|it| it.name == name) {
                Some(it) => one(it),
                None => reply::status(&Status::path_not_found()),
            },
            None => all(probe, &asked, query),
        }
    }
}

fn one(check: &Check) -> Reply {
    match (check.probe)() {
        Ok(()) => reply::text(200, "ok"),
        Err(why) => {
            tracing::warn!(check = check.name, %why, "a health check failed");
            reply::text(500, format!("internal server error: {why}"))
        }
    }
}

fn all(probe: Probe, checks: &[&Check], query: &Query) -> Reply {
    let name = probe.name();
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        if excluded.contains(&check.name.as_str()) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
            continue;
        }
        match (check.probe)() {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
            Err(why) => {
                failed = true;
                tracing::debug!(check = check.name, %why, "a health check failed");
                lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
            }
        }
    }
    match failed {
        true => reply::text(500, format!("{lines}{name} check failed\n")),
        false if query.get("verbose").is_some() => {
            reply::text(200, format!("{lines}{name} check passed\n"))
        }
        false => reply::text(200, "ok"),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http_body_util::BodyExt;

    use super::*;

    fn health() -> Health {
        Health::new(vec![
            Check {
                name: "store".to_owned(),
                asked: Asked::ForReadiness,
                probe: Arc::new(|| Err("there is no leader".to_owned())),
            },
            Check { name: "log".to_owned(), asked: Asked::Always, probe: Arc::new(|| Ok(())) },
        ])
    }

    fn shown(health: &Health, probe: Probe, check: Option<&str>, query: &str) -> (u16, String) {
        let reply = health.answer(probe, check, &Query::parse(query));
        let code = reply.status().as_u16();
        let body = block_on(reply.into_body().collect()).unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn probes_answer_in_upstreams_form() {
        let health = health();
        assert_eq!(shown(&health, Probe::Livez, None, ""), (200, "ok".to_owned()));
        assert_eq!(
            shown(&health, Probe::Livez, None, "verbose"),
            (200, "[+]ping ok\n[+]log ok\nlivez check passed\n".to_owned())
        );
        assert_eq!(
            shown(&health, Probe::Readyz, None, ""),
            (
                500,
                "[+]ping ok\n[-]store failed: reason withheld\n[+]log ok\n[+]shutdown ok\nreadyz check failed\n".to_owned()
            )
        );
        assert_eq!(shown(&health, Probe::Readyz, None, "exclude=store").0, 200);
        assert_eq!(shown(&health, Probe::Readyz, Some("ping"), ""), (200, "ok".to_owned()));
        assert_eq!(shown(&health, Probe::Readyz, Some("store"), "").0, 500);
        assert_eq!(shown(&health, Probe::Readyz, Some("nonsense"), "").0, 404);
    }

    #[test]
    fn a_host_that_drains_is_alive_and_not_ready() {
        let health = Health::new(Vec::new());
        assert_eq!(shown(&health, Probe::Readyz, None, "").0, 200);
        health.drain();
        assert_eq!(shown(&health, Probe::Readyz, None, "").0, 500);
        assert_eq!(shown(&health, Probe::Livez, None, "").0, 200);
    }
}
