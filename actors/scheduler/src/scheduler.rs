//! The scheduler's state: columns, queue and bindings under way. Told of changes and outcomes, asked for steps.
//!
//! A chosen node is assumed at once, so the next Pod sees it taken. A binding guards on the revision of the node's
//! allocation key that the choice was made at; so one binding per node is under way, others wait behind it and are
//! checked on that node alone when it is their turn. A conflict does the same: nothing else is planned anew. Several
//! schedulers may run at once (Omega): who comes second at a node looks at that node again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kactor_protocol::store::Key;
use kactor_protocol::{Revision, Uid};
use kactor_view::{Changed, ClusterView, Object, Pod, Selector};
use serde_json::Value;

use crate::columns::Columns;
use crate::cycle::{self, Choice, Evaluations};
use crate::framework::{Hint, Seeker, Verdict};
use crate::profile::Profile;
use crate::queue::Queue;
use crate::refusal::{Refusal, Refusals};

/// Pods tried in one step: the lane is left to others in between.
const PODS_PER_STEP_MAX: usize = 256;

/// One request: `pods/binding`.
#[derive(Debug, Clone, PartialEq)]
pub struct BindRequest {
    pub pod: Key,
    pub uid: Uid,
    pub node: Arc<str>,
    pub body: Value,
    /// The node's allocation key must still be at this revision; `None`: absent.
    pub allocation: Option<Revision>,
}

/// What is to be told of a Pod: condition, Event and note.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// No node would do.
    Unschedulable {
        pod: Key,
        uid: Uid,
        refusals: Refusals,
    },
    Bound {
        pod: Key,
        uid: Uid,
        node: Arc<str>,
    },
}

/// How a binding ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindOutcome {
    Bound,
    /// Somebody else was at this node first, or at this Pod.
    Conflict,
    /// Refused, or not known: the Pod is tried again after a pause.
    Failed,
}

/// What one step decided.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    pub binds: Vec<BindRequest>,
    pub told: Vec<Told>,
    /// Step again at this time even if nothing changes.
    pub next: Option<Duration>,
}

/// Bindings of one node.
#[derive(Debug, Default)]
struct Lane {
    /// The Pod, and the allocation revision that was guarded on.
    under_way: Option<(Key, Option<Revision>)>,
    /// The outcome is known, the view does not show the allocation's change yet.
    awaits_change_of: Option<Option<Revision>>,
    waiting: VecDeque<Key>,
}

pub struct Scheduler {
    profiles: Vec<Profile>,
    columns: Columns,
    queue: Queue,
    evaluations: Evaluations,
    lanes: BTreeMap<Arc<str>, Lane>,
    seed: u64,
}

impl Scheduler {
    pub fn new(profiles: Vec<Profile>, seed: u64) -> Self {
        assert!(!profiles.is_empty(), "a scheduler has a profile");
        Self {
            profiles,
            columns: Columns::default(),
            queue: Queue::default(),
            evaluations: Evaluations::default(),
            lanes: BTreeMap::new(),
            seed,
        }
    }

    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// One line for `inspect`.
    pub fn summary(&self) -> String {
        let [active, backing_off, refused, in_flight] = self.queue.counts();
        format!(
            "{} nodes; pods: {active} active, {backing_off} backing off, {refused} refused, \
             {in_flight} in flight; verdicts: {} found, {} reused",
            self.columns.n_nodes(),
            self.evaluations.n_found,
            self.evaluations.n_reused
        )
    }

    /// Takes over changes of the view, in order.
    pub fn changed(&mut self, changes: &[Changed], view: &ClusterView) {
        for changed in changes {
            let was_assumed = self.columns.place_of(&changed.key).is_some();
            let mut hint = self.hint_of(changed);
            self.columns.apply(changed);
            if was_assumed && self.columns.place_of(&changed.key).is_none() {
                hint = Some(Hint::PodLeft); // also if it was never more than assumed there
            }
            if let Some(Object::Pod(pod)) = changed.object() {
                self.pod_changed(pod, changed.after.is_some(), view);
            }
            if let Some(hint) = hint {
                self.wake(hint);
            }
        }
    }

