//! What the cluster's names mean: services, endpoints, pods, and back from addresses.
//!
//! Pure. Schema: kubernetes/dns specification 1.1.0, as CoreDNS's kubernetes plugin serves it. A name that exists
//! without the asked type is "no data", never "no such name": resolvers would stop looking for its other types.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::cidr::Cidr;
use crate::ipam::Protocol;
use crate::view::{Endpoint, ObjectName, Service, View};

/// As CoreDNS's default: short, because endpoints come and go.
const TTL_SECONDS: u32 = 5;

/// The cluster's domain.
#[derive(Debug, Clone)]
pub struct Zone {
    domain: Name,
    /// Lower case, from the front.
    labels: Vec<String>,
    service_cidr: Cidr,
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    NoData,
    NoSuchName,
    /// Not a name of this cluster.
    Elsewhere,
}

/// An endpoint's own name under its service, and where it is.
struct Member<'a> {
    label: String,
    endpoint: &'a Endpoint,
}

impl Zone {
    /// `Err` says what is wrong with the domain.
    pub fn new(domain: &str, service_cidr: Cidr) -> Result<Self, String> {
        let mut domain = Name::from_ascii(domain).map_err(|it| it.to_string())?.to_lowercase();
        domain.set_fqdn(true);
        let labels = labels_of(&domain);
        if labels.is_empty() {
            return Err("the cluster's domain may not be the root".to_owned());
        }
        Ok(Self { domain, labels, service_cidr })
    }

    pub fn answer(&self, view: &View, name: &Name, kind: RecordType) -> Answer {
        let labels = labels_of(name);
        if let Some(inner) = labels.strip_suffix(self.labels.as_slice()) {
            let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
            return self.inside(view, name, (&inner, kind));
        }
        match address_of(&labels) {
            Some(address) => self.reverse(view, name, (address, kind)),
            None => Answer::Elsewhere,
        }
    }

    /// Says who is the authority, with how long "no" may be remembered.
    pub fn authority(&self) -> Record {
        let at = |label: &str| self.name(&[label]);
        let (server, contact) = (self.name(&["ns", "dns"]), at("hostmaster"));
        let seconds = i32::try_from(TTL_SECONDS).expect("a small literal");
        let soa = SOA::new(server, contact, 1, 7200, 1800, 86400, seconds.unsigned_abs());
        Record::from_rdata(self.domain.clone(), TTL_SECONDS, RData::SOA(soa))
    }

    fn inside(&self, view: &View, name: &Name, (inner, kind): (&[&str], RecordType)) -> Answer {
        match inner {
            [] if kind == RecordType::SOA => records(vec![self.authority()]),
            [] | ["svc"] | ["pod"] | ["dns"] => Answer::NoData,
            ["ns", "dns"] => Answer::NoData,
            ["dns-version"] if kind == RecordType::TXT => {
                let text = TXT::new(vec!["1.1.0".to_owned()]);
                records(vec![Record::from_rdata(name.clone(), TTL_SECONDS, RData::TXT(text))])
            }
            ["dns-version"] => Answer::NoData,
            [namespace, "svc"] => {
                let known = view.services().any(|(it, _)| it.0 == *namespace);
                if known { Answer::NoData } else { Answer::NoSuchName }
            }
            [pod, _, "pod"] => match dashed(pod) {
                Some(address) => addresses(name, kind, [address]),
                None => Answer::NoSuchName,
            },
            [front @ .., service, namespace, "svc"] => {
                let at = ((*namespace).to_owned(), (*service).to_owned());
                match view.service(&at.0, &at.1) {
                    Some(found) => self.service(view, name, (front, kind), (&at, found)),
                    None => Answer::NoSuchName,
                }
            }
            _ => Answer::NoSuchName,
        }
    }

    fn service(
        &self,
        view: &View,
        name: &Name,
        (front, kind): (&[&str], RecordType),
        (at, service): (&ObjectName, &Service),
    ) -> Answer {
        if let Some(target) = &service.external_name {
            return match (front, Name::from_ascii(target)) {
                ([], Ok(mut target)) => {
                    target.set_fqdn(true);
                    let alias = RData::CNAME(CNAME(target));
                    records(vec![Record::from_rdata(name.clone(), TTL_SECONDS, alias)])
                }
                _ => Answer::NoSuchName,
            };
        }
        let members = || members(view, at, service);
        match (front, service.cluster_ip) {
            ([], Some(address)) => addresses(name, kind, [address]),
            ([], None) => {
                let all = members();
                if all.is_empty() {
                    return Answer::NoSuchName; // As CoreDNS: a headless service is its endpoints.
                }
                addresses(name, kind, all.iter().map(|it| it.endpoint.address))
            }
            ([port, protocol], _) if port.starts_with('_') && protocol.starts_with('_') => {
                self.ports(view, name, (&port[1..], &protocol[1..], kind), (at, service))
            }
            ([label], _) => {
                let all = members();
                let found = all.iter().filter(|it| it.label == *label);
                let found: Vec<Ipv4Addr> = found.map(|it| it.endpoint.address).collect();
                if found.is_empty() {
                    return Answer::NoSuchName;
                }
                addresses(name, kind, found)
            }
            _ => Answer::NoSuchName,
        }
    }

