//! A client of our own API for the commands that ask a running kactor: one TLS connection, one request.
//!
//! It uses the administrator's identity of the data directory, and trusts that directory's CA alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use kactor_cluster::host::HostRole;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::data_dir::{DataDir, Holder};
use crate::join::HOST_KEY;
use crate::kept::Kept;

/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 64 << 20;
const REQUEST_MAX: Duration = Duration::from_secs(10);

type Tls = tokio_rustls::client::TlsStream<TcpStream>;
type Http1 = hyper::client::conn::http1::Connection<TokioIo<Tls>, Full<Bytes>>;

/// A way to the kactor of a data directory.
pub struct Client {
    /// The process that is asked, where it is of this machine.
    pub pid: Option<u32>,
    address: SocketAddr,
    /// Whom its certificate must name.
    name: String,
    tls: Arc<rustls::ClientConfig>,
    patience: Duration,
}

/// An answer: status code and body.
pub struct Answer {
    pub code: u16,
    pub body: Bytes,
}

impl Client {
    pub fn of(dir: &DataDir) -> anyhow::Result<Self> {
        let holder = dir.running()?;
        if let Some(kept) = Kept::read(dir)?.filter(|it| it.role == HostRole::Worker) {
            return Self::of_worker(dir, &holder, &kept);
        }
        let path = dir.kubeconfig();
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}; is kactor still starting?", path.display()))?;
        let config: Value = serde_saphyr::from_str(&text)
            .with_context(|| format!("{} is no YAML", path.display()))?;
        let field = |value: &Value, name: &str| -> anyhow::Result<Vec<u8>> {
            let text = value[name]
                .as_str()
                .with_context(|| format!("{} has no {name}", path.display()))?;
            STANDARD.decode(text).with_context(|| format!("{name} of {}", path.display()))
        };
        let ca = field(&config["clusters"][0]["cluster"], "certificate-authority-data")?;
        let user = &config["users"][0]["user"];
        let tls =
            tls(&ca, &field(user, "client-certificate-data")?, &field(user, "client-key-data")?)?;
        let address = reachable(holder.listen);
        Ok(Self { pid: Some(holder.pid), ..Self::new(address, tls) })
    }

    /// A worker has no administrator: it answers whoever has its own key, on the port of its kubelet.
    fn of_worker(dir: &DataDir, holder: &Holder, kept: &Kept) -> anyhow::Result<Self> {
        let read = |path: std::path::PathBuf| {
            std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let key = read(dir.host().join(HOST_KEY))?;
        let tls = tls(kept.ca.as_bytes(), &read(dir.host_certificate())?, &key)?;
        let address = kept.kubelet.context("this worker has not started yet; try again")?;
        let address = reachable(address);
        let name = kept.node.clone();
        Ok(Self { pid: Some(holder.pid), name, ..Self::new(address, tls) })
    }

    fn new(address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Self {
        Self { pid: None, address, name: "kubernetes".to_owned(), tls, patience: REQUEST_MAX }
    }

    /// As nobody, to whoever answers there: nothing secret may be sent, and nothing that is heard be believed unchecked.
    pub fn trusting_nobody(address: SocketAddr) -> anyhow::Result<Self> {
        let verifier = Arc::new(Unverified(provider()));
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self::new(address, Arc::new(config)))
    }

    /// As nobody yet, to a control host of the cluster of this CA.
    pub fn trusting(address: SocketAddr, ca: &[u8]) -> anyhow::Result<Self> {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        Ok(Self::new(address, Arc::new(config)))
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.request(http::Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.request(http::Method::POST, path, body.to_string().into()).await
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.request(http::Method::DELETE, path, Bytes::new()).await
    }

    /// A merge patch (RFC 7386).
    pub async fn merge(&self, path: &str, patch: &Value) -> anyhow::Result<Answer> {
        self.request(http::Method::PATCH, path, patch.to_string().into()).await
    }

    /// The same client at another host of the cluster.
    pub fn elsewhere(&self, address: SocketAddr) -> Self {
        Self { patience: self.patience, ..Self::new(address, self.tls.clone()) }
    }

    async fn request(
        &self,
        method: http::Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let address = self.address();
        tokio::time::timeout(self.patience, self.exchange(method, path, body))
            .await
            .with_context(|| {
                format!("{address} did not answer within {} s", self.patience.as_secs())
            })?
            .with_context(|| format!("asking {address} for {path}"))
    }

    /// For questions whose answer may take long: an image of gigabytes.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Posts an empty body and hands the answer's bytes on as they come; nothing but one chunk is held.
    pub async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let address = self.address();
        let whole = async {
            let (mut sender, connection) = self.connect().await?;
            let request = self.head(http::Method::POST, path).body(Full::new(Bytes::new()))?;
            let moved = async {
                let response = sender.send_request(request).await?;
                let code = response.status().as_u16();
                let mut body = response.into_body();
                if code >= 300 {
                    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
                    let body = body.map_err(|it| anyhow::anyhow!("reading the answer: {it}"))?;
                    Answer { code, body: body.to_bytes() }.json()?;
                    bail!("the API answered {code}");
                }
                while let Some(frame) = tokio::time::timeout(REQUEST_MAX, body.frame())
                    .await
                    .with_context(|| format!("nothing came for {} s", REQUEST_MAX.as_secs()))?
                {
                    if let Ok(data) = frame.context("reading the answer")?.into_data() {
                        take(&data)?;
                    }
                }
                Ok(())
            };
            tokio::select! {
                biased;
                moved = moved => moved,
                ended = connection => {
                    ended?;
                    bail!("the connection was closed before the answer was whole")
                }
            }
        };
        whole.await.with_context(|| format!("asking {address} for {path}"))
    }

    async fn connect(&self) -> anyhow::Result<(SendRequest<Full<Bytes>>, Http1)> {
        let tcp = TcpStream::connect(self.address()).await?;
        let name = ServerName::try_from(self.name.clone())?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        Ok(hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?)
    }

    fn head(&self, method: http::Method, path: &str) -> http::request::Builder {
        let content_type = match method {
            http::Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "kubernetes")
            .header(http::header::CONTENT_TYPE, content_type)
            .header(http::header::USER_AGENT, concat!("kactor/", env!("CARGO_PKG_VERSION")))
    }

    async fn exchange(
        &self,
        method: http::Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let (mut sender, connection) = self.connect().await?;
        let request = self.head(method, path).body(Full::new(body))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|it| anyhow::anyhow!("reading the answer: {it}"))?.to_bytes();
            anyhow::Ok(Answer { code, body })
        };
        // The connection moves the bytes; it ends with the answer.
        tokio::select! {
            biased;
            answer = answer => answer,
            ended = connection => {
                ended?;
                bail!("the connection was closed before the answer came")
            }
        }
    }
}

/// Where a socket of this machine that listens there is reached.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &[u8]) -> anyhow::Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    for it in CertificateDer::pem_slice_iter(ca) {
        roots.add(it.context("the CA")?)?;
    }
    Ok(roots)
}

/// Takes any server. Only for what is compared with a hash before it is believed.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn tls(ca: &[u8], certificate: &[u8], key: &[u8]) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let key = PrivateKeyDer::from_pem_slice(key).context("the client's key")?;
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(chain.context("the client's certificate")?, key)?;
    Ok(Arc::new(config))
}

impl Answer {
    /// The body as JSON, or the API's own words for why not.
    pub fn json(&self) -> anyhow::Result<Value> {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        if self.code < 300 {
            return Ok(value);
        }
        match value["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => {
                bail!("the API answered {}: {}", self.code, String::from_utf8_lossy(&self.body))
            }
        }
    }
}

/// Runs a command's questions to their end.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    runtime.block_on(future)
}
