//! Nodes as columns: what filters and scores read, in arrays by node number, updated by each change.
//!
//! A number belongs to a Node's name while the Node exists and is used again later. `static_version` counts changes of
//! the Node itself, `load_version` changes of what runs on it: an evaluation is good for as long as both stand still.
//! Pods that were just given a node are assumed there until the view shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kactor_protocol::Revision;
use kactor_protocol::store::Key;
use kactor_view::{Changed, Labels, Node, Object, Pod, PodSpec, Resources, Taint};

/// The key of another crate's making (kactor-api, `allocation_key`): touched by every binding to the node.
pub const ALLOCATION_RESOURCE: &str = "allocations";

/// A Pod that takes room on a node.
#[derive(Debug, Clone)]
pub struct Placed {
    pub key: Key,
    pub spec: Arc<PodSpec>,
    pub labels: Arc<Labels>,
    /// Pods that are ending still take room, but are not counted for spreading.
    pub is_terminating: bool,
}

#[derive(Debug, Default)]
pub struct Columns {
    names: Vec<Option<Arc<str>>>,
    by_name: BTreeMap<Arc<str>, usize>,
    pub labels: Vec<Labels>,
    pub taints: Vec<Vec<Taint>>,
    pub is_unschedulable: Vec<bool>,
    pub allocatable: Vec<Resources>,
    pub requested: Vec<Resources>,
    /// As the scorers count: with defaults for those that ask for nothing.
    pub scored: Vec<Resources>,
    pub pods: Vec<BTreeMap<Key, Placed>>,
    static_version: Vec<u64>,
    load_version: Vec<u64>,
    /// Where each placed Pod is.
    placed: BTreeMap<Key, Arc<str>>,
    /// Pods bound to nodes that do not exist (yet).
    astray: BTreeMap<Arc<str>, BTreeMap<Key, Placed>>,
    allocations: BTreeMap<String, Revision>,
    free: Vec<usize>,
    clock: u64,
}

