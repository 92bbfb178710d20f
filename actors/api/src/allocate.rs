//! Service addresses and node ports: each is a key of its own, taken and given back with the Service.
//!
//! Two Services can't have one address because both would create the same key, and a transaction holds the Service
//! and its keys. There is no allocator to repair, and no bitmap to disagree with the objects. What is free is tried
//! at random on the local state; a lost race is decided again. `/kactor.internal/clusterips//10.96.0.10` and
//! `/kactor.internal/nodeports//30080` hold `{"service":"namespace/name"}` under the Service's uid.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kactor_objects::kinds::service::{default_ip_families, wants_cluster_ip, wants_node_ports};
use kactor_objects::registry::Kind;
use kactor_objects::status::Status;
use kactor_objects::{FieldError, Path, meta, tree};
use kactor_protocol::ids::Uid;
use kactor_protocol::store::{Key, Precondition, Value as StoreValue, Write};
use serde_json::{Value, json};

use crate::api::Api;
use crate::delete::remove_owned;

/// The group of keys that the API keeps for itself; no kind has it.
pub const INTERNAL_GROUP: &str = "kactor.internal";
/// Random tries before every address is tried in order.
const TRIES: u32 = 32;

/// The key that every binding to the node and every end of a pod on it touches; the scheduler guards on its revision.
pub fn allocation_key(node: &str) -> Option<Key> {
    Key::new(INTERNAL_GROUP, "allocations", "", node).ok()
}

/// Fills in what the Service needs and gives the writes that take it, and give back what `old` no longer needs.
pub(crate) fn service(
    api: &Api,
    kind: &Kind,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<Vec<Write>, Status> {
    let mut errors = Vec::new();
    let held = old.map(held_by).unwrap_or_default();
    let mut taken = BTreeSet::new();
    if wants_cluster_ip(new) {
        assign_address(api, kind, new, &held, &mut errors)?;
    }
    if wants_node_ports(new) {
        assign_ports(api, kind, new, &held, &mut taken, &mut errors)?;
    }
    if !errors.is_empty() {
        return Err(Status::invalid(kind, meta::name(new), &errors));
    }
    let wanted = held_by(new);
    let uid = Uid::from(meta::uid(new));
    let owner = json!({"service": meta::full_name(new)}).to_string();
    let put = |key: &Key| Write::Put {
        key: key.clone(),
        precondition: Precondition::Absent,
        value: StoreValue {
            storage_version: 1,
            flags: 0,
            uid: uid.clone(),
            body: owner.clone().into(),
        },
        expires_at: None,
    };
    let mut writes: Vec<Write> = wanted.difference(&held).map(put).collect();
    writes.extend(held.difference(&wanted).map(|key| remove_owned(key.clone(), uid.as_str())));
    Ok(writes)
}

/// Gives back everything that a deleted Service held.
pub(crate) fn release_service(old: &Value) -> Vec<Write> {
    held_by(old).into_iter().map(|key| remove_owned(key, meta::uid(old))).collect()
}

/// The keys of what the Service names.
fn held_by(service: &Value) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    for address in tree::list(service, "spec.clusterIPs").iter().filter_map(Value::as_str) {
        keys.extend(address.parse().ok().and_then(address_key));
    }
    let address = tree::text(service, "spec.clusterIP");
    keys.extend(address.parse().ok().and_then(address_key));
    for port in tree::list(service, "spec.ports") {
        let port = tree::integer(port, "nodePort").filter(|it| *it > 0);
        keys.extend(port.and_then(port_key));
    }
    keys
}

fn address_key(address: Ipv4Addr) -> Option<Key> {
    Key::new(INTERNAL_GROUP, "clusterips", "", &address.to_string()).ok()
}

fn port_key(port: i64) -> Option<Key> {
    Key::new(INTERNAL_GROUP, "nodeports", "", &port.to_string()).ok()
}

fn assign_address(
    api: &Api,
    kind: &Kind,
    new: &mut Value,
    held: &BTreeSet<Key>,
    errors: &mut Vec<FieldError>,
) -> Result<(), Status> {
    let range = api.config().service_range;
    let wanted = tree::text(new, "spec.clusterIP").to_owned();
    let free = |address: Ipv4Addr| {
        address_key(address)
            .is_some_and(|key| held.contains(&key) || api.store().get(&key).is_none())
    };
    let path = || Path::new("spec.clusterIPs");
    let address = if wanted.is_empty() {
        // Addresses that people choose lie in the lower band, which is drawn from only when the rest is taken.
        let band = range.static_band();
        let upper = u64::from(range.len() - band);
        let random = (0..TRIES).map(|_| band + (api.env().random_u64() % upper) as u32);
        let all = random.chain(band..range.len()).chain(1..band);
        all.map(|it| range.nth(it)).find(|it| free(*it)).ok_or_else(|| {
            Status::internal(&format!(
                "failed to allocate a serviceIP for {}: range {range} is full",
                kind.kind
            ))
        })?
    } else {
        let Some(address) = wanted.parse().ok().filter(|it| range.contains(*it)) else {
            let detail = format!(
                "failed to allocate IP {wanted}: the provided IP is not in the valid range. The range of valid IPs is {range}"
            );
            errors.push(FieldError::invalid(path(), json!([wanted]), detail));
            return Ok(());
        };
        if !free(address) {
            let detail =
                format!("failed to allocate IP {wanted}: provided IP is already allocated");
            errors.push(FieldError::invalid(path(), json!([wanted]), detail));
            return Ok(());
        }
        address
    };
    tree::put(new, "spec.clusterIP", address.to_string());
    tree::put(new, "spec.clusterIPs", json!([address.to_string()]));
    default_ip_families(new);
    Ok(())
}

fn assign_ports(
    api: &Api,
    kind: &Kind,
    new: &mut Value,
    held: &BTreeSet<Key>,
    taken: &mut BTreeSet<Key>,
    errors: &mut Vec<FieldError>,
) -> Result<(), Status> {
    let range = api.config().node_ports.clone();
    let (first, last) = (i64::from(*range.start()), i64::from(*range.end()));
    let free = |port: i64| {
        port_key(port).is_some_and(|key| held.contains(&key) || api.store().get(&key).is_none())
    };
    taken.extend(
        tree::list(new, "spec.ports")
            .iter()
            .filter_map(|it| port_key(tree::integer(it, "nodePort")?)),
    );
    let name = meta::name(new).to_owned();
    for (index, port) in tree::each_mut(new, "spec.ports").enumerate() {
        let path = Path::new("spec.ports").index(index).child("nodePort");
        match tree::integer(port, "nodePort").filter(|it| *it > 0) {
            Some(wanted) if !(first..=last).contains(&wanted) => {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                );
                errors.push(FieldError::invalid(path, wanted, detail));
            }
            Some(wanted) if !free(wanted) => {
                errors.push(FieldError::invalid(
                    path,
                    wanted,
                    "provided port is already allocated",
                ));
            }
            Some(_) => {}
            None => {
                let span = last - first + 1;
                let random = (0..TRIES)
                    .map(|_| first + (api.env().random_u64() % span.unsigned_abs()) as i64);
                let unused =
                    |it: &i64| free(*it) && port_key(*it).is_some_and(|key| !taken.contains(&key));
                let found = random.chain(first..=last).find(unused).ok_or_else(|| {
                    Status::internal(&format!(
                        "failed to allocate a nodePort for {} {name}: range is full",
                        kind.kind
                    ))
                })?;
                taken.extend(port_key(found));
                tree::put(port, "nodePort", found);
            }
        }
    }
    Ok(())
}
