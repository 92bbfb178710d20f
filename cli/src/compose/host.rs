//! This host among the cluster's hosts: its key and certificate, its links, and the actors that keep all of it true.
//!
//! Whom it links to follows from the host records; until the store is as new as what was kept, from what was kept. The
//! certificate is issued at every start from the key that its name belongs to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use kactor_cluster::host::{HostRole, Hosts, KeyHash, KnownHost, known};
use kactor_cluster::hosts_actor::{HOSTS, HostFacts, HostsActor, OwnHost};
use kactor_cluster::membership_actor::{MEMBERSHIP, MembershipActor};
use kactor_cluster::records::Records;
use kactor_gateway::Pki;
use kactor_gateway::pki::{HOST_LIFETIME, HostKey};
use kactor_links::{
    Authority, CertificatesActor, Directory, HostEntry, HostLinks, Issued, LinkPems, LinkSetup,
    LinksActor, RenewalActor, RenewalSetup,
};
use kactor_protocol::cluster::AnnounceHost;
use kactor_protocol::ids::{ReplicaId, Revision};
use kactor_protocol::message::Role;
use kactor_protocol::{HostId, Incarnation, Timestamp};
use kactor_runtime::env::{Env, Lane};
use kactor_runtime::{ActorSystem, Child};
use kactor_store::Members;

use super::serving::Shown;
use super::{DELIVERY, Plan};
use crate::data_dir::DataDir;
use crate::join::HOST_KEY;
use crate::kept::{Kept, write_private};
use crate::machine_facts;

/// This host's actors and its links to others.
pub(super) struct OwnPlace {
    pub system: ActorSystem,
    pub links: Arc<HostLinks>,
    key_hash: KeyHash,
    started_at: Timestamp,
    renewal: RenewalSetup,
}

/// Certifies hosts' keys anew, whichever control host they ask.
struct Signer {
    env: Env,
    pki: Arc<Pki>,
}

impl Authority for Signer {
    fn issue(&self, host: &HostId, request: &str) -> Result<Issued, String> {
        let issued = self.pki.issue_host(&self.env, host.as_str(), request, HOST_LIFETIME);
        let issued = issued.map_err(|it| it.to_string())?;
        let (certificate, key_hash) = (issued.pem, issued.key_hash);
        Ok(Issued { certificate, key_hash, ca: self.pki.ca_pem().to_owned() })
    }
}

impl OwnPlace {
    /// `listen` is where the API listens; links take the same address and port by UDP.
    pub async fn open(
        env: &Env,
        plan: &Plan,
        pki: &Pki,
        listen: SocketAddr,
    ) -> anyhow::Result<Self> {
        let name = &plan.node_name;
        let host = HostId::new(name).with_context(|| format!("--node-name {name}"))?;
        let key = HostKey::open(env, &plan.dir.host(), HOST_KEY).await.context("the host's key")?;
        let request = key.request(name)?;
        let certificate = pki
            .issue_host(env, name, &request, HOST_LIFETIME)
            .context("issuing this host's certificate")?;
        write_private(&plan.dir.host_certificate(), certificate.pem.as_bytes())?;
        let directory = Directory::new();
        let before = plan.kept.iter().flat_map(|it| &it.hosts);
        directory.set(entries(before, &host));
        let started_at = env.wall();
        let setup = LinkSetup {
            host: host.clone(),
            incarnation: Incarnation(started_at.0),
            pems: LinkPems { cert: certificate.pem, key: key.pem(), ca: pki.ca_pem().to_owned() },
            listen,
        };
        let incarnation = setup.incarnation;
        let links = HostLinks::start(env, setup, directory).await?;
        let system =
            ActorSystem::with_transport(env.clone(), host, incarnation, DELIVERY, links.clone());
        links.attach(&system);
        let certificate_file = plan.dir.host_certificate();
        let keep = move |pems: &LinkPems| {
            write_private(&certificate_file, pems.cert.as_bytes())
                .map_err(|it| crate::print::chain(&it))
        };
        let renewal =
            RenewalSetup { links: links.clone(), key: key.pem(), request, keep: Arc::new(keep) };
        let key_hash = KeyHash(certificate.key_hash);
        Ok(Self { system, links, key_hash, started_at, renewal })
    }

    /// Starts those who keep hosts and members true.
    pub fn start_actors(
        &self,
        plan: &Plan,
        records: &Records,
        (members, own): (Arc<dyn Members>, ReplicaId),
        (pki, shown): (&Arc<Pki>, Shown),
    ) -> anyhow::Result<()> {
        let is_first = !plan.kept.as_ref().is_some_and(|it| it.joined);
        let own_host = OwnHost {
            host: self.system.host().clone(),
            key_hash: self.key_hash,
            first: is_first.then_some(own),
            facts: self.facts(plan, records),
            seen: self.seen(plan, records, pki.ca_pem(), shown),
        };
        let signer = Signer { env: self.system.env().clone(), pki: pki.clone() };
        let authority: Arc<dyn Authority> = Arc::new(signer);
        CertificatesActor::start(&self.system, &authority, self.links.directory())?;
        RenewalActor::start(&self.system, self.renewal.clone())?;
        LinksActor::start(&self.system, &self.links)?;
        let actor = {
            let records = records.clone();
            let row = Child::new(HOSTS, Lane::Control);
            self.system.start(row, move || HostsActor::new(records.clone(), own_host.clone()))?
        };
        actor.open_to_asks::<AnnounceHost>();
        let records = records.clone();
        let row = Child::new(MEMBERSHIP, Lane::Control);
        self.system
            .start(row, move || MembershipActor::new(records.clone(), members.clone(), own))?;
        Ok(())
    }