    fn profile_of(&self, name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|it| it.scheduler_name == name)
    }

    fn pod_changed(&mut self, pod: &Pod, exists: bool, view: &ClusterView) {
        let wants_node = exists
            && pod.node.is_none()
            && pod.is_active()
            && !pod.spec.has_gates
            && self.profile_of(&pod.spec.scheduler_name).is_some();
        if wants_node {
            self.queue.put(Seeker::new(pod, kin_of(pod, view)));
        } else if self.queue.remove(&pod.meta.key).is_some() && pod.node.is_none() {
            self.give_room_back(&pod.meta.key); // assumed somewhere, and gone before it was bound
        }
    }

    fn hint_of(&self, changed: &Changed) -> Option<Hint> {
        let node_of = |it: &Option<Object>| {
            let pod = it.as_ref().and_then(Object::as_pod).filter(|it| !it.is_terminal());
            pod.and_then(|it| Some((it.node.clone()?, it.meta.labels.clone())))
        };
        match (&changed.before, &changed.after) {
            (None, Some(Object::Node(_))) => Some(Hint::NodeAdded),
            (Some(Object::Node(a)), Some(Object::Node(b))) => {
                let is_same = a.meta.labels == b.meta.labels
                    && a.taints == b.taints
                    && a.allocatable == b.allocatable
                    && a.is_unschedulable == b.is_unschedulable;
                (!is_same).then_some(Hint::NodeChanged)
            }
            (before, after) => match (node_of(before), node_of(after)) {
                (Some(_), None) => Some(Hint::PodLeft),
                (a, Some(b)) if a.as_ref() != Some(&b) => Some(Hint::PodPlaced),
                _ => None,
            },
        }
    }

    fn wake(&mut self, hint: Hint) {
        let profiles = &self.profiles;
        self.queue.hint(hint, |plugin| {
            let mut filters = profiles.iter().flat_map(Profile::filters);
            filters.find(|it| it.0 == plugin).map_or(&[], |it| it.1.hints())
        });
    }

    /// Tries what is ready, and starts bindings whose turn it is.
    pub fn step(&mut self, view: &ClusterView, now: Duration) -> Step {
        let mut step = Step::default();
        let names: Vec<Arc<str>> = self.lanes.keys().cloned().collect();
        for node in names {
            self.pump(&node, &mut step);
        }
        let first = self.profiles[0].clone();
        for seeker in self.queue.take(now, PODS_PER_STEP_MAX, |a, b| first.compare(a, b)) {
            self.try_pod(&seeker, view, &mut step);
        }
        step.next = self.queue.next_deadline();
        step
    }

    fn try_pod(&mut self, seeker: &Seeker, view: &ClusterView, step: &mut Step) {
        let profile = self.profile_of(&seeker.spec.scheduler_name).cloned();
        let pod = view.pods().get(&seeker.key).filter(|it| it.meta.uid.as_str() == seeker.uid);
        let (Some(profile), Some(pod)) = (profile, pod) else {
            self.queue.remove(&seeker.key);
            return;
        };
        let choice =
            cycle::choose(&profile, seeker, &self.columns, &mut self.evaluations, self.seed);
        let refusals = match choice {
            Choice::Node { node, .. } => {
                let name = self.columns.name(node).clone();
                match held_by_plugins(&profile, seeker, &name) {
                    None => {
                        self.columns.assume(pod, &name);
                        self.lanes
                            .entry(name.clone())
                            .or_default()
                            .waiting
                            .push_back(pod.meta.key.clone());
                        self.pump(&name, step);
                        return;
                    }
                    Some(refusals) => refusals,
                }
            }
            Choice::Nowhere(refusals) => {
                // Preemption's place: a nominated node waits for its victims' ends like any refused Pod.
                let _nominated =
                    profile.post_filters().find_map(|it| it.nominate(seeker, &self.columns));
                refusals
            }
        };
        self.queue.refused(&seeker.key, refusals.plugins.clone());
        let (pod, uid) = (seeker.key.clone(), pod.meta.uid.clone());
        step.told.push(Told::Unschedulable { pod, uid, refusals });
    }

    /// Starts the next binding of the node if none is under way.
    fn pump(&mut self, node: &Arc<str>, step: &mut Step) {
        let allocation = self.columns.allocation(node);
        let Some(lane) = self.lanes.get_mut(node) else { return };
        if let Some(assumed) = lane.awaits_change_of {
            if assumed == allocation {
                return;
            }
            lane.awaits_change_of = None;
        }
        if lane.under_way.is_some() {
            return;
        }
        while let Some(key) = self.lanes.get_mut(node).and_then(|it| it.waiting.pop_front()) {
            let Some(seeker) = self.queue.get(&key).cloned() else { continue };
            if !self.still_fits(&seeker, node) {
                self.give_room_back(&key);
                self.queue.put_back(&key);
                continue;
            }
            let profile = self.profile_of(&seeker.spec.scheduler_name);
            let body = profile.and_then(|it| it.binders().find_map(|it| it.bind(&seeker, node)));
            let Some(body) = body else {
                self.give_room_back(&key);
                self.queue.put_back(&key);
                continue;
            };
            let lane = self.lanes.entry(node.clone()).or_default();
            lane.under_way = Some((key.clone(), allocation));
            let uid = Uid::from(seeker.uid.as_str());
            step.binds.push(BindRequest { pod: key, uid, node: node.clone(), body, allocation });
            return;
        }
        self.lanes.remove(node);
    }

    /// Whether the Pod, which is assumed on the node, would be put there again as things stand.
    fn still_fits(&mut self, seeker: &Seeker, node: &str) -> bool {
        let Some(at) = self.columns.number(node) else { return false };
        let Some(placed) = self.columns.pods[at].get(&seeker.key).cloned() else { return false };
        self.columns.forget(&seeker.key);
        let profile = self.profile_of(&seeker.spec.scheduler_name);
        let fits = profile
            .is_some_and(|it| cycle::verdict_on(it, seeker, &self.columns, at) == Verdict::Fits);
        self.columns.put_again(placed, node);
        fits
    }

    /// The Pod does not go where it was assumed: others may.
    fn give_room_back(&mut self, pod: &Key) {
        if self.columns.place_of(pod).is_some() {
            self.columns.forget(pod);
            self.wake(Hint::PodLeft);
        }
    }

    /// How a binding ended. The next step starts what waits behind it.
    pub fn bind_ended(&mut self, request: &BindRequest, outcome: BindOutcome) -> Option<Told> {
        let lane = self.lanes.get_mut(&request.node)?;
        let (key, allocation) = lane.under_way.take()?;
        assert_eq!(key, request.pod, "one binding per node is under way");
        match outcome {
            BindOutcome::Bound => {
                lane.awaits_change_of = Some(allocation);
                self.queue.remove(&key);
                let (uid, node) = (request.uid.clone(), request.node.clone());
                return Some(Told::Bound { pod: key, uid, node });
            }
            BindOutcome::Conflict => {
                // Its turn comes again, on this node alone, when the view shows what happened there.
                lane.awaits_change_of = Some(allocation);
                lane.waiting.push_front(key);
            }
            // Unless the view shows already that it was bound after all: then it has left the queue.
            BindOutcome::Failed if self.queue.get(&key).is_some() => {
                self.give_room_back(&key);
                self.queue.put_back(&key);
            }
            BindOutcome::Failed => {}
        }
        None
    }
}

