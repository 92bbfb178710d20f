//! The actor that the tests send to, and the world it lives in.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kactor_protocol::store::{Committed, Propose, ProposeError};
use kactor_protocol::{ActorName, HostId, Incarnation, Revision};
use kactor_runtime::env::{Env, Lane, Machine};
use kactor_runtime::prelude::*;
use kactor_runtime::{ActorDown, Delivery, Exhausted};
use tokio::sync::Semaphore;

/// Long enough that no test meets it by accident.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn block_on<F: Future>(test: impl FnOnce(ActorSystem) -> F) -> F::Output {
    let machine = Machine::start();
    let system = system(machine.env(), "n1", Delivery::Encoded);
    machine.block_on(test(system)).unwrap()
}

pub fn system(env: &Env, host: &str, delivery: Delivery) -> ActorSystem {
    ActorSystem::new(env.clone(), HostId::new(host).unwrap(), Incarnation(1), delivery)
}

pub fn name(text: &str) -> ActorName {
    ActorName::new(text).unwrap()
}

/// Waits until something becomes true that has no event of its own.
pub async fn until(system: &ActorSystem, mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        system.env().sleep(Duration::from_millis(1)).await;
    }
}

macro_rules! letters {
    ($($(#[$doc:meta])* $name:ident $fields:tt => $reply:ty, $overload:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name $fields

        impl Letter for $name {
            type Reply = $reply;
            const NAME: &'static str = stringify!($name);
            const OVERLOAD: Overload = Overload::$overload;
        }
    )*};
}

letters! {
    /// Is written into the journal.
    Say { pub text: String } => (), Wait;
    /// The same, but nobody waits for room.
    SayOrShed { pub text: String } => (), Shed;
    /// Only the newest waits.
    Wake { pub text: String } => (), Coalesce;
    /// The actor takes no letters until the gate gives a permit.
    Block { } => (), Wait;
    Panic { } => (), Wait;
    /// Answers the journal's length.
    Length { } => usize, Wait;
    /// Drops the reply token.
    Ignore { } => (), Wait;
    /// Panics in a step of its core, answers what the step came to.
    Step { } => Result<(), kactor_runtime::StepPanicked>, Wait;
    /// Keeps the reply token and never uses it.
    Keep { } => (), Wait;
}

/// What the test sees of an actor's lives.
#[derive(Clone)]
pub struct Outside {
    pub journal: Arc<Mutex<Vec<String>>>,
    pub gate: Arc<Semaphore>,
}

impl Outside {
    pub fn new() -> Self {
        Self { journal: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }

    pub fn lines(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }

    pub fn write(&self, line: impl Into<String>) {
        self.journal.lock().unwrap().push(line.into());
    }
}

impl Handler<Ask<Step>> for Probe {
    type Result = ();

    fn handle(&mut self, ask: Ask<Step>, _: &mut Context<Self>) {
        let system = self.child.as_ref().map(|it| it.2.clone()).unwrap();
        ask.reply.reply(system.step(|| panic!("on purpose")));
    }
}

pub struct Probe {
    outside: Outside,
    kept: Vec<Reply<()>>,
    /// Started under this actor in each life.
    child: Option<(Child, Outside, ActorSystem)>,
    /// An actor never leaves its lane: it need not be `Send`.
    _stays: std::rc::Rc<()>,
}

impl Probe {
    pub fn new(outside: Outside) -> Self {
        outside.write("born");
        Self { outside, kept: Vec::new(), child: None, _stays: std::rc::Rc::default() }
    }

    pub fn with_child(self, child: Child, outside: Outside, system: ActorSystem) -> Self {
        Self { child: Some((child, outside, system)), ..self }
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        if let Some((child, outside, system)) = self.child.clone() {
            system.start(child, move || Probe::new(outside.clone())).unwrap();
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.outside.write("stopped");
    }
}

impl Inspect for Probe {
    const KIND: &'static str = "Probe";

    fn state(&self) -> serde_json::Value {
        serde_json::json!({ "lines": self.outside.lines().len() })
    }
}

macro_rules! writes {
    ($($letter:ident),*) => {$(
        impl Handler<Tell<$letter>> for Probe {
            type Result = ();

            fn handle(&mut self, tell: Tell<$letter>, _: &mut Context<Self>) {
                remark(format!("says {}", tell.body.text));
                self.outside.write(tell.body.text);
            }
        }
    )*};
}

writes!(Say, SayOrShed, Wake);

impl Handler<Tell<Block>> for Probe {
    type Result = ();

    fn handle(&mut self, _: Tell<Block>, ctx: &mut Context<Self>) {
        let gate = self.outside.gate.clone();
        self.outside.write("blocked");
        let passed = async move { gate.acquire().await.unwrap().forget() };
        ctx.wait(passed.into_actor(self).map(|(), actor, _| actor.outside.write("unblocked")));
    }
}

impl Handler<Ask<Panic>> for Probe {
    type Result = ();

    fn handle(&mut self, _: Ask<Panic>, _: &mut Context<Self>) {
        panic!("on purpose");
    }
}

impl Handler<Tell<Panic>> for Probe {
    type Result = ();

    fn handle(&mut self, _: Tell<Panic>, _: &mut Context<Self>) {
        panic!("on purpose");
    }
}

impl Handler<Ask<Length>> for Probe {
    type Result = ();

    fn handle(&mut self, ask: Ask<Length>, _: &mut Context<Self>) {
        ask.reply.reply(self.outside.lines().len());
    }
}

impl Handler<Ask<Ignore>> for Probe {
    type Result = ();

    fn handle(&mut self, _: Ask<Ignore>, _: &mut Context<Self>) {}
}

impl Handler<Ask<Keep>> for Probe {
    type Result = ();

    fn handle(&mut self, ask: Ask<Keep>, _: &mut Context<Self>) {
        self.kept.push(ask.reply);
    }
}

impl Handler<Tell<ActorDown>> for Probe {
    type Result = ();

    fn handle(&mut self, tell: Tell<ActorDown>, _: &mut Context<Self>) {
        self.outside.write(format!("{} down: {:?}", tell.body.actor, tell.body.reason));
    }
}

impl Handler<Tell<kactor_runtime::PeerDown>> for Probe {
    type Result = ();

    fn handle(&mut self, tell: Tell<kactor_runtime::PeerDown>, _: &mut Context<Self>) {
        self.outside.write(format!("{} down: {}", tell.body.host, tell.body.reason));
    }
}

/// A message of the table: this one crosses hosts.
impl Handler<Ask<Propose>> for Probe {
    type Result = ();

    fn handle(&mut self, ask: Ask<Propose>, _: &mut Context<Self>) {
        self.outside.write(format!("propose from {} trace {}", ask.trail.from, ask.trail.trace));
        let answer = match ask.body.writes.len() {
            0 => Err(ProposeError::Invalid { reason: "empty".into() }),
            n => Ok(Committed { revision: Revision(n as u64), outcomes: Vec::new() }),
        };
        ask.reply.reply(answer);
    }
}

impl Handler<Tell<Propose>> for Probe {
    type Result = ();

    fn handle(&mut self, tell: Tell<Propose>, _: &mut Context<Self>) {
        self.outside.write(format!("told to propose by {}", tell.trail.from));
    }
}

pub const QUICK: Restart = Restart {
    restarts_max: 2,
    window: Duration::from_secs(3600),
    backoff_min: Duration::from_millis(1),
    backoff_max: Duration::from_millis(2),
    exhausted: Exhausted::GiveUp,
};

pub fn start(system: &ActorSystem, child: Child) -> (ActorRef<Probe>, Outside) {
    let outside = Outside::new();
    let each_life = outside.clone();
    (system.start(child, move || Probe::new(each_life.clone())).unwrap(), outside)
}

pub fn probe(system: &ActorSystem, mailbox_len_max: u32) -> (ActorRef<Probe>, Outside) {
    start(system, Child::new("probe", Lane::Control).mailbox(mailbox_len_max).restart(QUICK))
}

pub fn say(text: impl ToString) -> Say {
    Say { text: text.to_string() }
}
