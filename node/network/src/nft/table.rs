//! A `Ruleset` as messages: the chains and maps of one table of family `ip`.
//!
//! Shape (kube-proxy's nftables mode, thinned): `prerouting` and `output` jump to `services`, which looks the
//! destination up in two verdict maps, one by address and one by node port; each service port has a chain with one
//! rule, "pick a number, look its endpoint up, translate". `postrouting` masquerades. What still goes to the
//! services' network after translation belongs to nobody and is refused in `forward` and `refuse-own`.
//! Invariant: the table is made, deleted and made again in one batch, so no packet sees half of it.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::expression::{Compare, FIRST, Field, Meta, Rule, Verdict, data, verdict_data, word};
use super::message::{Attributes, Batch, CREATE, request};
use crate::cidr::Cidr;
use crate::ipam::Protocol;
use crate::ruleset::{Balance, Ruleset, Source};
use crate::view::Affinity;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const APPEND: u16 = 0x800;
const SET_IS_MAP: u32 = 8;
/// Data types as `nft list` prints them; the kernel keeps them unread.
const TYPE_NUMBER: u32 = 4;
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// Elements in one message: a list's length field has 16 bits, an element at most 350 bytes.
const ELEMENTS_PER_MESSAGE: usize = 128;
/// The bit of the packet's mark that asks for masquerading; Kubernetes' own.
pub const MASQUERADE_MARK: u32 = 0x4000;

const BY_ADDRESS: &str = "service-addresses";
const BY_NODE_PORT: &str = "service-node-ports";
const PODS: &str = "pods";

pub fn create_table(name: &str, batch: &mut Batch) {
    batch.message(NEW_TABLE, CREATE, format!("table {name}"), |it| it.text(1, name));
}

pub fn delete_table(name: &str, batch: &mut Batch) {
    batch.message(DELETE_TABLE, 0, format!("delete table {name}"), |it| it.text(1, name));
}

pub fn get_table(name: &str) -> Vec<u8> {
    request(GET_TABLE, |it| it.text(1, name))
}

/// Replaces the table.
pub fn write(rules: &Ruleset, batch: &mut Batch) {
    create_table(&rules.table, batch);
    delete_table(&rules.table, batch);
    create_table(&rules.table, batch);
    let mut table = Table { name: &rules.table, batch, n_sets: 0 };
    table.base_chains();
    rules.chains.keys().for_each(|it| table.chain(it, None));
    table.lookups(rules);
    for (name, balance) in &rules.chains {
        table.balance(name, balance, rules.pod_cidr);
    }
    table.service_rules();
    table.postrouting_rules(rules);
    table.refusals(rules, "forward");
    table.refusals(rules, "refuse-own");
}

struct Table<'a> {
    name: &'a str,
    batch: &'a mut Batch,
    n_sets: u32,
}

