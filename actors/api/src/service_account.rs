//! Service accounts' tokens: issuing them (`serviceaccounts/NAME/token`) and knowing whose they are.
//!
//! A token is good as long as its account lives under the same uid, and the pod or Secret that it is bound to, if
//! any. All of that is asked of the local store at every use: a deleted pod's token ends with the pod. Reference:
//! Kubernetes pkg/serviceaccount and pkg/registry/core/serviceaccount/storage/token.go.

use kactor_objects::registry::Kind;
use kactor_objects::status::Status;
use kactor_objects::tree::{at, integer, list, text};
use kactor_protocol::store::Key;
use kactor_protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::freshness::invalid_field;
use crate::request::{Request, User};
use crate::token::{Bound, Claims, Reference, TokenError};

/// What a token lives for when it asks for nothing, for less than this, or for more than the second.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Whose token it is, and for which of the wanted audiences it was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    pub user: User,
    pub audiences: Vec<String>,
}

impl Api {
    /// Signature, times, audience (one of `wanted`), and that everything the token is bound to still lives.
    pub fn verify_token(
        &self,
        token: &str,
        wanted: &[String],
    ) -> Result<VerifiedToken, TokenError> {
        let claims = self.tokens().verify(token, &self.config().issuer, self.env().wall())?;
        let audiences: Vec<String> =
            claims.aud.iter().filter(|it| wanted.contains(it)).cloned().collect();
        if audiences.is_empty() {
            return Err(TokenError::Audience { found: claims.aud, wanted: wanted.to_vec() });
        }
        let bound = &claims.kubernetes;
        self.must_live(
            "service account",
            "serviceaccounts",
            &bound.namespace,
            &bound.serviceaccount,
        )?;
        if let Some(pod) = &bound.pod {
            self.must_live("pod", "pods", &bound.namespace, pod)?;
        }
        if let Some(secret) = &bound.secret {
            self.must_live("secret", "secrets", &bound.namespace, secret)?;
        }
        let mut user = User::service_account(&bound.namespace, &bound.serviceaccount.name);
        user.uid.clone_from(&bound.serviceaccount.uid);
        let mut extra = |key: &str, value: &str| {
            user.extra
                .insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        extra("credential-id", &format!("JTI={}", claims.jti));
        if let Some(pod) = &bound.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &bound.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        Ok(VerifiedToken { user, audiences })
    }

    fn must_live(
        &self,
        what: &'static str,
        resource: &str,
        namespace: &str,
        reference: &Reference,
    ) -> Result<(), TokenError> {
        let gone = || TokenError::Gone { what, name: reference.name.clone() };
        let key = Key::new("", resource, namespace, &reference.name).map_err(|_| gone())?;
        match self.store().get(&key) {
            Some(it) if it.value.uid.as_str() == reference.uid => Ok(()),
            _ => Err(gone()),
        }
    }

    /// `TokenRequest` on a service account: the posted object with `status.token`.
    pub(crate) fn issue_token(
        &self,
        request: &Request,
        kind: &Kind,
        posted: &Value,
    ) -> Result<Value, Status> {
        let namespace = request.resource.namespace.as_deref().unwrap_or_default();
        let name = request.resource.name.as_deref().unwrap_or_default();
        let not_found = || Status::not_found(kind, name);
        let key = Key::new("", "serviceaccounts", namespace, name).map_err(|_| not_found())?;
        let account = self.store().get(&key).ok_or_else(not_found)?;
        let wanted = integer(posted, "spec.expirationSeconds").unwrap_or(TOKEN_SECONDS_DEFAULT);
        if wanted < TOKEN_SECONDS_MIN {
            return Err(invalid_life(wanted, "may not specify a duration less than 10 minutes"));
        }
        if wanted > TOKEN_SECONDS_MAX {
            return Err(invalid_life(
                wanted,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
        let mut audiences: Vec<String> = list(posted, "spec.audiences")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.is_empty() {
            audiences.extend(self.config().audiences.first().cloned());
        }
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: Reference { name: name.to_owned(), uid: account.value.uid.to_string() },
            ..Bound::default()
        };
        self.bind(&mut bound, at(posted, "spec.boundObjectRef"))?;
        let now = self.env().wall();
        let expires = Timestamp::from_seconds(now.seconds() + wanted.unsigned_abs());
        let claims = Claims {
            aud: audiences.clone(),
            exp: expires.seconds(),
            iat: now.seconds(),
            iss: self.config().issuer.clone(),
            jti: self.env().random_uuid(),
            kubernetes: bound,
            nbf: now.seconds(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
        };
        let token =
            self.tokens().sign(&claims).map_err(|error| Status::internal(&error.to_string()))?;
        let mut answer = posted.clone();
        answer["metadata"] =
            json!({"name": name, "namespace": namespace, "creationTimestamp": now.rfc3339()});
        answer["spec"]["audiences"] = json!(audiences);
        answer["spec"]["expirationSeconds"] = json!(wanted);
        answer["status"] = json!({"token": token, "expirationTimestamp": expires.rfc3339()});
        Ok(answer)
    }

    /// Ties the token to a pod (and its node), a Secret or a node.
    fn bind(&self, bound: &mut Bound, reference: &Value) -> Result<(), Status> {
        if !reference.is_object() {
            return Ok(());
        }
        let (kind, name) = (text(reference, "kind"), text(reference, "name"));
        let resource = match kind {
            "Pod" => "pods",
            "Secret" => "secrets",
            "Node" => "nodes",
            other => {
                return Err(Status::bad_request(format!(
                    "cannot bind token for object of type {other}"
                )));
            }
        };
        let namespace = if kind == "Node" { "" } else { bound.namespace.as_str() };
        let (found, uid) = self.referenced(resource, namespace, name)?;
        let asked = text(reference, "uid");
        if !asked.is_empty() && asked != uid {
            return Err(Status::conflict(
                kactor_objects::status::GroupResource { group: "", resource },
                name,
                &format!(
                    "the UID in the bound object reference ({asked}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
                ),
            ));
        }
        let reference = Reference { name: name.to_owned(), uid };
        match kind {
            "Pod" => {
                if text(&found, "spec.serviceAccountName") != bound.serviceaccount.name {
                    return Err(Status::bad_request(format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        bound.serviceaccount.name
                    )));
                }
                let node = text(&found, "spec.nodeName");
                if let Ok((_, uid)) = self.referenced("nodes", "", node) {
                    bound.node = Some(Reference { name: node.to_owned(), uid });
                }
                bound.pod = Some(reference);
            }
            "Secret" => bound.secret = Some(reference),
            _ => bound.node = Some(reference),
        }
        Ok(())
    }

    /// An object of the core group and its uid. Secrets' bodies stay closed: only the uid is needed.
    fn referenced(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(Value, String), Status> {
        let of = kactor_objects::status::GroupResource { group: "", resource };
        let not_found = || Status::not_found(of, name);
        let key = Key::new("", resource, namespace, name).map_err(|_| not_found())?;
        let stored = self.store().get(&key).ok_or_else(not_found)?;
        let tree = serde_json::from_slice(&stored.value.body).unwrap_or_default();
        Ok((tree, stored.value.uid.to_string()))
    }
}

fn invalid_life(seconds: i64, why: &str) -> Status {
    let problem = format!("Invalid value: {seconds}: {why}");
    invalid_field("TokenRequest.authentication.k8s.io", "spec.expirationSeconds", &problem)
}
