//! Where an actor is: (host, name, incarnation).
//!
//! The name says which actor, the incarnation which life of it: a message to a life that ended is a dead
//! letter, never delivered to its successor by accident.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// Longest host id and actor name. A pod's actor is named by namespace and name (63 + 253) and a prefix.
pub const NAME_BYTES_MAX: usize = 400;

/// Why a text is no host id or actor name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name has {len_bytes} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong { len_bytes: usize },
    #[error(
        "the name has the character {character:?}; only visible ASCII is allowed, without '#' and '@'"
    )]
    Character { character: char },
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { len_bytes: text.len() });
    }
    match text.chars().find(|it| !it.is_ascii_graphic() || matches!(it, '#' | '@')) {
        Some(character) => Err(NameError::Character { character }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                check_name(text.as_ref())?;
                Ok(Self(Arc::from(text.as_ref())))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        /// Checked on the way in: a peer can't make a name that `new` would refuse.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = Arc::<str>::deserialize(input)?;
                check_name(&text).map_err(serde::de::Error::custom)?;
                Ok(Self(text))
            }
        }
    };
}

name! {
    /// A host of the cluster. It equals the host's node name.
    HostId
}

name! {
    /// An actor's name, unique on its host: `store`, `controller/replicaset`, `pod/default/web-0`.
    ActorName
}

/// Which life of a host's process or of an actor: grows with every start. A restart after a panic keeps it, because
/// the mailbox is kept.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of one actor on one host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorAddress {
    pub host: HostId,
    pub name: ActorName,
    pub incarnation: Incarnation,
}

/// `name@host#incarnation`, which is what the REPL prints and takes.
impl fmt::Display for ActorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}#{}", self.name, self.host, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::{ActorAddress, ActorName, HostId, Incarnation, NAME_BYTES_MAX, NameError};

    #[test]
    fn names_are_visible_ascii_of_bounded_length() {
        assert!(ActorName::new("pod/default/web-0").is_ok());
        assert_eq!(ActorName::new(""), Err(NameError::Empty));
        assert_eq!(
            HostId::new("x".repeat(NAME_BYTES_MAX + 1)),
            Err(NameError::TooLong { len_bytes: NAME_BYTES_MAX + 1 })
        );
        for (text, character) in [("a b", ' '), ("a#1", '#'), ("a@b", '@'), ("a\n", '\n')] {
            assert_eq!(ActorName::new(text), Err(NameError::Character { character }));
        }
    }

    #[test]
    fn a_decoded_name_passes_the_same_check() {
        assert!(serde_json::from_str::<ActorName>("\"store\"").is_ok());
        assert!(serde_json::from_str::<ActorName>("\"a b\"").is_err());
    }

    #[test]
    fn an_address_prints_as_the_repl_takes_it() {
        let address = ActorAddress {
            host: HostId::new("n1").unwrap(),
            name: ActorName::new("store").unwrap(),
            incarnation: Incarnation(3),
        };
        assert_eq!(address.to_string(), "store@n1#3");
    }
}
