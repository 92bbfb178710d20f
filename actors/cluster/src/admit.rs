//! Whether a host may join, and as what. Pure; `records.rs` writes what is decided, `cli` issues the certificate.
//!
//! Every refusal says which it is and what to do. The order matters: who shows no valid token learns nothing of hosts.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use kactor_protocol::ids::ReplicaId;
use kactor_protocol::{HostId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::host::{HostRecord, HostRole, Hosts, KeyHash};
use crate::token::{TokenRecord, TokenRole};

/// How many control hosts come without being asked for one by one: with `any` tokens the first three hosts.
pub const CONTROL_HOSTS_WANTED: usize = 3;
/// Most control hosts that do not vote: a learner holds every secret.
pub const LEARNERS_MAX: usize = 2;

/// A host that asks to join; its key and token were read already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    pub host: HostId,
    pub key_hash: KeyHash,
    /// Of the secret that it showed.
    pub secret_hash: KeyHash,
    pub address: SocketAddr,
    pub version: String,
    pub level: u32,
}

/// What the cluster looks like to the door.
#[derive(Debug, Clone, Copy)]
pub struct Books<'a> {
    pub token: Option<&'a TokenRecord>,
    pub hosts: &'a Hosts,
    pub voters: &'a BTreeSet<ReplicaId>,
    /// The level that the log is at: a kactor that knows less cannot apply it.
    pub level: u32,
    pub next_replica: ReplicaId,
    pub cluster: &'a str,
}

/// What a host is let in as: its record, and the token with this use noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    pub record: HostRecord,
    pub token: TokenRecord,
}

/// Why a host may not join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefused {
    #[error(
        "the token is not known to this cluster; `kactor token create` on a control host makes one"
    )]
    UnknownToken,
    #[error("the token expired at {at}; `kactor token create` on a control host makes another")]
    ExpiredToken { at: Timestamp },
    #[error("the token was revoked; `kactor token create` on a control host makes another")]
    RevokedToken,
    #[error(
        "the token was for {uses_max} use(s) and let in {used_by}; `kactor token create` on a control host makes another"
    )]
    UsedToken { uses_max: u32, used_by: String },
    #[error(
        "a {token} token makes no {wanted} host; `kactor token create --role {wanted}` on a control host makes one that does"
    )]
    WrongRole { token: String, wanted: HostRole },
    #[error(
        "the name {host} belongs to a host with another key; choose another with --node-name, or take that host out first with `kactor leave --host {host}` on a control host"
    )]
    NameTaken { host: HostId },
    #[error("{host} is leaving the cluster; join again when `kactor status` no longer lists it")]
    Leaving { host: HostId },
    #[error(
        "two control hosts wait already to vote ({waiting}); come again when they do, or take one out with `kactor leave --host NAME`"
    )]
    LearnersWait { waiting: String },
    #[error("the address {address} belongs to host {host} already; choose another with --listen")]
    AddressTaken { address: SocketAddr, host: HostId },
    #[error(
        "the cluster is at feature level {cluster}, this kactor ({version}) knows up to {ours}; join with a newer one"
    )]
    TooOld { cluster: u32, ours: u32, version: String },
}

/// Judges one applicant.
pub fn admit(asks: &Applicant, books: Books<'_>, now: Timestamp) -> Result<Admission, JoinRefused> {
    let known = books.token.filter(|it| it.secret_hash == asks.secret_hash);
    let token = known.ok_or(JoinRefused::UnknownToken)?;
    if token.revoked {
        return Err(JoinRefused::RevokedToken);
    }
    if now >= token.expires_at {
        return Err(JoinRefused::ExpiredToken { at: token.expires_at });
    }
    let before = books.hosts.get(&asks.host);
    if let Some(it) = before {
        if it.key_hash != asks.key_hash {
            return Err(JoinRefused::NameTaken { host: asks.host.clone() });
        }
        if it.leaving {
            return Err(JoinRefused::Leaving { host: asks.host.clone() });
        }
    }
    // The very host that used it may come again: the answer may have been lost on the way.
    let comes_again = before.is_some() && token.used_by.contains(&asks.host);
    if token.is_used_up() && !comes_again {
        let used_by = names(token.used_by.iter());
        return Err(JoinRefused::UsedToken { uses_max: token.uses_max, used_by });
    }
    let elsewhere =
        |(host, it): &(&HostId, &HostRecord)| **host != asks.host && it.address == asks.address;
    if let Some((host, it)) = books.hosts.iter().find(elsewhere) {
        return Err(JoinRefused::AddressTaken { address: it.address, host: host.clone() });
    }
    if asks.level < books.level {
        let (cluster, ours) = (books.level, asks.level);
        return Err(JoinRefused::TooOld { cluster, ours, version: asks.version.clone() });
    }
    let role = role(asks, token.role, before, books)?;
    let mut token = token.clone();
    if !comes_again {
        token.used_by.push(asks.host.clone());
    }
    let record = HostRecord {
        key_hash: asks.key_hash,
        role,
        // Always a new one: what stood on its disk may be lost, and with it its votes.
        replica: (role == HostRole::Control).then_some(books.next_replica),
        cluster: books.cluster.to_owned(),
        address: asks.address,
        version: asks.version.clone(),
        level: asks.level,
        joined_at: now,
        started_at: now,
        leaving: false,
    };
    Ok(Admission { record, token })
}

fn role(
    asks: &Applicant,
    token: TokenRole,
    before: Option<&HostRecord>,
    books: Books<'_>,
) -> Result<HostRole, JoinRefused> {
    let others = || books.hosts.iter().filter(|(host, _)| **host != asks.host);
    let n_control = others().filter(|(_, it)| it.is_control() && !it.leaving).count();
    let role = match (token, before.map(|it| it.role)) {
        (TokenRole::Worker, Some(HostRole::Control)) => {
            let wanted = HostRole::Control;
            return Err(JoinRefused::WrongRole { token: token.to_string(), wanted });
        }
        (TokenRole::Control, Some(HostRole::Worker)) => {
            let wanted = HostRole::Worker;
            return Err(JoinRefused::WrongRole { token: token.to_string(), wanted });
        }
        (TokenRole::Worker, _) => HostRole::Worker,
        (TokenRole::Control, _) => HostRole::Control,
        (TokenRole::Any, Some(role)) => role,
        (TokenRole::Any, None) if n_control < CONTROL_HOSTS_WANTED => HostRole::Control,
        (TokenRole::Any, None) => HostRole::Worker,
    };
    let waits = |it: &HostRecord| {
        it.is_control() && !it.leaving && it.replica.is_some_and(|id| !books.voters.contains(&id))
    };
    let waiting: Vec<&HostId> =
        others().filter(|(_, it)| waits(it)).map(|(host, _)| host).collect();
    if role == HostRole::Control && waiting.len() >= LEARNERS_MAX {
        return Err(JoinRefused::LearnersWait { waiting: names(waiting.into_iter()) });
    }
    Ok(role)
}

fn names<'a>(hosts: impl Iterator<Item = &'a HostId>) -> String {
    let names: Vec<&str> = hosts.map(HostId::as_str).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
