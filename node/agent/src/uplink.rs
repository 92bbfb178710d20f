//! A worker's way to the control plane: requests go to the session of now, whichever control host has it.
//!
//! `uplink_actor` chooses the host; this is what the agent holds. A request that was certainly not begun (the host
//! cannot be reached, the session is gone, its mailbox is full) goes to the next session within its deadline. One whose
//! fate is unknown does only when it reads: a write is told to its caller, who looks at what is and plans again.

use std::time::Duration;

use async_trait::async_trait;
use kactor_protocol::frame::Refusal;
use kactor_protocol::node::{ApiReply, ApiVerb, CallApi, Follow, Following, Heartbeat};
use kactor_protocol::{ActorAddress, ActorName, Deadline, HostId, Incarnation};
use kactor_runtime::{ActorSystem, Asker, Letter, Recipient};
use tokio::sync::watch;

use crate::ports::{ControlPlane, Session, Unanswered};
use crate::uplink_actor::SeatFailed;

/// Until when one request must be answered, other hosts included.
const CALL_MAX: Duration = Duration::from_secs(30);
/// How long one host may take over a request that another could answer.
const READ_MAX: Duration = Duration::from_secs(5);
const FOLLOW_MAX: Duration = Duration::from_secs(10);
/// Wait before a session that was full or is gone is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// A session that this node has.
#[derive(Clone)]
pub struct Seat {
    pub host: HostId,
    /// The life of the session's actor.
    pub session: Incarnation,
    call: Asker<CallApi>,
    follow: Asker<Follow>,
    beat: Recipient<Heartbeat>,
}

impl Seat {
    pub fn new(system: &ActorSystem, host: HostId, session: Incarnation) -> Self {
        let name = ActorName::new(format!("session/{}", system.host()));
        let name = name.expect("a host's name is short enough to follow a prefix");
        let address = ActorAddress { host: host.clone(), name, incarnation: session };
        Self {
            host,
            session,
            call: system.remote_asks(address.clone()),
            follow: system.remote_asks(address.clone()),
            beat: system.remote_tells(address),
        }
    }
}

/// The session of now, for the agent.
#[derive(Clone)]
pub struct Uplink {
    system: ActorSystem,
    seat: watch::Receiver<Option<Seat>>,
    failed: Recipient<SeatFailed>,
}

/// What a refusal says of the request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It was not begun, and this session will not take it.
    Elsewhere,
    /// It was not begun; the session may take it later.
    Later,
    Unknown,
    /// It never will be answered otherwise.
    Never,
}

fn fate(refusal: &Refusal) -> Fate {
    match refusal {
        Refusal::Unreachable { .. } | Refusal::NoSuchActor { .. } => Fate::Elsewhere,
        Refusal::Overloaded => Fate::Later,
        Refusal::Unsupported { .. }
        | Refusal::NotPermitted { .. }
        | Refusal::NotTaken { .. }
        | Refusal::Malformed { .. } => Fate::Never,
        _ => Fate::Unknown,
    }
}

fn unanswered(why: impl ToString) -> Unanswered {
    Unanswered { why: why.to_string() }
}

impl Uplink {
    pub fn new(
        system: ActorSystem,
        seat: watch::Receiver<Option<Seat>>,
        failed: Recipient<SeatFailed>,
    ) -> Self {
        Self { system, seat, failed }
    }

    /// The session of now, or the next one.
    async fn seat(&self, deadline: Deadline) -> Result<Seat, Unanswered> {
        let mut seat = self.seat.clone();
        let seated = async move {
            match seat.wait_for(Option::is_some).await {
                Ok(seat) => seat.clone(),
                Err(_) => None, // the host is stopping
            }
        };
        let clock = &self.system.env().clock;
        tokio::select! {
            biased;
            seat = seated => seat.ok_or_else(|| unanswered("this host is stopping")),
            () = clock.sleep_until(deadline.at()) => Err(unanswered("no control host can be reached")),
        }
    }

    /// Asks session after session until one answers, as far as that is safe.
    async fn ask<M: Letter + Clone + Sync>(
        &self,
        body: M,
        of: fn(&Seat) -> &Asker<M>,
        (is_repeatable, deadline): (bool, Deadline),
    ) -> Result<M::Reply, Unanswered> {
        loop {
            let seat = self.seat(deadline).await?;
            let by =
                if is_repeatable { deadline.min(self.system.deadline(READ_MAX)) } else { deadline };
            let refusal = match of(&seat).ask(body.clone(), by).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            let fate = fate(&refusal);
            if fate != Fate::Later {
                let failed = SeatFailed { host: seat.host, session: seat.session };
                let _ = self.failed.tell(failed).await; // An uplink that is gone needs no news.
            }
            let is_over = deadline.remaining(self.system.env().monotonic()).is_zero();
            let is_safe = match fate {
                Fate::Elsewhere | Fate::Later => true,
                Fate::Unknown => is_repeatable,
                Fate::Never => false,
            };
            if is_over || !is_safe {
                return Err(unanswered(refusal));
            }
            self.system.env().sleep(AGAIN).await;
        }
    }
}

#[async_trait]
impl ControlPlane for Uplink {
    async fn call(&self, call: CallApi) -> Result<ApiReply, Unanswered> {
        let reads = matches!(call.verb, ApiVerb::Get | ApiVerb::List);
        let terms = (reads, self.system.deadline(CALL_MAX));
        self.ask(call, |it| &it.call, terms).await?.map_err(unanswered)
    }
}

#[async_trait]
impl Session for Uplink {
    async fn follow(&self, follow: Follow) -> Result<Following, Unanswered> {
        // Not repeated elsewhere: the agent follows again whenever it has another session.
        let deadline = self.system.deadline(FOLLOW_MAX);
        let seat = self.seat(deadline).await?;
        seat.follow.ask(follow, deadline).await.map_err(unanswered)
    }

    fn host(&self) -> Option<HostId> {
        self.seat.borrow().as_ref().map(|it| it.host.clone())
    }

    async fn beat(&self, beat: Heartbeat) {
        let seat = self.seat.borrow().clone();
        if let Some(seat) = seat {
            let _ = seat.beat.tell(beat).await; // Lost with its session: the next one gets one at once.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_begun_goes_to_another_host() {
        let (host, reason) = ("c1".to_owned(), "no answer".to_owned());
        assert_eq!(fate(&Refusal::Unreachable { host, reason }), Fate::Elsewhere);
        assert_eq!(fate(&Refusal::NoSuchActor { name: "session/n1".to_owned() }), Fate::Elsewhere);
        assert_eq!(fate(&Refusal::Overloaded), Fate::Later);
        for refusal in
            [Refusal::DeadlinePassed, Refusal::Stopped, Refusal::Failed, Refusal::Ignored]
        {
            assert_eq!(fate(&refusal), Fate::Unknown, "{refusal}");
        }
    }
}
