//! Tokens that let a host in: `id.secret.ca`, each a short-lived record that knows the hash of the secret alone.
//!
//! The last part is the SHA-256 of the cluster CA's public key: the new host checks whom it speaks with before it sends
//! the secret. The role stands in the record, so nobody can change it in the line that is pasted.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use kactor_protocol::store::{Key, KeyError};
use kactor_protocol::{HostId, Timestamp};
use kactor_runtime::env::Env;
use serde::{Deserialize, Serialize};

use crate::host::{GROUP, KeyHash};

const ID_BYTES: usize = 4;
const SECRET_BYTES: usize = 16;
/// Longest time that a token may live.
pub const TTL_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long an ended token is remembered, so that who comes late hears "expired" and not "unknown".
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// Most hosts that one token lets in.
pub const USES_MAX: u32 = 1000;

/// What is printed, pasted, and shown to the door.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
    /// Of the cluster CA's public key.
    pub ca: KeyHash,
}

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no token of `kactor token create`: {reason}")]
pub struct TokenError {
    pub reason: &'static str,
}

impl Token {
    pub fn generate(env: &Env, ca: KeyHash) -> Self {
        let hex = |n_bytes: usize| {
            let mut bytes = vec![0; n_bytes];
            env.entropy.fill(&mut bytes);
            bytes.iter().map(|it| format!("{it:02x}")).collect()
        };
        Self { id: hex(ID_BYTES), secret: hex(SECRET_BYTES), ca }
    }

    /// What the record keeps of the secret.
    pub fn secret_hash(&self) -> KeyHash {
        KeyHash::of(self.secret.as_bytes())
    }

    /// What the door is shown: without the CA's hash, which it knows.
    pub fn shown(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.ca)
    }
}

/// The secret must not reach a log.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// `id` and `secret` of what a host shows to the door.
pub fn parts_of(shown: &str) -> Result<(&str, &str), TokenError> {
    let (id, secret) =
        shown.split_once('.').ok_or(TokenError { reason: "it has no dot between its parts" })?;
    let is_hex = |text: &str, n_bytes: usize| {
        text.len() == 2 * n_bytes && text.bytes().all(|it| it.is_ascii_hexdigit())
    };
    if !is_hex(id, ID_BYTES) || !is_hex(secret, SECRET_BYTES) {
        return Err(TokenError { reason: "a part is cut off or was changed" });
    }
    Ok((id, secret))
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (shown, ca) = text
            .rsplit_once('.')
            .ok_or(TokenError { reason: "it has no dots between its parts" })?;
        let ca = ca.parse().map_err(|_| TokenError { reason: "its end is cut off" })?;
        let (id, secret) = parts_of(shown)?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), ca })
    }
}

/// What a token lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// A control host as long as there are fewer than three, then workers.
    Any,
    Control,
    Worker,
}

impl fmt::Display for TokenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenRole::Any => "any",
            TokenRole::Control => "control",
            TokenRole::Worker => "worker",
        })
    }
}

/// A token, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    pub secret_hash: KeyHash,
    pub role: TokenRole,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub uses_max: u32,
    /// Hosts that it let in, in order.
    pub used_by: Vec<HostId>,
    #[serde(default)]
    pub revoked: bool,
}

impl TokenRecord {
    pub fn key(id: &str) -> Result<Key, KeyError> {
        Key::new(GROUP, "tokens", "", id)
    }

    pub fn prefix() -> String {
        Key::resource_prefix(GROUP, "tokens")
    }

    /// When the store forgets it.
    pub fn forgotten_at(&self) -> Timestamp {
        self.expires_at.plus(REMEMBERED)
    }

    pub fn is_used_up(&self) -> bool {
        self.used_by.len() >= self.uses_max as usize
    }

    /// One word for lists.
    pub fn state(&self, now: Timestamp) -> &'static str {
        match (self.revoked, now >= self.expires_at, self.is_used_up()) {
            (true, ..) => "revoked",
            (_, true, _) => "expired",
            (_, _, true) => "used",
            _ => "valid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_printed_and_read_back_and_a_damaged_one_says_what_is_wrong() {
        let token = Token::generate(&Env::machine(), KeyHash::of(b"ca"));
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert!(!text[1..].contains('-') && text.len() == 8 + 1 + 32 + 1 + 64, "{text}");
        assert_eq!(format!("{token:?}"), format!("Token({})", token.id), "no secret in logs");
        for (wrong, says) in [
            ("", "no dots"),
            (&text[..text.len() - 1], "end is cut off"),
            (&text[1..], "cut off or was changed"),
            (&text.replacen('.', "", 1), "no dot"),
        ] {
            let error = wrong.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
        assert_eq!(parts_of(&token.shown()), Ok((&*token.id, &*token.secret)));
    }

    #[test]
    fn the_state_of_a_token_is_one_word() {
        let record = TokenRecord {
            secret_hash: KeyHash::of(b""),
            role: TokenRole::Any,
            created_at: Timestamp(0),
            expires_at: Timestamp(100),
            uses_max: 1,
            used_by: Vec::new(),
            revoked: false,
        };
        let host = HostId::new("n1").unwrap();
        let used = TokenRecord { used_by: vec![host], ..record.clone() };
        let revoked = TokenRecord { revoked: true, ..used.clone() };
        assert_eq!(record.state(Timestamp(99)), "valid");
        assert_eq!(record.state(Timestamp(100)), "expired");
        assert_eq!(used.state(Timestamp(1)), "used");
        assert_eq!(revoked.state(Timestamp(100)), "revoked");
    }
}
