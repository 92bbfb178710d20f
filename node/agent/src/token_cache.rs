//! Service-account tokens that pods hold, kept until four fifths of their life have passed.
//!
//! Without it each look at a pod's volumes would ask for a new token and rewrite its file. Upstream: kubelet
//! token manager (refresh at 80 % of the lifetime, or after 24 hours).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::references::TokenWanted;

const KEPT_MAX: Duration = Duration::from_secs(24 * 3600);
/// More tokens than this are never kept; a node has 110 pods.
const TOKENS_LEN_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct TokenCache {
    /// By pod uid and what was wanted: the token, and until when it is given out.
    tokens: Mutex<BTreeMap<(String, TokenWanted), (String, Duration)>>,
}

impl TokenCache {
    pub fn get(&self, uid: &str, wanted: &TokenWanted, now: Duration) -> Option<String> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, until) = tokens.get(&(uid.to_owned(), wanted.clone()))?;
        (now < *until).then(|| token.clone())
    }

    pub fn put(&self, uid: &str, wanted: &TokenWanted, token: String, now: Duration) {
        let life = Duration::from_secs(wanted.expiration_seconds.saturating_mul(4) / 5);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_LEN_MAX {
            tokens.retain(|_, (_, until)| now < *until);
        }
        if tokens.len() < TOKENS_LEN_MAX {
            tokens.insert((uid.to_owned(), wanted.clone()), (token, now + life.min(KEPT_MAX)));
        }
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|(of, _), _| of != uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_given_out_for_four_fifths_of_its_life() {
        let cache = TokenCache::default();
        let wanted = TokenWanted { audience: None, expiration_seconds: 3600 };
        let at = Duration::from_secs;
        cache.put("u", &wanted, "t".to_owned(), at(100));
        assert_eq!(cache.get("u", &wanted, at(100 + 2879)).as_deref(), Some("t"));
        assert_eq!(cache.get("u", &wanted, at(100 + 2880)), None);
        assert_eq!(cache.get("v", &wanted, at(100)), None);
        cache.forget("u");
        assert_eq!(cache.get("u", &wanted, at(100)), None);
    }
}
