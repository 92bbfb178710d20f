//! The first run under the seeded clock: actors that talk, wait, fail and write to disk, a crash in the middle.
//!
//! It is the determinism test's subject (two runs of one seed give one trace, byte for byte) and shows how a
//! scenario is written. Its actors are ordinary ones: nothing in them knows of the simulation.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use kactor_protocol::insight::{Insight, InsightReply, TopBy};
use kactor_protocol::{HostId, Incarnation};
use kactor_runtime::env::{Lane, OpenMode};
use kactor_runtime::prelude::*;
use kactor_runtime::{Delivery, Exhausted, Trail};

use crate::trace::Trace;
use crate::world::{SimHost, World};

const TALKERS: u64 = 4;
const RUN: Duration = Duration::from_secs(30);
const LOG: &str = "/data/log";

/// Runs it and gives back what happened.
pub fn run(seed: u64) -> Trace {
    World::run(seed, |world| async move {
        let host = world.host("n1");
        for incarnation in 1..=2 {
            let system = start(&world, &host, Incarnation(incarnation));
            world.sleep(RUN / 2).await;
            report(&world, &system).await;
            if incarnation == 1 {
                host.crash().await;
            } else {
                system.stop_all().await;
            }
        }
        world.note(format_args!("{} syncs of the log", host.disk().syncs_of(Path::new(LOG))));
        world.trace().clone()
    })
}

fn start(world: &Rc<World>, host: &SimHost, incarnation: Incarnation) -> ActorSystem {
    let env = host.env().clone();
    let name = HostId::new(host.name()).expect("a scenario names its hosts well");
    let system = ActorSystem::new(env, name, incarnation, Delivery::Encoded);
    let log = system
        .start(Child::new("log", Lane::Control).mailbox(4), {
            let system = system.clone();
            move || LogActor { system: system.clone(), end: 0 }
        })
        .expect("a new system has no actors");
    let restart = Restart { exhausted: Exhausted::GiveUp, ..Restart::ALWAYS };
    for nth in 0..TALKERS {
        let (system_of_talker, log, trace) = (system.clone(), log.clone(), world.trace().clone());
        let talker = move || TalkerActor {
            nth,
            system: system_of_talker.clone(),
            log: log.clone(),
            trace: trace.clone(),
        };
        let child = Child::new(format!("talker/{nth}"), Lane::Control).mailbox(8).restart(restart);
        system.start(child, talker).expect("a new system has no actors");
    }
    system
}

async fn report(world: &World, system: &ActorSystem) {
    let top = system.insight(Insight::Top { by: TopBy::Handled, limit: 10 }).await;
    let InsightReply::Top { actors } = top else { unreachable!("the answer is the question's") };
    for it in actors {
        let (handled, restarts) = (it.handled, it.restarts);
        world.note(format_args!("{} handled {handled}, restarts {restarts}", it.address));
    }
}

/// Something to say to a talker.
#[derive(Debug)]
struct Remark {
    hops: u64,
}

impl Letter for Remark {
    type Reply = ();
    const NAME: &'static str = "Remark";
    const OVERLOAD: Overload = Overload::Shed;
}

/// Append a line to the log; answered when it is durable, with where the log ends.
#[derive(Debug)]
struct Append {
    line: String,
}

impl Letter for Append {
    type Reply = Result<u64, String>;
    const NAME: &'static str = "Append";
}

/// Passes remarks on to others after a while; sometimes it fails.
struct TalkerActor {
    nth: u64,
    system: ActorSystem,
    log: ActorRef<LogActor>,
    trace: Trace,
}

impl TalkerActor {
    fn note(&self, event: impl std::fmt::Display) {
        self.trace
            .write(self.system.env().monotonic(), format_args!("talker/{} {event}", self.nth));
    }

    fn say(&self, ctx: &mut Context<Self>, hops: u64) {
        let env = self.system.env();
        let other = env.random_u64() % TALKERS;
        if let Some(other) = self.system.find::<TalkerActor>(&format!("talker/{other}")) {
            other.tell_from(self, ctx, Remark { hops });
        }
    }
}

impl Actor for TalkerActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.note("starts");
        ctx.run_interval(Duration::from_millis(700), |actor, ctx| actor.say(ctx, 3));
    }
}

impl Inspect for TalkerActor {
    const KIND: &'static str = "Talker";

    fn state(&self) -> serde_json::Value {
        serde_json::json!({ "nth": self.nth })
    }
}

impl Handler<Tell<Remark>> for TalkerActor {
    type Result = ();

    fn handle(&mut self, tell: Tell<Remark>, ctx: &mut Context<Self>) {
        let (hops, Trail { trace, from, .. }) = (tell.body.hops, &tell.trail);
        self.note(format_args!("hears {hops} from {from} trace {trace}"));
        let draw = self.system.env().random_u64() % 100;
        assert!(draw >= 3, "on purpose, in 3 of 100");
        if hops > 0 {
            let pause = Duration::from_micros(draw * 977);
            ctx.run_later(pause, move |actor, ctx| actor.say(ctx, hops - 1));
        }
        let deadline = self.system.deadline(Duration::from_secs(1));
        let line = format!("{trace} {hops}\n");
        let appended = tell.trail.follow(self.log.ask(Append { line }, deadline));
        ctx.spawn(appended.into_actor(self).map(|end, actor, _| {
            actor.note(format_args!("logged: {end:?}"));
        }));
    }
}

/// Owns the log file: one line, one sync.
struct LogActor {
    system: ActorSystem,
    end: u64,
}

impl Actor for LogActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        let disk = &self.system.env().disk;
        disk.create_dir_all(Path::new("/data")).expect("the simulated disk has room");
        let log = disk.open(Path::new(LOG), OpenMode::ReadWriteCreate);
        self.end = log.and_then(|it| it.len()).expect("the simulated disk has room");
    }
}

impl Inspect for LogActor {
    const KIND: &'static str = "Log";

    fn state(&self) -> serde_json::Value {
        serde_json::json!({ "end": self.end })
    }
}

impl Handler<Ask<Append>> for LogActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<Append>, ctx: &mut Context<Self>) {
        let Ask { body, reply, .. } = ask;
        let at = self.end;
        self.end += body.line.len() as u64;
        let (disk, end) = (self.system.env().disk.clone(), self.end);
        let written = async move {
            let log = disk.open(Path::new(LOG), OpenMode::ReadWrite)?;
            log.write_all_at(at, body.line.as_bytes())?;
            log.sync_data().await
        };
        let done = written.into_actor(self).map(move |done: std::io::Result<()>, _, _| {
            reply.reply(done.map(|()| end).map_err(|it| it.to_string()));
        });
        ctx.wait(done);
    }
}
