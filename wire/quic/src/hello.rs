//! The first bytes of a stream: which life of the sender's process writes it, and after which stream.

/// Magic, format, incarnation, generation, follows.
pub(crate) const HELLO_BYTES: usize = 4 + 8 + 8 + 1;
const MAGIC: [u8; 3] = *b"KLK";
const FORMAT: u8 = 1;

/// How a stream relates to the one that its sender wrote before it on this lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// That one was written to its end: it is read to its end first.
    Finished,
    /// That one was given up with its connection: what is left of it is dropped.
    Abandoned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub incarnation: u64,
    pub generation: u64,
    pub follows: Follows,
}

impl Hello {
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..3].copy_from_slice(&MAGIC);
        out[3] = FORMAT;
        out[4..12].copy_from_slice(&self.incarnation.to_le_bytes());
        out[12..20].copy_from_slice(&self.generation.to_le_bytes());
        out[20] = match self.follows {
            Follows::Finished => 1,
            Follows::Abandoned => 0,
        };
        out
    }

    /// `None` for bytes that no kactor of this format wrote.
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let u64_at = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of the array"))
        };
        let follows = match bytes[20] {
            0 => Follows::Abandoned,
            1 => Follows::Finished,
            _ => return None,
        };
        let is_ours = bytes[..3] == MAGIC && bytes[3] == FORMAT;
        is_ours.then(|| Self { incarnation: u64_at(4), generation: u64_at(12), follows })
    }
}

#[cfg(test)]
mod tests {
    use super::{Follows, Hello};

    #[test]
    fn a_hello_survives_its_bytes_and_foreign_bytes_are_none() {
        let hello = Hello { incarnation: 7, generation: 1 << 40, follows: Follows::Finished };
        let mut bytes = hello.encode();
        assert_eq!(Hello::decode(&bytes), Some(hello));
        bytes[3] = 9;
        assert_eq!(Hello::decode(&bytes), None, "another format");
        let mut bytes = hello.encode();
        bytes[20] = 2;
        assert_eq!(Hello::decode(&bytes), None, "an unknown relation");
    }
}
