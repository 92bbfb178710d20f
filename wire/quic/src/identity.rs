//! Who a host is: its certificate of the cluster's CA, and what the other end reads from it.
//!
//! A host's certificate names it as Kubernetes names a kubelet: CN `system:node:NAME`, O `system:nodes`. Addresses are
//! not checked, because they may change while the cluster runs; the name, the chain, the dates and both purposes are.

use std::sync::Arc;

use kactor_protocol::HostId;
use kactor_protocol::time::Timestamp;
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

const NODE_PREFIX: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";

/// What a host proves itself with, and whom it trusts.
#[derive(Debug)]
pub struct Credentials {
    /// The host's certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// The cluster's CA; during its rotation the old and the new one.
    pub roots: Arc<RootCertStore>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), roots: self.roots.clone() }
    }
}

/// The authenticated other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub host: HostId,
    /// SHA-256 of the public key (its SubjectPublicKeyInfo): a node's name is bound to one key.
    pub key_hash: [u8; 32],
    pub not_after: Timestamp,
}

/// Why a certificate names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("it showed no certificate")]
    Absent,
    #[error("its certificate can't be read")]
    Unreadable,
    #[error(
        "its certificate names {subject:?}; a host's has CN {NODE_PREFIX}NAME and O {NODES_GROUP}"
    )]
    NoHost { subject: String },
}

impl Identity {
    /// Reads a leaf certificate whose chain was verified.
    pub fn of(leaf: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| IdentityError::Unreadable)?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next().and_then(|it| it.as_str().ok());
        let is_node = subject.iter_organization().any(|it| it.as_str() == Ok(NODES_GROUP));
        let host = name.and_then(|it| it.strip_prefix(NODE_PREFIX)).filter(|_| is_node);
        let host = host
            .and_then(|it| HostId::new(it).ok())
            .ok_or_else(|| IdentityError::NoHost { subject: subject.to_string() })?;
        let hash = digest(&SHA256, certificate.public_key().raw);
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            host,
            key_hash: hash.as_ref().try_into().expect("SHA-256 has 32 bytes"),
            not_after: Timestamp::from_seconds(not_after),
        })
    }
}
