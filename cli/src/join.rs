//! Joining a cluster: `kactor up --join HOST:PORT --token …` on a host that has no cluster yet.
//!
//! First the cluster's CA is asked for on a connection that trusts nobody, and compared with the hash in the token; only
//! then, on a connection that trusts this CA alone, the token and a certificate request are sent. What comes back is written
//! before anything runs. A marker stands in the directory meanwhile: a start that finds it goes on only by joining
//! again, so a half-written directory never becomes a cluster of its own.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kactor_cluster::join::{ControlShare, JoinReply, JoinRequest};
use kactor_cluster::token::Token;
use kactor_gateway::pki::{self, HostKey};
use kactor_protocol::HostId;
use kactor_replica::data_dir::{Identity, claim};
use kactor_runtime::env::Env;

use crate::args::UpArgs;
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::kept::{Kept, write_private};
use crate::machine_facts;

/// Files of `pki` that a control host is given; the certificate last, because the others mean nothing without it.
pub const KEYS: [&str; 4] = ["ca.key", "sa.key", "secrets.key", "ca.crt"];

/// Where and by what to join.
pub struct Invitation {
    pub host: String,
    pub token: Token,
}

impl Invitation {
    /// `None`: this start is no joining.
    pub fn of(args: &UpArgs) -> anyhow::Result<Option<Self>> {
        let (host, token) = match (&args.join, &args.token) {
            (Some(host), Some(token)) => (host.clone(), token.parse().context("--token")?),
            (None, None) => return Ok(None),
            (Some(_), None) => {
                bail!("--join needs --token; `kactor token create` on a control host prints both")
            }
            (None, Some(_)) => {
                bail!(
                    "--token needs --join HOST:PORT; `kactor token create` on a control host prints both"
                )
            }
        };
        Ok(Some(Self { host, token }))
    }
}

/// Refuses a start that would make a second cluster, or join twice. Touches nothing.
pub fn check(
    dir: &DataDir,
    kept: Option<&Kept>,
    invitation: Option<&Invitation>,
) -> anyhow::Result<()> {
    if dir.left().exists() {
        bail!(
            "the host of {} left its cluster; `kactor down --purge` frees the directory, then it may join anew",
            dir.root().display()
        );
    }
    let cut_short = dir.joining().exists();
    match (kept.filter(|it| it.joined), invitation) {
        _ if cut_short && invitation.is_none() => bail!(
            "joining a cluster was cut short in {}; give the same --join and --token again (or `kactor down --purge` to begin anew)",
            dir.root().display()
        ),
        (Some(kept), Some(invitation)) if !cut_short => {
            let ours = pki::key_hash(&kept.ca);
            if ours == Some(invitation.token.ca.0) {
                return Ok(()); // The line that was used the first time; it says nothing new.
            }
            bail!(
                "{} belongs to another cluster than the token; name another --data-dir",
                dir.root().display()
            )
        }
        (None, Some(_)) if !cut_short && dir.store().exists() => bail!(
            "{} holds a cluster of its own already; name another --data-dir for a host that joins, or end that cluster with `kactor down --purge`",
            dir.root().display()
        ),
        _ => Ok(()),
    }
}

/// Joins, and writes what the host needs from now on. The directory is locked and was checked.
pub async fn join(
    env: &Env,
    dir: &DataDir,
    invitation: &Invitation,
    wishes: &Wishes,
) -> anyhow::Result<Kept> {
    let address = resolve(&invitation.host)?;
    let ca = authority(address, invitation).await?;
    write_private(&dir.joining(), invitation.host.as_bytes())?;
    let key = HostKey::open(env, &dir.host(), HOST_KEY).await.context("this host's key")?;
    let client = Client::trusting(address, ca.as_bytes())?;
    let request = JoinRequest {
        token: invitation.token.shown(),
        node: HostId::new(&wishes.node)?,
        csr: key.request(&wishes.node)?,
        listen: machine_facts::reached_at(wishes.listen, machine_facts::towards(address)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        level: kactor_state::FEATURE_LEVEL_MAX,
    };
    let answer = client.post("/kactor/v1/join", &serde_json::to_value(&request)?).await?;
    let answer = answer.json().with_context(|| format!("{address} did not let this host in"))?;
    let reply: JoinReply =
        serde_json::from_value(answer).context("the answer is of another version of kactor")?;
    let kept = Kept {
        node: wishes.node.clone(),
        role: reply.role,
        joined: true,
        ca: ca.clone(),
        listen: wishes.listen,
        runtime: wishes.runtime,
        kubelet: None,
        pod_cidr: reply.pod_cidr.clone(),
        service_cidr: reply.service_cidr.clone(),
        revision: 0,
        hosts: reply.hosts.clone(),
    };
    write_private(&dir.host_certificate(), reply.certificate.as_bytes())?;
    if let Some(share) = &reply.control {
        take_share(env, dir, &reply.cluster, share).await?;
    }
    kept.write(dir)?;
    std::fs::remove_file(dir.joining())
        .with_context(|| format!("removing {}", dir.joining().display()))?;
    Ok(kept)
}

/// The file name of a host's key.
pub const HOST_KEY: &str = "host.key";

/// What this host would be, of its own flags.
pub struct Wishes {
    pub node: String,
    pub listen: SocketAddr,
    pub runtime: crate::args::Runtime,
}

fn resolve(host: &str) -> anyhow::Result<SocketAddr> {
    let named =
        || format!("--join {host}: it is HOST:PORT of a control host, such as 192.0.2.1:6443");
    let mut addresses = host.to_socket_addrs().with_context(named)?;
    addresses.next().with_context(named)
}

/// The CA of whoever answers there, if it is the token's.
async fn authority(address: SocketAddr, invitation: &Invitation) -> anyhow::Result<String> {
    let answer = Client::trusting_nobody(address)?.get("/kactor/v1/ca").await?;
    if answer.code != 200 {
        bail!(
            "{address} is no control host of kactor: it answered {} instead of its CA",
            answer.code
        );
    }
    let ca = String::from_utf8(answer.body.to_vec()).context("the CA is no text")?;
    let shown = pki::key_hash(&ca).context("what was sent as the CA is no certificate")?;
    if shown != invitation.token.ca.0 {
        bail!(
            "{address} belongs to another cluster than the token: its CA is another one. Nothing was sent to it. Check the address in --join, or who answers there"
        );
    }
    Ok(ca)
}

/// Writes the cluster's keys and whose log this host is a member of. The identity comes last: with it the directory is a
/// control host's.
async fn take_share(
    env: &Env,
    dir: &DataDir,
    cluster: &str,
    share: &ControlShare,
) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.pki());
    made.with_context(|| format!("making {}", dir.pki().display()))?;
    for name in KEYS {
        let key = share.keys.get(name).with_context(|| format!("the answer lacks {name}"))?;
        let bytes = STANDARD.decode(key).with_context(|| format!("{name} of the answer"))?;
        write_private(&dir.pki().join(name), &bytes)?;
    }
    let identity = Identity { cluster: cluster.to_owned(), replica: share.replica.0 };
    let store = dir.store();
    if store.exists() {
        // Of a joining that was cut short: its replica never took part, and its id is never used again.
        std::fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))?;
    }
    claim(&env.disk, &store, &identity).await?;
    write_private(&dir.cluster_name(), format!("{cluster}\n").as_bytes())
}

#[cfg(test)]
mod tests;
