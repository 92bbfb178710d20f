//! Deletion: at once, after a grace period, or when the last finalizer goes.
//!
//! A delete decides like any write. What still has finalizers (its own, those that the propagation policy adds, a
//! namespace's `spec.finalizers`) or a grace period is marked with `deletionTimestamp`; the rest is removed, and what
//! it had allocated goes in the same transaction. Reference: Kubernetes registry/rest/delete.go and
//! registry/generic/registry/store.go. Invariant: an object with finalizers is never removed.

use kactor_objects::registry::Kind;
use kactor_objects::status::Status;
use kactor_objects::{meta, tree};
use kactor_protocol::ids::Uid;
use kactor_protocol::store::{Key, Precondition, Write};
use kactor_store::Stored;
use serde_json::{Value, json};

use crate::admission;
use crate::api::Api;
use crate::body;
use crate::commit::{Fate, Plan};
use crate::freshness::invalid_options;
use crate::request::{
    DryRun, Form, Object, Options, Preconditions, Propagation, Request, Response,
};
use crate::selection::Selection;
use crate::write::Writing;

pub(crate) const FINALIZER_ORPHAN: &str = "orphan";
pub(crate) const FINALIZER_FOREGROUND: &str = "foregroundDeletion";
/// These namespaces hold the cluster together.
const IMMORTAL_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public"];
/// Kinds whose deletion answers the object; others answer a `Status`.
const ANSWERS_OBJECT: &[&str] =
    &["Pod", "Service", "ServiceAccount", "PersistentVolume", "PersistentVolumeClaim"];

/// What a delete came to.
pub(crate) struct Deleted {
    object: Value,
    /// Whether the object is gone, or only marked.
    gone: bool,
}

impl Api {
    pub(crate) async fn delete(
        &self,
        request: &Request,
        kind: &'static Kind,
    ) -> Result<Response, Status> {
        let options = delete_options(request)?;
        let key = self.key_of(request, kind)?;
        let commit =
            self.commit_delete(request, kind, (&key, &options), |_| Ok(Plan::default())).await?;
        Ok(self.answer_delete(kind, commit, request.options.form))
    }

    /// Deletes one object as `options` say; also what an eviction does, which has something `beside` it.
    pub(crate) async fn commit_delete(
        &self,
        request: &Request,
        kind: &'static Kind,
        (key, options): (&Key, &Options),
        beside: impl Fn(&Stored) -> Result<Plan, Status>,
    ) -> Result<(Deleted, Fate), Status> {
        let mut effective = request.clone();
        effective.options.dry_run = options.dry_run;
        let writing = Writing { api: self, request: &effective, kind, sub: None };
        self.commit(&effective, kind, || {
            let current =
                self.store().get(key).ok_or_else(|| Status::not_found(kind, key.name()))?;
            let (mut plan, deleted) = decide(&writing, &current, options)?;
            let more = beside(&current)?;
            plan.guards.extend(more.guards);
            if !plan.writes.is_empty() {
                plan.writes.extend(more.writes);
            }
            Ok((plan, deleted))
        })
        .await
    }

    fn answer_delete(&self, kind: &Kind, (deleted, fate): (Deleted, Fate), form: Form) -> Response {
        let revision = fate.first_revision();
        let Deleted { mut object, gone } = deleted;
        if gone && !ANSWERS_OBJECT.contains(&kind.kind) {
            let status = Status::deleted(kind, meta::name(&object), meta::uid(&object));
            return Response {
                code: 200,
                object: Object::from_tree(&status.to_json()),
                warnings: Vec::new(),
                revision,
                name: None,
            };
        }
        if let (Some(at), false) = (revision, gone) {
            meta::put_resource_version(&mut object, at);
        }
        let object = Object::from(self.formed(kind, &object, form));
        Response { code: 200, object, warnings: Vec::new(), revision, name: None }
    }

    /// Deletes what is selected, each object by itself; the answer lists what was deleted.
    pub(crate) async fn delete_collection(
        &self,
        request: &Request,
        kind: &'static Kind,
    ) -> Result<Response, Status> {
        let options = delete_options(request)?;
        let asked = &request.options;
        let (labels, fields) = (asked.label_selector.as_deref(), asked.field_selector.as_deref());
        let selection = Selection::of(kind, &request.resource, labels, fields)?;
        self.freshen(crate::freshness::Named::Latest, request.deadline).await?;
        let mut items = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let (found, last) = self.selected(kind, &selection, after.as_ref());
            for stored in found {
                match self
                    .commit_delete(request, kind, (&stored.key, &options), |_| Ok(Plan::default()))
                    .await
                {
                    Ok((deleted, _)) => items.push(deleted.object),
                    Err(status) if status.code == 404 => {} // Somebody else was faster.
                    Err(status) => return Err(status),
                }
            }
            if last.is_none() {
                break;
            }
            after = last;
        }
        let list = json!({
            "kind": kind.list_kind(),
            "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": self.store().revision().to_string()},
            "items": items,
        });
        Ok(Response {
            code: 200,
            object: Object::from_tree(&list),
            warnings: Vec::new(),
            revision: None,
            name: None,
        })
    }
}

