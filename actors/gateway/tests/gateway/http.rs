//! HTTP as clients send it, over real TLS connections: who is let in, what is refused, and with which Status.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use kactor_gateway::pki::HostKey;
use kactor_gateway::{Identity, Limits, Pki, Subject, rotation};
use kactor_runtime::env::{Env, Lane};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};

use crate::world::World;

/// Runs hyper's client on a lane of the world.
#[derive(Clone)]
struct OnLane(Env);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for OnLane {
    fn execute(&self, future: F) {
        self.0.spawn(Lane::Node, future);
    }
}

/// One HTTP/2 connection.
struct Client {
    send: SendRequest<Full<Bytes>>,
}

struct Answer {
    code: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// A refusal: its code, reason and message, which must agree with the HTTP code.
    fn refusal(&self) -> (u16, String, String) {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["code"], self.code, "{status}");
        let text = |it: &str| status[it].as_str().unwrap_or_default().to_owned();
        (self.code, text("reason"), text("message"))
    }
}

fn tls(world: &World, identity: Option<&Identity>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for it in CertificateDer::pem_slice_iter(world.pki.ca_pem().as_bytes()) {
        roots.add(it.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(it) => {
            let chain = CertificateDer::pem_slice_iter(it.cert_pem.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(it.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

impl Client {
    async fn connect(world: &World, identity: Option<&Identity>) -> Self {
        Self::connect_and_look(world, identity).await.0
    }

    /// Also what the server showed.
    async fn connect_and_look(world: &World, identity: Option<&Identity>) -> (Self, Vec<u8>) {
        let env = world.machine.env().clone();
        let socket = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls(world, identity));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let (send, connection) =
            hyper::client::conn::http2::handshake(OnLane(env.clone()), TokioIo::new(stream))
                .await
                .unwrap();
        drive(connection);
        (Self { send }, shown)
    }

    async fn begin(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let request = request.body(Full::new(body.into())).unwrap();
        let mut send = self.send.clone();
        send.ready().await.unwrap();
        send.send_request(request).await.unwrap()
    }

    async fn ask(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let (head, body) = self.begin(request, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { code: head.status.as_u16(), headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(get(path), "").await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = request("POST", path).header("content-type", "application/json");
        self.ask(request, body.to_string()).await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client's half of a test, on the test's own event loop"
)]
fn drive(connection: impl Future<Output = Result<(), hyper::Error>> + 'static) {
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://localhost{path}"))
}

fn get(path: &str) -> http::request::Builder {
    request("GET", path)
}

/// Runs an async test beside a world's lanes.
fn with_world(limits: Limits, test: impl AsyncFn(&World)) {
    let world = World::with_limits(limits);
    world.machine.block_on(test(&world)).unwrap();
}

fn admin(world: &World) -> Identity {
    world.pki.issue_client(world.machine.env(), &Subject::admin()).unwrap()
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn a_bad_credential_is_401_and_none_at_all_is_anonymous() {
    with_world(Limits::default(), async |world| {
        let other = tempfile::tempdir().unwrap();
        let foreign = Pki::open(world.machine.env(), other.path()).await.unwrap();
        let foreign = foreign.issue_client(world.machine.env(), &Subject::admin()).unwrap();
        let client = Client::connect(world, Some(&foreign)).await;
        let unauthorized = (401, "Unauthorized".to_owned(), "Unauthorized".to_owned());
        assert_eq!(client.get("/readyz").await.refusal(), unauthorized);

        let client = Client::connect(world, None).await;
        assert_eq!(client.get("/readyz").await.code, 200);
        assert_eq!(client.get("/version").await.json()["minor"], "36");
        let (code, reason, message) = client.get("/api/v1/nodes").await.refusal();
        assert_eq!((code, reason.as_str()), (403, "Forbidden"));
        assert_eq!(
            message,
            r#"nodes is forbidden: User "system:anonymous" cannot list resource "nodes" in API group "" at the cluster scope"#
        );
        let (code, _, message) = client.get("/metrics").await.refusal();
        assert_eq!(code, 403);
        assert_eq!(message, r#"forbidden: User "system:anonymous" cannot get path "/metrics""#);
        let token = get("/readyz").header("authorization", "Bearer nonsense");
        assert_eq!(client.ask(token, "").await.refusal(), unauthorized);
    });
}

#[test]
fn bad_input_is_refused_with_a_status_and_nothing_is_stored() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let post =
            |content_type: &str| request("POST", CONFIG_MAPS).header("content-type", content_type);
        let mut huge = map.clone();
        huge["data"] = json!({"x": "y".repeat(3 << 20)});
        for (request, body, expected) in [
            (post("application/json"), huge.to_string(), (413, "RequestEntityTooLarge")),
            (post("application/json"), "{".to_owned(), (400, "BadRequest")),
            (
                post("application/json"),
                format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
                (400, "BadRequest"),
            ),
            (post("application/cbor"), map.to_string(), (415, "UnsupportedMediaType")),
            (post("application/vnd.kubernetes.protobuf"), map.to_string(), (400, "BadRequest")),
            (
                post("application/json").header("accept", "text/html"),
                map.to_string(),
                (406, "NotAcceptable"),
            ),
            (
                request("PATCH", &format!("{CONFIG_MAPS}/a")).header("content-type", "text/plain"),
                "{}".to_owned(),
                (415, "UnsupportedMediaType"),
            ),
            (
                request("PUT", CONFIG_MAPS).header("content-type", "application/json"),
                map.to_string(),
                (405, "MethodNotAllowed"),
            ),
            (get("/api/v1/nonsense"), String::new(), (404, "NotFound")),
            (get("/nonsense"), String::new(), (404, "NotFound")),
            (get("/api/v1/pods?limit=x"), String::new(), (400, "BadRequest")),
            (get("/api/v1/pods?labelSelector=%3D%3D"), String::new(), (400, "BadRequest")),
            (get(&format!("{CONFIG_MAPS}/a")), String::new(), (404, "NotFound")),
        ] {
            let shown =
                format!("{:?} {:?}", request.method_ref().unwrap(), request.uri_ref().unwrap());
            let (code, reason, _) = client.ask(request, body).await.refusal();
            assert_eq!((code, reason.as_str()), expected, "{shown}");
        }
        let list = client.get(CONFIG_MAPS).await.json();
        assert_eq!(list["items"], json!([]));
    });
}

#[test]
fn answers_come_as_json_yaml_table_and_gzip() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y".repeat(50_000)}});
        for name in ["a", "b", "c", "d"] {
            let made = client.post(&format!("{CONFIG_MAPS}?fieldManager=me"), &map(name)).await;
            assert_eq!(made.code, 201);
            assert_eq!(made.json()["metadata"]["managedFields"][0]["manager"], "me");
        }
        let one = format!("{CONFIG_MAPS}/a");
        let yaml = client.ask(get(&one).header("accept", "application/yaml"), "").await;
        assert_eq!(yaml.headers["content-type"], "application/yaml");
        assert!(String::from_utf8_lossy(&yaml.body).contains("kind: ConfigMap"));
        let table = get(&one).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        assert_eq!(client.ask(table, "").await.json()["kind"], "Table");
        let plain = client.get(CONFIG_MAPS).await;
        let gzip = client.ask(get(CONFIG_MAPS).header("accept-encoding", "gzip"), "").await;
        assert_eq!(gzip.headers["content-encoding"], "gzip");
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(&gzip.body[..]),
            &mut unpacked,
        )
        .unwrap();
        let items = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["items"].clone();
        assert_eq!(items(&unpacked), items(&plain.body));
        let head = client.ask(request("HEAD", &one), "").await;
        assert_eq!((head.code, head.body.len()), (200, 0));
        let mut unknown = map("e");
        unknown["nonsense"] = json!(1);
        let warned = client.post(&format!("{CONFIG_MAPS}?fieldValidation=Warn"), &unknown).await;
        assert_eq!(warned.headers["warning"], r#"299 - "unknown field \"nonsense\"""#);
        let audit = client.ask(get("/version").header("audit-id", "my-own-id"), "").await;
        assert_eq!(audit.headers["audit-id"], "my-own-id");
    });
}

#[test]
fn documents_are_served_with_tags_and_only_sent_when_they_changed() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let index = client.get("/openapi/v3").await.json();
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
        let document = client.get(&url).await;
        assert!(document.json()["components"]["schemas"].is_object());
        assert!(document.headers["cache-control"].to_str().unwrap().contains("immutable"));
        let tag = document.headers["etag"].clone();
        let again =
            client.ask(get("/openapi/v3/apis/apps/v1").header("if-none-match", tag), "").await;
        assert_eq!((again.code, again.body.len()), (304, 0));
        assert_eq!(client.get("/openapi/v3/apis/apps/v1?hash=OLD").await.code, 301);
        assert_eq!(client.get("/openapi/v3/apis/nonsense/v1").await.refusal().0, 404);
        assert_eq!(client.get("/openapi/v2").await.json()["swagger"], "2.0");
        let pb = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        let protobuf = client.ask(get("/openapi/v2").header("accept", pb), "").await;
        assert_eq!(&protobuf.body[..5], b"\x0a\x032.0", "field 1, the version");
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let apis = client.ask(get("/apis").header("accept", aggregated), "").await;
        assert_eq!(apis.json()["kind"], "APIGroupDiscoveryList");
        assert_eq!(apis.headers["content-type"], aggregated);
        assert_eq!(client.get("/api").await.json()["versions"], json!(["v1"]));
        assert_eq!(client.get("/openid/v1/jwks").await.json()["keys"][0]["kty"], "EC");
        assert_eq!(client.get("/apis/nonsense").await.refusal().0, 404);
    });
}

