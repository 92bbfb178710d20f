//! The cluster's own certificate authority, what it issues, and the key that signs service-account tokens.
//!
//! On disk are only the three things that cannot be made again: the CA's certificate, its key and the token key
//! (`ca.crt`, `ca.key`, `sa.key` under `DATA/pki`, mode 0600). Serving and admin certificates are issued at
//! every start (hosts' own are theirs: `hosts.rs`), so no file of theirs can expire, leak or disagree with the host's addresses. Invariant: a file is
//! whole or absent (written beside, synced, renamed), and a key that is there is never replaced: clients and nodes
//! trust what it signed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kactor_protocol::time::Timestamp;
use kactor_runtime::env::{Disk, Env};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

mod files;
mod hosts;

pub use hosts::{HOST_LIFETIME, HostCertificate, HostKey, key_hash, request_key_hash, validity};

const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const TOKEN_KEY: &str = "sa.key";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFETIME_DAYS: u32 = 3650;
/// As kubeadm issues them. A start issues anew, so a host that runs longer must be started once a year.
const CERTIFICATE_LIFETIME_DAYS: u32 = 365;
/// Hosts' clocks differ; a certificate is valid this long before it was made.
const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// What the serving certificate must be valid for.
#[derive(Debug, Clone)]
pub struct ServingNames {
    pub host: String,
    /// `cluster.local`
    pub cluster_domain: String,
    /// The addresses that clients dial: listen addresses and the `kubernetes` service's.
    pub addresses: Vec<IpAddr>,
}

/// Whom a client certificate names: CN and O, as Kubernetes reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub user: String,
    pub groups: Vec<String>,
}

impl Subject {
    /// Who may do everything: for the kubeconfig of the person who runs the cluster.
    pub fn admin() -> Self {
        Self { user: "kubernetes-admin".to_owned(), groups: vec!["system:masters".to_owned()] }
    }

    pub fn node(name: &str) -> Self {
        Self { user: format!("system:node:{name}"), groups: vec!["system:nodes".to_owned()] }
    }
}

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

/// The key must not reach a log.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{what} {path} failed")]
    Disk {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{folder} holds the cluster's ca.crt and lacks {missing}; restore it from a backup of the data directory, or \
         remove the folder to make a new cluster"
    )]
    Incomplete { folder: PathBuf, missing: &'static str },
    #[error(
        "{path} cannot be read as PEM: {reason}; restore it from a backup of the data directory"
    )]
    Unreadable { path: PathBuf, reason: String },
    #[error("the request for a certificate can't be taken: {reason}")]
    Request { reason: String },
    #[error("issuing a certificate for {subject} failed")]
    Issue {
        subject: String,
        #[source]
        source: rcgen::Error,
    },
}

/// The authority and the token key, loaded.
pub struct Pki {
    ca_pem: String,
    ca: Issuer<'static, KeyPair>,
    token_key: KeyPair,
}

impl Pki {
    /// Loads `folder`, or makes and stores a new authority where the folder holds none.
    ///
    /// It syncs files: poll it where blocking is allowed (`Lane::Blocking`, or before the lanes serve).
    pub async fn open(env: &Env, folder: &Path) -> Result<Self, PkiError> {
        let disk = &*env.disk;
        if !disk.exists(&folder.join(CA_CERT)) {
            return Self::create(env, folder).await;
        }
        match [CA_KEY, TOKEN_KEY].into_iter().find(|it| !disk.exists(&folder.join(it))) {
            None => Self::load(disk, folder),
            Some(missing) => Err(PkiError::Incomplete { folder: folder.to_path_buf(), missing }),
        }
    }

