//! Policy rules: what one allows, and whether one set of rules covers another.
//!
//! Pure and total. Reference: Kubernetes pkg/apis/rbac/v1/evaluation_helpers.go and
//! component-helpers/auth/rbac/validation. Invariant: `covers` never answers yes for a right that `allows` would refuse.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attributes::{Attributes, Target};

/// One rule of a Role or ClusterRole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// The rules of a role object; what is no rule is left out (validation refused it long before).
    pub fn all_of(role: &Value) -> Vec<Rule> {
        let rules = role.get("rules").and_then(Value::as_array);
        rules.into_iter().flatten().filter_map(|it| Rule::deserialize(it).ok()).collect()
    }

    pub fn allows(&self, attributes: &Attributes) -> bool {
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        match &attributes.target {
            Target::Path(path) => self.non_resource_urls.iter().any(|it| path_matches(it, path)),
            Target::Resource(it) => {
                let names_match = self.resource_names.is_empty()
                    || it.name.as_ref().is_some_and(|name| self.resource_names.contains(name));
                names_match
                    && has(&self.api_groups, &it.group)
                    && resource_matches(&self.resources, &it.resource, it.subresource.as_deref())
            }
        }
    }

    /// Whether this rule grants all that `single` (see [`Rule::singles`]) grants.
    fn covers(&self, single: &Rule) -> bool {
        let verbs = covers_all(&self.verbs, &single.verbs);
        if !single.non_resource_urls.is_empty() {
            let one = |wanted: &String| {
                self.non_resource_urls.iter().any(|it| it == wanted || path_matches(it, wanted))
            };
            return verbs && single.non_resource_urls.iter().all(one);
        }
        let names = self.resource_names.is_empty()
            || (!single.resource_names.is_empty()
                && single.resource_names.iter().all(|it| self.resource_names.contains(it)));
        let resource = |wanted: &String| {
            let (name, sub) = match wanted.split_once('/') {
                Some((name, sub)) => (name, Some(sub)),
                None => (wanted.as_str(), None),
            };
            self.resources.iter().any(|it| it == wanted)
                || resource_matches(&self.resources, name, sub)
        };
        verbs
            && names
            && covers_all(&self.api_groups, &single.api_groups)
            && single.resources.iter().all(resource)
    }

    /// This rule as rules with one verb, one group, one resource and at most one name each.
    fn singles(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let base = Rule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        out.push(base.clone());
                    }
                    out.extend(
                        self.resource_names
                            .iter()
                            .map(|it| Rule { resource_names: vec![it.clone()], ..base.clone() }),
                    );
                }
            }
            for url in &self.non_resource_urls {
                out.push(Rule {
                    verbs: vec![verb.clone()],
                    non_resource_urls: vec![url.clone()],
                    ..Rule::default()
                });
            }
        }
        out
    }
}

/// What of `wanted` no rule of `owned` covers; empty when all is covered.
pub fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let singles = wanted.iter().flat_map(Rule::singles);
    compact(singles.filter(|single| !owned.iter().any(|it| it.covers(single))).collect())
}

