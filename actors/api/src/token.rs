//! Service-account tokens: signed and verified in this one place (JWT, ES256, RFC 7515 and 7519).
//!
//! The claims are those of Kubernetes' bound tokens (pkg/serviceaccount/claims.go), so that any library that reads
//! them works. Verifying is two steps: the signature and the times here, purely; whether the account, pod or
//! secret that the token is bound to still lives is asked of the store by the caller ([`crate::Api::verify_token`]).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use kactor_protocol::time::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// The keys of the issuer. The first signs, all verify.
pub struct TokenKeys {
    keys: Vec<TokenKey>,
}

struct TokenKey {
    id: String,
    pair: EcdsaKeyPair,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: u64,
    pub iat: u64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    pub nbf: u64,
    pub sub: String,
}

/// The account that the token speaks for, and the objects whose end is its end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    pub serviceaccount: Reference,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reference {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error(
        "no signing key was given; kactor makes one per cluster and keeps it in its data directory"
    )]
    NoKey,
    #[error("a signing key is no P-256 key in PKCS #8: {reason}")]
    BadKey { reason: String },
    #[error("signing the token failed")]
    Signing,
    #[error("it is not a token of this cluster")]
    Foreign,
    #[error("the token's signature is wrong")]
    BadSignature,
    #[error("service account token has expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
    #[error("token audiences {found:?} are invalid for the target audiences {wanted:?}")]
    Audience { found: Vec<String>, wanted: Vec<String> },
    #[error("{what} {name:?} that the token is bound to is gone")]
    Gone { what: &'static str, name: String },
}

impl TokenKeys {
    /// Keys as PKCS #8 documents, the newest first. [`TokenKeys::generate`] makes one.
    pub fn new(pkcs8: &[Vec<u8>]) -> Result<Self, TokenError> {
        let parse = |it: &Vec<u8>| {
            let pair = EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                it,
                &SystemRandom::new(),
            )
            .map_err(|error| TokenError::BadKey { reason: error.to_string() })?;
            let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
            Ok(TokenKey { id: BASE64.encode(digest.as_ref()), pair })
        };
        let keys = pkcs8.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(TokenError::NoKey) } else { Ok(Self { keys }) }
    }

    /// A new key as a PKCS #8 document.
    pub fn generate() -> Result<Vec<u8>, TokenError> {
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map(|it| it.as_ref().to_vec())
            .map_err(|_| TokenError::Signing)
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let key = self.keys.first().expect("new() refused an empty list");
        let header = json!({"alg": "ES256", "kid": key.id, "typ": "JWT"});
        let encode = |it: &[u8]| BASE64.encode(it);
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Signing)?;
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&claims));
        let signature = key
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| TokenError::Signing)?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// Signature, issuer and times. `Foreign` means that another authenticator may know the token.
    pub fn verify(&self, token: &str, issuer: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Foreign);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let decode = |it: &str| BASE64.decode(it).map_err(|_| TokenError::Foreign);
        let header: Value =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Foreign)?;
        let claims: Claims =
            serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Foreign)?;
        if header["alg"] != "ES256" || claims.iss != issuer {
            return Err(TokenError::Foreign);
        }
        let key = self
            .keys
            .iter()
            .find(|it| header["kid"] == it.id.as_str())
            .ok_or(TokenError::BadSignature)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::BadSignature)?;
        let now = now.seconds();
        if now >= claims.exp {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf {
            return Err(TokenError::NotYetValid);
        }
        Ok(claims)
    }

    /// The public keys as a JSON Web Key Set (`/openid/v1/jwks`).
    pub fn key_set(&self) -> Value {
        let key = |it: &TokenKey| {
            let point = it.pair.public_key().as_ref(); // 0x04, x, y
            json!({"alg": "ES256", "crv": "P-256", "kid": it.id, "kty": "EC", "use": "sig",
                   "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65])})
        };
        json!({"keys": self.keys.iter().map(key).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    fn claims() -> Claims {
        Claims {
            aud: vec!["api".into()],
            exp: 2_000,
            iat: 1_000,
            iss: ISSUER.into(),
            jti: "j".into(),
            kubernetes: Bound {
                namespace: "a".into(),
                serviceaccount: Reference { name: "robot".into(), uid: "u".into() },
                ..Bound::default()
            },
            nbf: 1_000,
            sub: "system:serviceaccount:a:robot".into(),
        }
    }

    fn keys() -> TokenKeys {
        TokenKeys::new(&[TokenKeys::generate().unwrap()]).unwrap()
    }

    #[test]
    fn a_token_verifies_with_its_own_key_in_its_time_only() {
        let keys = keys();
        let token = keys.sign(&claims()).unwrap();
        let at = |seconds| keys.verify(&token, ISSUER, Timestamp::from_seconds(seconds));
        assert_eq!(at(1_500), Ok(claims()));
        assert_eq!(at(2_000), Err(TokenError::Expired));
        assert_eq!(at(999), Err(TokenError::NotYetValid));
        assert_eq!(
            keys.verify(&token, "else", Timestamp::from_seconds(1_500)),
            Err(TokenError::Foreign)
        );
        let other = self::keys();
        let verdict = other.verify(&token, ISSUER, Timestamp::from_seconds(1_500));
        assert_eq!(verdict, Err(TokenError::BadSignature));
    }

    #[test]
    fn a_token_with_any_part_changed_is_refused() {
        let keys = keys();
        let token = keys.sign(&claims()).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let mut claims = claims();
        claims.sub = "system:serviceaccount:kube-system:root".into();
        let forged = BASE64.encode(serde_json::to_vec(&claims).unwrap());
        let none = BASE64.encode(r#"{"alg":"none"}"#);
        for text in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            String::new(),
            "a.b.c".into(),
        ] {
            assert!(keys.verify(&text, ISSUER, Timestamp::from_seconds(1_500)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rotated_key_still_verifies_while_it_is_listed() {
        let old = TokenKeys::generate().unwrap();
        let token = TokenKeys::new(std::slice::from_ref(&old)).unwrap().sign(&claims()).unwrap();
        let keys = TokenKeys::new(&[TokenKeys::generate().unwrap(), old]).unwrap();
        assert!(keys.verify(&token, ISSUER, Timestamp::from_seconds(1_500)).is_ok());
        assert_eq!(keys.key_set()["keys"].as_array().unwrap().len(), 2);
    }
}
