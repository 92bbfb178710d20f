//! The order of a merged list: the patch's elements in the patch's order, woven into the server's own.
//!
//! Where a server-only element and a patched one both stood in the server's list, their order there decides; where
//! one is new, the patched one goes first (apimachinery's mergeSortedSlice).

use super::{PATCH, inapplicable, malformed};
use crate::patch::PatchError;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) type Places = BTreeMap<String, usize>;

/// How elements of a list are told apart.
#[derive(Clone, Copy)]
pub(super) enum Elements<'a> {
    Scalars,
    /// Objects, by this field.
    Keyed(&'a str),
}

impl Elements<'_> {
    pub fn identity(self, item: &Value) -> Result<&Value, PatchError> {
        match self {
            Elements::Scalars => Ok(item),
            Elements::Keyed(key) => item.get(key).ok_or_else(|| {
                inapplicable(format!("map: {item} does not contain declared merge key: {key}"))
            }),
        }
    }

    pub fn check(self, items: &[Value]) -> Result<(), PatchError> {
        items.iter().try_for_each(|item| self.identity(item).map(|_| ()))
    }

    /// The patch's elements must stand in the order list, in that order.
    pub fn check_order(
        self,
        patch: &[Value],
        order: &[Value],
        directive: &str,
    ) -> Result<(), PatchError> {
        self.check(order)?;
        let mut rest = order.iter();
        for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
            if !rest.any(|ordered| self.same(ordered, item)) {
                return Err(malformed(format!(
                    "The order in the patch's list doesn't match its {directive} list: {item} is missing or out of order"
                )));
            }
        }
        Ok(())
    }

    pub fn arrange(
        self,
        merged: Vec<Value>,
        patch_order: &[Value],
        server_order: &[Value],
    ) -> Vec<Value> {
        let (by_patch, by_server) = (self.places(patch_order), self.places(server_order));
        let place = |places: &Places, item: &Value| places.get(&self.name(item)).copied();
        let (mut patched, mut server_only): (Vec<Value>, Vec<Value>) =
            merged.into_iter().partition(|item| place(&by_patch, item).is_some());
        patched.sort_by_cached_key(|item| place(&by_patch, item));
        server_only.sort_by_cached_key(|item| place(&by_server, item));
        let mut arranged = Vec::with_capacity(patched.len() + server_only.len());
        let (mut left, mut right) =
            (server_only.into_iter().peekable(), patched.into_iter().peekable());
        loop {
            let next = match (left.peek(), right.peek()) {
                (None, None) => return arranged,
                (Some(_), None) => left.next(),
                (None, Some(_)) => right.next(),
                (Some(l), Some(r)) => match (place(&by_server, l), place(&by_server, r)) {
                    (Some(l), Some(r)) if l < r => left.next(),
                    _ => right.next(),
                },
            };
            arranged.extend(next);
        }
    }

    /// The first place of each element; an index, because lists of a 3 MiB object are long.
    pub fn places(self, items: &[Value]) -> Places {
        let mut places = Places::new();
        for (at, item) in items.iter().enumerate() {
            places.entry(self.name(item)).or_insert(at);
        }
        places
    }

    /// The identity as text; an element without its key is `null`, which `check` has refused.
    pub fn name(self, item: &Value) -> String {
        match self {
            Elements::Scalars => item.to_string(),
            Elements::Keyed(key) => item.get(key).unwrap_or(&Value::Null).to_string(),
        }
    }

    fn same(self, one: &Value, other: &Value) -> bool {
        match self {
            Elements::Scalars => one == other,
            Elements::Keyed(key) => one.get(key).is_some() && one.get(key) == other.get(key),
        }
    }
}
