//! An actor that notes what reaches it: tells of streams, proposals that it answers, hosts that are lost.

use std::collections::BTreeSet;
use std::time::Duration;

use kactor_protocol::node::{StreamChannel, StreamData, StreamId};
use kactor_protocol::store::{Committed, Key, Propose, ProposeError, Write};
use kactor_protocol::{Revision, TraceId};
use kactor_runtime::PeerDown;
use kactor_runtime::prelude::*;
use tokio::sync::watch;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub told: Vec<u64>,
    pub asked: u64,
    pub lost: Vec<String>,
    /// Senders, as remoting names them.
    pub from: BTreeSet<String>,
}

pub struct Echo {
    pub heard: watch::Sender<Heard>,
    pub kept: Vec<Reply<Result<Committed, ProposeError>>>,
}

impl Actor for Echo {
    type Context = Context<Self>;
}

impl Inspect for Echo {
    const KIND: &'static str = "Echo";

    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Handler<Tell<StreamData>> for Echo {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamData>, _: &mut Context<Self>) {
        self.heard.send_modify(|it| {
            it.told.push(tell.body.stream.0);
            it.from.insert(tell.trail.from.to_string());
        });
    }
}

/// One that writes nothing is never answered.
impl Handler<Ask<Propose>> for Echo {
    type Result = ();

    fn handle(&mut self, ask: Ask<Propose>, _: &mut Context<Self>) {
        self.heard.send_modify(|it| it.asked += 1);
        let revision = Revision(ask.body.writes.len() as u64);
        match revision {
            Revision::ZERO => self.kept.push(ask.reply),
            _ => ask.reply.reply(Ok(Committed { revision, outcomes: Vec::new() })),
        }
    }
}

impl Handler<Tell<PeerDown>> for Echo {
    type Result = ();

    fn handle(&mut self, tell: Tell<PeerDown>, _: &mut Context<Self>) {
        self.heard.send_modify(|it| it.lost.push(tell.body.host.to_string()));
    }
}

pub fn propose(n_writes: usize) -> Propose {
    let touch = |n| Write::Touch { key: Key::new("", "pods", "a", &format!("p{n}")).unwrap() };
    let writes = (0..n_writes).map(touch).collect();
    Propose { reign: None, guards: Vec::new(), writes, trace: TraceId(1) }
}

pub fn stream_data(number: u64) -> StreamData {
    StreamData {
        stream: StreamId(number),
        channel: StreamChannel::Stdin,
        data: bytes::Bytes::from_static(b"data"),
    }
}
