//! Runs a container's probes: a command inside it, an HTTP request, a TCP connection.
//!
//! One run within the probe's timeout by `Env`'s clock; counting is the agent's. Semantics and wording follow
//! kubernetes pkg/probe: any status from 200 to 399 is well, an exit code of 0 is well, an open port is well.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{self, Either};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kactor_agent::ports::Prober;
use kactor_agent::probes::ProbeOutcome;
use kactor_agent::spec::{Container, HttpGetAction, PortRef, Probe, Scheme};
use kactor_drivers::driver::{Driver, exec_to_end};
use kactor_drivers::spec::ContainerId;
use kactor_runtime::env::Env;
use tokio::net::TcpStream;

/// Of a command's output, as much as an event shows.
const OUTPUT_CHARS_MAX: usize = 1024;

/// Probes through the driver and the host's sockets.
pub struct HostProber {
    env: Env,
    driver: Arc<dyn Driver>,
}

impl HostProber {
    pub fn new(env: Env, driver: Arc<dyn Driver>) -> Self {
        Self { env, driver }
    }

    async fn run(
        &self,
        id: &ContainerId,
        container: &Container,
        probe: &Probe,
        address: Option<&str>,
    ) -> Result<(), String> {
        if let Some(exec) = &probe.exec {
            return self.exec(id, exec.command.clone()).await;
        }
        let no_address = || "the pod has no address yet".to_owned();
        if let Some(get) = &probe.http_get {
            let port = port_number(container, &get.port)?;
            let host = host_of(&get.host, address).ok_or_else(no_address)?;
            return http_get(&host, port, get).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = port_number(container, &tcp.port)?;
            let host = host_of(&tcp.host, address).ok_or_else(no_address)?;
            let connected = TcpStream::connect((host.as_str(), port)).await;
            return connected.map(drop).map_err(|it| format!("dial tcp {host}:{port}: {it}"));
        }
        Err("the probe says nothing that could be asked".to_owned())
    }

    async fn exec(&self, id: &ContainerId, command: Vec<String>) -> Result<(), String> {
        let done = exec_to_end(&*self.driver, id, command).await.map_err(|it| it.to_string())?;
        if done.code == 0 {
            return Ok(());
        }
        let said = [done.stdout, done.stderr].concat();
        let text: String = String::from_utf8_lossy(&said).chars().take(OUTPUT_CHARS_MAX).collect();
        let text = text.trim();
        Err(if text.is_empty() {
            format!("command terminated with exit code {}", done.code)
        } else {
            text.to_owned()
        })
    }
}

#[async_trait]
impl Prober for HostProber {
    async fn probe(
        &self,
        id: &ContainerId,
        container: &Container,
        probe: &Probe,
        address: Option<&str>,
    ) -> ProbeOutcome {
        let timeout = Duration::from_secs(probe.timeout_seconds.max(1));
        let run = self.run(id, container, probe, address);
        match within(&self.env, timeout, run).await {
            Some(Ok(())) => ProbeOutcome::Success,
            Some(Err(why)) => ProbeOutcome::Failure(why),
            None => ProbeOutcome::Failure(format!("no answer within {} s", timeout.as_secs())),
        }
    }
}

async fn within<T>(env: &Env, time: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! { biased;
        done = work => Some(done),
        () = env.sleep(time) => None,
    }
}

fn host_of(named: &str, address: Option<&str>) -> Option<String> {
    if named.is_empty() { address.map(str::to_owned) } else { Some(named.to_owned()) }
}

fn port_number(container: &Container, port: &PortRef) -> Result<u16, String> {
    match port {
        PortRef::Number(number) => Ok(*number),
        PortRef::Name(name) => {
            let named = container.ports.iter().find(|it| it.name.as_deref() == Some(name.as_str()));
            let by_text = || name.parse().ok();
            named
                .map(|it| it.container_port)
                .or_else(by_text)
                .ok_or_else(|| format!("the container has no port named {name}"))
        }
    }
}

