//! Serving certificates of a host that runs for longer than they last: issued anew after two thirds of their time.

use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::certificates::renew_at;
use kactor_protocol::time::Timestamp;
use kactor_runtime::env::{Env, Lane, TaskHandle};
use rustls::ServerConfig;

use crate::pki::{Identity, PkiError, validity};
use crate::tls::{self, ClientCertificates, ServingCertificate, TlsError};

/// How often the wall clock is looked at: it may jump.
const LOOK_EVERY: Duration = Duration::from_secs(600);
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);

/// Issues a serving certificate; called again and again.
pub type IssueServing = Arc<dyn Fn() -> Result<Identity, PkiError> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error("issuing the serving certificate failed")]
    Issue(#[from] PkiError),
    #[error("setting up TLS failed")]
    Tls(#[from] TlsError),
}

/// TLS of a listener that shows what `issue` gives, now and whenever it is due. It is kept fresh until the process ends.
pub fn server(
    env: &Env,
    ca_pem: &str,
    issue: IssueServing,
) -> Result<(Arc<ServerConfig>, ClientCertificates), ServingError> {
    let first = issue()?;
    let serving = Arc::new(ServingCertificate::new(&first)?);
    let tls = tls::server_showing(&serving, ca_pem)?;
    keep_fresh(env, serving, &first, issue);
    Ok(tls)
}

/// Replaces `serving`, which shows `first` now, whenever its certificate is due. It runs until it is aborted.
pub fn keep_fresh(
    env: &Env,
    serving: Arc<ServingCertificate>,
    first: &Identity,
    issue: IssueServing,
) -> TaskHandle {
    let mut due = due_at(first);
    let on = env.clone();
    env.spawn(Lane::Control, async move {
        loop {
            let left = Duration::from_millis(due.0.saturating_sub(on.wall().0));
            on.sleep(left.clamp(LOOK_EVERY_MIN, LOOK_EVERY)).await;
            if on.wall() < due {
                continue;
            }
            let renewed = issue().map_err(|it| it.to_string()).and_then(|identity| {
                serving.set(&identity).map_err(|it| it.to_string())?;
                Ok(identity)
            });
            match renewed {
                Ok(identity) => {
                    due = due_at(&identity);
                    tracing::info!(next = %due.rfc3339(), "a serving certificate was issued anew");
                }
                Err(error) => {
                    tracing::warn!(
                        error,
                        "a serving certificate can't be issued anew; tried again"
                    );
                    due = on.wall().plus(LOOK_EVERY);
                }
            }
        }
    })
}

fn due_at(identity: &Identity) -> Timestamp {
    validity(&identity.cert_pem).map_or(Timestamp(0), |(from, until)| renew_at(from, until))
}
