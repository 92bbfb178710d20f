//! Upgraded connections, spoken by hand: the frames of a WebSocket, and of SPDY/3.1.

use std::collections::BTreeMap;

use flate2::{Compress, Compression, FlushCompress};
use kactor_tests::harness::cluster::NODE;
use kactor_tests::harness::{Access, Cluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

/// Longest that a session may take; a hang is a failure, not a timing.
const SESSION_MAX: Duration = Duration::from_secs(60);

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The administrator, at the API or at the node's own port.
fn access(cluster: &Cluster, address: &str) -> Access {
    let own = format!("127.0.0.1:{}", cluster.port());
    let name = if address == own { "kubernetes" } else { NODE };
    Access::admin(cluster).at(address, name)
}

/// Sends the head of an upgrade, and reads the answer's up to its empty line.
async fn upgrade(access: &Access, method: &str, path: &str, headers: &str) -> (Tls, String) {
    let mut stream = access.dial().await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: kubelet\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let byte = stream
            .read_u8()
            .await
            .unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&answer)));
        answer.push(byte);
    }
    (stream, String::from_utf8(answer).unwrap().to_ascii_lowercase())
}

/// The payloads that a server sends over a WebSocket until it closes it.
pub fn talk(cluster: &Cluster, address: &str, path: &str) -> Vec<Vec<u8>> {
    let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
    let access = access(cluster, address);
    let session = async {
        let (mut stream, answer) = upgrade(&access, "GET", path, headers).await;
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(answer.contains("sec-websocket-protocol: v5.channel.k8s.io"), "{answer}");
        let mut payloads = Vec::new();
        loop {
            let opcode = stream.read_u8().await.unwrap() & 0x0f;
            let len = match stream.read_u8().await.unwrap() {
                126 => u64::from(stream.read_u16().await.unwrap()),
                127 => stream.read_u64().await.unwrap(),
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(len).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            match opcode {
                8 => return payloads,
                1 | 2 => payloads.push(payload),
                _ => {} // A ping needs no answer in so short a life.
            }
        }
    };
    runtime().block_on(async { timeout(SESSION_MAX, session).await.unwrap() })
}

/// A SYN_STREAM of SPDY/3.1 with one header, `streamtype`.
fn syn_stream(id: u32, stream_type: &str, zlib: &mut Compress) -> Vec<u8> {
    let mut block = 1_u32.to_be_bytes().to_vec();
    for text in ["streamtype", stream_type] {
        block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        block.extend(text.as_bytes());
    }
    let mut packed = Vec::with_capacity(256);
    zlib.compress_vec(&block, &mut packed, FlushCompress::Sync).unwrap();
    let mut frame = vec![0x80, 3, 0, 1];
    frame.extend(u32::try_from(10 + packed.len()).unwrap().to_be_bytes()); // No flags.
    frame.extend(id.to_be_bytes());
    frame.extend([0; 6]);
    frame.extend(packed);
    frame
}

/// What a command wrote, by stream: `error`, `stdout`, `stderr`.
pub fn spdy(cluster: &Cluster, address: &str, path: &str) -> BTreeMap<&'static str, String> {
    let headers = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                   X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n";
    let access = access(cluster, address);
    let session = async {
        let (mut stream, answer) = upgrade(&access, "POST", path, headers).await;
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(answer.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{answer}");
        let names = BTreeMap::from([(1, "error"), (3, "stdout"), (5, "stderr")]);
        let mut zlib = Compress::new(Compression::default(), true);
        for (id, name) in &names {
            stream.write_all(&syn_stream(*id, name, &mut zlib)).await.unwrap();
        }
        let mut said: BTreeMap<&'static str, String> = BTreeMap::new();
        let mut open = names.len();
        while open > 0 {
            let first = stream.read_u32().await.unwrap();
            let second = stream.read_u32().await.unwrap();
            let mut payload = vec![0; (second & 0xff_ffff) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if first >> 31 == 0 {
                said.entry(names[&first]).or_default().push_str(&String::from_utf8_lossy(&payload));
                open -= usize::from(second >> 24 & 1 == 1);
            }
        }
        said
    };
    runtime().block_on(async { timeout(SESSION_MAX, session).await.unwrap() })
}