#[test]
fn hundreds_of_watches_share_a_connection_with_ordinary_requests() {
    with_world(Limits { reads: 4, writes: 4 }, async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let mut watches = Vec::new();
        for _ in 0..300 {
            let watch = client.begin(get(&format!("{CONFIG_MAPS}?watch=1")), "").await;
            assert_eq!(watch.status(), StatusCode::OK);
            watches.push(watch.into_body());
        }
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        assert_eq!(client.post(CONFIG_MAPS, &map).await.code, 201);
        for watch in &mut watches {
            let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
            let event: Value = serde_json::from_slice(&frame).unwrap();
            assert_eq!(
                (&event["type"], &event["object"]["metadata"]["name"]),
                (&json!("ADDED"), &json!("a"))
            );
            assert!(frame.ends_with(b"}\n"));
        }
        let metrics = client.get("/metrics").await.body;
        let metrics = String::from_utf8_lossy(&metrics);
        let open = metrics.lines().find(|it| {
            it.starts_with("apiserver_longrunning_requests") && it.contains("configmaps")
        });
        assert!(open.unwrap().ends_with(" 300"), "{open:?}");
    });
}

#[test]
fn beyond_the_limit_clients_are_told_to_come_back_and_masters_are_served() {
    with_world(Limits { reads: 0, writes: 0 }, async |world| {
        let node = world.pki.issue_client(world.machine.env(), &Subject::node("n1")).unwrap();
        let client = Client::connect(world, Some(&node)).await;
        let refused = client.get("/version").await;
        assert_eq!(refused.refusal().1, "TooManyRequests");
        assert_eq!(refused.headers["retry-after"], "1");
        let client = Client::connect(world, Some(&admin(world))).await;
        assert_eq!(client.get("/version").await.code, 200);
    });
}