/// Reserve and permit: a refusal gives back what was reserved.
fn held_by_plugins(profile: &Profile, seeker: &Seeker, node: &Arc<str>) -> Option<Refusals> {
    let mut refused: Option<(&'static str, Vec<String>)> = None;
    for (name, plugin) in profile.reserves() {
        if let Verdict::Refused(reasons) = plugin.reserve(seeker, node) {
            refused = Some((name, reasons));
            break;
        }
    }
    for (name, plugin) in profile.permits() {
        if refused.is_some() {
            break;
        }
        if let Verdict::Refused(reasons) = plugin.permit(seeker, node) {
            refused = Some((name, reasons));
        }
    }
    let (name, reasons) = refused?;
    profile.reserves().for_each(|(_, it)| it.unreserve(seeker, node));
    let refusal = Refusal { node: node.clone(), plugin: name, reasons };
    Some(Refusals { by_node: vec![refusal], plugins: [name].into() })
}

/// The selectors of the Services that select the Pod and of the ReplicaSet that owns it.
fn kin_of(pod: &Pod, view: &ClusterView) -> Vec<Selector> {
    let services = view
        .services()
        .in_namespace(pod.meta.namespace())
        .filter_map(|it| it.selector.clone())
        .filter(|it| it.matches(&pod.meta.labels));
    let owner = pod.meta.controller().and_then(|it| view.by_uid(&it.uid));
    let owner = owner.and_then(|it| view.replica_sets().get(&it.key));
    services.chain(owner.map(|it| it.selector.clone())).collect()
}

#[cfg(test)]
mod tests;
