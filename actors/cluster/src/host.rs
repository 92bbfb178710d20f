//! What the cluster knows of a host: its record in the store.
//!
//! A host is its name, and a name belongs to one key: whoever comes with another key is another host. Where it is
//! reached may change at any time and is told by the host itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use kactor_protocol::ids::ReplicaId;
use kactor_protocol::store::{Key, KeyError};
use kactor_protocol::{HostId, Timestamp};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The group of what only kactor reads; no API serves it.
pub const GROUP: &str = "kactor.internal";
/// The first replica of a cluster; later ones are numbered by those that take them in.
pub const FIRST_REPLICA: ReplicaId = ReplicaId(1);

/// All hosts by name.
pub type Hosts = BTreeMap<HostId, HostRecord>;

/// One host, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRecord {
    pub key_hash: KeyHash,
    pub role: HostRole,
    /// A control host's member of the log. A host that lost its disk gets another.
    pub replica: Option<ReplicaId>,
    /// The cluster whose log that member is of: a restore makes another.
    pub cluster: String,
    /// Where others reach it: the API by TCP, its actors by UDP.
    pub address: SocketAddr,
    pub version: String,
    /// The highest feature level that its kactor knows.
    pub level: u32,
    pub joined_at: Timestamp,
    pub started_at: Timestamp,
    /// It was told to leave; its member of the log is taken out, then this record.
    #[serde(default)]
    pub leaving: bool,
}

impl HostRecord {
    pub fn key(host: &HostId) -> Result<Key, KeyError> {
        Key::new(GROUP, "hosts", "", host.as_str())
    }

    /// What all records of hosts begin with.
    pub fn prefix() -> String {
        Key::resource_prefix(GROUP, "hosts")
    }

    pub fn is_control(&self) -> bool {
        self.role == HostRole::Control
    }
}

/// What one host tells another of a third, and keeps for its next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KnownHost {
    pub host: HostId,
    pub address: SocketAddr,
    pub key_hash: KeyHash,
    pub role: HostRole,
}

/// All hosts, as they are told to others.
pub fn known(hosts: &Hosts) -> Vec<KnownHost> {
    let known = |(host, it): (&HostId, &HostRecord)| KnownHost {
        host: host.clone(),
        address: it.address,
        key_hash: it.key_hash,
        role: it.role,
    };
    hosts.iter().map(known).collect()
}

/// What a host was let in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostRole {
    /// It holds the store and every secret, and may vote.
    Control,
    Worker,
}

impl fmt::Display for HostRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostRole::Control => "control",
            HostRole::Worker => "worker",
        })
    }
}

/// SHA-256 of a public key as certificates carry it (SubjectPublicKeyInfo, DER). Printed as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 32]);

/// A text that is no SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no SHA-256: 64 hexadecimal digits are")]
pub struct KeyHashError {
    pub text: String,
}

impl KeyHash {
    pub fn of(spki: &[u8]) -> Self {
        let hash = digest(&SHA256, spki);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|it| write!(f, "{it:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyHash {
    type Err = KeyHashError;

    fn from_str(text: &str) -> Result<Self, KeyHashError> {
        let error = || KeyHashError { text: text.chars().take(80).collect() };
        if text.len() != 64 || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut hash = [0; 32];
        for (nth, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * nth..2 * nth + 2], 16).map_err(|_| error())?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for KeyHash {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyHash {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_also_by_a_kactor_that_knows_more_fields() {
        let record = HostRecord {
            key_hash: KeyHash::of(b"key"),
            role: HostRole::Control,
            replica: Some(ReplicaId(3)),
            cluster: "c".to_owned(),
            address: "192.0.2.7:6443".parse().unwrap(),
            version: "0.1.0".to_owned(),
            level: 1,
            joined_at: Timestamp(5),
            started_at: Timestamp(6),
            leaving: false,
        };
        let mut tree = serde_json::to_value(&record).unwrap();
        assert_eq!(tree["role"], "control");
        assert_eq!(tree["keyHash"].as_str().unwrap().len(), 64);
        tree["ofALaterVersion"] = 1.into();
        tree.as_object_mut().unwrap().remove("leaving");
        assert_eq!(serde_json::from_value::<HostRecord>(tree).unwrap(), record);
    }

    #[test]
    fn hashes_are_printed_and_read_and_nothing_else_is_one() {
        let hash = KeyHash::of(b"");
        assert!(hash.to_string().starts_with("e3b0c44298fc1c14"), "{hash}");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for wrong in ["", "e3", &"g".repeat(64), &"é".repeat(32)] {
            assert!(wrong.parse::<KeyHash>().is_err(), "{wrong}");
        }
    }
}