#[test]
fn only_who_may_create_can_run_commands_by_a_get() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "readers"},
            "rules": [{"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get"]}]});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "readers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "readers"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}]});
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        assert_eq!(client.post(&format!("{rbac}/clusterroles"), &role).await.code, 201);
        assert_eq!(client.post(&format!("{rbac}/clusterrolebindings"), &binding).await.code, 201);
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        assert_eq!(
            client.post("/api/v1/namespaces/default/serviceaccounts", &account).await.code,
            201
        );
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "demo"}]}});
        assert_eq!(client.post("/api/v1/namespaces/default/pods", &pod).await.code, 201);
        let exec = "/api/v1/namespaces/default/pods/web/exec?command=ls&stdout=1";
        let (code, _, message) =
            client.ask(get(exec).header("impersonate-user", "reader"), "").await.refusal();
        assert_eq!(code, 403);
        assert!(message.contains(r#"cannot create resource "pods/exec""#), "{message}");
        // Who may, is told what is missing: HTTP/2 has no upgrade.
        let (code, _, message) = client.get(exec).await.refusal();
        assert_eq!((code, message.as_str()), (400, "Upgrade request required"));
    });
}

#[test]
fn insight_is_for_masters_and_answers_what_is_asked() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let question = json!({"Inspect": {"actor": "store"}});
        assert_eq!(client.post("/kactor/v1/insight", &question).await.code, 200);
        assert_eq!(
            client.post("/kactor/v1/insight", &json!({"Nonsense": 1})).await.refusal().0,
            400
        );
        assert_eq!(client.get("/kactor/v1/insight").await.refusal().0, 405);
        assert_eq!(client.get("/kactor/v1/status").await.json()["ready"], true);
        let stranger = Client::connect(world, None).await;
        assert_eq!(stranger.post("/kactor/v1/insight", &question).await.refusal().0, 403);
    });
}

#[test]
fn a_snapshot_is_streamed_to_masters_and_never_to_who_may_only_get_paths() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let sent = client.post("/kactor/v1/snapshot", &json!({})).await;
        assert_eq!((sent.code, &sent.body[..]), (200, &b"whole cluster"[..]));
        assert_eq!(client.get("/kactor/v1/snapshot").await.refusal().0, 405);
        let stranger = Client::connect(world, None).await;
        assert_eq!(stranger.post("/kactor/v1/snapshot", &json!({})).await.refusal().0, 403);
    });
}