/// Where a chain is called from: its type, the hook's number (prerouting 0, forward 2, output 3, postrouting 4), priority.
type Hook = (&'static str, u32, i32);

/// What a set has for a key.
enum Data {
    None,
    Verdict(String),
    Bytes(Vec<u8>),
}

/// What a set is of: key type and length, data type and length if it is a map.
struct Shape {
    key: (u32, u32),
    data: Option<(u32, u32)>,
}

impl Table<'_> {
    fn base_chains(&mut self) {
        self.chain("services", None);
        self.chain("prerouting", Some(("nat", 0, -100)));
        self.chain("output", Some(("nat", 3, -100)));
        self.chain("postrouting", Some(("nat", 4, 100)));
        self.chain("forward", Some(("filter", 2, 0)));
        self.chain("refuse-own", Some(("filter", 3, 0)));
    }

    fn chain(&mut self, chain: &str, hook: Option<Hook>) {
        let table = self.name;
        self.batch.message(NEW_CHAIN, CREATE, format!("chain {chain}"), |it| {
            it.text(1, table);
            it.text(3, chain);
            if let Some((kind, number, priority)) = hook {
                it.nested(4, |it| {
                    it.number(1, number);
                    it.bytes(2, &priority.to_be_bytes());
                });
                it.number(5, 1); // NF_ACCEPT what no rule decides.
                it.text(7, kind);
            }
        });
    }

    fn rule(&mut self, chain: &str, body: impl FnOnce(&mut Rule<'_, '_>)) {
        let table = self.name;
        self.batch.message(NEW_RULE, CREATE | APPEND, format!("a rule of chain {chain}"), |it| {
            it.text(1, table);
            it.text(2, chain);
            it.nested(4, |it| body(&mut Rule(it)));
        });
    }

    fn set(&mut self, set: &str, shape: &Shape, elements: &[(Vec<u8>, Data)]) {
        let (table, id) = (self.name, self.n_sets);
        self.n_sets += 1;
        self.batch.message(NEW_SET, CREATE, format!("set {set}"), |it| {
            it.text(1, table);
            it.text(2, set);
            it.number(3, if shape.data.is_some() { SET_IS_MAP } else { 0 });
            it.number(4, shape.key.0);
            it.number(5, shape.key.1);
            if let Some((kind, len)) = shape.data {
                it.number(6, kind);
                if kind != TYPE_VERDICT {
                    it.number(7, len);
                }
            }
            it.number(10, id);
        });
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.batch.message(NEW_ELEMENTS, CREATE, format!("elements of set {set}"), |it| {
                it.text(1, table);
                it.text(2, set);
                it.nested(3, |it| part.iter().for_each(|element| write_element(it, element)));
            });
        }
    }

    fn lookups(&mut self, rules: &Ruleset) {
        let goto = |chain: &String| Data::Verdict(chain.clone());
        let by_address = rules.addresses.iter().map(|((address, protocol, port), chain)| {
            let key = [address.octets(), padded(&[protocol.number()]), padded(&port.to_be_bytes())];
            (key.concat(), goto(chain))
        });
        let key = TYPE_ADDRESS << 12 | TYPE_PROTOCOL << 6 | TYPE_PORT;
        let shape = Shape { key: (key, 12), data: Some((TYPE_VERDICT, 0)) };
        self.set(BY_ADDRESS, &shape, &by_address.collect::<Vec<_>>());
        let by_port = rules.node_ports.iter().map(|((protocol, port), chain)| {
            let key = [padded(&[protocol.number()]), padded(&port.to_be_bytes())];
            (key.concat(), goto(chain))
        });
        let shape =
            Shape { key: (TYPE_PROTOCOL << 6 | TYPE_PORT, 8), data: Some((TYPE_VERDICT, 0)) };
        self.set(BY_NODE_PORT, &shape, &by_port.collect::<Vec<_>>());
        let pods = rules.pods.iter().map(|it| ([it.octets(), it.octets()].concat(), Data::None));
        let shape = Shape { key: (TYPE_ADDRESS << 6 | TYPE_ADDRESS, 8), data: None };
        self.set(PODS, &shape, &pods.collect::<Vec<_>>());
    }

    /// Spreads connections over the endpoints.
    fn balance(&mut self, chain: &str, balance: &Balance, pod_cidr: Cidr) {
        let map = format!("{chain}.endpoints");
        let element = |(index, at): (usize, &SocketAddrV4)| {
            let index = u32::try_from(index).expect("`ENDPOINTS_MAX` is far below");
            let value = [at.ip().octets(), padded(&at.port().to_be_bytes())].concat();
            (index.to_ne_bytes().to_vec(), Data::Bytes(value))
        };
        let elements: Vec<_> = balance.endpoints.iter().enumerate().map(element).collect();
        let value = (TYPE_ADDRESS << 6 | TYPE_PORT, 8);
        self.set(&map, &Shape { key: (TYPE_NUMBER, 4), data: Some(value) }, &elements);
        if balance.source == Source::Masqueraded {
            let mark = MASQUERADE_MARK;
            self.rule(chain, |it| {
                address_in(it, Field::Source, pod_cidr, Compare::Differs);
                it.meta(Meta::Mark, FIRST);
                it.bits(FIRST, (!mark).to_ne_bytes(), mark.to_ne_bytes());
                it.set_meta(Meta::Mark, FIRST);
                // By this `forwarding` knows it where another program closes the host.
                it.connection_mark(FIRST);
                it.bits(FIRST, (!mark).to_ne_bytes(), mark.to_ne_bytes());
                it.set_connection_mark(FIRST);
            });
        }
        let n = u32::try_from(elements.len()).expect("`ENDPOINTS_MAX` is far below");
        self.rule(chain, |it| {
            // The kernel translates ports only behind a check of the protocol.
            it.meta(Meta::Protocol, FIRST);
            it.compare(FIRST, Compare::Equal, &[balance.protocol.number()]);
            match balance.affinity {
                Affinity::None => it.random(n, FIRST),
                Affinity::ClientIp => it.payload(Field::Source, word(1)).hash(word(1), n, FIRST),
            };
            it.value_of(&map, FIRST, FIRST).destination_nat(FIRST, word(1));
        });
    }

    fn service_rules(&mut self) {
        self.rule("services", |it| {
            it.payload(Field::Destination, FIRST);
            it.meta(Meta::Protocol, word(1)).payload(Field::DestinationPort, word(2));
            it.verdict_of(BY_ADDRESS, FIRST);
        });
        self.rule("services", |it| {
            const LOCAL: u32 = 2; // RTN_LOCAL
            it.destination_type(FIRST).compare(FIRST, Compare::Equal, &LOCAL.to_ne_bytes());
            let loopback = "127.0.0.0/8".parse().expect("a literal network");
            address_in(it, Field::Destination, loopback, Compare::Differs);
            it.meta(Meta::Protocol, FIRST).payload(Field::DestinationPort, word(1));
            it.verdict_of(BY_NODE_PORT, FIRST);
        });
        for hook in ["prerouting", "output"] {
            self.rule(hook, |it| {
                it.verdict(Verdict::Jump("services"));
            });
        }
    }

    fn postrouting_rules(&mut self, rules: &Ruleset) {
        let mark = MASQUERADE_MARK;
        self.rule("postrouting", |it| {
            it.meta(Meta::Mark, FIRST).bits(FIRST, mark.to_ne_bytes(), [0; 4]);
            it.compare(FIRST, Compare::Equal, &mark.to_ne_bytes());
            it.meta(Meta::Mark, FIRST).bits(FIRST, (!mark).to_ne_bytes(), [0; 4]);
            it.set_meta(Meta::Mark, FIRST).masquerade();
        });
        // A pod that met itself behind a service would answer itself directly, past the translation.
        self.rule("postrouting", |it| {
            it.payload(Field::Source, FIRST).payload(Field::Destination, word(1));
            it.in_set(PODS, FIRST).masquerade();
        });
        for cidr in &rules.pod_cidrs {
            self.rule("postrouting", |it| {
                address_in(it, Field::Destination, *cidr, Compare::Equal);
                it.verdict(Verdict::Accept);
            });
        }
        self.rule("postrouting", |it| {
            address_in(it, Field::Source, rules.pod_cidr, Compare::Equal);
            let mut name = [0; 16];
            name[..rules.bridge.len()].copy_from_slice(rules.bridge.as_bytes());
            it.meta(Meta::OutputName, FIRST).compare(FIRST, Compare::Differs, &name);
            it.masquerade();
        });
    }

    fn refusals(&mut self, rules: &Ruleset, chain: &str) {
        self.rule(chain, |it| {
            it.payload(Field::Destination, FIRST);
            it.compare(FIRST, Compare::Equal, &rules.dns_address.octets());
            it.verdict(Verdict::Accept);
        });
        // The kernel spares ICMP for a host that it sends redirects to, and pods are such; a reset always comes.
        self.rule(chain, |it| {
            address_in(it, Field::Destination, rules.service_cidr, Compare::Equal);
            it.meta(Meta::Protocol, FIRST);
            it.compare(FIRST, Compare::Equal, &[Protocol::Tcp.number()]).reset();
        });
        self.rule(chain, |it| {
            address_in(it, Field::Destination, rules.service_cidr, Compare::Equal);
            it.reject();
        });
    }
}

fn write_element(into: &mut Attributes<'_>, (key, value): &(Vec<u8>, Data)) {
    into.nested(1, |it| {
        data(it, 1, key);
        match value {
            Data::None => {}
            Data::Verdict(chain) => it.nested(2, |it| verdict_data(it, Verdict::Goto(chain))),
            Data::Bytes(bytes) => data(it, 2, bytes),
        }
    });
}

fn address_in(rule: &mut Rule<'_, '_>, field: Field, cidr: Cidr, how: Compare) {
    rule.payload(field, FIRST).bits(FIRST, cidr.mask().octets(), Ipv4Addr::UNSPECIFIED.octets());
    rule.compare(FIRST, how, &cidr.network().octets());
}

/// Fields of a key fill whole registers.
fn padded(bytes: &[u8]) -> [u8; 4] {
    let mut out = [0; 4];
    out[..bytes.len()].copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests;
