//! What the API is served with: its certificate, the key of secrets at rest, health checks, the administrator's kubeconfig.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use kactor_api::{EncryptionKey, ServiceRange};
use kactor_cluster::host::Hosts;
use kactor_gateway::rotation::{self, IssueServing, ServingError};
use kactor_gateway::tls::{self, ServingCertificate};
use kactor_gateway::{
    Check, CheckAsked, Gateway, ListenError, Listener, Pki, ServingNames, Subject,
};
use kactor_runtime::env::{Env, OpenMode};
use kactor_store::Store;
use serde_json::Value;

use super::DOMAIN;
use crate::{machine_facts, open_files};

/// The key of secrets at rest: 32 random bytes, made once, readable by the owner alone.
pub(super) async fn encryption_key(env: &Env, folder: &Path) -> anyhow::Result<EncryptionKey> {
    let path = folder.join("secrets.key");
    let doing = || format!("the key of secrets at rest, {}", path.display());
    if env.disk.exists(&path) {
        let file = env.disk.open(&path, OpenMode::Read).with_context(doing)?;
        let mut secret = [0; 32];
        let n = file.read_at(0, &mut secret).with_context(doing)?;
        anyhow::ensure!(
            n == secret.len(),
            "{} is cut off; restore it from a backup, secrets cannot be read without it",
            path.display()
        );
        return Ok(EncryptionKey { id: 1, secret });
    }
    let key = EncryptionKey::generate(env, 1);
    let beside = path.with_extension("new");
    let file = env.disk.open(&beside, OpenMode::ReadWriteCreate).with_context(doing)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))
        .with_context(doing)?;
    file.write_all_at(0, &key.secret).with_context(doing)?;
    file.sync_data().await.with_context(doing)?;
    env.disk.rename(&beside, &path).with_context(doing)?;
    env.disk.sync_dir(folder).await.with_context(doing)?;
    Ok(key)
}

pub(super) fn checks(store: &Store, ready: &Arc<AtomicBool>) -> Vec<Check> {
    let (store, ready) = (store.clone(), ready.clone());
    let leads = move || match store.leadership().current().leader {
        Some(_) => Ok(()),
        None => Err("no leader is known".to_owned()),
    };
    let bootstrapped = move || match ready.load(Ordering::Acquire) {
        true => Ok(()),
        false => Err("the default objects are still being written".to_owned()),
    };
    vec![
        Check { name: "store".to_owned(), asked: CheckAsked::ForReadiness, probe: Arc::new(leads) },
        Check {
            name: "bootstrap".to_owned(),
            asked: CheckAsked::ForReadiness,
            probe: Arc::new(bootstrapped),
        },
    ]
}

/// Takes the API's port; clients wait in the kernel's queue until it is served.
pub(super) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address);
    Ok(bound.map_err(|source| ListenError::Bind { address, source })?)
}

/// Most addresses of other hosts that the certificate names: each makes every handshake longer.
const NAMED_MAX: usize = 256;

/// The certificate that the API shows. It names the other hosts too, because workers pass their clients on to here.
pub(super) struct Shown {
    others: Arc<Mutex<BTreeSet<IpAddr>>>,
    serving: Arc<ServingCertificate>,
    issue: IssueServing,
}

impl Shown {
    fn new(env: &Env, pki: &Arc<Pki>, names: ServingNames) -> Result<Self, ServingError> {
        let others = Arc::<Mutex<BTreeSet<IpAddr>>>::default();
        let (on, authority, named) = (env.clone(), pki.clone(), others.clone());
        let issue: IssueServing = Arc::new(move || {
            let mut names = names.clone();
            names.addresses.extend(&*named.lock().unwrap_or_else(PoisonError::into_inner));
            authority.issue_serving(&on, &names)
        });
        let first = issue()?;
        let serving = Arc::new(ServingCertificate::new(&first)?);
        rotation::keep_fresh(env, serving.clone(), &first, issue.clone());
        Ok(Self { others, serving, issue })
    }

    /// Names these hosts from now on, if others were named before.
    pub fn name(&self, hosts: &Hosts) {
        let (workers, control): (Vec<_>, Vec<_>) = hosts.values().partition(|it| !it.is_control());
        let addresses = control.into_iter().chain(workers).map(|it| it.address.ip());
        let others: BTreeSet<IpAddr> = addresses.take(NAMED_MAX).collect();
        {
            let mut named = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            if *named == others {
                return;
            }
            *named = others;
        }
        let shown = (self.issue)().map_err(ServingError::from);
        let shown = shown.and_then(|it| Ok(self.serving.set(&it)?));
        if let Err(error) = shown {
            tracing::warn!(%error, "the API's certificate does not name all hosts");
        }
    }
}

pub(super) fn listen(
    (env, socket): (&Env, TcpListener),
    pki: &Arc<Pki>,
    addresses: &[IpAddr],
    services: ServiceRange,
    gateway: &Arc<Gateway>,
) -> anyhow::Result<(Arc<Listener>, Shown)> {
    let mut names = vec![IpAddr::from(Ipv4Addr::LOCALHOST), services.first().into()];
    names.extend(addresses);
    let serving = ServingNames {
        host: machine_facts::hostname(),
        cluster_domain: DOMAIN.to_owned(),
        addresses: names,
    };
    let shown = Shown::new(env, pki, serving)?;
    let tls = tls::server_showing(&shown.serving, pki.ca_pem())?;
    let connections_max = open_files::connections_max();
    let listener = Listener::serve_on(env, socket, tls, gateway.clone(), connections_max);
    Ok((Arc::new(listener.context("serving the API")?), shown))
}

pub(super) fn kubeconfig(env: &Env, pki: &Pki, listen: SocketAddr) -> anyhow::Result<Value> {
    let admin = pki
        .issue_client(env, &Subject::admin())
        .context("issuing the administrator's certificate")?;
    let mut server = listen;
    if server.ip().is_unspecified() {
        server.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let name = if listen.port() == 6443 {
        "kactor".to_owned()
    } else {
        format!("kactor-{}", listen.port())
    };
    Ok(kactor_gateway::kubeconfig::document(
        &name,
        &format!("https://{server}"),
        pki.ca_pem(),
        &admin,
    ))
}