#[test]
fn draining_turns_readiness_off_and_lets_requests_in_flight_end() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        assert_eq!(client.get("/readyz").await.code, 200);
        let mut watch = client.begin(get(&format!("{CONFIG_MAPS}?watch=1")), "").await.into_body();
        world.gateway.drain();
        assert_eq!(client.get("/readyz").await.code, 500);
        assert_eq!(client.get("/livez").await.code, 200);
        // A watch never ends by itself: the grace does it.
        world.listener.drain(Duration::from_millis(50)).await;
        while let Some(Ok(_)) = watch.frame().await {}
        assert!(
            tokio::net::TcpStream::connect(world.address).await.is_err()
                || world.listener.connections() == 0
        );
    });
}

#[test]
fn a_nodes_proxy_asks_its_kubelet_for_those_who_may_and_passes_no_credentials_on() {
    with_world(Limits::default(), async |world| {
        let client = Client::connect(world, Some(&admin(world))).await;
        let path = "/api/v1/nodes/n1/proxy/stats/summary?x=%2F";
        assert_eq!(client.get(path).await.refusal().0, 404, "there is no such node");
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        assert_eq!(client.post("/api/v1/nodes", &node).await.code, 201);
        let answer = client.get(path).await;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(
            (answer.code, said.as_str()),
            (200, "n1 /stats/summary?x=%2F authorization=false")
        );
        assert_eq!(client.get("/api/v1/nodes/n1:10250/proxy/").await.refusal().0, 400);

        let anonymous = Client::connect(world, None).await;
        let (code, _, message) = anonymous.get(path).await.refusal();
        assert_eq!(code, 403);
        assert!(message.contains("cannot get resource \"nodes/proxy\""), "{message}");
    });
}

#[test]
fn a_serving_certificate_that_is_due_is_replaced_and_open_connections_go_on() {
    with_world(Limits::default(), async |world| {
        let admin = admin(world);
        let (before, old) = Client::connect_and_look(world, Some(&admin)).await;
        let env = world.machine.env();
        let folder = world.dir.path();
        let key = HostKey::open(env, folder, "due.key").await.unwrap();
        let request = key.request("due").unwrap();
        let due = world.pki.issue_host(env, "due", &request, Duration::ZERO).unwrap();
        let due = Identity { cert_pem: due.pem, key_pem: key.pem() };
        let (pki, names) =
            (Pki::open(env, &folder.join("pki")).await.unwrap(), world.names.clone());
        let (on, issue_env) = (env.clone(), env.clone());
        let issue = Arc::new(move || pki.issue_serving(&issue_env, &names));
        let keeping = rotation::keep_fresh(&on, world.serving.clone(), &due, issue);
        loop {
            let (_, shown) = Client::connect_and_look(world, Some(&admin)).await;
            if shown != old {
                break;
            }
            env.sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(before.get("/version").await.code, 200);
        keeping.abort();
    });
}

#[test]
fn who_has_no_identity_may_read_the_authority_and_try_to_join_and_order_nothing() {
    with_world(Limits::default(), async |world| {
        let stranger = Client::connect(world, None).await;
        let authority = stranger.get("/kactor/v1/ca").await;
        assert_eq!((authority.code, &*authority.body), (200, &b"CERTIFICATE"[..]));
        let join = |body: &str| stranger.ask(request("POST", "/kactor/v1/join"), body.to_owned());
        assert_eq!(join("the word").await.json(), json!({"welcome": true}));
        let refused = join("a guess").await.refusal();
        let known = (403, "Forbidden".to_owned(), "the token is not known".to_owned());
        assert_eq!(refused, known);
        assert_eq!(join(&"x".repeat(64 * 1024 + 1)).await.code, 413);
        assert_eq!(stranger.get("/kactor/v1/join").await.code, 405);
        let mut codes = Vec::new();
        for _ in 0..64 {
            codes.push(join("a guess").await.code);
        }
        assert!(codes.contains(&429), "guesses are paced: {codes:?}");

        let order = json!({"leave": {"host": "n2"}});
        assert_eq!(stranger.post("/kactor/v1/cluster", &order).await.refusal().0, 403);
        let master = Client::connect(world, Some(&admin(world))).await;
        let done = master.post("/kactor/v1/cluster", &order).await.json();
        assert_eq!(done, json!({"done": order}));
        let token = json!({"createToken": {"role": "any", "ttlSeconds": 60, "uses": 1}});
        assert_eq!(master.post("/kactor/v1/cluster", &token).await.json()["done"], token);
        let unknown = master.post("/kactor/v1/cluster", &json!({"explode": {}})).await;
        assert_eq!(unknown.refusal().0, 400);
    });
}
