//! What a controller is: a name, who wakes whom, and one pure function.

use std::fmt::Debug;

use kactor_protocol::Timestamp;
use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView};

use crate::plan::{Facts, Plan};

/// All that one pass may read.
pub struct Pass<'a> {
    /// At or after the last commit of this key's own effects.
    pub view: &'a ClusterView,
    pub key: &'a Key,
    pub facts: &'a Facts,
    pub now: Timestamp,
}

/// Level-triggered: lost, repeated or reordered wake-ups must not change what it plans.
pub trait Controller: Send + Sync + 'static {
    /// Also the name of its service account in kube-system, and so of its RBAC role.
    const NAME: &'static str;

    /// Small, per key, lost at any time without harm.
    type Memory: Default + Debug + Send;

    /// The keys that a change concerns; both sides of the change count.
    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key>;

    /// What should be done about the key now. Must not depend on anything but its arguments.
    fn reconcile(&self, pass: &Pass<'_>, memory: &mut Self::Memory) -> Plan;
}

/// For controllers that remember nothing.
pub type NoMemory = ();
