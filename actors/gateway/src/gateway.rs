//! The way of one request: who asks, may it in, what does the path name, answer, count.
//!
//! authn → impersonation → in-flight limit → authorization and work (`resources`, `documents`, `upgrade`). Nothing
//! here knows a kind. Every way out is a [`Reply`] with an audit id; a panic while answering one request costs that
//! request a 500, never the connection's others.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, select};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use kactor_api::{Api, Attributes, Caller, Status, User};
use kactor_protocol::ids::TraceId;
use kactor_protocol::insight::{self, Insight, InsightReply};
use kactor_protocol::time::Deadline;
use kactor_runtime::env::Env;
use kactor_streams::NodeStreams;

use crate::actor_metrics;
use crate::authn;
use crate::documents::Documents;
use crate::door::{self, ClusterDoor, ClusterOrder, JoinPace};
use crate::health::{Check, Health};
use crate::in_flight::{InFlight, Limits, Weight};
use crate::insight::{ImageOrder, InsightSource};
use crate::listener::{Connection, Listener, Serve};
use crate::metrics::{Labels, Metrics};
use crate::query::Query;
use crate::reply::{self, Reply, ReplyBody};
use crate::resources;
use crate::route::{Route, System, route};

/// Largest body that is read (Kubernetes' limit for an object).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What is read of a body that nobody wants before the connection is closed on its sender.
const DRAINED_BYTES_MAX: usize = 64 << 20;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time for a request that is no stream, and what it gets when it asks for none.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);

/// What the gateway serves, and with what.
#[derive(Clone)]
pub struct GatewayConfig {
    pub api: Api,
    pub env: Env,
    pub nodes: Arc<dyn NodeStreams>,
    pub insight: Arc<dyn InsightSource>,
    pub door: Arc<dyn ClusterDoor>,
    pub checks: Vec<Check>,
    pub limits: Limits,
    /// `HOST:PORT` as clients reach it, for `/api`.
    pub advertised: String,
}

/// The Kubernetes API over HTTP.
pub struct Gateway {
    pub(crate) api: Api,
    pub(crate) env: Env,
    pub(crate) nodes: Arc<dyn NodeStreams>,
    pub(crate) documents: Documents,
    insight: Arc<dyn InsightSource>,
    door: Arc<dyn ClusterDoor>,
    joins: JoinPace,
    health: Health,
    in_flight: InFlight,
    metrics: Arc<Metrics>,
    listener: OnceLock<Weak<Listener>>,
}

/// A request's body until somebody reads it. What is left when the answer is ready is drained, so that a client which
/// is still sending hears the answer and not a reset connection.
#[derive(Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    fn of(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    pub(crate) fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put_back(&self, body: Incoming) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    /// Reads and forgets, within a number of bytes and a time.
    async fn drain(&self, env: &Env) {
        let Some(mut body) = self.take().filter(|it| !it.is_end_stream()) else {
            return;
        };
        let rest = async {
            let mut n_bytes = 0;
            while let Some(Ok(frame)) = body.frame().await {
                n_bytes += frame.data_ref().map_or(0, Bytes::len);
                if n_bytes > DRAINED_BYTES_MAX {
                    return;
                }
            }
        };
        select(pin!(rest), env.sleep(DRAIN_TIME_MAX)).await;
    }
}

/// One request, taken apart; its user is known.
pub(crate) struct Asked {
    pub method: Method,
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub caller: Caller,
    pub deadline: Deadline,
    pub connection: Arc<Connection>,
    pub body: Unread,
    /// Holds the upgrade of the connection.
    pub http: Request<()>,
}

impl Gateway {
    pub fn new(config: GatewayConfig) -> Arc<Self> {
        Arc::new(Self {
            documents: Documents::new(&config.api, config.advertised),
            api: config.api,
            env: config.env,
            nodes: config.nodes,
            insight: config.insight,
            door: config.door,
            joins: JoinPace::default(),
            health: Health::new(config.checks),
            in_flight: InFlight::new(config.limits),
            metrics: Arc::default(),
            listener: OnceLock::new(),
        })
    }

