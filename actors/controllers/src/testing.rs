//! Tests of controllers: a cluster as text, a pass or a whole life, what was planned as text.
//!
//! `Life` plays plans back onto the cluster as the API would (create, merge patch, delete), so that a rollout can be
//! followed to its end without a store. Finalizers hold objects; graceful deletion is the kubelet's, played by tests.

use kactor_protocol::store::Key;
use kactor_protocol::{Timestamp, Uid};
use kactor_view::Changed;
use kactor_view::fixture::{self, World};
use serde_json::Value;

use crate::controller::{Controller, Pass};
use crate::merge_patch::merge;
use crate::plan::{Facts, Outcome, Plan, Refusal, Request};

/// Plans once for the subject.
pub(crate) fn plan<C: Controller>(controller: &C, cluster: &str, now: u64) -> Plan {
    let world = fixture::parse(cluster);
    let pass = Pass {
        view: world.view(),
        key: world.subject(),
        facts: &Facts::default(),
        now: Timestamp::from_seconds(now),
    };
    controller.reconcile(&pass, &mut C::Memory::default())
}

/// A cluster that plans are carried out on.
pub(crate) struct Life {
    pub world: World,
    pub now: u64,
    /// Every plan that had effects, as text.
    pub log: Vec<String>,
}

impl Life {
    pub(crate) fn new(cluster: &str) -> Self {
        Self { world: fixture::parse(cluster), now: 100, log: Vec::new() }
    }

    /// One pass of a key, carried out; what changed.
    pub(crate) fn pass<C: Controller>(&mut self, controller: &C, key: &Key) -> Vec<Changed> {
        let pass = Pass {
            view: self.world.view(),
            key,
            facts: &Facts::default(),
            now: Timestamp::from_seconds(self.now),
        };
        let plan = controller.reconcile(&pass, &mut C::Memory::default());
        let again = controller.reconcile(&pass, &mut C::Memory::default());
        assert_eq!(plan, again, "one view gives one plan");
        if !plan.effects.is_empty() {
            self.log.push(plan.to_string());
        }
        self.carry_out(&plan)
    }

    /// Passes of all woken keys until nothing is planned any more.
    pub(crate) fn settle<C: Controller>(&mut self, controller: &C) {
        let all: Vec<_> = self.world.view().objects().cloned().map(Changed::appeared).collect();
        let mut woken = self.woken(controller, &all);
        for _ in 0..200 {
            let Some(key) = woken.pop() else { return };
            let changed = self.pass(controller, &key);
            for key in self.woken(controller, &changed) {
                if !woken.contains(&key) {
                    woken.insert(0, key);
                }
            }
        }
        panic!("it does not become quiet:\n{}", self.log.join("--\n"));
    }

    fn woken<C: Controller>(&self, controller: &C, changed: &[Changed]) -> Vec<Key> {
        let mut keys: Vec<Key> =
            changed.iter().flat_map(|it| controller.wakes(it, self.world.view())).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn carry_out(&mut self, plan: &Plan) -> Vec<Changed> {
        let mut changed = Vec::new();
        for effect in &plan.effects {
            let key = &effect.key;
            match &effect.request {
                Request::Get => {}
                Request::Create { body } => {
                    assert!(self.world.body(key).is_none(), "{key} exists");
                    changed.push(self.world.put(key, self.stored(key, body)));
                }
                Request::Patch { patch, .. } => changed.extend(self.patch(key, patch)),
                Request::Update { body, .. } => {
                    changed.push(self.world.put(key, body.clone()));
                }
                Request::Delete { precondition, .. } => {
                    changed.extend(self.delete(key, &precondition.uid));
                }
            }
        }
        changed
    }

    fn stored(&self, key: &Key, body: &Value) -> Value {
        let mut body = body.clone();
        body["metadata"]["uid"] = format!("uid-of-{}", key.name()).into();
        body["metadata"]["generation"] = 1.into();
        body["metadata"]["creationTimestamp"] =
            Timestamp::from_seconds(self.now).to_string().into();
        body
    }

    fn patch(&mut self, key: &Key, patch: &Value) -> Option<Changed> {
        let mut body = self.world.body(key)?.clone();
        let expected = &patch["metadata"]["resourceVersion"];
        if let (Some(expected), Some(meta)) = (expected.as_str(), self.world.view().meta(key)) {
            assert_eq!(expected, meta.revision.to_string(), "{key} was changed meanwhile");
        }
        let spec = body["spec"].clone();
        merge(&mut body, patch);
        if let Some(metadata) = body["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        if body["spec"] != spec {
            let generation = body["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            body["metadata"]["generation"] = generation.into();
        }
        let is_held = !body["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if !body["metadata"]["deletionTimestamp"].is_null() && !is_held {
            return Some(self.world.delete(key));
        }
        Some(self.world.put(key, body))
    }

    pub(crate) fn delete(&mut self, key: &Key, uid: &Uid) -> Option<Changed> {
        let mut body = self.world.body(key)?.clone();
        assert_eq!(body["metadata"]["uid"], uid.as_str(), "another life of {key}");
        if body["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            return Some(self.world.delete(key));
        }
        body["metadata"]["deletionTimestamp"] =
            Timestamp::from_seconds(self.now).to_string().into();
        Some(self.world.put(key, body))
    }

    /// Everything of one kind, as `name` and the value at a pointer.
    pub(crate) fn field(&self, resource: &str, pointer: &str) -> Vec<(String, Value)> {
        self.world
            .view()
            .objects()
            .map(|it| &it.meta().key)
            .filter(|it| it.resource() == resource)
            .map(|it| {
                let body = self.world.body(it).expect("what is in the view has a body");
                (it.name().to_owned(), body.pointer(pointer).cloned().unwrap_or_default())
            })
            .collect()
    }
}

/// An outcome that says no.
pub(crate) fn refused(
    effect: &crate::plan::Effect,
    code: u16,
    reason: &str,
    message: &str,
) -> Outcome {
    Outcome {
        key: effect.key.clone(),
        verb: effect.request.verb(),
        result: Err(Refusal { code, reason: reason.to_owned(), message: message.to_owned() }),
    }
}