/// Puts rules that differ only in their verbs together, for messages that a person reads.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = |it: &&mut Rule| {
            it.api_groups == rule.api_groups
                && it.resources == rule.resources
                && it.resource_names == rule.resource_names
                && it.non_resource_urls == rule.non_resource_urls
        };
        match out.iter_mut().find(same) {
            Some(it) => it.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

/// As Kubernetes prints a rule in its refusals: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ];
        let shown = fields.iter().filter(|(_, items)| !items.is_empty()).map(|(name, items)| {
            let quoted: Vec<String> = items.iter().map(|it| format!("{it:?}")).collect();
            format!("{name}:[{}]", quoted.join(" "))
        });
        write!(f, "{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

fn has(allowed: &[String], wanted: &str) -> bool {
    allowed.iter().any(|it| it == "*" || it == wanted)
}

fn covers_all(owned: &[String], wanted: &[String]) -> bool {
    owned.iter().any(|it| it == "*") || wanted.iter().all(|it| owned.contains(it))
}

fn resource_matches(allowed: &[String], resource: &str, subresource: Option<&str>) -> bool {
    allowed.iter().any(|it| {
        if it == "*" {
            return true;
        }
        match (it.split_once('/'), subresource) {
            (None, None) => it == resource,
            (Some((name, sub)), Some(wanted)) => (name == "*" || name == resource) && sub == wanted,
            _ => false,
        }
    })
}

fn path_matches(allowed: &str, path: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => allowed == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Resource, User};

    fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Rule {
        let own = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
        Rule {
            api_groups: own(groups),
            resources: own(resources),
            verbs: own(verbs),
            ..Rule::default()
        }
    }

    fn ask(verb: &str, resource: &str, name: &str) -> Attributes {
        let mut it = Resource::new("", "v1", "");
        match resource.split_once('/') {
            Some((resource, sub)) => {
                it.resource = resource.into();
                it.subresource = Some(sub.into());
            }
            None => it.resource = resource.into(),
        }
        it.name = (!name.is_empty()).then(|| name.to_owned());
        Attributes::new(&User::anonymous(), verb, &it)
    }

    #[test]
    fn a_rule_allows_what_its_lists_and_wildcards_name() {
        let mut named = rule(&[""], &["secrets"], &["get"]);
        named.resource_names = vec!["one".into()];
        for (rule, ask, expected) in [
            (rule(&[""], &["pods"], &["get"]), ask("get", "pods", "a"), true),
            (rule(&[""], &["pods"], &["get"]), ask("list", "pods", ""), false),
            (rule(&["apps"], &["pods"], &["get"]), ask("get", "pods", "a"), false),
            (rule(&["*"], &["*"], &["*"]), ask("get", "pods/log", "a"), true),
            (rule(&[""], &["pods"], &["get"]), ask("get", "pods/log", "a"), false),
            (rule(&[""], &["pods/log"], &["get"]), ask("get", "pods/log", "a"), true),
            (rule(&[""], &["*/scale"], &["get"]), ask("get", "pods/scale", "a"), true),
            (rule(&[""], &["pods/*"], &["get"]), ask("get", "pods/log", "a"), false),
            (named.clone(), ask("get", "secrets", "one"), true),
            (named.clone(), ask("get", "secrets", "two"), false),
            (named, ask("get", "secrets", ""), false),
        ] {
            assert_eq!(rule.allows(&ask), expected, "{rule} {ask:?}");
        }
    }

    #[test]
    fn paths_match_exactly_or_by_a_star_at_the_end() {
        for (allowed, path, expected) in [
            ("*", "/healthz", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/api/*", "/apis", false),
        ] {
            assert_eq!(path_matches(allowed, path), expected, "{allowed} {path}");
        }
    }

    #[test]
    fn rights_are_covered_by_several_rules_together_but_never_by_narrower_ones() {
        let owned = [rule(&[""], &["pods"], &["get", "list"]), rule(&[""], &["secrets"], &["get"])];
        assert!(uncovered(&owned, &[rule(&[""], &["pods", "secrets"], &["get"])]).is_empty());
        let missing = uncovered(&owned, &[rule(&[""], &["pods", "secrets"], &["get", "delete"])]);
        let shown: Vec<String> = missing.iter().map(Rule::to_string).collect();
        assert_eq!(
            shown,
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["delete"]}"#,
            ]
        );
        assert_eq!(uncovered(&owned, &[rule(&["*"], &["pods"], &["get"])]).len(), 1);
        let mut named = rule(&[""], &["pods"], &["get"]);
        named.resource_names = vec!["a".into()];
        assert!(uncovered(&owned, &[named.clone()]).is_empty(), "all names cover one name");
        assert_eq!(uncovered(&[named], &[rule(&[""], &["pods"], &["get"])]).len(), 1);
    }
}
