//! What the API is served with: its certificate, the key of secrets at rest, health checks, the administrator's kubeconfig.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use kactor_api::{EncryptionKey, ServiceRange};
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

pub(super) fn listen(
    (env, socket): (&Env, TcpListener),
    pki: &Arc<Pki>,
    addresses: &[IpAddr],
    services: ServiceRange,
    gateway: &Arc<Gateway>,
) -> anyhow::Result<Arc<Listener>> {
    let mut names = vec![IpAddr::from(Ipv4Addr::LOCALHOST), services.first().into()];
    names.extend(addresses);
    let serving = ServingNames {
        host: machine_facts::hostname(),
        cluster_domain: DOMAIN.to_owned(),
        addresses: names,
    };
    let (on, authority) = (env.clone(), pki.clone());
    let issue = Arc::new(move || authority.issue_serving(&on, &serving));
    let tls = kactor_gateway::rotation::server(env, pki.ca_pem(), issue)?;
    let connections_max = open_files::connections_max();
    let listener = Listener::serve_on(env, socket, tls, gateway.clone(), connections_max);
    Ok(Arc::new(listener.context("serving the API")?))
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