    /// `_port._protocol.service`: where and on which number.
    fn ports(
        &self,
        view: &View,
        name: &Name,
        (port, protocol, kind): (&str, &str, RecordType),
        (at, service): (&ObjectName, &Service),
    ) -> Answer {
        let fits = |of: &str, it: Protocol| of == port && it.name() == protocol;
        // The target's label under the service (empty for itself), its address, its port.
        let mut targets: BTreeSet<(String, Ipv4Addr, u16)> = BTreeSet::new();
        if let Some(address) = service.cluster_ip {
            let ports = service.ports.iter().filter(|it| fits(&it.name, it.protocol));
            targets.extend(ports.map(|it| (String::new(), address, it.port)));
        } else {
            for slice in view.slices_of(at) {
                for port in slice.ports.iter().filter(|it| fits(&it.name, it.protocol)) {
                    let served = slice.endpoints.iter().filter(|it| is_served(it, service));
                    targets.extend(served.map(|it| (label_of(it), it.address, port.port)));
                }
            }
        }
        if targets.is_empty() {
            return Answer::NoSuchName;
        }
        if kind != RecordType::SRV && kind != RecordType::ANY {
            return Answer::NoData;
        }
        let n = u16::try_from(targets.len()).unwrap_or(u16::MAX);
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for (label, address, port) in targets {
            let under = [label.as_str(), at.1.as_str(), at.0.as_str(), "svc"];
            let target = self.name(&under[usize::from(label.is_empty())..]);
            let srv = RData::SRV(SRV::new(0, (100 / n).max(1), port, target.clone()));
            answers.push(Record::from_rdata(name.clone(), TTL_SECONDS, srv));
            additionals.push(Record::from_rdata(target, TTL_SECONDS, RData::A(A(address))));
        }
        Answer::Records { answers, additionals }
    }

    fn reverse(&self, view: &View, name: &Name, (address, kind): (Ipv4Addr, RecordType)) -> Answer {
        let mut names: BTreeSet<Vec<String>> = BTreeSet::new();
        for (at, service) in view.services() {
            let under = |label: Option<&str>| {
                let tail = [at.1.as_str(), at.0.as_str(), "svc"];
                label.into_iter().chain(tail).map(str::to_owned).collect::<Vec<_>>()
            };
            if service.cluster_ip == Some(address) {
                names.insert(under(None));
            }
            if !service.is_headless() {
                continue;
            }
            for slice in view.slices_of(at) {
                let here = slice.endpoints.iter().filter(|it| it.address == address);
                for endpoint in here.filter(|it| is_served(it, service)) {
                    names.extend(endpoint.hostname.as_deref().map(|it| under(Some(it))));
                }
            }
        }
        if names.is_empty() {
            let ours = self.service_cidr.contains(address);
            return if ours { Answer::NoSuchName } else { Answer::Elsewhere };
        }
        if kind != RecordType::PTR && kind != RecordType::ANY {
            return Answer::NoData;
        }
        let pointer = |labels: &Vec<String>| {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            let target = RData::PTR(PTR(self.name(&labels)));
            Record::from_rdata(name.clone(), TTL_SECONDS, target)
        };
        records(names.iter().map(pointer).collect())
    }

    /// A name in the zone. Labels come from object names, which are valid in DNS; what is too long is cut off.
    fn name(&self, labels: &[&str]) -> Name {
        let local = Name::from_labels(labels.iter().map(|it| it.as_bytes()));
        let whole = local.and_then(|it| it.append_domain(&self.domain));
        whole.unwrap_or_else(|_| self.domain.clone())
    }
}

fn labels_of(name: &Name) -> Vec<String> {
    name.iter().map(|it| String::from_utf8_lossy(it).to_ascii_lowercase()).collect()
}

fn records(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

fn addresses(
    name: &Name,
    kind: RecordType,
    addresses: impl IntoIterator<Item = Ipv4Addr>,
) -> Answer {
    if kind != RecordType::A && kind != RecordType::ANY {
        return Answer::NoData;
    }
    let unique: BTreeSet<Ipv4Addr> = addresses.into_iter().collect();
    let record = |it| Record::from_rdata(name.clone(), TTL_SECONDS, RData::A(A(it)));
    records(unique.into_iter().map(record).collect())
}

fn is_served(endpoint: &Endpoint, service: &Service) -> bool {
    endpoint.ready || service.publish_not_ready
}

fn members<'a>(view: &'a View, at: &'a ObjectName, service: &Service) -> Vec<Member<'a>> {
    let endpoints = view.slices_of(at).flat_map(|it| &it.endpoints);
    let served = endpoints.filter(|it| is_served(it, service));
    served.map(|endpoint| Member { label: label_of(endpoint), endpoint }).collect()
}

/// An endpoint's hostname, or its address with dashes.
fn label_of(endpoint: &Endpoint) -> String {
    let dashed = || endpoint.address.to_string().replace('.', "-");
    endpoint.hostname.clone().unwrap_or_else(dashed)
}

/// `10-244-0-2`.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// `7.0.96.10.in-addr.arpa`.
fn address_of(labels: &[String]) -> Option<Ipv4Addr> {
    let digits = labels.strip_suffix(&["in-addr".to_owned(), "arpa".to_owned()])?;
    let forward: Vec<&str> = digits.iter().rev().map(String::as_str).collect();
    forward.join(".").parse().ok()
}

#[cfg(test)]
mod tests;
