//! Garbage collector: what no living owner holds is deleted, in the way that the owner's deletion asked for.
//!
//! Follows kubernetes pkg/controller/garbagecollector over the view's graph of owner references, which has every
//! registered kind. Three cases: an object that orphans its dependents, one that waits for them (foreground), and an
//! object whose owners are gone or waiting. An owner that the view lacks is read live before its dependents are
//! deleted: deletion cannot be taken back, a late read can. Keys are the objects themselves.

use std::sync::Arc;

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Meta, OwnerRef};
use serde_json::json;

use crate::controller::{Controller, NoMemory, Pass};
use crate::owner::owners_patch;
use crate::plan::{DeletePrecondition, Plan, Propagation, Request, Severity};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

pub struct GarbageCollector;

impl Controller for GarbageCollector {
    const NAME: &'static str = "generic-garbage-collector";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, view: &ClusterView) -> Vec<Key> {
        let mut keys = Vec::new();
        for side in changed.sides() {
            let meta = side.meta();
            let waits = meta.has_finalizer(ORPHAN) || meta.has_finalizer(FOREGROUND);
            if !meta.owners.is_empty() || (meta.is_terminating() && waits) {
                keys.push(meta.key.clone());
            }
            // Owners that wait for this one.
            let owners = meta.owners.iter().filter_map(|it| view.by_uid(&it.uid));
            keys.extend(owners.filter(|it| it.is_terminating()).map(|it| it.key.clone()));
        }
        let has_new_life =
            |it: &Meta| changed.after.as_ref().is_some_and(|new| new.meta().uid == it.uid);
        if let Some(before) = changed.before.as_ref().map(|it| it.meta()) {
            let began_to_wait = changed.after.as_ref().is_some_and(|it| it.meta().is_terminating());
            if !has_new_life(before) || began_to_wait {
                keys.extend(view.dependents(&before.uid).map(|it| it.key.clone()));
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let Some(object) = pass.view.meta(pass.key) else {
            return plan;
        };
        if object.is_terminating() && object.has_finalizer(ORPHAN) {
            orphan_dependents(&mut plan, object, pass.view);
        } else if object.is_terminating() && object.has_finalizer(FOREGROUND) {
            delete_dependents(&mut plan, object, pass.view);
        } else if !object.is_terminating() && !object.owners.is_empty() {
            judge_owners(&mut plan, object, pass);
        }
        plan
    }
}

fn orphan_dependents(plan: &mut Plan, owner: &Meta, view: &ClusterView) {
    let dependents: Vec<&Arc<Meta>> = view.dependents(&owner.uid).collect();
    for dependent in &dependents {
        plan.patch_exactly(dependent, owners_patch(dependent, |it| it.uid != owner.uid));
    }
    if dependents.is_empty() {
        remove_finalizer(plan, owner, ORPHAN);
    }
}

/// Deletes what blocks the owner, in the foreground too; the owner goes when none of them is left.
fn delete_dependents(plan: &mut Plan, owner: &Meta, view: &ClusterView) {
    let blocking: Vec<&Arc<Meta>> = view
        .dependents(&owner.uid)
        .filter(|it| it.owners.iter().any(|it| it.uid == owner.uid && it.blocks_deletion))
        .collect();
    if blocking.is_empty() {
        remove_finalizer(plan, owner, FOREGROUND);
        return;
    }
    // Each dependent is a key of its own and judges its owners there; here is only the waiting.
    plan.trace(
        &owner.key,
        "WaitingForDependents",
        format!("{} dependents block its deletion", blocking.len()),
    );
}

fn remove_finalizer(plan: &mut Plan, object: &Meta, finalizer: &str) {
    let left: Vec<&String> = object.finalizers.iter().filter(|it| *it != finalizer).collect();
    plan.patch_exactly(object, json!({"metadata": {"finalizers": left}}));
}

/// What an owner reference points at.
enum Owner {
    /// It lives.
    Solid,
    /// It is gone, and that was read live.
    Dangling,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// Not decided: it must be read live first.
    Unread(Key),
    /// Nobody can say: a kind that is not known, or a namespaced owner of what has no namespace.
    Unknown(String),
}

fn judge_owners(plan: &mut Plan, object: &Meta, pass: &Pass<'_>) {
    let mut solid = false;
    let mut gone: Vec<&OwnerRef> = Vec::new();
    let mut waiting: Vec<&OwnerRef> = Vec::new();
    let mut is_decided = true;
    for reference in &object.owners {
        match judge(reference, object, pass) {
            Owner::Solid => solid = true,
            Owner::Dangling => gone.push(reference),
            Owner::Waiting => waiting.push(reference),
            Owner::Unread(key) => {
                is_decided = false;
                plan.add(key, Request::Get);
            }
            Owner::Unknown(why) => {
                is_decided = false;
                plan.note(&object.key, Severity::Trace, "OwnerUnknown", why);
            }
        }
    }
    if !is_decided || (gone.is_empty() && waiting.is_empty()) {
        return;
    }
    if solid {
        let lost = |it: &OwnerRef| gone.contains(&it) || waiting.contains(&it);
        plan.patch_exactly(object, owners_patch(object, |it| !lost(it)));
        return;
    }
    delete(plan, object, !waiting.is_empty(), pass.view);
}

/// In the foreground if an owner waits and this object has dependents of its own; else as its finalizers ask.
fn delete(plan: &mut Plan, object: &Meta, owner_waits: bool, view: &ClusterView) {
    let has_dependents = view.dependents(&object.uid).next().is_some();
    let propagation = if owner_waits && has_dependents {
        Propagation::Foreground
    } else if object.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if object.has_finalizer(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let precondition =
        DeletePrecondition { uid: object.uid.clone(), revision: Some(object.revision) };
    let propagation = Some(propagation);
    let request = Request::Delete { precondition, propagation, grace_seconds: None };
    plan.add(object.key.clone(), request);
}

fn judge(reference: &OwnerRef, object: &Meta, pass: &Pass<'_>) -> Owner {
    if let Some(owner) = pass.view.by_uid(&reference.uid) {
        let is_reachable =
            owner.key.namespace().is_empty() || owner.key.namespace() == object.key.namespace();
        if !is_reachable {
            let why = format!("its owner {} lies in another namespace", owner.key);
            return Owner::Unknown(why);
        }
        let waits = owner.is_terminating() && owner.has_finalizer(FOREGROUND);
        // It waits for those that block it; others see it alive until it is gone.
        return if waits && reference.blocks_deletion { Owner::Waiting } else { Owner::Solid };
    }
    let Some((key, _)) = pass.view.owner_key(reference, object.key.namespace()) else {
        let why = format!("no kind {} in {} is known", reference.kind, reference.api_version);
        return Owner::Unknown(why);
    };
    match pass.facts.read(&key) {
        None => Owner::Unread(key),
        Some(Ok(Some(uid))) if *uid == reference.uid => Owner::Solid,
        Some(Ok(Some(_))) => Owner::Dangling,
        Some(Ok(None)) => Owner::Unread(key),
        Some(Err(refusal)) if refusal.code == 404 && refusal.reason == "NotFound" => {
            Owner::Dangling
        }
        Some(Err(refusal)) => Owner::Unknown(format!("reading {key}: {}", refusal.message)),
    }
}

#[cfg(test)]
mod tests;