/// The decision on one object.
fn decide(
    writing: &Writing<'_>,
    current: &Stored,
    options: &Options,
) -> Result<(Plan, Deleted), Status> {
    let kind = writing.kind;
    let old = writing.api.tree(kind, current, current.modified)?;
    check_preconditions(kind, current, &options.preconditions)?;
    if kind.kind == "Namespace"
        && kind.group.is_empty()
        && IMMORTAL_NAMESPACES.contains(&meta::name(&old))
    {
        return Err(Status::forbidden(kind, meta::name(&old), "this namespace may not be deleted"));
    }
    writing.admission(Some(&old)).delete()?;
    let mut new = old.clone();
    set_propagation(&mut new, options.propagation);
    let grace = grace_seconds(kind, &old, options.grace_period_seconds);
    let waits = grace > 0 || !is_free(kind, &new);
    if waits {
        mark(writing, &mut new, &old, grace);
        // Nothing to add to a deletion that is under way.
        if new == old {
            return Ok((Plan::default(), Deleted { object: old, gone: false }));
        }
        let precondition =
            Precondition::UidAndRevision(current.value.uid.clone(), current.modified);
        let put = writing.put(&current.key, &new, precondition)?;
        return Ok((
            Plan { guards: Vec::new(), writes: vec![put] },
            Deleted { object: new, gone: false },
        ));
    }
    let precondition = Precondition::UidAndRevision(current.value.uid.clone(), current.modified);
    let mut writes = vec![Write::Delete { key: current.key.clone(), precondition }];
    writes.extend(admission::release(kind, &old));
    Ok((Plan { guards: Vec::new(), writes }, Deleted { object: old, gone: true }))
}

/// Marks the object, or shortens the grace of one that is marked already.
fn mark(writing: &Writing<'_>, new: &mut Value, old: &Value, grace: i64) {
    let now = writing.api.env().wall();
    match meta::deletion_grace_period_seconds(old) {
        Some(running) if meta::is_terminating(old) && running <= grace => {}
        _ => {
            if meta::is_terminating(old) {
                // The new end counts from when the deletion was asked for, as the old one did.
                let asked = meta::deletion_timestamp(old).unwrap_or(now);
                let running =
                    meta::deletion_grace_period_seconds(old).unwrap_or(0).max(0).unsigned_abs();
                let begun = asked.minus(std::time::Duration::from_secs(running));
                meta::mark_deleted(new, begun, grace);
            } else {
                meta::mark_deleted(new, now, grace);
                if meta::generation(new) > 0 {
                    meta::put_generation(new, meta::generation(new) + 1);
                }
            }
        }
    }
    if writing.kind.kind == "Namespace" && writing.kind.group.is_empty() {
        tree::put(new, "status.phase", "Terminating");
    }
}

/// The grace that counts: the kind's own rule, and never longer than what already runs.
fn grace_seconds(kind: &Kind, object: &Value, asked: Option<i64>) -> i64 {
    let Some(rule) = kind.strategy.grace_period_seconds else {
        return 0;
    };
    let grace = rule(object, asked);
    match meta::deletion_grace_period_seconds(object) {
        Some(running) if meta::is_terminating(object) => grace.min(running),
        _ => grace,
    }
}

/// The finalizers that the propagation policy asks for; without a policy they stay as they are.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let (orphan, foreground) = match propagation {
        None => return,
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
    };
    for (finalizer, wanted) in [(FINALIZER_ORPHAN, orphan), (FINALIZER_FOREGROUND, foreground)] {
        if wanted {
            meta::add_finalizer(object, finalizer);
        } else {
            meta::remove_finalizer(object, finalizer);
        }
    }
}

/// Nothing holds the object any more.
fn is_free(kind: &Kind, object: &Value) -> bool {
    let is_namespace = kind.kind == "Namespace" && kind.group.is_empty();
    let is_emptied = !is_namespace || tree::list(object, "spec.finalizers").is_empty();
    is_emptied && meta::finalizers(object).is_empty()
}

/// Marked, without grace left and free: an update that leads here is the deletion.
pub(crate) fn is_finished(kind: &Kind, object: &Value) -> bool {
    meta::is_terminating(object)
        && meta::deletion_grace_period_seconds(object).unwrap_or(0) == 0
        && is_free(kind, object)
}

