//! A plain HTTP/1.1 client with connections that are kept, over TLS to kactor or in clear to etcd.
//!
//! One request at a time on each connection, so a bench's number of clients is its number of connections on both
//! sides, and a test sees the bytes, codes and headers that a real client would not show.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::cluster::Cluster;

/// Longest that one answer, or one line of a watch, is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Where a server is and who asks.
#[derive(Clone)]
pub struct Access {
    address: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    token: Option<String>,
    /// Whom the server's certificate must name.
    name: String,
}

/// What the API's certificate names, and the administrator asks for.
const API_NAME: &str = "kubernetes";

impl Access {
    /// The administrator of a cluster.
    ///
    /// # Panics
    /// When its kubeconfig is not there or not whole.
    pub fn admin(cluster: &Cluster) -> Self {
        Self::of(&cluster.kubeconfig()).expect("kactor writes a whole kubeconfig")
    }

    /// As a kubeconfig file says.
    pub fn of(kubeconfig: &Path) -> anyhow::Result<Self> {
        let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig)?)?;
        let cluster = &document["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().context("no server")?;
        let address = server.strip_prefix("https://").context("not https")?.to_owned();
        let user = &document["users"][0]["user"];
        let (certificate, key) =
            (pem(user, "client-certificate-data")?, pem(user, "client-key-data")?);
        let tls = tls(&pem(cluster, "certificate-authority-data")?, Some((&certificate, &key)))?;
        let name = API_NAME.to_owned();
        Ok(Self { address, tls: Some(Arc::new(tls)), token: None, name })
    }

    /// A server that speaks HTTP in clear.
    pub fn clear(address: &str) -> Self {
        Self { address: address.to_owned(), tls: None, token: None, name: API_NAME.to_owned() }
    }

    /// The server of one kubeconfig, asked with the client certificate of another.
    pub fn with_certificate_of(kubeconfig: &Path, other: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path| -> anyhow::Result<Value> {
            Ok(serde_saphyr::from_str(&std::fs::read_to_string(path)?)?)
        };
        let ca = pem(&read(kubeconfig)?["clusters"][0]["cluster"], "certificate-authority-data")?;
        let user = &read(other)?["users"][0]["user"];
        let (certificate, key) =
            (pem(user, "client-certificate-data")?, pem(user, "client-key-data")?);
        let tls = Some(Arc::new(tls(&ca, Some((&certificate, &key)))?));
        Ok(Self { tls, ..Self::of(kubeconfig)? })
    }

    /// A connection to write bytes on; `protocol` is what ALPN settles on.
    pub async fn raw(&self, protocol: &str) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut tls = self.tls.as_deref().context("not https")?.clone();
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let tcp = TcpStream::connect(&self.address).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        Ok(connector.connect(ServerName::try_from("kubernetes")?, tcp).await?)
    }

    /// The same server, asked by whom the token names; trust is taken from the kubeconfig.
    pub fn with_token(kubeconfig: &Path, token: &str) -> anyhow::Result<Self> {
        let document: Value = serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig)?)?;
        let ca = pem(&document["clusters"][0]["cluster"], "certificate-authority-data")?;
        let tls = Some(Arc::new(tls(&ca, None)?));
        Ok(Self { tls, token: Some(token.to_owned()), ..Self::of(kubeconfig)? })
    }

    /// The same server, asked by nobody.
    pub fn anonymous(kubeconfig: &Path) -> anyhow::Result<Self> {
        Ok(Self { token: None, ..Self::with_token(kubeconfig, "")? })
    }

    async fn reach(&self) -> anyhow::Result<TcpStream> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    /// A connection after its TLS handshake, to speak on by hand.
    pub async fn dial(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let tls = self.tls.clone().context("this server speaks in clear")?;
        let name = ServerName::try_from(self.name.clone())?;
        Ok(tokio_rustls::TlsConnector::from(tls).connect(name, self.reach().await?).await?)
    }

    /// The same client at another server of the same cluster.
    pub fn at(self, address: &str, name: &str) -> Self {
        Self { address: address.to_owned(), name: name.to_owned(), ..self }
    }
}

