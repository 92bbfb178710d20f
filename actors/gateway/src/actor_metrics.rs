//! The actors of this host as metrics: the numbers of `kactor top`, for those who look at graphs.
//!
//! A row for each actor, as many as one insight answer holds; a pod's actor is one, so rows come and go with pods.

use std::fmt::Write;

use kactor_protocol::insight::ActorRow;

type Read = fn(&ActorRow) -> f64;

const FAMILIES: &[(&str, &str, &str, Read)] = &[
    ("kactor_actor_busy_seconds_total", "counter", "Time that the actor was at work.", |it| {
        it.busy_us as f64 / 1e6
    }),
    ("kactor_actor_handled_total", "counter", "Letters that the actor took.", |it| {
        it.handled as f64
    }),
    ("kactor_actor_mailbox_letters", "gauge", "Letters that wait in the actor's mailbox.", |it| {
        f64::from(it.mailbox_len)
    }),
    (
        "kactor_actor_mailbox_letters_max",
        "gauge",
        "How many letters the actor's mailbox holds at most.",
        |it| f64::from(it.mailbox_len_max),
    ),
    (
        "kactor_actor_oldest_wait_seconds",
        "gauge",
        "How long the oldest letter in the mailbox has waited.",
        |it| it.oldest_wait_ms as f64 / 1e3,
    ),
    (
        "kactor_actor_restarts_total",
        "counter",
        "Panics that the actor was restarted after.",
        |it| f64::from(it.restarts),
    ),
];

/// Appends the families to a page.
pub fn render(actors: &[ActorRow], out: &mut String) {
    if actors.is_empty() {
        return;
    }
    for (name, kind, help, read) in FAMILIES {
        // Writing into a String does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for it in actors {
            let name_of = it.address.name.as_str();
            let (actor, kind) = (name_of.replace('\\', "\\\\").replace('"', "\\\""), &it.kind);
            let _ = writeln!(out, "{name}{{actor=\"{actor}\",kind=\"{kind}\"}} {}", read(it));
        }
    }
}