fn check_preconditions(
    kind: &Kind,
    current: &Stored,
    wanted: &Preconditions,
) -> Result<(), Status> {
    let name = current.key.name();
    if let Some(uid) = &wanted.uid
        && *uid != current.value.uid.as_str()
    {
        return Err(Status::uid_precondition(kind, name, uid, current.value.uid.as_str()));
    }
    if let Some(revision) = &wanted.resource_version
        && *revision != current.modified.to_string()
    {
        return Err(Status::revision_precondition(
            kind,
            name,
            revision,
            &current.modified.to_string(),
        ));
    }
    Ok(())
}

/// The query's options, overlaid by a body of `DeleteOptions`.
pub(crate) fn delete_options(request: &Request) -> Result<Options, Status> {
    let mut options = request.options.clone();
    if let Some(given) = &request.body {
        let parsed = body::parse(given)?;
        overlay(&mut options, &parsed.tree)?;
    }
    if options.grace_period_seconds.is_some_and(|it| it < 0) {
        options.grace_period_seconds = Some(1);
    }
    Ok(options)
}

pub(crate) fn overlay(options: &mut Options, body: &Value) -> Result<(), Status> {
    if body.is_null() {
        return Ok(());
    }
    let kind = meta::kind(body);
    if !body.is_object() || !(kind.is_empty() || kind == "DeleteOptions") {
        return Err(Status::bad_request(format!(
            "the body of a delete must be DeleteOptions, not {kind:?}"
        )));
    }
    check_option_types(body)?;
    if let Some(grace) = tree::integer(body, "gracePeriodSeconds") {
        options.grace_period_seconds = Some(grace);
    }
    let text = |path: &str| Some(tree::text(body, path).to_owned()).filter(|it| !it.is_empty());
    if let Some(uid) = text("preconditions.uid") {
        options.preconditions.uid = Some(uid);
    }
    if let Some(revision) = text("preconditions.resourceVersion") {
        options.preconditions.resource_version = Some(revision);
    }
    for it in tree::list(body, "dryRun") {
        if it != "All" {
            return Err(invalid_options(
                "DeleteOptions",
                "dryRun",
                &format!("Unsupported value: {it}: supported values: \"All\""),
            ));
        }
        options.dry_run = DryRun::All;
    }
    if let Some(propagation) = propagation(body)? {
        options.propagation = Some(propagation);
    }
    Ok(())
}

type Fits = fn(&Value) -> bool;

/// A value of another type must not pass for one that is absent: `dryRun: "All"` would delete.
fn check_option_types(body: &Value) -> Result<(), Status> {
    let texts: Fits = |it| it.as_array().is_some_and(|all| all.iter().all(Value::is_string));
    let checks: [(&str, &str, Fits); 7] = [
        ("gracePeriodSeconds", "an integer", Value::is_i64),
        ("preconditions", "an object", Value::is_object),
        ("preconditions.uid", "a string", Value::is_string),
        ("preconditions.resourceVersion", "a string", Value::is_string),
        ("dryRun", "a list of strings", texts),
        ("orphanDependents", "a boolean", Value::is_boolean),
        ("propagationPolicy", "a string", Value::is_string),
    ];
    for (path, wanted, fits) in checks {
        let given = tree::at(body, path);
        if !given.is_null() && !fits(given) {
            return Err(Status::bad_request(format!(
                "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {path} must be {wanted}"
            )));
        }
    }
    Ok(())
}

fn propagation(body: &Value) -> Result<Option<Propagation>, Status> {
    let orphan = tree::at(body, "orphanDependents").as_bool();
    match tree::text(body, "propagationPolicy") {
        "" => Ok(orphan.map(|it| match it {
            true => Propagation::Orphan,
            false => Propagation::Background,
        })),
        given if orphan.is_some() => Err(invalid_options(
            "DeleteOptions",
            "propagationPolicy",
            &format!(
                "Invalid value: {given:?}: orphanDependents and deletionPropagation cannot be both set"
            ),
        )),
        "Orphan" => Ok(Some(Propagation::Orphan)),
        "Foreground" => Ok(Some(Propagation::Foreground)),
        "Background" => Ok(Some(Propagation::Background)),
        other => Err(invalid_options(
            "DeleteOptions",
            "propagationPolicy",
            &format!(
                "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
            ),
        )),
    }
}

/// Removes an allocation record that belongs to `uid`.
pub(crate) fn remove_owned(key: Key, uid: &str) -> Write {
    Write::Delete { key, precondition: Precondition::Uid(Uid::from(uid)) }
}
