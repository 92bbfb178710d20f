//! TLS for the API: the serving identity, ALPN, and client certificates that are judged after the handshake.
//!
//! Kubernetes asks for a client certificate and lets the handshake pass whatever it is; a bad one is then answered
//! 401 with a Status (k8s.io/apiserver pkg/authentication/request/x509). So the verifier here checks that the
//! client holds the key and nothing else, and [`ClientCertificates::judge`] checks chain, purpose and dates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kactor_protocol::time::Timestamp;
use kactor_runtime::env::Env;
use ring::digest::{SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki::{Identity, Subject};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} is not usable PEM: {reason}")]
    Pem { what: &'static str, reason: String },
    #[error("the serving certificate and key were refused")]
    Serving(#[source] rustls::Error),
}

/// What a connection's client certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// It sent none.
    Unidentified,
    Verified {
        subject: Subject,
        /// `X509SHA256=…`: names this very certificate in audit and in `kubectl auth whoami -o yaml`.
        credential_id: String,
        /// A connection may outlive it: asked again at each request.
        not_after: Timestamp,
    },
    /// It sent one that is not ours, expired or not for clients: every request is answered 401.
    Refused(String),
}

/// Judges client certificates against the cluster's CA.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    webpki: Arc<dyn ClientCertVerifier>,
}

impl ClientCertificates {
    /// `now` is wall time; chain, dates and the client purpose are checked.
    pub fn judge(&self, chain: Option<&[CertificateDer<'_>]>, env: &Env) -> Peer {
        let Some((leaf, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return Peer::Unidentified;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_millis(env.wall().0));
        if let Err(error) = self.webpki.verify_client_cert(leaf, intermediates, now) {
            return Peer::Refused(format!("x509: {error}"));
        }
        match subject(leaf) {
            Some((subject, not_after)) => {
                Peer::Verified { subject, credential_id: credential_id(leaf), not_after }
            }
            None => Peer::Refused("x509: the certificate's subject has no common name".to_owned()),
        }
    }
}

fn credential_id(leaf: &CertificateDer<'_>) -> String {
    let digest = digest(&SHA256, leaf);
    let hex: String = digest.as_ref().iter().map(|it| format!("{it:02x}")).collect();
    format!("X509SHA256={hex}")
}

fn subject(leaf: &CertificateDer<'_>) -> Option<(Subject, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let name = certificate.subject();
    let user = name.iter_common_name().next()?.as_str().ok()?.to_owned();
    if user.is_empty() {
        return None;
    }
    let groups =
        name.iter_organization().filter_map(|it| it.as_str().ok().map(str::to_owned)).collect();
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some((Subject { user, groups }, Timestamp::from_seconds(not_after)))
}

/// What a listener shows to new connections. A later certificate takes its place; live connections notice nothing.
#[derive(Debug)]
pub struct ServingCertificate(Mutex<Arc<CertifiedKey>>);

impl ServingCertificate {
    pub fn new(serving: &Identity) -> Result<Self, TlsError> {
        certified(serving).map(|it| Self(Mutex::new(it)))
    }

    pub fn set(&self, serving: &Identity) -> Result<(), TlsError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = certified(serving)?;
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified(serving: &Identity) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates("the serving certificate", &serving.cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes())
        .map_err(|it| TlsError::Pem { what: "the serving key", reason: it.to_string() })?;
    CertifiedKey::from_der(chain, key, &ring_provider::default_provider())
        .map(Arc::new)
        .map_err(TlsError::Serving)
}

/// The configuration to serve with, and the judge of what clients show.
pub fn server(
    serving: &Identity,
    ca_pem: &str,
) -> Result<(Arc<ServerConfig>, ClientCertificates), TlsError> {
    server_showing(&Arc::new(ServingCertificate::new(serving)?), ca_pem)
}

/// As [`server`], with a certificate that may be replaced while connections are served.
pub fn server_showing(
    serving: &Arc<ServingCertificate>,
    ca_pem: &str,
) -> Result<(Arc<ServerConfig>, ClientCertificates), TlsError> {
    let provider = Arc::new(ring_provider::default_provider());
    let webpki = verifier(&provider, ca_pem)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Serving)?
        .with_client_cert_verifier(Arc::new(AskForCertificate { webpki: Arc::clone(&webpki) }))
        .with_cert_resolver(serving.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(config), ClientCertificates { webpki }))
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    ca_pem: &str,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let refused = |reason: String| TlsError::Pem { what: "the cluster's CA", reason };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the cluster's CA", ca_pem)? {
        roots.add(certificate).map_err(|it| refused(it.to_string()))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|it| refused(it.to_string()))?;
    Ok(verifier)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|it| TlsError::Pem { what, reason: it.to_string() })?;
    if found.is_empty() {
        return Err(TlsError::Pem { what, reason: "it holds no certificate".to_owned() });
    }
    Ok(found)
}

/// Asks for a certificate, demands none, and checks only that the client holds its key.
#[derive(Debug)]
struct AskForCertificate {
    webpki: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for AskForCertificate {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion()) // `judge` decides, and answers 401.
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