    /// Where this host is reached is looked at again and again.
    fn facts(&self, plan: &Plan, records: &Records) -> Arc<dyn Fn() -> HostFacts + Send + Sync> {
        let (listen, started_at) = (plan.listen, self.started_at);
        let (records, host) = (records.clone(), self.system.host().clone());
        Arc::new(move || {
            let before = records.host(&host).map(|it| it.address.ip());
            HostFacts {
                address: machine_facts::reached_at(listen, before),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                level: kactor_state::FEATURE_LEVEL_MAX,
                started_at,
            }
        })
    }

    /// Links to whom the records name, and keeps them for the next start.
    fn seen(
        &self,
        plan: &Plan,
        records: &Records,
        ca_pem: &str,
        shown: Shown,
    ) -> Arc<dyn Fn(&Hosts) + Send + Sync> {
        let keeper = Keeper {
            dir: plan.dir.clone(),
            host: self.system.host().clone(),
            links: self.links.clone(),
            records: records.clone(),
            shown,
            kept: Mutex::new(Kept {
                node: plan.node_name.clone(),
                role: HostRole::Control,
                joined: plan.kept.as_ref().is_some_and(|it| it.joined),
                ca: ca_pem.to_owned(),
                listen: plan.listen,
                runtime: plan.runtime,
                kubelet: None,
                pod_cidr: plan.pod_cidr.clone(),
                service_cidr: plan.service_cidr.clone(),
                revision: plan.kept.as_ref().map_or(0, |it| it.revision),
                hosts: plan.kept.as_ref().map_or(Vec::new(), |it| it.hosts.clone()),
            }),
        };
        Arc::new(move |hosts| keeper.take(hosts))
    }
}

/// Keeps links, the API's certificate and the file true to the records.
struct Keeper {
    dir: DataDir,
    host: HostId,
    links: Arc<HostLinks>,
    records: Records,
    shown: Shown,
    kept: Mutex<Kept>,
}

impl Keeper {
    fn take(&self, hosts: &Hosts) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A store that is behind what was kept knows older addresses, one that just began knows nobody.
        let Revision(revision) = self.records.store().revision();
        if revision < kept.revision || !hosts.contains_key(&self.host) {
            return;
        }
        self.shown.name(hosts);
        let hosts = known(hosts);
        self.links.directory().set(entries(hosts.iter(), &self.host));
        let is_new = kept.hosts != hosts;
        (kept.revision, kept.hosts) = (revision, hosts);
        if is_new && let Err(error) = kept.write(&self.dir) {
            // The store has it; only a start that finds no other host would miss it.
            tracing::warn!(error = crate::print::chain(&error), "who the others are was not kept");
        }
    }
}

/// What a link may carry follows from the role that the host was let in as. Workers dial, control hosts are dialed.
pub(super) fn entries<'a>(
    hosts: impl Iterator<Item = &'a KnownHost>,
    own: &HostId,
) -> BTreeMap<HostId, HostEntry> {
    let entry = |it: &KnownHost| HostEntry {
        key_hash: Some(it.key_hash.0),
        roles: match it.role {
            HostRole::Control => vec![Role::Replica, Role::Control, Role::Worker],
            HostRole::Worker => vec![Role::Worker],
        },
        address: Some(it.address),
        dial: it.role == HostRole::Control,
    };
    let others = hosts.filter(|it| it.host != *own);
    others.map(|it| (it.host.clone(), entry(it))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_links_are_those_that_the_door_gave_and_only_control_hosts_are_dialed() {
        let host = |name: &str, role| KnownHost {
            host: HostId::new(name).unwrap(),
            address: ([192, 0, 2, 1], 6443).into(),
            key_hash: KeyHash([7; 32]),
            role,
        };
        let hosts = [
            host("a", HostRole::Control),
            host("b", HostRole::Control),
            host("w", HostRole::Worker),
        ];
        let entries = entries(hosts.iter(), &HostId::new("a").unwrap());
        let seen: Vec<String> =
            entries.iter().map(|(host, it)| format!("{host} {:?} {}", it.roles, it.dial)).collect();
        assert_eq!(seen, ["b [Replica, Control, Worker] true", "w [Worker] false"]);
        assert!(entries.values().all(|it| it.key_hash == Some([7; 32])));
    }
}
