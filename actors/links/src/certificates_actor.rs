//! `certificates`, on every control host: certifies hosts' keys anew before their certificates end.
//!
//! Who asks is who the link proved to be, never what the request says; and the key must be the one that the host's name is
//! bound to, so that nobody takes over a name by renewing it.

use std::sync::Arc;

use kactor_protocol::HostId;
use kactor_protocol::certificates::{RenewCertificate, RenewError, RenewedCertificate};
use kactor_runtime::env::Lane;
use kactor_runtime::prelude::*;
use kactor_runtime::{Origin, StartError};
use serde_json::{Value, json};

use crate::directory::Directory;

/// The name of the actor on each control host.
pub const CERTIFICATES: &str = "certificates";

/// What an authority made of a request.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: String,
    /// Of the key that it certifies.
    pub key_hash: [u8; 32],
    /// What the cluster trusts, PEM.
    pub ca: String,
}

/// The cluster's authority, as far as this actor needs it.
pub trait Authority: Send + Sync {
    fn issue(&self, host: &HostId, request: &str) -> Result<Issued, String>;
}

pub struct CertificatesActor {
    host: HostId,
    authority: Arc<dyn Authority>,
    directory: Directory,
    n_renewed: u64,
    last_refusal: Option<String>,
}

impl CertificatesActor {
    /// Starts it, open to other hosts.
    pub fn start(
        system: &ActorSystem,
        authority: &Arc<dyn Authority>,
        directory: &Directory,
    ) -> Result<ActorRef<Self>, StartError> {
        let (host, authority) = (system.host().clone(), authority.clone());
        let directory = directory.clone();
        let actor = system.start(Child::new(CERTIFICATES, Lane::Control), move || Self {
            host: host.clone(),
            authority: authority.clone(),
            directory: directory.clone(),
            n_renewed: 0,
            last_refusal: None,
        })?;
        actor.open_to_asks::<RenewCertificate>();
        Ok(actor)
    }

    fn renew(&self, host: &HostId, request: &str) -> Result<RenewedCertificate, RenewError> {
        let refused = |why: String| RenewError::Refused { why };
        let entry = self.directory.get(host).ok_or_else(|| RenewError::Unavailable {
            why: format!("host {host} is not known here yet"),
        })?;
        let issued = self.authority.issue(host, request).map_err(refused)?;
        if entry.key_hash.is_some_and(|it| it != issued.key_hash) {
            return Err(refused(format!("the name {host} is bound to another key")));
        }
        Ok(RenewedCertificate { certificate: issued.certificate, ca: issued.ca })
    }
}

impl Actor for CertificatesActor {
    type Context = Context<Self>;
}

impl Handler<Ask<RenewCertificate>> for CertificatesActor {
    type Result = ();

    fn handle(&mut self, ask: Ask<RenewCertificate>, _: &mut Context<Self>) {
        let host = match &ask.trail.from {
            Origin::Peer { host, .. } => host.clone(),
            Origin::Local(_) => self.host.clone(),
        };
        let answer = self.renew(&host, &ask.body.request);
        match &answer {
            Ok(_) => {
                remark(format!("renewed the certificate of {host}"));
                self.n_renewed += 1;
            }
            Err(error) => {
                tracing::warn!(%host, %error, "a host's certificate was not renewed");
                self.last_refusal = Some(format!("{host}: {error}"));
            }
        }
        ask.reply.reply(answer);
    }
}

impl Inspect for CertificatesActor {
    const KIND: &'static str = "Certificates";

    fn state(&self) -> Value {
        json!({ "renewed": self.n_renewed, "last_refusal": self.last_refusal })
    }
}
