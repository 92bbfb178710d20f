//! `host-certificate`, on every host: has its certificate renewed after two thirds of its time, and puts it to use.
//!
//! It asks the control hosts one after the other, its own first. Links go over to the new certificate one by one, so no actor
//! notices. While nobody renews it, it says so and asks again, sooner the less time is left.

use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::certificates::{RenewCertificate, RenewedCertificate, renew_at};
use kactor_protocol::message::Role;
use kactor_protocol::time::Timestamp;
use kactor_protocol::{ActorAddress, ActorName, HostId, Incarnation};
use kactor_runtime::StartError as ActorStartError;
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use serde_json::{Value, json};

use crate::certificates_actor::{CERTIFICATES, CertificatesActor};
use crate::host_links::{HostLinks, LinkPems};

/// The name of the actor on each host.
pub const HOST_CERTIFICATE: &str = "host-certificate";
const ASK_MAX: Duration = Duration::from_secs(10);
/// Between attempts; also how often the wall clock is looked at, which may jump.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Keeps what was renewed, or says why it can't.
pub type Keep = dyn Fn(&LinkPems) -> Result<(), String> + Send + Sync;

/// What the actor begins with. No `Debug`: the key must not reach a log.
#[derive(Clone)]
pub struct RenewalSetup {
    pub links: Arc<HostLinks>,
    /// The host's private key, PEM.
    pub key: String,
    /// The request to certify it (PKCS #10, PEM).
    pub request: String,
    /// Keeps the new one for the next start, and gives it to whoever else shows it.
    pub keep: Arc<Keep>,
}

pub struct RenewalActor {
    system: ActorSystem,
    setup: RenewalSetup,
    validity: (Timestamp, Timestamp),
    /// Whether the next start will have the present one.
    is_kept: bool,
    n_renewed: u64,
    last_error: Option<String>,
}

impl RenewalActor {
    pub fn start(
        system: &ActorSystem,
        setup: RenewalSetup,
    ) -> Result<ActorRef<Self>, ActorStartError> {
        let in_lives = system.clone();
        system.start(Child::new(HOST_CERTIFICATE, Lane::Control), move || Self {
            system: in_lives.clone(),
            validity: setup.links.certificate(),
            setup: setup.clone(),
            is_kept: true,
            n_renewed: 0,
            last_error: None,
        })
    }

    fn wait(&self, ctx: &mut Context<Self>) {
        let env = self.system.env().clone();
        let pause = pause(env.wall(), self.validity, self.last_error.is_some());
        ctx.spawn(async move { env.sleep(pause).await }.into_actor(self).map(|(), actor, ctx| {
            actor.look(ctx);
        }));
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let (from, until) = self.validity;
        if self.system.env().wall() < renew_at(from, until) && self.is_kept {
            return self.wait(ctx);
        }
        let (system, request) = (self.system.clone(), self.setup.request.clone());
        let asked = ask_each(system, self.candidates(), request);
        ctx.spawn(asked.into_actor(self).map(move |answer, actor, ctx| {
            let done = answer.and_then(|it| actor.put_to_use(it));
            if let Err(error) = &done {
                tracing::warn!(error, until = %until.rfc3339(), "this host's certificate is not renewed yet");
            }
            actor.last_error = done.err();
            actor.wait(ctx);
        }));
    }

    /// Control hosts: this one, those that are linked, the others.
    fn candidates(&self) -> Vec<HostId> {
        let live = self.setup.links.live().borrow().clone();
        let hosts = self.setup.links.directory().snapshot().into_iter();
        let mut control: Vec<_> = hosts
            .filter(|(_, it)| it.roles.contains(&Role::Control))
            .map(|(host, _)| host)
            .collect();
        if self.system.find::<CertificatesActor>(CERTIFICATES).is_some() {
            control.push(self.system.host().clone());
        }
        control.sort(); // The directory may name this host too.
        control.dedup();
        control.sort_by_key(|it| match it {
            it if it == self.system.host() => 0,
            it if live.contains(it) => 1,
            _ => 2,
        });
        control
    }

    fn put_to_use(&mut self, renewed: RenewedCertificate) -> Result<(), String> {
        let key = self.setup.key.clone();
        let pems = LinkPems { cert: renewed.certificate, key, ca: renewed.ca };
        self.setup.links.set_credentials(&pems).map_err(|it| it.to_string())?;
        self.validity = self.setup.links.certificate();
        self.n_renewed += 1;
        tracing::info!(until = %self.validity.1.rfc3339(), "this host's certificate was renewed");
        // It is in use whether or not it can be kept (a full disk); until it is, another one is asked for.
        let kept = (self.setup.keep)(&pems);
        self.is_kept = kept.is_ok();
        kept
    }
}

/// Until the next look: at most a tenth of the time that is left to the renewal, or after a failure to the end.
fn pause(now: Timestamp, (from, until): (Timestamp, Timestamp), failed: bool) -> Duration {
    let aim = if failed { until } else { renew_at(from, until) };
    let left = Duration::from_millis(aim.0.saturating_sub(now.0));
    let pause = if failed { left / 10 } else { left };
    match pause.is_zero() && !failed {
        true => Duration::ZERO,
        false => pause.clamp(PAUSE_MIN, PAUSE_MAX),
    }
}

async fn ask_each(
    system: ActorSystem,
    candidates: Vec<HostId>,
    request: String,
) -> Result<RenewedCertificate, String> {
    let mut why = "no control host is known".to_owned();
    for host in candidates {
        let name = ActorName::new(CERTIFICATES).expect("a plain word");
        let address = ActorAddress { host: host.clone(), name, incarnation: Incarnation(0) };
        let certificates = system.remote::<CertificatesActor>(address);
        let request = RenewCertificate { request: request.clone() };
        match certificates.ask(request, system.deadline(ASK_MAX)).await {
            Ok(Ok(renewed)) => return Ok(renewed),
            Ok(Err(error)) => why = format!("{host}: {error}"),
            Err(refusal) => why = format!("{host}: {refusal}"),
        }
    }
    Err(why)
}

impl Actor for RenewalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Inspect for RenewalActor {
    const KIND: &'static str = "HostCertificate";

    fn state(&self) -> Value {
        let (from, until) = self.validity;
        json!({
            "valid_from": from.rfc3339(),
            "valid_until": until.rfc3339(),
            "renews_at": renew_at(from, until).rfc3339(),
            "renewed": self.n_renewed,
            "last_error": self.last_error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kactor_protocol::time::Timestamp;

    use super::pause;

    #[test]
    fn it_looks_in_time_never_in_a_tight_loop_and_sooner_when_little_is_left() {
        let year = (Timestamp(0), Timestamp(3_000_000_000));
        assert_eq!(pause(Timestamp(0), year, false), Duration::from_secs(600), "clocks jump");
        assert_eq!(pause(Timestamp(1_995_000_000), year, false), Duration::from_secs(600));
        assert_eq!(pause(Timestamp(1_999_995_000), year, false), Duration::from_secs(5));
        assert_eq!(pause(Timestamp(2_000_000_000), year, false), Duration::ZERO);
        assert_eq!(pause(Timestamp(2_999_900_000), year, true), Duration::from_secs(10));
        assert_eq!(pause(Timestamp(4_000_000_000), year, true), Duration::from_secs(1));
    }
}