async fn http_get(host: &str, port: u16, get: &HttpGetAction) -> Result<(), String> {
    if get.scheme == Scheme::Https {
        return Err("probes over HTTPS are not supported by this node yet".to_owned());
    }
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let url = format!("http://{host}:{port}{path}");
    let failed = |it: &dyn std::error::Error| format!("Get \"{url}\": {it}");
    let request = request(host, port, &path, get).map_err(|it| failed(&it))?;
    let stream = TcpStream::connect((host, port)).await.map_err(|it| failed(&it))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|it| failed(&it))?;
    let answer = std::pin::pin!(sender.send_request(request));
    let connection = std::pin::pin!(connection);
    let answer = match future::select(answer, connection).await {
        Either::Left((answer, _)) => answer,
        // The server has closed; what it said before is still there.
        Either::Right((_, answer)) => answer.await,
    };
    let status = answer.map_err(|it| failed(&it))?.status().as_u16();
    if (200..400).contains(&status) {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {status}"))
}

fn request(
    host: &str,
    port: u16,
    path: &str,
    get: &HttpGetAction,
) -> Result<http::Request<Empty<Bytes>>, http::Error> {
    let mut out = http::Request::get(path);
    let mut has_host = false;
    for header in &get.http_headers {
        has_host |= header.name.eq_ignore_ascii_case("host");
        out = out.header(header.name.as_str(), header.value.as_str());
    }
    if !has_host {
        out = out.header("host", format!("{host}:{port}"));
    }
    let named = |name: &str| get.http_headers.iter().any(|it| it.name.eq_ignore_ascii_case(name));
    if !named("user-agent") {
        out = out.header("user-agent", "kube-probe/1.36");
    }
    if !named("accept") {
        out = out.header("accept", "*/*");
    }
    out.header("connection", "close").body(Empty::new())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use kactor_runtime::env::Machine;
    use serde_json::json;

    use super::*;

    /// Answers one connection with `status`, and says what it was asked.
    fn serve(status: &'static str) -> (u16, std::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new()
            .spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let (mut text, mut buffer) = (String::new(), [0; 1024]);
                while !text.contains("\r\n\r\n") {
                    let n = stream.read(&mut buffer).unwrap();
                    text.push_str(&String::from_utf8_lossy(&buffer[..n]));
                }
                write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
                asked.send(text).unwrap();
            })
            .unwrap();
        (port, receiver)
    }

    fn get(port: u16, rest: serde_json::Value) -> Result<(), String> {
        let mut object = json!({"port": port, "path": "/healthz?full"});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        let get: HttpGetAction = serde_json::from_value(object).unwrap();
        let machine = Machine::start();
        machine.block_on(async move { http_get("127.0.0.1", port, &get).await }).unwrap()
    }

    #[test]
    fn any_status_below_400_is_well_and_the_request_names_itself() {
        let (port, asked) = serve("302 Found");
        let header = json!({"httpHeaders": [{"name": "Host", "value": "web.example"}]});
        assert_eq!(get(port, header), Ok(()));
        let text = asked.recv().unwrap();
        assert!(text.starts_with("GET /healthz?full HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("Host: web.example") || text.contains("host: web.example"));
        assert!(text.contains("kube-probe/") && text.matches("ost: ").count() == 1, "{text}");
    }

    #[test]
    fn a_bad_status_and_a_closed_port_are_failures_in_words() {
        let (port, _asked) = serve("503 Service Unavailable");
        let error = get(port, json!({})).unwrap_err();
        assert_eq!(error, "HTTP probe failed with statuscode: 503");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(get(closed, json!({})).unwrap_err().starts_with("Get \"http://127.0.0.1:"));
    }

    #[test]
    fn ports_are_found_by_name() {
        let container: Container = serde_json::from_value(json!({
            "name": "web", "image": "web",
            "ports": [{"name": "http", "containerPort": 8080}],
        }))
        .unwrap();
        let named = |it: &str| port_number(&container, &PortRef::Name(it.to_owned()));
        assert_eq!(named("http"), Ok(8080));
        assert_eq!(named("81"), Ok(81));
        assert!(named("admin").is_err());
    }
}
