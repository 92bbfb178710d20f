//! What a worker answers to commands on its own machine: it has no API, and is asked most when no control host is reached.
//!
//! It stands on the port of the kubelet's API, for whoever shows this host's own key, which its data directory keeps as a
//! control host's keeps the administrator's. What is the cluster's matter is refused with the place to ask.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use kactor_agent::ports::Session;
use kactor_agent::uplink::Uplink;
use kactor_drivers::driver::Driver;
use kactor_gateway::tls::Peer;
use kactor_gateway::{ALL_HOSTS, ImageOrder, ReplyBody};
use kactor_links::HostLinks;
use kactor_protocol::insight::Insight;
use kactor_relay::Relay;
use kactor_runtime::ActorSystem;
use serde_json::{Value, json};

use super::inside::{images, unreached};
use super::worker::Known;
use crate::node_start;

/// A question of an operator is far shorter.
const BODY_BYTES_MAX: usize = 64 << 10;

pub struct LocalDoor {
    pub system: ActorSystem,
    pub plan: Value,
    pub links: Arc<HostLinks>,
    pub known: Arc<Known>,
    pub session: Arc<Uplink>,
    pub relay: Arc<Relay>,
    pub driver: Arc<dyn Driver>,
}

/// An answer that is no 200: its code, and what the operator is told.
type Refused = (u16, String);

impl LocalDoor {
    /// Whether the request is for this door: it has a path of ours, and comes from this very host.
    pub fn is_for(&self, path: &str, peer: &Peer) -> bool {
        let own = format!("system:node:{}", self.system.host());
        (path == "/readyz" || path.starts_with("/kactor/v1/"))
            && matches!(peer, Peer::Verified { subject, .. } if subject.user == own)
    }

    pub async fn answer(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let (code, body) = match self.told(request).await {
            Ok(it) => (200, it),
            Err((code, message)) => (code, json!({ "kind": "Status", "message": message })),
        };
        let reply = Response::builder().status(code).header("content-type", "application/json");
        let reply = reply.body(ReplyBody::of([Bytes::from(body.to_string())]));
        reply.expect("a code and a plain header are a response")
    }

    async fn told(&self, request: Request<Incoming>) -> Result<Value, Refused> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query());
        let host = query.and_then(|it| it.strip_prefix("host=")).map(str::to_owned);
        match (path.as_str(), request.method()) {
            ("/readyz", &Method::GET) => match self.wrong().await {
                None => Ok(json!("ok")),
                Some(why) => Err((503, why)),
            },
            ("/kactor/v1/status", &Method::GET) => Ok(self.status().await),
            ("/kactor/v1/insight", &Method::POST) => self.insight(host, request).await,
            ("/kactor/v1/images", &Method::POST) => {
                let order: ImageOrder = body(request).await?;
                images(&self.driver, order).await.map_err(|it| (400, it))
            }
            _ => Err((
                501,
                format!(
                    "{} is a worker and can't do that; ask on a control host{}",
                    self.system.host(),
                    self.control_hosts()
                ),
            )),
        }
    }

    fn control_hosts(&self) -> String {
        let names: Vec<String> = self.known.candidates().iter().map(ToString::to_string).collect();
        if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
    }

    /// Rows of this host; others answer control hosts alone.
    async fn insight(
        &self,
        host: Option<String>,
        request: Request<Incoming>,
    ) -> Result<Value, Refused> {
        let question: Insight = body(request).await?;
        let own = self.system.host();
        if let Some(other) = host.filter(|it| it != ALL_HOSTS && it != own.as_str()) {
            return Err((
                400,
                format!(
                    "{own} is a worker and can look into itself alone; ask about {other} on a control host{}",
                    self.control_hosts()
                ),
            ));
        }
        let answer = self.system.insight(question).await;
        serde_json::to_value(answer).map_err(|it| (500, it.to_string()))
    }

    async fn status(&self) -> Value {
        let wrong = self.wrong().await;
        let counts = self.relay.counts();
        json!({
            "host": self.plan,
            "role": "worker",
            "serves": wrong.is_none(),
            "wrong": wrong,
            "session": self.session.host(),
            "controlHosts": self.known.candidates(),
            "relay": {
                "open": counts.open,
                "passedOn": counts.passed_on,
                "turnedAway": counts.turned_away,
                "dialsFailed": counts.dials_failed,
            },
            "links": self.links.report(),
            "uptime_seconds": self.system.env().monotonic().as_secs(),
        })
    }

    /// What is wrong, in a sentence.
    async fn wrong(&self) -> Option<String> {
        if !self.known.belongs() {
            return Some(
                "the cluster does not know this host any more: it left or was taken out; `kactor down --purge` removes what is left here"
                    .to_owned(),
            );
        }
        if self.session.host().is_none() {
            return Some(format!(
                "no control host serves this node: its pods go on, and nothing can be changed{}",
                unreached(&self.links)
            ));
        }
        let is_registered = node_start::is_registered(&self.system).await;
        (!is_registered).then(|| "the node is being registered".to_owned())
    }
}

async fn body<T: serde::de::DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refused> {
    let bytes = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let bytes = bytes.map_err(|it| (400, format!("reading the body: {it}")))?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|it| (400, format!("the body can't be read: {it}")))
}