    fn load(disk: &dyn Disk, folder: &Path) -> Result<Self, PkiError> {
        let ca_pem = files::read(disk, &folder.join(CA_CERT))?;
        let ca_key = key_from(disk, &folder.join(CA_KEY))?;
        let token_key = key_from(disk, &folder.join(TOKEN_KEY))?;
        let ca = Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|source| {
            PkiError::Unreadable { path: folder.join(CA_CERT), reason: source.to_string() }
        })?;
        Ok(Self { ca_pem, ca, token_key })
    }

    /// The CA's certificate is renamed last, so while it is absent nobody trusts it yet. A key that is there all the
    /// same is kept: the last start was killed here, or the certificate was lost, and then one anew from the same
    /// key is as good to everybody who trusts the old one.
    async fn create(env: &Env, folder: &Path) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Issue { subject: "the cluster's CA".to_owned(), source };
        let kept_or_new = |name: &str| match env.disk.exists(&folder.join(name)) {
            true => key_from(&*env.disk, &folder.join(name)),
            false => KeyPair::generate().map_err(failed),
        };
        let key = kept_or_new(CA_KEY)?;
        let token_key = kept_or_new(TOKEN_KEY)?;
        let mut params = params(env, "kactor-ca", CA_LIFETIME_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(failed)?;
        let ca_pem = certificate.pem();
        files::create_folder(&*env.disk, folder)?;
        files::write_all(
            env,
            folder,
            &[
                (CA_KEY, &key.serialize_pem()),
                (TOKEN_KEY, &token_key.serialize_pem()),
                (CA_CERT, &ca_pem),
            ],
        )
        .await?;
        Ok(Self { ca_pem, ca: Issuer::new(params, key), token_key })
    }

    /// The CA's certificate: `certificate-authority-data`, `kube-root-ca.crt`.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// PKCS #8, P-256: what signs and verifies service-account tokens.
    pub fn token_key_pkcs8(&self) -> Vec<u8> {
        self.token_key.serialize_der()
    }

    /// The certificate that the API is served with.
    pub fn issue_serving(&self, env: &Env, names: &ServingNames) -> Result<Identity, PkiError> {
        let mut params = params(env, "kube-apiserver", CERTIFICATE_LIFETIME_DAYS);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut dns: Vec<String> = ["localhost", "kubernetes", "kubernetes.default"]
            .into_iter()
            .map(str::to_owned)
            .collect();
        dns.push("kubernetes.default.svc".to_owned());
        dns.push(format!("kubernetes.default.svc.{}", names.cluster_domain));
        dns.push(names.host.clone());
        let mut addresses = names.addresses.clone();
        addresses.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        addresses.sort();
        addresses.dedup();
        // A host name that is no DNS name is left out: a certificate without it is better than none.
        params.subject_alt_names = dns
            .into_iter()
            .filter_map(|it| it.try_into().ok().map(SanType::DnsName))
            .chain(addresses.into_iter().filter(|it| !it.is_unspecified()).map(SanType::IpAddress))
            .collect();
        self.issue(params, "the API's address")
    }

    /// The certificate of a node's own server (the kubelet's API on 10250).
    pub fn issue_node_serving(
        &self,
        env: &Env,
        node: &str,
        addresses: &[IpAddr],
    ) -> Result<Identity, PkiError> {
        let mut params = params(env, &format!("system:node:{node}"), CERTIFICATE_LIFETIME_DAYS);
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = node
            .try_into()
            .ok()
            .map(SanType::DnsName)
            .into_iter()
            .chain(addresses.iter().copied().map(SanType::IpAddress))
            .collect();
        self.issue(params, node)
    }

    /// A client certificate for `subject`.
    pub fn issue_client(&self, env: &Env, subject: &Subject) -> Result<Identity, PkiError> {
        let mut params = params(env, &subject.user, CERTIFICATE_LIFETIME_DAYS);
        for group in &subject.groups {
            params.distinguished_name.push(DnType::OrganizationName, group.as_str());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, &subject.user)
    }

    fn issue(&self, mut params: CertificateParams, subject: &str) -> Result<Identity, PkiError> {
        let failed = |source| PkiError::Issue { subject: subject.to_owned(), source };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.ca).map_err(failed)?;
        Ok(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

fn params(env: &Env, common_name: &str, lifetime_days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = env.wall();
    params.not_before = calendar(now.minus(BACKDATE));
    params.not_after = calendar(now.plus(DAY * lifetime_days));
    // 63 bits, so that the DER integer is positive and at most 8 bytes.
    params.serial_number = Some(SerialNumber::from(env.random_u64() >> 1));
    params
}

/// Certificates count whole seconds.
fn calendar(at: Timestamp) -> time::OffsetDateTime {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn key_from(disk: &dyn Disk, path: &Path) -> Result<KeyPair, PkiError> {
    let pem = files::read(disk, path)?;
    KeyPair::from_pem(&pem).map_err(|source| PkiError::Unreadable {
        path: path.to_path_buf(),
        reason: source.to_string(),
    })
}

#[cfg(test)]
mod tests;
