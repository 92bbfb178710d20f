//! Who the cluster's hosts are: the one source of roles, addresses and keys for links.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use kactor_protocol::HostId;
use kactor_protocol::message::{Peer, Role};
use tokio::sync::watch;

/// What is known of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// SHA-256 of its public key (SubjectPublicKeyInfo). `None`: any key that the cluster's CA signed for its name.
    pub key_hash: Option<[u8; 32]>,
    /// What it may send.
    pub roles: Vec<Role>,
    /// Where it answers.
    pub address: Option<SocketAddr>,
    /// Whether this host dials it. One that is not dialed may dial us.
    pub dial: bool,
}

/// The hosts of the cluster. Clones share one list; whoever reads it reads it whole.
#[derive(Clone)]
pub struct Directory(watch::Sender<Arc<BTreeMap<HostId, Known>>>);

/// An entry, and the peer as remoting asks for it: made once, not with every frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub entry: HostEntry,
    pub peer: Peer,
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Directory {
    /// Without any host: nobody is linked.
    pub fn new() -> Self {
        Self(watch::channel(Arc::default()).0)
    }

    /// Replaces the list. Hosts that are no longer in it, or whose key changed, are cut off.
    pub fn set(&self, hosts: BTreeMap<HostId, HostEntry>) {
        let known = |(host, entry): (HostId, HostEntry)| {
            let peer = Peer { host: host.clone(), roles: entry.roles.clone() };
            (host, Known { entry, peer })
        };
        let hosts: BTreeMap<_, _> = hosts.into_iter().map(known).collect();
        self.0.send_if_modified(|it| {
            let changed = **it != hosts;
            if changed {
                *it = Arc::new(hosts);
            }
            changed
        });
    }

    pub fn get(&self, host: &HostId) -> Option<HostEntry> {
        self.0.borrow().get(host).map(|it| it.entry.clone())
    }

    pub fn snapshot(&self) -> BTreeMap<HostId, HostEntry> {
        self.0.borrow().iter().map(|(host, it)| (host.clone(), it.entry.clone())).collect()
    }

    /// Tells of every change after this call.
    pub fn changed(&self) -> Changes {
        Changes(self.0.subscribe())
    }

    pub(crate) fn known(&self) -> Arc<BTreeMap<HostId, Known>> {
        self.0.borrow().clone()
    }
}

/// Wakes when the list changed.
pub struct Changes(watch::Receiver<Arc<BTreeMap<HostId, Known>>>);

impl Changes {
    /// Completes after the next change, or with `false` when no list can come any more.
    pub async fn next(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kactor_protocol::HostId;
    use kactor_protocol::message::Role;

    use super::{Directory, HostEntry};

    #[test]
    fn an_equal_list_wakes_nobody_and_clones_share_the_list() {
        let (directory, host) = (Directory::new(), HostId::new("n1").unwrap());
        let entry =
            HostEntry { key_hash: None, roles: vec![Role::Worker], address: None, dial: false };
        let mut changes = directory.changed();
        directory.clone().set(BTreeMap::from([(host.clone(), entry.clone())]));
        assert_eq!(directory.get(&host), Some(entry.clone()));
        assert!(changes.0.has_changed().unwrap());
        changes.0.mark_unchanged();
        directory.set(BTreeMap::from([(host, entry)]));
        assert!(!changes.0.has_changed().unwrap());
    }
}
