//! Takes what nodes send for open streams and puts it where the stream's pump finds it.

use kactor_protocol::node::{StreamCredit, StreamData, StreamEnded};
use kactor_runtime::PeerDown;
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::streams::{Inbound, SessionStreams};

/// The actor's name on every control host.
pub const NAME: &str = "streams";

pub struct StreamsActor {
    streams: SessionStreams,
}

impl StreamsActor {
    pub fn new(streams: SessionStreams) -> Self {
        Self { streams }
    }
}

impl Actor for StreamsActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        if let Some(own) = self.streams.system().find::<Self>(NAME) {
            self.streams.set_watcher(own.tells::<PeerDown>());
        }
    }
}

impl Inspect for StreamsActor {
    const KIND: &'static str = "Streams";

    fn state(&self) -> Value {
        let (open, nodes) = self.streams.counts();
        json!({ "open": open, "nodes": nodes })
    }
}

impl Handler<Tell<StreamData>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamData>, _: &mut Context<Self>) {
        let StreamData { stream, channel, data } = tell.body;
        self.streams.arrived(&tell.trail.from, stream, Inbound::Data(channel, data));
    }
}

impl Handler<Tell<StreamCredit>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamCredit>, _: &mut Context<Self>) {
        self.streams.granted(&tell.trail.from, tell.body.stream, tell.body.bytes);
    }
}

impl Handler<Tell<StreamEnded>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<StreamEnded>, _: &mut Context<Self>) {
        let StreamEnded { stream, end } = tell.body;
        self.streams.arrived(&tell.trail.from, stream, Inbound::Ended(end));
    }
}

impl Handler<Tell<PeerDown>> for StreamsActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<PeerDown>, _: &mut Context<Self>) {
        self.streams.lost(&tell.body.host, &tell.body.reason);
    }
}
