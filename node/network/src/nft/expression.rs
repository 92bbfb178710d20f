//! What rules consist of: each function is one expression of the kernel's little machine.
//!
//! Registers: `FIRST` holds up to 16 bytes; `word(n)` are its parts of four bytes, which keys of several fields
//! and addresses with ports are put together in. Numbers are those of linux/netfilter/nf_tables.h.

use super::message::{Attributes, FAMILY_IPV4};

/// NFT_REG_1.
pub const FIRST: u32 = 1;
const VERDICT: u32 = 0;
/// NFT_CT_MARK.
const CONNECTION_MARK: u32 = 3;
/// NFTA_LIST_ELEM.
const ELEMENT: u16 = 1;
/// NF_NAT_RANGE_PROTO_RANDOM_FULLY: without it two connections can be given one source port at the same time.
const FULLY_RANDOM: u32 = 1 << 4;

/// The `n`th four bytes of the registers (NFT_REG32_00 and up; the first is also the begin of `FIRST`).
pub fn word(n: u32) -> u32 {
    8 + n
}

/// What `meta` reads.
#[derive(Debug, Clone, Copy)]
pub enum Meta {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    Protocol = 16,
}

/// Which bytes `payload` reads.
#[derive(Debug, Clone, Copy)]
pub enum Field {
    Source,
    Destination,
    DestinationPort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal = 0,
    Differs = 1,
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy)]
pub enum Verdict<'a> {
    Accept,
    Jump(&'a str),
    Goto(&'a str),
}

/// The expressions of one rule, in order.
pub struct Rule<'a, 'b>(pub &'a mut Attributes<'b>);

impl Rule<'_, '_> {
    fn add(&mut self, name: &str, body: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nested(ELEMENT, |it| {
            it.text(1, name);
            it.nested(2, body);
        });
        self
    }

    pub fn meta(&mut self, key: Meta, into: u32) -> &mut Self {
        self.add("meta", |it| {
            it.number(1, into);
            it.number(2, key as u32);
        })
    }

    pub fn set_meta(&mut self, key: Meta, from: u32) -> &mut Self {
        self.add("meta", |it| {
            it.number(2, key as u32);
            it.number(3, from);
        })
    }

    /// The mark of the packet's connection, which all its packets have in both directions.
    pub fn connection_mark(&mut self, into: u32) -> &mut Self {
        self.add("ct", |it| {
            it.number(1, into);
            it.number(2, CONNECTION_MARK);
        })
    }

    pub fn set_connection_mark(&mut self, from: u32) -> &mut Self {
        self.add("ct", |it| {
            it.number(2, CONNECTION_MARK);
            it.number(4, from);
        })
    }

    pub fn payload(&mut self, field: Field, into: u32) -> &mut Self {
        // (base, offset, len): 1 is the network header, 2 the transport header.
        let (base, offset, len) = match field {
            Field::Source => (1, 12, 4),
            Field::Destination => (1, 16, 4),
            Field::DestinationPort => (2, 2, 2),
        };
        self.add("payload", |it| {
            it.number(1, into);
            it.number(2, base);
            it.number(3, offset);
            it.number(4, len);
        })
    }

    pub fn compare(&mut self, register: u32, how: Compare, value: &[u8]) -> &mut Self {
        self.add("cmp", |it| {
            it.number(1, register);
            it.number(2, how as u32);
            data(it, 3, value);
        })
    }

    /// `register = register & mask ^ xor`.
    pub fn bits(&mut self, register: u32, mask: [u8; 4], xor: [u8; 4]) -> &mut Self {
        self.add("bitwise", |it| {
            it.number(1, register);
            it.number(2, register);
            it.number(3, 4);
            data(it, 4, &mask);
            data(it, 5, &xor);
        })
    }

    /// The rule ends here unless the key at `register` is in the set.
    pub fn in_set(&mut self, set: &str, register: u32) -> &mut Self {
        self.add("lookup", |it| {
            it.text(1, set);
            it.number(2, register);
        })
    }

    /// Takes the verdict that the map has for the key at `register`, if it has one.
    pub fn verdict_of(&mut self, map: &str, register: u32) -> &mut Self {
        self.value_of(map, register, VERDICT)
    }

    /// Puts what the map has for the key at `register` into `into`.
    pub fn value_of(&mut self, map: &str, register: u32, into: u32) -> &mut Self {
        self.add("lookup", |it| {
            it.text(1, map);
            it.number(2, register);
            it.number(3, into);
        })
    }

    pub fn verdict(&mut self, verdict: Verdict<'_>) -> &mut Self {
        self.add("immediate", |it| {
            it.number(1, VERDICT);
            it.nested(2, |it| verdict_data(it, verdict));
        })
    }

    /// A number below `modulus`, each as likely.
    pub fn random(&mut self, modulus: u32, into: u32) -> &mut Self {
        self.add("numgen", |it| {
            it.number(1, into);
            it.number(2, modulus);
            it.number(3, 1); // NFT_NG_RANDOM
        })
    }

    /// A number below `modulus` that four bytes at `from` decide.
    pub fn hash(&mut self, from: u32, modulus: u32, into: u32) -> &mut Self {
        self.add("hash", |it| {
            it.number(1, from);
            it.number(2, into);
            it.number(3, 4);
            it.number(4, modulus);
            it.number(5, 1); // The seed: the same on all nodes, so that they agree on a client's endpoint.
            it.number(7, 0); // NFT_HASH_JENKINS
        })
    }

    /// What kind of address the destination is for this host; 2 is one of its own.
    pub fn destination_type(&mut self, into: u32) -> &mut Self {
        self.add("fib", |it| {
            it.number(1, into);
            it.number(2, 3); // NFT_FIB_RESULT_ADDRTYPE
            it.number(3, 2); // NFTA_FIB_F_DADDR
        })
    }

    pub fn destination_nat(&mut self, address: u32, port: u32) -> &mut Self {
        self.add("nat", |it| {
            it.number(1, 1); // NFT_NAT_DNAT
            it.number(2, u32::from(FAMILY_IPV4));
            it.number(3, address);
            it.number(5, port);
        })
    }

    pub fn masquerade(&mut self) -> &mut Self {
        self.add("masq", |it| it.number(1, FULLY_RANDOM))
    }

    /// Answers with ICMP "port unreachable".
    pub fn reject(&mut self) -> &mut Self {
        self.add("reject", |it| {
            it.number(1, 0); // NFT_REJECT_ICMP_UNREACH
            it.bytes(2, &[3]);
        })
    }

    /// Answers with a TCP reset.
    pub fn reset(&mut self) -> &mut Self {
        self.add("reject", |it| {
            it.number(1, 1); // NFT_REJECT_TCP_RST
            it.bytes(2, &[0]);
        })
    }
}

/// NFTA_DATA_VALUE inside `kind`.
pub fn data(into: &mut Attributes<'_>, kind: u16, value: &[u8]) {
    into.nested(kind, |it| it.bytes(1, value));
}

/// NFTA_DATA_VERDICT.
pub fn verdict_data(into: &mut Attributes<'_>, verdict: Verdict<'_>) {
    let (code, chain) = match verdict {
        Verdict::Accept => (1_i32, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
    };
    into.nested(2, |it| {
        it.bytes(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            it.text(2, chain);
        }
    });
}