    /// Lets `/metrics` count the listener's connections. A second call changes nothing.
    pub fn watch_listener(&self, listener: &Arc<Listener>) {
        let _ = self.listener.set(Arc::downgrade(listener));
    }

    /// From now on `/readyz` is 500; requests are still served until the listener drains.
    pub fn drain(&self) {
        self.health.drain();
    }

    async fn answer(
        self: &Arc<Self>,
        http: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Reply {
        let began = self.env.monotonic();
        let audit_id = self.audit_id(http.headers());
        let head = http.method() == Method::HEAD;
        let route = route(http.uri().path());
        let query = Query::parse(http.uri().query().unwrap_or_default());
        let class = resources::classify(http.method(), &route, &query);
        let accept = http.headers().clone();
        let version = http.version();
        let (parts, body) = http.into_parts();
        let (http, unread) = (Request::from_parts(parts, ()), Unread::of(body));
        if class.weight == Weight::LongRunning {
            self.metrics.stream_began(&class.labels);
        }
        let work =
            self.admit((http, unread.clone()), connection, (route, query), &audit_id, class.weight);
        let mut reply = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(reply)) => reply,
            Ok(Err(status)) => reply::status(&status),
            Err(_) => {
                tracing::error!(%audit_id, "answering a request panicked; the client got 500");
                reply::status(&Status::internal(
                    "the request made the server panic; its audit id names it in the log",
                ))
            }
        };
        self.count(&class.labels, class.weight, &mut reply, began);
        // Whoever waits for "100 Continue" has sent nothing yet; HTTP/2 ends one stream, not the connection.
        let is_sending = !accept.contains_key(http::header::EXPECT) && version < Version::HTTP_2;
        if is_sending && reply.status() != StatusCode::SWITCHING_PROTOCOLS {
            unread.drain(&self.env).await;
        }
        reply = reply::compress(reply, &accept);
        if head {
            *reply.body_mut() = ReplyBody::empty();
        }
        if let Ok(value) = HeaderValue::from_str(&audit_id) {
            reply.headers_mut().insert(&reply::AUDIT_ID, value);
        }
        reply
    }

    /// A stream is counted when its body is dropped; everything else now.
    fn count(&self, labels: &Labels, weight: Weight, reply: &mut Reply, began: Duration) {
        let code = reply.status().as_u16();
        if weight != Weight::LongRunning {
            let took = self.env.monotonic().saturating_sub(began);
            return self.metrics.answered(labels, code, Some(took));
        }
        self.metrics.answered(labels, code, None);
        let end = StreamEnd { metrics: Arc::clone(&self.metrics), labels: labels.clone() };
        let body = std::mem::replace(reply.body_mut(), ReplyBody::empty());
        *reply.body_mut() = match body {
            ReplyBody::Stream(stream) => {
                use futures::StreamExt;
                ReplyBody::stream(stream.inspect(move |_| {
                    let _ = &end;
                }))
            }
            other => other, // `end` is dropped here: the answer is no stream.
        };
    }

    /// Taken from the client, so that its log and ours meet, when it is a plain id.
    fn audit_id(&self, headers: &HeaderMap) -> String {
        let sent = headers.get(&reply::AUDIT_ID).and_then(|it| it.to_str().ok());
        let plain = |it: &&str| {
            !it.is_empty()
                && it.len() <= 64
                && it.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        sent.filter(plain).map_or_else(|| self.env.random_uuid(), str::to_owned)
    }

    async fn admit(
        self: &Arc<Self>,
        (mut http, body): (Request<()>, Unread),
        connection: Arc<Connection>,
        (route, query): (Route, Query),
        audit_id: &str,
        weight: Weight,
    ) -> Result<Reply, Status> {
        let user = authn::authenticate(&self.api, &connection.peer, http.headers_mut())?;
        let wanted = authn::impersonated(http.headers())?;
        let acting = wanted.map(|it| self.api.impersonate(&user, &it)).transpose()?;
        let _slot = self.in_flight.enter(weight, &user)?;
        let header = |name: http::HeaderName| {
            http.headers().get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (user, impersonator) = match acting {
            Some(acting) => (acting, Some(user)),
            None => (user, None),
        };
        let caller = Caller {
            user,
            impersonator,
            field_manager: query.text("fieldManager"),
            user_agent: header(http::header::USER_AGENT),
            audit_id: audit_id.to_owned(),
            trace: TraceId(self.env.random_u64()),
            reign: None,
        };
        let request = Asked {
            method: http.method().clone(),
            path: http.uri().path().to_owned(),
            deadline: self.deadline(&query),
            query,
            headers: http.headers().clone(),
            caller,
            connection,
            body,
            http,
        };
        self.dispatch(route, request).await
    }

    /// `?timeout=10s` shortens a request's time, never beyond the server's own.
    fn deadline(&self, query: &Query) -> Deadline {
        let asked = query.get("timeout").and_then(go_duration).filter(|it| !it.is_zero());
        let timeout = asked.unwrap_or(REQUEST_TIME_MAX).min(REQUEST_TIME_MAX);
        Deadline::after(self.env.monotonic(), timeout)
    }

    async fn dispatch(self: &Arc<Self>, route: Route, request: Asked) -> Result<Reply, Status> {
        match route {
            Route::Resource { resource, prefixed_watch, rest } => {
                resources::serve(self, request, resource, prefixed_watch, &rest).await
            }
            Route::Document(document) => {
                self.permit_path(&request)?;
                self.documents.answer(&document, &request.headers, &request.query)
            }
            // Who comes to join has no identity yet: the token is the permission, and the certificate is no secret.
            Route::System(system @ (System::Authority | System::Join)) => {
                self.at_the_door(system, request).await
            }
            Route::System(system) => {
                self.permit_path(&request)?;
                self.system(system, request).await
            }
            Route::Unknown => {
                self.permit_path(&request)?;
                Err(Status::path_not_found())
            }
        }
    }

    /// RBAC's `nonResourceURLs`.
    fn permit_path(&self, request: &Asked) -> Result<(), Status> {
        let verb = request.method.as_str().to_ascii_lowercase();
        let verb = if verb == "head" { "get" } else { &verb };
        let user: &User = &request.caller.user;
        self.api.require(&Attributes::path(user, verb, &request.path)).map(drop)
    }

    async fn system(&self, system: System, request: Asked) -> Result<Reply, Status> {
        match (system, request.method.as_str()) {
            (System::Health { probe, check }, _) => {
                Ok(self.health.answer(probe, check.as_deref(), &request.query))
            }
            (System::Metrics, "GET" | "HEAD") => {
                let connections =
                    self.listener.get().and_then(Weak::upgrade).map_or(0, |it| it.connections());
                let mut text = self.metrics.render(self.in_flight.now(), connections);
                let all = Insight::Actors { prefix: String::new(), limit: insight::ROWS_MAX };
                if let InsightReply::Actors { actors } = self.insight.ask(all).await {
                    actor_metrics::render(&actors, &mut text);
                }
                Ok(reply::bytes(200, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes()))
            }
            (System::Status, "GET" | "HEAD") => Ok(reply::json(200, &self.insight.status().await)),
            (System::Images, "POST") => {
                let body = self.read_body(&request).await?;
                let order: ImageOrder = serde_json::from_slice(&body).map_err(|it| {
                    Status::bad_request(format!("the body is no image order: {it}"))
                })?;
                let answer = self.insight.images(order).await;
                answer.map(|it| reply::json(200, &it)).map_err(Status::bad_request)
            }
            // POST, although it reads: who may GET all paths, such as a monitor, must not get the keys.
            (System::Snapshot, "POST") => {
                tracing::warn!(user = %request.caller.user.name, "a snapshot with the cluster's keys is sent");
                let stream = self.insight.snapshot().await;
                let stream = stream.map_err(|it| Status::internal(&it))?;
                let body = ReplyBody::stream(stream);
                Ok(reply::with_body(200, "application/octet-stream", body))
            }
            (System::Cluster, "POST") => {
                let body = self.read_body(&request).await?;
                let order: ClusterOrder = serde_json::from_slice(&body).map_err(|it| {
                    Status::bad_request(format!("the body is no order to the cluster: {it}"))
                })?;
                tracing::info!(user = %request.caller.user.name, ?order, "an order to the cluster");
                Ok(reply::json(200, &self.door.order(order, request.deadline).await?))
            }
            (System::Insight, "POST") => {
                let body = self.read_body(&request).await?;
                let question: Insight = serde_json::from_slice(&body).map_err(|it| {
                    Status::bad_request(format!("the body is no insight query: {it}"))
                })?;
                let tree = match request.query.text("host") {
                    Some(host) => {
                        let asked = self.insight.ask_hosts(host, question).await;
                        asked.map_err(Status::bad_request)?
                    }
                    None => {
                        let answer = self.insight.ask(question).await;
                        serde_json::to_value(answer)
                            .map_err(|it| Status::internal(&it.to_string()))?
                    }
                };
                Ok(reply::json(200, &tree))
            }
            _ => Err(method_not_allowed()),
        }
    }

    async fn at_the_door(&self, system: System, request: Asked) -> Result<Reply, Status> {
        match (system, request.method.as_str()) {
            (System::Authority, "GET" | "HEAD") => {
                Ok(reply::bytes(200, "application/x-pem-file", self.door.authority().into_bytes()))
            }
            (System::Join, "POST") => {
                self.joins.enter(self.env.monotonic())?;
                let body = self.read_body(&request).await?;
                if body.len() > door::JOIN_BYTES_MAX {
                    return Err(Status::request_too_large(door::JOIN_BYTES_MAX));
                }
                Ok(reply::json(200, &self.door.join(body, request.deadline).await?))
            }
            _ => Err(method_not_allowed()),
        }
    }

    /// The whole body, within the size limit and the request's time.
    pub(crate) async fn read_body(&self, request: &Asked) -> Result<Bytes, Status> {
        let too_large = || Status::request_too_large(BODY_BYTES_MAX);
        let announced = request
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|it| it > BODY_BYTES_MAX as u64) {
            return Err(too_large());
        }
        let Some(mut body) = request.body.take() else {
            return Ok(Bytes::new());
        };
        let late = self.env.clock.sleep_until(request.deadline.at());
        let read = match select(pin!(collect(&mut body)), late).await {
            Either::Left((read, _)) => read,
            Either::Right(_) => {
                return Err(Status::timeout(
                    "request did not complete within the allotted timeout",
                    0,
                ));
            }
        };
        read?.ok_or_else(|| {
            request.body.put_back(body);
            too_large()
        })
    }
}