impl Columns {
    /// The numbers of existing nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = usize> {
        self.by_name.values().copied()
    }

    pub fn n_nodes(&self) -> usize {
        self.by_name.len()
    }

    /// One more than the highest number ever used.
    pub fn width(&self) -> usize {
        self.names.len()
    }

    pub fn name(&self, node: usize) -> &Arc<str> {
        self.names[node].as_ref().expect("only existing nodes are evaluated")
    }

    pub fn number(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn static_version(&self, node: usize) -> u64 {
        self.static_version[node]
    }

    pub fn load_version(&self, node: usize) -> u64 {
        self.load_version[node]
    }

    /// The revision of the node's allocation key, if anything was ever bound there.
    pub fn allocation(&self, name: &str) -> Option<Revision> {
        self.allocations.get(name).copied()
    }

    /// The node that the Pod is placed on, be it assumed.
    pub fn place_of(&self, pod: &Key) -> Option<&Arc<str>> {
        self.placed.get(pod)
    }

    /// Takes over one change of the view.
    pub fn apply(&mut self, changed: &Changed) {
        match (&changed.before, &changed.after) {
            (_, Some(Object::Node(node))) => self.put_node(node),
            (Some(Object::Node(node)), None) => self.remove_node(node.name()),
            (_, Some(Object::Pod(pod))) => self.put_pod(pod),
            (Some(Object::Pod(pod)), None) => self.remove_pod(&pod.meta.key),
            (_, Some(Object::Other(meta))) if meta.key.resource() == ALLOCATION_RESOURCE => {
                self.allocations.insert(meta.name().to_owned(), meta.revision);
            }
            (Some(Object::Other(meta)), None) if meta.key.resource() == ALLOCATION_RESOURCE => {
                self.allocations.remove(meta.name());
            }
            _ => {}
        }
    }

    /// A Pod was given this node; it takes room there until the view tells otherwise.
    pub fn assume(&mut self, pod: &Pod, node: &str) {
        self.place(placed(pod), node);
    }

    /// Undoes `forget`.
    pub(crate) fn put_again(&mut self, pod: Placed, node: &str) {
        self.place(pod, node);
    }

    /// The Pod does not go there after all.
    pub fn forget(&mut self, pod: &Key) {
        self.remove_pod(pod);
    }

    fn put_node(&mut self, node: &Node) {
        let at = match self.number(node.name()) {
            Some(at) => at,
            None => self.new_node(node.name()),
        };
        let is_same = self.labels[at] == node.meta.labels
            && self.taints[at] == node.taints
            && self.is_unschedulable[at] == node.is_unschedulable
            && self.allocatable[at] == node.allocatable;
        if is_same && self.static_version[at] > 0 {
            return; // a heartbeat
        }
        self.labels[at] = node.meta.labels.clone();
        self.taints[at] = node.taints.clone();
        self.is_unschedulable[at] = node.is_unschedulable;
        self.allocatable[at] = node.allocatable.clone();
        self.clock += 1;
        self.static_version[at] = self.clock;
    }

    fn new_node(&mut self, name: &str) -> usize {
        let name: Arc<str> = name.into();
        let at = self.free.pop().unwrap_or_else(|| {
            self.names.push(None);
            self.labels.push(Labels::new());
            self.taints.push(Vec::new());
            self.is_unschedulable.push(false);
            self.allocatable.push(Resources::default());
            self.requested.push(Resources::default());
            self.scored.push(Resources::default());
            self.pods.push(BTreeMap::new());
            self.static_version.push(0);
            self.load_version.push(0);
            self.names.len() - 1
        });
        self.names[at] = Some(name.clone());
        self.by_name.insert(name.clone(), at);
        self.static_version[at] = 0;
        for pod in self.astray.remove(&name).unwrap_or_default().into_values() {
            self.load(at, pod);
        }
        at
    }

    fn remove_node(&mut self, name: &str) {
        let Some(at) = self.by_name.remove(name) else { return };
        let name = self.names[at].take().expect("it was in by_name");
        let pods = std::mem::take(&mut self.pods[at]);
        if !pods.is_empty() {
            self.astray.insert(name, pods);
        }
        self.requested[at] = Resources::default();
        self.scored[at] = Resources::default();
        self.free.push(at);
    }

    fn put_pod(&mut self, pod: &Pod) {
        match &pod.node {
            Some(node) if !pod.is_terminal() => self.place(placed(pod), node),
            Some(_) => self.remove_pod(&pod.meta.key),
            None => {} // it may be assumed somewhere: the binding is on its way
        }
    }

    fn place(&mut self, pod: Placed, node: &str) {
        self.remove_pod(&pod.key);
        let name: Arc<str> = node.into();
        self.placed.insert(pod.key.clone(), name.clone());
        match self.number(node) {
            Some(at) => self.load(at, pod),
            None => {
                self.astray.entry(name).or_default().insert(pod.key.clone(), pod);
            }
        }
    }

    fn load(&mut self, at: usize, pod: Placed) {
        self.requested[at].add(&pod.spec.requests);
        self.scored[at].add(&pod.spec.scored);
        self.pods[at].insert(pod.key.clone(), pod);
        self.touch_load(at);
    }

    fn remove_pod(&mut self, key: &Key) {
        let Some(name) = self.placed.remove(key) else { return };
        let Some(at) = self.number(&name) else {
            if let Some(pods) = self.astray.get_mut(&name) {
                pods.remove(key);
                if pods.is_empty() {
                    self.astray.remove(&name);
                }
            }
            return;
        };
        let pod = self.pods[at].remove(key).expect("what is placed on a node is among its pods");
        self.requested[at].subtract(&pod.spec.requests);
        self.scored[at].subtract(&pod.spec.scored);
        self.touch_load(at);
    }

    fn touch_load(&mut self, at: usize) {
        self.clock += 1;
        self.load_version[at] = self.clock;
    }
}

fn placed(pod: &Pod) -> Placed {
    Placed {
        key: pod.meta.key.clone(),
        spec: pod.spec.clone(),
        labels: Arc::new(pod.meta.labels.clone()),
        is_terminating: pod.meta.is_terminating(),
    }
}
