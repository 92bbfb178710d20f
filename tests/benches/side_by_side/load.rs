//! Closed-loop load: each client sends, waits for the answer, sends again, on a connection of its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kactor_tests::harness::rest::{Access, Call, Connection};

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
    pub n_failed: usize,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |it: Duration| it.as_secs_f64() * 1e3;
        write!(
            f,
            "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
            self.per_second,
            ms(self.p50),
            ms(self.p99)
        )?;
        match self.n_failed {
            0 => Ok(()),
            n => write!(f, ", {n} refused"),
        }
    }
}

/// Runs `clients` for `length`; `call` makes request number `step` of a client.
pub async fn measure(
    access: &Access,
    clients: usize,
    length: Duration,
    call: impl Fn(usize, u64) -> Call + Send + Sync + 'static,
) -> Rate {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Connection::open(access).await.expect("the server takes connections"));
    }
    let call = Arc::new(call);
    let begun = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(client, connection)| {
            let call = call.clone();
            let until = begun + length;
            tokio::spawn(async move { one(connection, until, |step| call(client, step)).await })
        })
        .collect();
    let (mut took, mut n_failed) = (Vec::new(), 0);
    for task in tasks {
        let (of_one, failed) = task.await.expect("a client does not panic");
        took.extend(of_one);
        n_failed += failed;
    }
    let elapsed = begun.elapsed();
    took.sort();
    let at =
        |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    Rate {
        per_second: took.len() as f64 / elapsed.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        n_failed,
    }
}

/// The times of answered requests, and how many were refused.
async fn one(
    mut connection: Connection,
    until: Instant,
    call: impl Fn(u64) -> Call,
) -> (Vec<Duration>, usize) {
    let (mut took, mut failed) = (Vec::new(), 0);
    for step in 0.. {
        let call = call(step);
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        match connection.send(&call).await {
            Ok(reply) if reply.is_ok() => took.push(begun.elapsed()),
            Ok(_) => failed += 1,
            Err(_) => {
                failed += 1;
                break;
            }
        }
    }
    (took, failed)
}
