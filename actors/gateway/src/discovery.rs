//! Discovery: which groups, versions and resources there are, one by one and aggregated.
//!
//! Made from the kinds registry alone, so that what is not served is not announced. Aggregated discovery
//! (KEP-3352) is asked for by the media type `as=APIGroupDiscoveryList`; clients that do not know it get the old
//! lists from the same paths.

use kactor_objects::registry::{Kind, Subresource, registry};
use serde_json::{Value, json};

/// `/api`. `address` is where this server is reached.
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`
pub fn groups() -> Value {
    let groups: Vec<Value> =
        group_names().into_iter().filter(|it| !it.is_empty()).map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`
pub fn group(name: &str) -> Option<Value> {
    let name = group_names().into_iter().find(|it| *it == name && !it.is_empty())?;
    let mut entry = group_entry(name);
    entry["kind"] = json!("APIGroup");
    entry["apiVersion"] = json!("v1");
    Some(entry)
}

fn group_names() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for (group, _) in registry().group_versions() {
        if !names.contains(&group) {
            names.push(group);
        }
    }
    names
}

fn versions_of(group: &str) -> Vec<&'static str> {
    registry()
        .group_versions()
        .into_iter()
        .filter(|(it, _)| *it == group)
        .map(|(_, version)| version)
        .collect()
}

fn group_entry(name: &str) -> Value {
    let versions: Vec<Value> = versions_of(name)
        .into_iter()
        .map(|it| json!({"groupVersion": format!("{name}/{it}"), "version": it}))
        .collect();
    json!({"name": name, "preferredVersion": versions[0], "versions": versions})
}

fn kinds_of(group: &str, version: &str) -> Vec<&'static Kind> {
    let mut kinds: Vec<_> =
        registry().iter().filter(|it| it.group == group && it.version == version).collect();
    kinds.sort_by_key(|it| it.resource);
    kinds
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let kinds = kinds_of(group, version);
    let api_version = kinds.first()?.api_version();
    let mut rows = Vec::new();
    for kind in kinds {
        rows.push(resource_row(kind));
        rows.extend(kind.subresources.iter().map(|it| subresource_row(kind, it)));
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": rows,
    }))
}

fn resource_row(kind: &Kind) -> Value {
    let mut row = json!({
        "name": kind.resource,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced(),
        "kind": kind.kind,
        "verbs": verbs(kind),
    });
    add_names(&mut row, kind);
    row
}

fn add_names(row: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        row["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        row["categories"] = json!(kind.categories);
    }
}

fn verbs(kind: &Kind) -> Vec<&'static str> {
    kind.verbs.iter().map(|it| it.as_str()).collect()
}

fn verbs_of(sub: &Subresource) -> Vec<&'static str> {
    sub.verbs.iter().map(|it| it.as_str()).collect()
}

fn subresource_row(kind: &Kind, sub: &Subresource) -> Value {
    let mut row = json!({
        "name": format!("{}/{}", kind.resource, sub.name),
        "singularName": "",
        "namespaced": kind.is_namespaced(),
        "kind": sub.kind,
        "verbs": verbs_of(sub),
    });
    if (sub.group, sub.version) != (kind.group, kind.version) {
        row["group"] = json!(sub.group);
        row["version"] = json!(sub.version);
    }
    row
}

/// Which of the two roots aggregated discovery is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `/api`
    Core,
    /// `/apis`
    Named,
}

/// `APIGroupDiscoveryList`; `version` is `v2` or `v2beta1`.
pub fn aggregated(root: Root, version: &str) -> Value {
    let items: Vec<Value> = group_names()
        .into_iter()
        .filter(|it| it.is_empty() == (root == Root::Core))
        .map(aggregated_group)
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions_of(group)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> =
                kinds_of(group, version).into_iter().map(aggregated_resource).collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    let metadata = match group {
        "" => json!({"creationTimestamp": null}),
        name => json!({"name": name, "creationTimestamp": null}),
    };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let response = |group: &str, version: &str, kind: &str| {
        json!({"group": group, "version": version, "kind": kind})
    };
    let mut row = json!({
        "resource": kind.resource,
        "responseKind": response(kind.group, kind.version, kind.kind),
        "scope": kind.scope.as_str(),
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    add_names(&mut row, kind);
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|it| {
            json!({
                "subresource": it.name,
                "responseKind": response(it.group, it.version, it.kind),
                "verbs": verbs_of(it),
            })
        })
        .collect();
    if !subresources.is_empty() {
        row["subresources"] = json!(subresources);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registered_kind_is_announced_in_both_forms_and_nothing_else_is() {
        let mut listed = Vec::new();
        for (group, version) in registry().group_versions() {
            let list = resources(group, version).unwrap();
            for row in list["resources"].as_array().unwrap() {
                let name = row["name"].as_str().unwrap();
                assert!(!row["verbs"].as_array().unwrap().is_empty(), "{name} has no verbs");
                if !name.contains('/') {
                    listed.push(format!("{group}/{version}/{name}"));
                }
            }
        }
        let mut aggregate = Vec::new();
        for root in [Root::Core, Root::Named] {
            for item in aggregated(root, "v2")["items"].as_array().unwrap() {
                let group = item["metadata"]["name"].as_str().unwrap_or_default();
                for version in item["versions"].as_array().unwrap() {
                    for row in version["resources"].as_array().unwrap() {
                        let version = version["version"].as_str().unwrap();
                        let name = row["resource"].as_str().unwrap();
                        aggregate.push(format!("{group}/{version}/{name}"));
                    }
                }
            }
        }
        listed.sort();
        aggregate.sort();
        assert_eq!(listed, aggregate);
        assert_eq!(listed.len(), registry().iter().count());
        assert!(resources("", "v2").is_none());
        assert!(group("nonsense.k8s.io").is_none());
    }

    #[test]
    fn pods_are_described_as_kubernetes_describes_them() {
        let list = resources("", "v1").unwrap();
        let pods = list["resources"].as_array().unwrap().iter().find(|it| it["name"] == "pods");
        let pods = pods.unwrap();
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert_eq!(pods["categories"], json!(["all"]));
        assert_eq!((pods["kind"].as_str(), pods["namespaced"].as_bool()), (Some("Pod"), Some(true)));
        let group = group("apps").unwrap();
        assert_eq!(group["preferredVersion"]["groupVersion"], "apps/v1");
    }
}
