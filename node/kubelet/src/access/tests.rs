//! Who is let in, asked of a control plane that counts its questions.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::executor::block_on;
use http::{HeaderValue, Method};
use kactor_agent::ports::Unanswered;
use kactor_protocol::node::ApiReply;

use super::*;
use crate::route::right;

/// Knows the token `good` of `jane`, who may get nodes/metrics and create nodes/proxy.
#[derive(Default)]
struct Pretended {
    asked: AtomicUsize,
    away: bool,
}

#[async_trait]
impl ControlPlane for Pretended {
    async fn call(&self, call: CallApi) -> Result<ApiReply, Unanswered> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.away {
            return Err(Unanswered { why: "no leader".to_owned() });
        }
        let posted: Value = serde_json::from_slice(&call.body).unwrap();
        let spec = &posted["spec"];
        let status = match call.target.resource.as_str() {
            "tokenreviews" if spec["token"] == "good" => json!({
                "authenticated": true,
                "user": { "username": "jane", "groups": ["dev"], "extra": { "k": ["v"] } },
            }),
            "tokenreviews" => json!({ "authenticated": false }),
            "subjectaccessreviews" => {
                let asked = &spec["resourceAttributes"];
                assert_eq!((&asked["resource"], &asked["name"]), (&json!("nodes"), &json!("n1")));
                let may = |verb, sub| asked["verb"] == verb && asked["subresource"] == sub;
                let is_jane = spec["user"] == "jane" && spec["extra"]["k"] == json!(["v"]);
                let is_root = spec["groups"].as_array().unwrap().contains(&json!("system:masters"));
                json!({ "allowed": is_root || is_jane && (may("get", "metrics") || may("create", "proxy")) })
            }
            other => panic!("{other} is no review"),
        };
        let body = json!({ "status": status }).to_string().into();
        Ok(ApiReply { code: 201, body })
    }
}

fn access(control: Arc<Pretended>) -> Access {
    Access::new(Env::machine(), "n1".to_owned(), control)
}

fn token(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(text).unwrap());
    headers
}

fn ask(access: &Access, certificate: Certificate, headers: &HeaderMap, path: &str) -> u16 {
    let right = right(&Method::GET, path);
    match block_on(access.admit(&Client::Network(certificate), headers, &right)) {
        Ok(()) => 200,
        Err(Denied::Unauthorized(_)) => 401,
        Err(Denied::Forbidden { .. }) => 403,
        Err(Denied::Unasked(_)) => 503,
    }
}

#[test]
fn nobody_is_401_somebody_without_the_right_403_with_it_200() {
    let access = access(Arc::default());
    let none = || Certificate::None;
    assert_eq!(ask(&access, none(), &HeaderMap::new(), "/metrics"), 401);
    assert_eq!(ask(&access, none(), &token("Bearer bad"), "/metrics"), 401);
    assert_eq!(ask(&access, none(), &token("Basic good"), "/metrics"), 401);
    assert_eq!(ask(&access, none(), &token("Bearer good"), "/stats/summary"), 403);
    assert_eq!(ask(&access, none(), &token("Bearer good"), "/metrics"), 200);
    assert_eq!(ask(&access, none(), &token("bearer good"), "/exec/a/b/c"), 200);
    assert_eq!(ask(&access, none(), &token("Bearer good"), "/containerLogs/a/b/c"), 403);
}

#[test]
fn a_certificate_names_its_user_and_a_refused_one_nobody() {
    let access = access(Arc::default());
    let named = |user: &str, group: &str| Certificate::Verified {
        user: user.to_owned(),
        groups: vec![group.to_owned()],
    };
    let no_headers = HeaderMap::new();
    assert_eq!(ask(&access, named("admin", "system:masters"), &no_headers, "/pods"), 200);
    assert_eq!(ask(&access, named("joe", "dev"), &no_headers, "/pods"), 403);
    let refused = Certificate::Refused("x509: expired".to_owned());
    assert_eq!(ask(&access, refused, &no_headers, "/pods"), 401);
}

#[test]
fn answers_are_remembered_for_each_user_verb_and_subresource() {
    let control = Arc::new(Pretended::default());
    let access = access(control.clone());
    for _ in 0..5 {
        assert_eq!(ask(&access, Certificate::None, &token("Bearer good"), "/metrics"), 200);
    }
    assert_eq!(
        control.asked.load(Ordering::Relaxed),
        2,
        "one review of the token, one of the right"
    );
    assert_eq!(ask(&access, Certificate::None, &token("Bearer good"), "/pods"), 403);
    assert_eq!(control.asked.load(Ordering::Relaxed), 4, "nodes/pods, then nodes/proxy");
}

#[test]
fn a_control_plane_that_is_away_permits_nothing_and_is_asked_again() {
    let control = Arc::new(Pretended { away: true, ..Pretended::default() });
    let access = access(control.clone());
    for n in 1..3 {
        assert_eq!(ask(&access, Certificate::None, &token("Bearer good"), "/metrics"), 503);
        assert_eq!(control.asked.load(Ordering::Relaxed), n);
    }
}