/// `None`: there is more than the limit, and it stands in `body` still.
async fn collect(body: &mut Incoming) -> Result<Option<Bytes>, Status> {
    let ended = |error| Status::bad_request(format!("the request's body ended early: {error}"));
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(whole) => Ok(Some(whole.to_bytes())),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok(None),
        Err(error) => Err(ended(error)),
    }
}

pub(crate) fn method_not_allowed() -> Status {
    Status::new(
        kactor_api::Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

/// Dropped with the stream's body.
struct StreamEnd {
    metrics: Arc<Metrics>,
    labels: Labels,
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.metrics.stream_ended(&self.labels);
    }
}

impl Serve for Gateway {
    fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        Box::pin(async move { self.answer(request, connection).await })
    }
}

/// Go's durations, as far as clients send them in queries: `30s`, `1m0s`, `500ms`, and a plain number of seconds.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(seconds)));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() || rest.len() > 32 {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = u64::from(rest[..digits].parse::<u32>().ok()?);
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        total += match &rest[..letters] {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = &rest[letters..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_clients_of_go_write_them() {
        for (text, expected) in [
            ("30s", Some(30_000)),
            ("1m0s", Some(60_000)),
            ("500ms", Some(500)),
            ("7", Some(7_000)),
            ("", None),
            ("1d", None),
            ("s", None),
        ] {
            assert_eq!(go_duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }
}
