//! TLS and QUIC settings of both ends.
//!
//! TLS 1.3 alone; both ends must show a certificate that the cluster's CA signed. The name in the handshake means nothing:
//! who answered is read from its certificate, so that a host may change its addresses.

use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::message::Lane;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme, version::TLS13};

use crate::identity::Credentials;
use crate::lane::protocol;
use crate::links::LinksError;

/// Stands in the handshake where a server's name is; nobody reads it.
pub(crate) const SERVER_NAME: &str = "host.kactor";
/// A connection on which nothing arrived for so long is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Bytes that one stream may have under way; a frame is at most 8 MiB and must fit.
const STREAM_WINDOW: u32 = 10 << 20;
const SEND_WINDOW: u64 = 10 << 20;
/// Streams of the other end at one time: one that is written, one that is read to its end, and slack.
const STREAMS_MAX: u32 = 8;

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_MAX).expect("seconds fit");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(2 * STREAM_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    Arc::new(transport)
}

pub(crate) fn server(credentials: &Credentials) -> Result<ServerConfig, LinksError> {
    let provider = Arc::new(ring::default_provider());
    let refused = |error: &dyn std::fmt::Display| LinksError::Credentials(error.to_string());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(credentials.roots.clone(), provider.clone())
            .build()
            .map_err(|it| refused(&it))?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|it| refused(&it))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|it| refused(&it))?;
    tls.alpn_protocols = Lane::ALL.iter().map(|it| protocol(*it).to_vec()).collect();
    let tls = QuicServerConfig::try_from(tls).map_err(|it| refused(&it))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport()).migration(true);
    Ok(config)
}

pub(crate) fn client(credentials: &Credentials, lane: Lane) -> Result<ClientConfig, LinksError> {
    let provider = Arc::new(ring::default_provider());
    let refused = |error: &dyn std::fmt::Display| LinksError::Credentials(error.to_string());
    let verifier =
        AnyHostOfTheCluster { roots: credentials.roots.clone(), provider: provider.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|it| refused(&it))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(|it| refused(&it))?;
    tls.alpn_protocols = vec![protocol(lane).to_vec()];
    let tls = QuicClientConfig::try_from(tls).map_err(|it| refused(&it))?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport());
    Ok(config)
}

/// Checks chain, dates and purpose. The dialer compares the host's name after the handshake.
#[derive(Debug)]
struct AnyHostOfTheCluster {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyHostOfTheCluster {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
