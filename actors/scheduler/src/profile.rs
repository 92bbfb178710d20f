//! Profiles: which plugins a scheduler's name stands for, with weights, as `KubeSchedulerConfiguration` says it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::framework::{Bind, Filter, Permit, Plugin, PostFilter, Reserve, Score, Seeker};
use crate::plugins::affinity::InterPodAffinity;
use crate::plugins::node::{NodeAffinity, NodePorts, NodeUnschedulable, TaintToleration};
use crate::plugins::resources::{NodeResourcesBalancedAllocation, NodeResourcesFit};
use crate::plugins::spread::PodTopologySpread;
use crate::plugins::{DefaultBinder, PrioritySort};

pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// The default order and weights (kubernetes apis/config/v1, getDefaultPlugins).
const DEFAULTS: &[(&str, i64)] = &[
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("NodeResourcesBalancedAllocation", 1),
    ("DefaultBinder", 0),
];

/// Why a configuration makes no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("profile {profile}: no plugin is registered as {plugin:?}; known are {known}")]
    UnknownPlugin { profile: String, plugin: String, known: String },
    #[error("profile {profile}: exactly one plugin sorts the queue, {count} are enabled")]
    QueueSort { profile: String, count: usize },
    #[error("profile {profile}: no enabled plugin binds Pods; enable DefaultBinder")]
    NoBinder { profile: String },
}

/// Plugins by name: the built-in ones and a user's own.
pub struct Registry {
    plugins: BTreeMap<&'static str, Arc<dyn Plugin>>,
}

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self { plugins: BTreeMap::new() };
        registry.register(Arc::new(PrioritySort));
        registry.register(Arc::new(NodeUnschedulable));
        registry.register(Arc::new(TaintToleration));
        registry.register(Arc::new(NodeAffinity));
        registry.register(Arc::new(NodePorts));
        registry.register(Arc::new(NodeResourcesFit));
        registry.register(Arc::new(NodeResourcesBalancedAllocation));
        registry.register(Arc::new(PodTopologySpread));
        registry.register(Arc::new(InterPodAffinity));
        registry.register(Arc::new(DefaultBinder));
        registry
    }
}

impl Registry {
    /// Takes the place of a plugin of the same name.
    pub fn register(&mut self, plugin: Arc<dyn Plugin>) {
        self.plugins.insert(plugin.name(), plugin);
    }
}

/// What a profile changes of the default.
#[derive(Debug, Clone, Default)]
pub struct PluginConfig {
    /// Names with weights; a weight of 0 keeps the default's.
    pub enabled: Vec<(String, i64)>,
    /// `*` disables all defaults.
    pub disabled: Vec<String>,
}

/// One scheduler, as Pods name it.
#[derive(Clone)]
pub struct Profile {
    pub scheduler_name: String,
    plugins: Vec<(Arc<dyn Plugin>, i64)>,
}

impl Profile {
    pub fn default_scheduler() -> Self {
        Self::new(DEFAULT_SCHEDULER, &Registry::default(), &PluginConfig::default())
            .expect("the defaults are registered, sort once and bind")
    }

    pub fn new(
        scheduler_name: &str,
        registry: &Registry,
        config: &PluginConfig,
    ) -> Result<Self, ProfileError> {
        let profile = scheduler_name.to_owned();
        let is_disabled = |name: &str| config.disabled.iter().any(|it| it == "*" || it == name);
        let named = |name: &str| config.enabled.iter().find(|it| it.0 == name);
        let mut chosen: Vec<(String, i64)> = DEFAULTS
            .iter()
            .filter(|(name, _)| !is_disabled(name) && named(name).is_none())
            .map(|(name, weight)| ((*name).to_owned(), *weight))
            .collect();
        for (name, weight) in &config.enabled {
            let default = DEFAULTS.iter().find(|it| it.0 == name).map_or(1, |it| it.1);
            chosen.push((name.clone(), if *weight == 0 { default } else { *weight }));
        }
        let mut plugins = Vec::new();
        for (name, weight) in chosen {
            let Some(plugin) = registry.plugins.get(name.as_str()) else {
                let known: Vec<&str> = registry.plugins.keys().copied().collect();
                let known = known.join(", ");
                return Err(ProfileError::UnknownPlugin { profile, plugin: name, known });
            };
            plugins.push((plugin.clone(), weight));
        }
        let made = Self { scheduler_name: profile.clone(), plugins };
        let count = made.plugins().filter(|it| it.queue_sort().is_some()).count();
        if count != 1 {
            return Err(ProfileError::QueueSort { profile, count });
        }
        if made.binders().next().is_none() {
            return Err(ProfileError::NoBinder { profile });
        }
        Ok(made)
    }

    fn plugins(&self) -> impl Iterator<Item = &dyn Plugin> {
        self.plugins.iter().map(|it| &*it.0)
    }

    pub fn compare(&self, a: &Seeker, b: &Seeker) -> Ordering {
        self.plugins().find_map(Plugin::queue_sort).map_or(Ordering::Equal, |it| it.compare(a, b))
    }

    pub fn filters(&self) -> impl Iterator<Item = (&'static str, &dyn Filter)> {
        self.plugins().filter_map(|it| Some((it.name(), it.filter()?)))
    }

    /// With their weights; a weight of 0 scores nothing.
    pub fn scores(&self) -> impl Iterator<Item = (&dyn Score, i64)> {
        let weighed = self.plugins.iter().filter(|it| it.1 > 0);
        weighed.filter_map(|(plugin, weight)| Some((plugin.score()?, *weight)))
    }

    pub fn post_filters(&self) -> impl Iterator<Item = &dyn PostFilter> {
        self.plugins().filter_map(Plugin::post_filter)
    }

    pub fn reserves(&self) -> impl Iterator<Item = (&'static str, &dyn Reserve)> {
        self.plugins().filter_map(|it| Some((it.name(), it.reserve()?)))
    }

    pub fn permits(&self) -> impl Iterator<Item = (&'static str, &dyn Permit)> {
        self.plugins().filter_map(|it| Some((it.name(), it.permit()?)))
    }

    pub fn binders(&self) -> impl Iterator<Item = &dyn Bind> {
        self.plugins().filter_map(Plugin::bind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(enabled: &[(&str, i64)], disabled: &[&str]) -> Result<Profile, ProfileError> {
        let config = PluginConfig {
            enabled: enabled.iter().map(|it| (it.0.to_owned(), it.1)).collect(),
            disabled: disabled.iter().map(|it| (*it).to_owned()).collect(),
        };
        Profile::new("mine", &Registry::default(), &config)
    }

    #[test]
    fn plugins_are_disabled_and_weighed_by_name() {
        let names = |it: &Profile| it.filters().map(|it| it.0).collect::<Vec<_>>();
        let without = made(&[], &["NodePorts", "TaintToleration"]).unwrap();
        assert!(!names(&without).contains(&"NodePorts"));
        let only =
            made(&[("PrioritySort", 0), ("NodeResourcesFit", 7), ("DefaultBinder", 0)], &["*"]);
        let only = only.unwrap();
        assert_eq!(names(&only), ["NodeResourcesFit"]);
        assert_eq!(only.scores().map(|it| it.1).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn a_profile_that_cannot_work_says_why() {
        assert!(matches!(made(&[("Nope", 1)], &[]), Err(ProfileError::UnknownPlugin { .. })));
        assert!(matches!(
            made(&[], &["PrioritySort"]),
            Err(ProfileError::QueueSort { count: 0, .. })
        ));
        assert!(matches!(made(&[], &["DefaultBinder"]), Err(ProfileError::NoBinder { .. })));
    }
}
