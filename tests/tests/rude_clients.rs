//! Clients that break the rules of the connection or of a body: each hears what was wrong, or is cut off, and
//! everybody else is served on.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use kactor_tests::harness::rest::{Call, Connection, Reply};
use kactor_tests::harness::{Access, Cluster, Runtime};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
/// Longest that a server's answer or its hanging up is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Far more than a control plane needs, far less than what these tests throw at it.
const RSS_KIB_MAX: u64 = 1 << 20;

async fn asked(access: &Access, call: &Call) -> Reply {
    Connection::open(access).await.unwrap().send(call).await.unwrap()
}

/// The server serves on, stored nothing of this, and did not grow without bound.
async fn goes_on(cluster: &Cluster) {
    let access = Access::admin(cluster);
    assert_eq!(asked(&access, &Call::get("/readyz")).await.text(), "ok");
    let list = asked(&access, &Call::get(CONFIGS)).await.object();
    let items = list["items"].as_array().unwrap();
    assert!(items.iter().all(|it| it["metadata"]["name"] == "kube-root-ca.crt"), "{list}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid())).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap();
    let rss_kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(rss_kib < RSS_KIB_MAX, "it holds {rss_kib} KiB");
}

/// Everything that comes until the server hangs up.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut all = Vec::new();
    // A reset after the answer is an end too.
    let _ = timeout(ANSWER_MAX, stream.read_to_end(&mut all)).await.expect("it does not hang up");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn whoever_sends_too_much_is_told_the_limit_on_the_connection_that_sent_it() {
    let cluster = Cluster::start(Runtime::None);
    let access = Access::admin(&cluster);
    for mib in [4, 32] {
        let body = json!({"metadata": {"name": "big"}, "data": {"x": "a".repeat(mib << 20)}});
        let reply = asked(&access, &Call::post(CONFIGS, &body)).await;
        assert_eq!(reply.code, 413, "{mib} MiB: {}", reply.text());
        let (reason, message) = reply.refusal();
        assert_eq!(reason, "RequestEntityTooLarge");
        assert!(message.contains("limit is 3145728"), "{message}");
    }
    // The same without a length in front, from somebody who is not let in, and to nowhere.
    let mut stream = access.raw("http/1.1").await.unwrap();
    let head = format!("POST {CONFIGS} HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..64 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let nobody = Access::with_token(&cluster.kubeconfig(), "nonsense").unwrap();
    let big = Bytes::from(vec![b' '; 8 << 20]);
    let reply = asked(&nobody, &Call::new(Method::POST, CONFIGS, big.clone())).await;
    assert_eq!(reply.code, 401, "{}", reply.text());
    let reply = asked(&access, &Call::new(Method::POST, "/nowhere", big)).await;
    assert_eq!(reply.code, 404, "{}", reply.text());
    goes_on(&cluster).await;
}

#[tokio::test]
async fn bodies_of_another_coding_or_alphabet_are_refused_and_not_unpacked() {
    let cluster = Cluster::start(Runtime::None);
    let access = Access::admin(&cluster);
    // A quarter of a gibibyte of blanks in about a mebibyte.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..256 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let mut stream = access.raw("http/1.1").await.unwrap();
    let head = format!(
        "POST {CONFIGS} HTTP/1.1\r\nHost: k\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bomb.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = stream.write_all(&bomb).await;
    let said = rest(stream).await;
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("not valid JSON"), "{said}");
    for (body, content_type) in [
        (b"\xff\xfe{}".to_vec(), "application/json"),
        (b"{\"metadata\": {\"name\": \"c\xc3\x28\"}}".to_vec(), "application/json"),
        (b"metadata: {name: \"\xff\"}".to_vec(), "application/yaml"),
        ("[".repeat(1 << 20).into_bytes(), "application/yaml"),
        ("- ".repeat(1 << 20).into_bytes(), "application/yaml"),
        (format!("{}1", "{a: ".repeat(100_000)).into_bytes(), "application/yaml"),
        (b"k8s\0\xff\xff\xff\xff".to_vec(), "application/vnd.kubernetes.protobuf"),
        (b"\0\0\0".to_vec(), "application/vnd.kubernetes.protobuf"),
    ] {
        let call = Call::new(Method::POST, CONFIGS, body.clone().into()).of_type(content_type);
        let reply = asked(&access, &call).await;
        assert_eq!(
            reply.code,
            400,
            "{content_type} {:?}: {}",
            &body[..body.len().min(20)],
            reply.text()
        );
        assert_eq!(reply.refusal().0, "BadRequest");
    }
    goes_on(&cluster).await;
}

#[tokio::test]
async fn heads_that_are_too_long_or_no_http_end_the_connection() {
    let cluster = Cluster::start(Runtime::None);
    let access = Access::admin(&cluster);
    let long = "a".repeat(1 << 20);
    for (head, code) in [
        (format!("GET /readyz HTTP/1.1\r\nHost: k\r\nX-Long: {long}\r\n\r\n"), "431"),
        (format!("GET /readyz?{long} HTTP/1.1\r\nHost: k\r\n\r\n"), "431"),
        (format!("GET /readyz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000)), "431"),
        ("GARBAGE\r\n\r\n".to_owned(), "400"),
    ] {
        let mut stream = access.raw("http/1.1").await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let said = rest(stream).await;
        let shown: String = head.chars().take(60).collect();
        // The reset of what was not read can overtake the answer.
        let told = said.is_empty() || said.starts_with(&format!("HTTP/1.1 {code}"));
        assert!(told, "{shown}: {said:?}");
    }
    let many: String = (0..4000).map(|it| format!("&p{it}={it}")).collect();
    let reply = asked(&access, &Call::get(&format!("{CONFIGS}?limit=1{many}"))).await;
    assert_eq!(reply.code, 200, "names that nobody knows are ignored: {}", reply.text());
    goes_on(&cluster).await;
}

#[tokio::test]
async fn clients_that_never_finish_hold_nobody_up() {
    let cluster = Cluster::start(Runtime::None);
    let access = Access::admin(&cluster);
    let mut slow = Vec::new();
    for index in 0..300 {
        let mut stream = access.raw("http/1.1").await.unwrap();
        let part = match index % 3 {
            0 => "GET /api/v1/pods HTTP/1.1\r\nHost: k\r\nX".to_owned(),
            1 => format!("POST {CONFIGS} HTTP/1.1\r\nHost: k\r\nContent-Length: 100\r\n\r\n{{"),
            _ => String::new(),
        };
        stream.write_all(part.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    // And some who do not even begin to shake hands.
    let address = format!("127.0.0.1:{}", cluster.port());
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    goes_on(&cluster).await;
    // Whoever shakes no hands is hung up on, and a body that does not come is a timeout that says so.
    for stream in silent.into_iter().take(3) {
        assert_eq!(rest(stream).await, "");
    }
    let mut half = access.raw("http/1.1").await.unwrap();
    let head =
        format!("POST {CONFIGS}?timeout=1s HTTP/1.1\r\nHost: k\r\nContent-Length: 100\r\n\r\n{{");
    half.write_all(head.as_bytes()).await.unwrap();
    let said = rest(half).await;
    assert!(said.starts_with("HTTP/1.1 504") && said.contains("allotted timeout"), "{said}");
    goes_on(&cluster).await;
}

#[tokio::test]
async fn clients_that_take_every_connection_leave_files_for_the_journal() {
    let mut cluster = Cluster::prepared(Runtime::None);
    cluster.spawn_with_open_files(256);
    cluster.wait_ready();
    let access = Access::admin(&cluster);
    let address = format!("127.0.0.1:{}", cluster.port());
    let mut idle = Vec::new();
    for _ in 0..250 {
        let connected = timeout(ANSWER_MAX, tokio::net::TcpStream::connect(&address)).await;
        idle.push(connected.expect("the kernel's queue takes it").unwrap());
    }
    // It waits its turn until those are hung up on who shook no hands.
    let body = json!({"metadata": {"name": "written"}});
    assert_eq!(asked(&access, &Call::post(CONFIGS, &body)).await.code, 201);
    assert!(!cluster.output().contains("Too many open files"), "{}", cluster.output());
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
/// `GET /readyz` of `k`, as HPACK without a table.
const ASK: &[u8] = b"\x82\x87\x04\x07/readyz\x01\x01k";

/// The kinds of the frames that came before the server hung up.
async fn frames(stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut stream = stream;
    let mut kinds = Vec::new();
    loop {
        let mut head = [0; 9];
        match timeout(ANSWER_MAX, stream.read_exact(&mut head)).await.expect("it does not hang up")
        {
            Ok(_) => {}
            Err(_) => return kinds,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return kinds;
        }
        kinds.push(head[3]);
    }
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_nothing_else() {
    let cluster = Cluster::start(Runtime::None);
    let access = Access::admin(&cluster);
    let stream = access.raw("h2").await.unwrap();
    let (reader, mut writer) = tokio::io::split(stream);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for index in 0..20_000 {
        let id = 2 * index + 1;
        bytes.extend(frame(HEADERS, 0x5, id, ASK));
        bytes.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    // The server may hang up before it took everything.
    let write = async { drop(writer.write_all(&bytes).await) };
    let (kinds, ()) = tokio::join!(frames(reader), write);
    // `frames` ends when the server hangs up, which it does long before the last of them.
    assert!(kinds.iter().filter(|it| **it == HEADERS).count() < 1000, "{kinds:?}");
    goes_on(&cluster).await;
}

#[tokio::test]
async fn one_connection_gets_as_many_streams_as_it_was_promised_and_all_are_answered() {
    let cluster = Cluster::start(Runtime::None);
    let access = Access::admin(&cluster);
    let stream = access.raw("h2").await.unwrap();
    let (reader, mut writer) = tokio::io::split(stream);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for index in 0..1000 {
        bytes.extend(frame(HEADERS, 0x5, 2 * index + 1, ASK));
    }
    bytes.extend(frame(GOAWAY, 0, 0, &[0; 8]));
    let write = async { writer.write_all(&bytes).await.unwrap() };
    let (kinds, ()) = tokio::join!(frames(reader), write);
    assert_eq!(kinds.iter().filter(|it| **it == HEADERS).count(), 1000);
    goes_on(&cluster).await;
}

#[tokio::test]
async fn credentials_of_elsewhere_are_unauthorized() {
    let cluster = Cluster::start(Runtime::None);
    let other = Cluster::start(Runtime::None);
    let path = "/api/v1/nodes";
    let stranger = Access::with_certificate_of(&cluster.kubeconfig(), &other.kubeconfig()).unwrap();
    assert_eq!(asked(&stranger, &Call::get(path)).await.refusal().0, "Unauthorized");
    let request = json!({"spec": {"audiences": []}});
    let ask = Call::post("/api/v1/namespaces/kube-system/serviceaccounts/default/token", &request);
    let token = |answer: &Value| answer["status"]["token"].as_str().unwrap_or_default().to_owned();
    let mut elsewhere = String::new();
    while elsewhere.is_empty() {
        // The controller makes the account in its own time.
        elsewhere = token(&asked(&Access::admin(&other), &ask).await.json());
    }
    for token in [elsewhere.as_str(), "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", &"a".repeat(30_000)]
    {
        let access = Access::with_token(&cluster.kubeconfig(), token).unwrap();
        let reply = asked(&access, &Call::get(path)).await;
        assert_eq!(reply.code, 401, "{:.20}: {}", token, reply.text());
        assert_eq!(reply.refusal().0, "Unauthorized");
    }
    goes_on(&cluster).await;
}