fn pem(of: &Value, name: &str) -> anyhow::Result<Vec<u8>> {
    let text = of[name].as_str().with_context(|| format!("the kubeconfig has no {name}"))?;
    Ok(STANDARD.decode(text)?)
}

fn tls(ca: &[u8], client: Option<(&[u8], &[u8])>) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for it in CertificateDer::pem_slice_iter(ca) {
        roots.add(it?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    Ok(builder.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(key)?)?)
}

/// One request.
#[derive(Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub body: Bytes,
}

pub const JSON: &str = "application/json";

impl Call {
    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path, Bytes::new())
    }

    pub fn post(path: &str, body: &Value) -> Self {
        Self::new(Method::POST, path, body.to_string().into())
    }

    pub fn put(path: &str, body: &Value) -> Self {
        Self::new(Method::PUT, path, body.to_string().into())
    }

    pub fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path, Bytes::new())
    }

    pub fn new(method: Method, path: &str, body: Bytes) -> Self {
        Self { method, path: path.to_owned(), content_type: JSON, body }
    }

    pub fn of_type(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Reply {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// # Panics
    /// When the body is no JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// The object of a success.
    ///
    /// # Panics
    /// When it is a refusal.
    #[track_caller]
    pub fn object(&self) -> Value {
        assert!(self.is_ok(), "{}: {}", self.code, self.text());
        self.json()
    }

    /// Reason and message of a refusal, whose Status must agree with the HTTP code.
    ///
    /// # Panics
    /// When it is no Status of that code.
    #[track_caller]
    pub fn refusal(&self) -> (String, String) {
        let status = self.json();
        assert_eq!(
            (&status["kind"], &status["status"]),
            (&"Status".into(), &"Failure".into()),
            "{status}"
        );
        assert_eq!(status["code"], self.code, "{status}");
        let text = |it: &str| status[it].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }
}

/// A connection that is kept.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    token: Option<String>,
}

impl Connection {
    pub async fn open(access: &Access) -> anyhow::Result<Self> {
        timeout(ANSWER_MAX, Self::connect(access)).await.context("connecting took too long")?
    }

    async fn connect(access: &Access) -> anyhow::Result<Self> {
        let token = access.token.clone();
        let (sender, driver) = match &access.tls {
            None => {
                let tcp = access.reach().await?;
                let (sender, connection) = handshake(TokioIo::new(tcp)).await?;
                (sender, drive(connection))
            }
            Some(_) => {
                let stream = access.dial().await?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                (sender, drive(connection))
            }
        };
        Ok(Self { sender, driver, token })
    }

    pub async fn send(&mut self, call: &Call) -> anyhow::Result<Reply> {
        let exchange = async {
            let response = self.ask(call).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Reply { code: head.status.as_u16(), headers: head.headers, body })
        };
        timeout(ANSWER_MAX, exchange).await.context("the answer took too long")?
    }

    async fn ask(&mut self, call: &Call) -> anyhow::Result<http::Response<Incoming>> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(HOST, "kubernetes")
            .header(CONTENT_TYPE, call.content_type);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(call.body.clone()))?).await?)
    }

    /// Starts a watch; the connection is its own from now on.
    pub async fn watch(mut self, path: &str) -> anyhow::Result<Watch> {
        let answered = timeout(ANSWER_MAX, self.ask(&Call::get(path))).await;
        let response = answered.context("the answer took too long")??;
        if !response.status().is_success() {
            let code = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            bail!("{code}: {}", String::from_utf8_lossy(&body));
        }
        Ok(Watch { _connection: self, body: response.into_body(), rest: Vec::new() })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn drive<E>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "the harness stands outside the cluster")]
    tokio::spawn(async move { drop(connection.await) })
}

/// The lines of a watch, as JSON.
pub struct Watch {
    _connection: Connection,
    body: Incoming,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the stream ended or broke.
    ///
    /// # Panics
    /// When none comes for [`ANSWER_MAX`], or a line is no JSON.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|it| *it == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a watch's line is JSON"));
            }
            let frame = timeout(ANSWER_MAX, self.body.frame()).await.expect("no event came");
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) | None => return None,
            }
        }
    }
}
