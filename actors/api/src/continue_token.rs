//! The `continue` token of a paged list: where the next page begins, and at which revision the list is.
//!
//! Opaque to clients: base64 of a small JSON object. It holds no right: the next page is authorized by itself, and
//! the key is taken only below the prefix that the request may list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kactor_protocol::ids::Revision;
use serde::{Deserialize, Serialize};

/// Longest token that is decoded: a key of 1 KiB in base64 with room to spare.
const TOKEN_BYTES_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContinueToken {
    /// The whole list is answered as of this revision.
    #[serde(rename = "rv")]
    pub revision: u64,
    /// The last key of the page before, without the list's prefix.
    #[serde(rename = "start")]
    pub after: String,
}

/// Why a token is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("continue key is not valid: {reason}")]
pub struct ContinueTokenError {
    pub reason: &'static str,
}

impl ContinueToken {
    pub fn new(revision: Revision, after: &str) -> Self {
        Self { revision: revision.0, after: after.to_owned() }
    }

    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("two plain fields always print"))
    }

    pub fn decode(text: &str) -> Result<Self, ContinueTokenError> {
        let wrong = |reason| ContinueTokenError { reason };
        if text.len() > TOKEN_BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|_| wrong("it is not base64"))?;
        let token: Self =
            serde_json::from_slice(&bytes).map_err(|_| wrong("it holds no position"))?;
        if token.after.is_empty() || token.after.contains("..") {
            return Err(wrong("it holds no position"));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_was(revision: u64, after in "[a-z0-9/-]{1,300}") {
            let token = ContinueToken { revision, after };
            prop_assert_eq!(ContinueToken::decode(&token.encode()), Ok(token));
        }

        #[test]
        fn any_text_is_refused_or_decoded_without_a_panic(text in ".*") {
            let _ = ContinueToken::decode(&text);
        }
    }

    #[test]
    fn a_token_of_another_kind_is_refused() {
        for text in ["", "!!!", "bm90IGpzb24", &"A".repeat(5000)] {
            assert!(ContinueToken::decode(text).is_err(), "{text}");
        }
    }
}
