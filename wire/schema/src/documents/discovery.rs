//! Discovery: which groups, versions and resources there are, in the old form and the aggregated one.
//!
//! Resources of the old form have an empty group and version where these are the list's own, as upstream writes them.

use super::{Root, Served, ServedSubresource};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) fn api_versions(kinds: &[Served], address: &str) -> Value {
    let versions: Vec<&str> = versions_of(kinds, "");
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

pub(super) fn api_groups(kinds: &[Served]) -> Value {
    let groups: Vec<Value> = groups(kinds)
        .filter(|group| !group.is_empty())
        .map(|group| group_entry(kinds, group))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

pub(super) fn api_group(kinds: &[Served], group: &str) -> Option<Value> {
    if group.is_empty() || versions_of(kinds, group).is_empty() {
        return None;
    }
    let mut entry = group_entry(kinds, group);
    entry["kind"] = json!("APIGroup");
    entry["apiVersion"] = json!("v1");
    Some(entry)
}

fn group_entry(kinds: &[Served], group: &str) -> Value {
    let versions: Vec<Value> = versions_of(kinds, group)
        .into_iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "preferredVersion": versions[0], "versions": versions })
}

pub(super) fn api_resources<'a>(kinds: impl Iterator<Item = &'a Served>) -> Option<Value> {
    let mut resources = Vec::new();
    let mut group_version = None;
    for kind in kinds {
        group_version = Some(match kind.group.as_str() {
            "" => kind.version.clone(),
            group => format!("{group}/{}", kind.version),
        });
        resources.push(resource_entry(kind));
        resources.extend(kind.subresources.iter().map(|sub| subresource_entry(kind, sub)));
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version?,
        "resources": resources,
    }))
}

fn resource_entry(kind: &Served) -> Value {
    let mut entry = json!({
        "name": kind.resource,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    entry
}

fn subresource_entry(kind: &Served, subresource: &ServedSubresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", kind.resource, subresource.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": subresource.kind,
        "verbs": subresource.verbs,
    });
    if let Some((group, version)) = &subresource.group_version {
        entry["group"] = json!(group);
        entry["version"] = json!(version);
    }
    entry
}

pub(super) fn aggregated(kinds: &[Served], root: Root) -> Value {
    let wanted = |group: &&str| group.is_empty() == (root == Root::Core);
    let items: Vec<Value> = groups(kinds)
        .filter(wanted)
        .map(|group| {
            let versions: Vec<Value> = versions_of(kinds, group)
                .into_iter()
                .map(|version| aggregated_version(kinds, group, version))
                .collect();
            let metadata = match group {
                "" => json!({}),
                group => json!({ "name": group }),
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_version(kinds: &[Served], group: &str, version: &str) -> Value {
    let resources: Vec<Value> = kinds
        .iter()
        .filter(|kind| kind.group == group && kind.version == version)
        .map(aggregated_resource)
        .collect();
    json!({ "version": version, "resources": resources, "freshness": "Current" })
}

fn aggregated_resource(kind: &Served) -> Value {
    let mut entry = json!({
        "resource": kind.resource,
        "responseKind": response_kind("", "", &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    let fields: &mut Map<String, Value> =
        entry.as_object_mut().expect("it was made an object above");
    let mut lists = BTreeMap::new();
    lists.insert("shortNames", json!(kind.short_names));
    lists.insert("categories", json!(kind.categories));
    let subresources = kind.subresources.iter().map(|subresource| {
        let (group, version) = subresource.group_version.clone().unwrap_or_default();
        json!({
            "subresource": subresource.name,
            "responseKind": response_kind(&group, &version, &subresource.kind),
            "verbs": subresource.verbs,
        })
    });
    lists.insert("subresources", Value::Array(subresources.collect()));
    for (name, list) in lists {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            fields.insert(name.to_owned(), list);
        }
    }
    entry
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

fn groups(kinds: &[Served]) -> impl Iterator<Item = &str> {
    let names: std::collections::BTreeSet<&str> =
        kinds.iter().map(|kind| kind.group.as_str()).collect();
    names.into_iter()
}

/// Stable versions first, newest first, as clients prefer them.
fn versions_of<'a>(kinds: &'a [Served], group: &str) -> Vec<&'a str> {
    let of_group = kinds.iter().filter(|kind| kind.group == group);
    let names: std::collections::BTreeSet<&str> =
        of_group.map(|kind| kind.version.as_str()).collect();
    let mut versions: Vec<&str> = names.into_iter().collect();
    versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    versions
}

/// `v2` > `v1` > `v1beta2` > `v1beta1` > `v1alpha1`.
fn priority(version: &str) -> (u8, u32, u32) {
    let rest = version.trim_start_matches('v');
    let number = |text: &str| text.parse().unwrap_or(0);
    match (rest.split_once("beta"), rest.split_once("alpha")) {
        (Some((major, minor)), _) => (1, number(major), number(minor)),
        (_, Some((major, minor))) => (0, number(major), number(minor)),
        _ => (2, number(rest), 0),
    }
}
