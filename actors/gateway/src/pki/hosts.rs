//! Hosts' certificates: a key that a host makes and keeps, the request to certify it, and what the authority answers.
//!
//! One certificate serves as client and server of links and as the host's node at the API. The key never leaves its host,
//! and the host's name is bound to it: a later certificate is for the same key.

use std::path::Path;
use std::time::Duration;

use kactor_protocol::time::Timestamp;
use kactor_runtime::env::Env;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use ring::digest::{SHA256, digest};
use x509_parser::pem::Pem;

use super::{BACKDATE, CERTIFICATE_LIFETIME_DAYS, DAY, Pki, PkiError, calendar, files, params};

/// How long a host's certificate is good for, unless somebody says otherwise.
pub const HOST_LIFETIME: Duration = Duration::from_secs(CERTIFICATE_LIFETIME_DAYS as u64 * 86_400);
/// An honest request is one kilobyte.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
const NODES_GROUP: &str = "system:nodes";

/// A host's own key.
pub struct HostKey(KeyPair);

impl HostKey {
    /// Loads the key `name` in `folder`, or makes and stores one there. It syncs files.
    pub async fn open(env: &Env, folder: &Path, name: &str) -> Result<Self, PkiError> {
        let path = folder.join(name);
        if env.disk.exists(&path) {
            return super::key_from(&*env.disk, &path).map(Self);
        }
        let failed = |source| PkiError::Issue { subject: "this host's key".to_owned(), source };
        let key = KeyPair::generate().map_err(failed)?;
        files::create_folder(&*env.disk, folder)?;
        files::write_all(env, folder, &[(name, &key.serialize_pem())]).await?;
        Ok(Self(key))
    }

    /// The private key, PEM.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo).
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.0.subject_public_key_info())
    }

    /// The request to certify it for the host `name` (PKCS #10, PEM).
    pub fn request(&self, name: &str) -> Result<String, PkiError> {
        let failed = |source| PkiError::Issue { subject: format!("system:node:{name}"), source };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
        params.distinguished_name.push(DnType::OrganizationName, NODES_GROUP);
        params.serialize_request(&self.0).and_then(|it| it.pem()).map_err(failed)
    }
}

/// What a host gets for its request.
#[derive(Debug, Clone)]
pub struct HostCertificate {
    pub pem: String,
    /// SHA-256 of the public key that it certifies.
    pub key_hash: [u8; 32],
    pub not_after: Timestamp,
}

impl Pki {
    /// Certifies the key of `request` for the host `name`. Of the request nothing but the key counts, and that its sender
    /// holds it.
    pub fn issue_host(
        &self,
        env: &Env,
        name: &str,
        request: &str,
        lifetime: Duration,
    ) -> Result<HostCertificate, PkiError> {
        let subject = format!("system:node:{name}");
        if request.len() > REQUEST_BYTES_MAX {
            return Err(PkiError::Request { reason: "it is longer than 16 KiB".to_owned() });
        }
        let mut asked = CertificateSigningRequestParams::from_pem(request)
            .map_err(|it| PkiError::Request { reason: it.to_string() })?;
        let mut params = params(env, &subject, CERTIFICATE_LIFETIME_DAYS);
        let now = env.wall();
        // A certificate that is good for minutes (in tests) must not count its backdate as age.
        params.not_before = calendar(now.minus(BACKDATE.min(lifetime / 8)));
        params.not_after = calendar(now.plus(lifetime.min(DAY * super::CA_LIFETIME_DAYS)));
        params.distinguished_name.push(DnType::OrganizationName, NODES_GROUP);
        params.subject_alt_names = name.try_into().ok().map(SanType::DnsName).into_iter().collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let not_after = params.not_after;
        asked.params = params;
        let key_hash = sha256(&asked.public_key.subject_public_key_info());
        let certificate =
            asked.signed_by(&self.ca).map_err(|source| PkiError::Issue { subject, source })?;
        let not_after = u64::try_from(not_after.unix_timestamp()).unwrap_or(0);
        let not_after = Timestamp::from_seconds(not_after);
        Ok(HostCertificate { pem: certificate.pem(), key_hash, not_after })
    }
}

/// SHA-256 of the public key of a PEM certificate, which is what tokens pin and names are bound to. `None`: it is none.
pub fn key_hash(certificate: &str) -> Option<[u8; 32]> {
    let (pem, _) = Pem::read(std::io::Cursor::new(certificate.as_bytes())).ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(sha256(certificate.public_key().raw))
}

/// SHA-256 of the public key that a request (PKCS #10, PEM) is for, once its signature is checked.
pub fn request_key_hash(request: &str) -> Option<[u8; 32]> {
    if request.len() > REQUEST_BYTES_MAX {
        return None;
    }
    let asked = CertificateSigningRequestParams::from_pem(request).ok()?;
    Some(sha256(&asked.public_key.subject_public_key_info()))
}

/// From when until when a PEM certificate is good.
pub fn validity(certificate: &str) -> Option<(Timestamp, Timestamp)> {
    let (pem, _) = Pem::read(std::io::Cursor::new(certificate.as_bytes())).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let seconds = |it: i64| Timestamp::from_seconds(u64::try_from(it).unwrap_or(0));
    let validity = certificate.validity();
    Some((seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp())))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
