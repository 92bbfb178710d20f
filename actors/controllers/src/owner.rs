//! Owner references: writing them, claiming what a selector matches, letting go of what it no longer does.

use kactor_protocol::store::Key;
use kactor_view::{Meta, OwnerRef, Selector, json};
use serde_json::{Value, json as tree};

use crate::plan::Plan;

/// The reference by which `owner` controls what it makes.
pub(crate) fn controller_ref(api_version: &str, kind: &str, owner: &Meta) -> Value {
    tree!({
        "apiVersion": api_version,
        "kind": kind,
        "name": owner.name(),
        "uid": owner.uid.as_str(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

pub(crate) fn to_value(owner: &OwnerRef) -> Value {
    let mut value = tree!({
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid.as_str(),
    });
    if owner.is_controller {
        value["controller"] = true.into();
    }
    if owner.blocks_deletion {
        value["blockOwnerDeletion"] = true.into();
    }
    value
}

/// What a controller says to one object that it might manage.
pub(crate) enum Claim {
    Mine,
    /// Mine from now on: the plan adds the reference.
    Adopted,
    NotMine,
}

/// Who claims: the controlling object, as a reference would name it.
pub(crate) struct Claimant<'a> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub meta: &'a Meta,
    pub selector: &'a Selector,
}

impl Claimant<'_> {
    /// Keeps, adopts, releases or ignores the object, as kubernetes' controller_ref_manager does.
    pub(crate) fn claim(&self, plan: &mut Plan, object: &Meta) -> Claim {
        let matches = self.selector.matches(&object.labels);
        match object.controller() {
            Some(owner) if owner.uid == self.meta.uid => {
                if matches {
                    return Claim::Mine;
                }
                if !self.meta.is_terminating() {
                    plan.patch_exactly(object, owners_patch(object, |it| it.uid != self.meta.uid));
                    plan.trace(
                        &object.key,
                        "Released",
                        format!("its labels no longer match {}", self.meta.name()),
                    );
                }
                Claim::NotMine
            }
            Some(_) => Claim::NotMine,
            None if matches && !self.meta.is_terminating() && !object.is_terminating() => {
                let mut patch = owners_patch(object, |it| it.uid != self.meta.uid);
                let mine = controller_ref(self.api_version, self.kind, self.meta);
                if let Some(owners) = patch["metadata"]["ownerReferences"].as_array_mut() {
                    owners.push(mine);
                }
                plan.patch_exactly(object, patch);
                Claim::Adopted
            }
            None => Claim::NotMine,
        }
    }
}

/// A patch that keeps only these owner references.
pub(crate) fn owners_patch(object: &Meta, keep: impl Fn(&OwnerRef) -> bool) -> Value {
    let kept: Vec<Value> = object.owners.iter().filter(|it| keep(it)).map(to_value).collect();
    tree!({"metadata": {"ownerReferences": kept}})
}

/// The letters of Kubernetes' generated names: no vowels, nothing that reads like another.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LEN: usize = 5;
/// Longest name that a suffix may be added to (apiserver, MaxGeneratedNameLength).
const GENERATED_BASE_LEN_MAX: usize = 63 - SUFFIX_LEN;

/// A name that is free: `base` and five letters that follow from `seed`. Deterministic, so that a plan can name it.
pub(crate) fn generated_name(base: &str, seed: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let mut base = base;
    while base.len() > GENERATED_BASE_LEN_MAX {
        base = &base[..base.len() - 1]; // names are ASCII
    }
    (0_u32..)
        .map(|attempt| {
            let hash = json::fingerprint(format!("{seed}/{attempt}").as_bytes());
            format!("{base}{}", letters(hash))
        })
        .find(|it| !is_taken(it))
        .expect("27^5 names are more than a namespace holds")
}

fn letters(mut hash: u64) -> String {
    let mut text = String::with_capacity(SUFFIX_LEN);
    for _ in 0..SUFFIX_LEN {
        text.push(char::from(LETTERS[(hash % LETTERS.len() as u64) as usize]));
        hash /= LETTERS.len() as u64;
    }
    text
}

/// A decimal number spelled with the letters of generated names, as `pod-template-hash` is.
pub(crate) fn safe_encode(number: u32) -> String {
    let letter = |digit: u8| char::from(LETTERS[usize::from(digit) % LETTERS.len()]);
    number.to_string().bytes().map(letter).collect()
}

/// The key of another object in the same namespace.
pub(crate) fn sibling(of: &Key, group: &str, resource: &str, name: &str) -> Key {
    Key::new(group, resource, of.namespace(), name).expect("made from names that are stored")
}
