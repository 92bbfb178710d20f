//! Who a host is: its certificate of the cluster's CA, and what the other end reads from it.
//!
//! A host's certificate names it as Kubernetes names a kubelet: CN `system:node:NAME`, O `system:nodes`. Addresses are
//! not checked, because they may change while the cluster runs; the name, the chain, the dates and both purposes are.

use std::sync::Arc;

use kactor_protocol::HostId;
use kactor_protocol::time::Timestamp;
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
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

/// Why PEM texts are no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} can't be read: {reason}")]
pub struct CredentialsError {
    what: &'static str,
    reason: String,
}

impl Credentials {
    /// From PEM texts: the host's chain, its key, the certificates of all CAs that are trusted.
    pub fn from_pem(chain: &str, key: &str, roots: &str) -> Result<Self, CredentialsError> {
        let unread = |what, reason: String| CredentialsError { what, reason };
        let certificates = |what, pem: &str| {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            match found {
                Ok(found) if found.is_empty() => Err(unread(what, "it is empty".to_owned())),
                Ok(found) => Ok(found),
                Err(error) => Err(unread(what, error.to_string())),
            }
        };
        let chain = certificates("the host's certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|it| unread("the host's key", it.to_string()))?;
        let mut trusted = RootCertStore::empty();
        for root in certificates("the cluster's CA", roots)? {
            trusted.add(root).map_err(|it| unread("the cluster's CA", it.to_string()))?;
        }
        Ok(Self { chain, key, roots: Arc::new(trusted) })
    }

    /// Whom the certificate names, as a peer will read it.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::of(self.chain.first().ok_or(IdentityError::Absent)?)
    }
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
    pub not_before: Timestamp,
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
        let seconds = |it: i64| Timestamp::from_seconds(u64::try_from(it).unwrap_or(0));
        let validity = certificate.validity();
        Ok(Self {
            host,
            key_hash: hash.as_ref().try_into().expect("SHA-256 has 32 bytes"),
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
        })
    }
}
