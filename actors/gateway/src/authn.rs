//! Who asks: client certificate, bearer token, or nobody; and as whom, when `Impersonate-*` headers say so.
//!
//! The first credential that proves a user wins, certificates before tokens. A credential that was shown and is
//! bad is 401 even where nobody would have been let in (k8s.io/apiserver pkg/authentication/request/union).
//! Nobody is `system:anonymous`, who may do what RBAC gives `system:unauthenticated`: read health and version.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use kactor_api::{Api, Status, User};

use crate::query::{Plus, decode};
use crate::tls::Peer;

/// A browser cannot set headers on a WebSocket; Kubernetes takes the token as a subprotocol.
const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The user that the request's credentials prove. Takes credentials out of `headers`, so that nothing behind sees them.
pub fn authenticate(api: &Api, peer: &Peer, headers: &mut HeaderMap) -> Result<User, Status> {
    let token = take_token(headers);
    match peer {
        Peer::Verified { not_after, .. } if *not_after < api.env().wall() => {
            tracing::info!("a client certificate expired while its connection was open");
            return Err(Status::unauthorized());
        }
        Peer::Verified { subject, credential_id, .. } => {
            let groups: Vec<&str> = subject.groups.iter().map(String::as_str).collect();
            let mut user = User::authenticated(subject.user.as_str(), &groups);
            user.extra.insert(CREDENTIAL_ID.to_owned(), vec![credential_id.clone()]);
            return Ok(user);
        }
        Peer::Refused(why) if token.is_none() => {
            tracing::info!(%why, "a client certificate was refused");
            return Err(Status::unauthorized());
        }
        Peer::Refused(_) | Peer::Unidentified => {}
    }
    let Some(token) = token else {
        return Ok(User::anonymous());
    };
    match api.verify_token(&token, &api.config().audiences) {
        Ok(verified) => Ok(verified.user),
        Err(error) => {
            tracing::info!(%error, "a bearer token was refused");
            Err(Status::unauthorized())
        }
    }
}

fn take_token(headers: &mut HeaderMap) -> Option<String> {
    let header = headers.remove(AUTHORIZATION);
    let bearer = header.as_ref().and_then(|it| it.to_str().ok()).and_then(|it| {
        let (scheme, token) = it.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
    });
    bearer.or_else(|| take_websocket_token(headers))
}

fn take_websocket_token(headers: &mut HeaderMap) -> Option<String> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.to_owned();
    let (tokens, others): (Vec<&str>, Vec<&str>) = offered
        .split(',')
        .map(str::trim)
        .filter(|it| !it.is_empty())
        .partition(|it| it.starts_with(WEBSOCKET_BEARER));
    let encoded = tokens.first()?.strip_prefix(WEBSOCKET_BEARER)?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    let rest = HeaderValue::from_str(&others.join(", ")).ok()?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
    Some(token)
}

static IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");
static IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");
static IMPERSONATE_UID: HeaderName = HeaderName::from_static("impersonate-uid");
const IMPERSONATE_EXTRA: &str = "impersonate-extra-";

/// Whom the request wants to act as; `None` where it wants nothing of the kind.
pub fn impersonated(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let text = |it: &HeaderValue| it.to_str().unwrap_or_default().to_owned();
    let name = headers.get(&IMPERSONATE_USER).map(text).unwrap_or_default();
    let mut wanted = User { name, ..User::default() };
    wanted.groups = headers.get_all(&IMPERSONATE_GROUP).iter().map(text).collect();
    wanted.uid = headers.get(&IMPERSONATE_UID).map(text).unwrap_or_default();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(IMPERSONATE_EXTRA) {
            wanted.extra.entry(decode(key, Plus::Plus)).or_default().push(text(value));
        }
    }
    if wanted == User::default() {
        return Ok(None);
    }
    if wanted.name.is_empty() {
        let why = "requested groups, a uid or extra values without impersonating a user";
        return Err(Status::internal(why));
    }
    Ok(Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_bearer_token_is_found_in_either_place_and_taken_out() {
        let mut plain = headers(&[("authorization", "Bearer abc")]);
        assert_eq!(take_token(&mut plain).as_deref(), Some("abc"));
        assert!(plain.is_empty());

        let mut socket = headers(&[(
            "sec-websocket-protocol",
            "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj",
        )]);
        assert_eq!(take_token(&mut socket).as_deref(), Some("abc"));
        assert_eq!(socket["sec-websocket-protocol"], "v5.channel.k8s.io");

        for none in ["Basic YTpi", "Bearer", "Bearer "] {
            assert_eq!(take_token(&mut headers(&[("authorization", none)])), None, "{none}");
        }
    }

    #[test]
    fn impersonation_needs_a_user_and_keeps_groups_and_extra() {
        assert_eq!(impersonated(&HeaderMap::new()).unwrap(), None);
        let mut all = headers(&[
            ("impersonate-user", "jane"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]);
        all.append(&IMPERSONATE_GROUP, HeaderValue::from_static("dev"));
        all.append(&IMPERSONATE_GROUP, HeaderValue::from_static("ops"));
        let user = impersonated(&all).unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["dev", "ops"]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
        let alone = headers(&[("impersonate-group", "system:masters")]);
        assert_eq!(impersonated(&alone).unwrap_err().code, 500);
    }
}
