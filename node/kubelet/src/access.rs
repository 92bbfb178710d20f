//! Who asks, and may they: both are the control plane's to say, through the node's session.
//!
//! A client certificate of the cluster's CA names its user by itself (the listener judged it); a bearer token is
//! reviewed by TokenReview; every right by SubjectAccessReview. Answers are remembered for as long as a kubelet
//! does by default (kubernetes pkg/kubelet/apis/config/v1beta1/defaults.go), so a revoked right ends within minutes
//! and a control plane that is away for a moment does not blind the monitoring. Tokens are remembered by their hash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use kactor_agent::ports::ControlPlane;
use kactor_protocol::node::{ApiTarget, ApiVerb, CallApi};
use kactor_runtime::env::Env;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::route::Right;
use crate::ttl_cache::TtlCache;

/// How long a review's answer holds.
const TOKEN_TTL: Duration = Duration::from_secs(120);
const REFUSED_TOKEN_TTL: Duration = Duration::from_secs(10);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const FORBIDDEN_TTL: Duration = Duration::from_secs(30);
const TOKENS_LEN_MAX: usize = 1024;
const VERDICTS_LEN_MAX: usize = 4096;
/// Longer than any token that Kubernetes issues.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

const ALL_AUTHENTICATED: &str = "system:authenticated";

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// The control plane, through the session; it asked whether its client may before it came.
    ControlPlane,
    /// Somebody on the network.
    Network(Certificate),
}

/// The client certificate of a connection, judged against the cluster's CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    None,
    Verified {
        user: String,
        groups: Vec<String>,
    },
    /// Not ours, expired, or not for clients.
    Refused(String),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why a request goes no further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// 401: nobody, or nobody we know. Why is for our log, not for them.
    #[error("Unauthorized")]
    Unauthorized(String),
    /// 403.
    #[error(
        "Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)={subresources:?})"
    )]
    Forbidden { user: String, verb: &'static str, subresources: &'static [&'static str] },
    /// 503: the control plane did not say.
    #[error("the control plane could not be asked whether this is permitted: {0}; try again")]
    Unasked(String),
}

type Verdict = (User, &'static str, &'static str);

pub struct Access {
    env: Env,
    node: String,
    control: Arc<dyn ControlPlane>,
    tokens: Mutex<TtlCache<Vec<u8>, Option<User>>>,
    verdicts: Mutex<TtlCache<Verdict, bool>>,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    pub fn new(env: Env, node: String, control: Arc<dyn ControlPlane>) -> Self {
        Self {
            env,
            node,
            control,
            tokens: Mutex::new(TtlCache::new(TOKENS_LEN_MAX)),
            verdicts: Mutex::new(TtlCache::new(VERDICTS_LEN_MAX)),
        }
    }

    /// Lets the request go on, or says why not. Anonymous requests are refused, as kubeadm sets kubelets up.
    pub async fn admit(
        &self,
        client: &Client,
        headers: &HeaderMap,
        right: &Right,
    ) -> Result<(), Denied> {
        let user = match client {
            Client::ControlPlane => return Ok(()),
            Client::Network(certificate) => self.identify(certificate, headers).await?,
        };
        for subresource in right.subresources {
            if self.permits(&user, right.verb, subresource).await? {
                return Ok(());
            }
        }
        let (verb, subresources) = (right.verb, right.subresources);
        Err(Denied::Forbidden { user: user.name, verb, subresources })
    }

    async fn identify(
        &self,
        certificate: &Certificate,
        headers: &HeaderMap,
    ) -> Result<User, Denied> {
        if let Certificate::Verified { user, groups } = certificate {
            let mut groups = groups.clone();
            groups.push(ALL_AUTHENTICATED.to_owned());
            return Ok(User { name: user.clone(), groups, ..User::default() });
        }
        match bearer(headers) {
            Some(token) => self.review_token(token).await,
            None => Err(Denied::Unauthorized(match certificate {
                Certificate::Refused(why) => why.clone(),
                _ => "neither a client certificate nor a bearer token".to_owned(),
            })),
        }
    }

    async fn review_token(&self, token: &str) -> Result<User, Denied> {
        let unknown = || Denied::Unauthorized("the token is not valid".to_owned());
        if token.len() > TOKEN_BYTES_MAX {
            return Err(unknown());
        }
        let key = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
        let now = self.env.monotonic();
        if let Some(known) = held(&self.tokens).get(&key, now) {
            return known.ok_or_else(unknown);
        }
        let answer =
            self.ask("authentication.k8s.io", "TokenReview", json!({ "token": token })).await?;
        let status = &answer["status"];
        let user = (status["authenticated"] == true).then(|| user_of(&status["user"]));
        let ttl = if user.is_some() { TOKEN_TTL } else { REFUSED_TOKEN_TTL };
        held(&self.tokens).put(key, user.clone(), self.env.monotonic() + ttl);
        user.ok_or_else(unknown)
    }

    async fn permits(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<bool, Denied> {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = held(&self.verdicts).get(&key, self.env.monotonic()) {
            return Ok(known);
        }
        let spec = json!({
            "user": user.name,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self.node,
            },
        });
        let answer = self.ask("authorization.k8s.io", "SubjectAccessReview", spec).await?;
        let allowed = answer["status"]["allowed"] == true;
        let ttl = if allowed { ALLOWED_TTL } else { FORBIDDEN_TTL };
        held(&self.verdicts).put(key, allowed, self.env.monotonic() + ttl);
        Ok(allowed)
    }

    /// Posts a review as this node.
    async fn ask(&self, group: &str, kind: &str, spec: Value) -> Result<Value, Denied> {
        let review = json!({ "apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec });
        let target = ApiTarget {
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: format!("{}s", kind.to_ascii_lowercase()),
            subresource: None,
            namespace: None,
            name: None,
        };
        let body = review.to_string().into();
        let call = CallApi { verb: ApiVerb::Create, target, options: Vec::new(), body };
        let reply = self.control.call(call).await.map_err(|it| Denied::Unasked(it.to_string()))?;
        if reply.code >= 300 {
            let status: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            let said = status["message"].as_str().unwrap_or("no reason given");
            return Err(Denied::Unasked(format!("{kind} was answered {}: {said}", reply.code)));
        }
        serde_json::from_slice(&reply.body)
            .map_err(|it| Denied::Unasked(format!("the answer to {kind} is no JSON: {it}")))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn user_of(tree: &Value) -> User {
    let texts = |it: &Value| -> Vec<String> {
        let all = it.as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let extra = tree["extra"].as_object().into_iter().flatten();
    User {
        name: text(&tree["username"]),
        uid: text(&tree["uid"]),
        groups: texts(&tree["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    }
}

#[cfg(test)]
mod tests;
