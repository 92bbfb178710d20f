//! Who owns which field: managedFields on every write, and server-side apply.
//!
//! The rules are structured-merge-diff's `merge.Updater` and the field managers of apimachinery around it: an update
//! takes what it changes from everybody; an apply takes what it names, refuses (or is forced) where another owner's
//! value would change, and removes what it named before and nobody owns now. All entries are read in the kind's one
//! served version. Everything is a function of its arguments; time is text, given by the caller.

mod entries;
mod field_set;
mod typed;

pub use field_set::{Element, FieldSet, FieldSetError};

use crate::schema::Schema;
use entries::{Identity, Managers, Operation};
use serde_json::{Map, Value};

/// Who writes, as what, and when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// The version that the request speaks: `apps/v1`.
    pub api_version: &'a str,
    /// `""` for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, in seconds.
    pub time: &'a str,
    /// Fields that this request cannot set (`status` of the object itself): never owned by it.
    pub ignored: &'a FieldSet,
}

/// What to do when an apply would change what another manager owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    Refuse,
    Force,
}

/// An applied object. `changed` is false when neither fields nor owners changed: then nothing need be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    pub object: Value,
    pub changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 409 with one cause `FieldManagerConflict` for each.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 400: the configuration's lists are not sets, or it brings managedFields.
    #[error("{0}")]
    Invalid(String),
}

/// One field that an apply would change and another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// As printed: `"kubectl-client-side-apply" using apps/v1`.
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
}

impl Conflict {
    /// The message of the Status cause.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!("Apply failed with 1 conflict: {}: {}", conflict.message(), conflict.field);
    }
    let mut message = format!("Apply failed with {} conflicts: ", conflicts.len());
    let mut previous = None;
    for conflict in conflicts {
        if previous != Some(&conflict.manager) {
            let line_break = if previous.is_some() { "\n" } else { "" };
            message += &format!("{line_break}conflicts with {}:", conflict.manager);
        }
        message += &format!("\n- {}", conflict.field);
        previous = Some(&conflict.manager);
    }
    message
}

/// Records in `new` who owns what after a create (`live` is none), update or patch by `writer`.
///
/// `new` is the object as it will be stored, defaults included. Its own managedFields, when they are good, replace
/// the live ones (that is how clients drop or rename entries; `[{}]` clears them), except in a subresource.
pub fn update_fields(schema: &Schema, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let mut managers = Managers::requested(live, new, writer.subresource);
    entries::take(new);
    let mut old = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    entries::take(&mut old);
    let identity = Identity::of(writer, Operation::Update);
    let change = Change::between(schema, &old, new);
    managers.lose(&change, None);
    let taken = change.taken.difference_below(writer.ignored);
    managers.take_over(identity, entries::without_stripped(&taken), writer);
    managers.cap();
    managers.write(new);
}

/// Lays `config` over `live` as `writer`'s whole intent. `live` is none on a create.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    on_conflict: OnConflict,
) -> Result<Applied, ApplyError> {
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
    }
    let before = Managers::of(live);
    let mut old = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    entries::take(&mut old);
    let mut managers = before.clone();
    if managers.is_empty() && live.is_some() {
        managers.claim_before_first_apply(schema, &old, writer);
    }
    let identity = Identity::of(writer, Operation::Apply);
    let last = managers.fields(&identity);
    let config = &strip_ignored(schema, config, writer.ignored);
    let named = typed::fields_of(schema.root(), config).map_err(ApplyError::Invalid)?;
    let named = entries::without_stripped(&named.difference_below(writer.ignored));
    managers.set(identity.clone(), named, writer);

    let merged = typed::merge(Some(schema.root()), &old, config);
    let mut object = prune(schema, &merged, &last, &managers);
    let change = Change::between(schema, &old, &object);
    let conflicts = managers.conflicts(&change, &identity);
    if on_conflict == OnConflict::Refuse && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    managers.lose(&change, Some(&identity));
    if let Some(live) = live.filter(|_| object == old && managers.same_owners(&before)) {
        return Ok(Applied { object: live.clone(), changed: false });
    }
    managers.write(&mut object);
    Ok(Applied { object, changed: true })
}

/// The manager's name when a request names none: what stands before the slash of its user agent.
pub fn manager_of_user_agent(user_agent: &str) -> String {
    const NAME_BYTES_MAX: usize = 128;
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars() {
        if name.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        if !c.is_control() {
            name.push(c);
        }
    }
    name
}

/// What one write did to the fields.
struct Change {
    /// Added or modified.
    taken: FieldSet,
    removed: FieldSet,
}

impl Change {
    fn between(schema: &Schema, old: &Value, new: &Value) -> Change {
        let compared = typed::compare(schema.root(), old, new);
        let taken = compared.added.children.union(&compared.modified.children);
        Change { taken, removed: compared.removed.children }
    }
}

/// Removes what this manager named last time and nobody names now.
fn prune(schema: &Schema, merged: &Value, last: &FieldSet, managers: &Managers) -> Value {
    let root = Some(schema.root());
    let owned = managers.all_fields().with_named_fields(root);
    let gone = last.with_named_fields(root).difference(&owned);
    typed::remove(root, merged, &gone).unwrap_or_else(|| Value::Object(Map::new()))
}

/// The configuration without the fields that this request cannot set.
fn strip_ignored(schema: &Schema, config: &Value, ignored: &FieldSet) -> Value {
    typed::remove(Some(schema.root()), config, ignored).unwrap_or_else(|| Value::Object(Map::new()))
}

#[cfg(test)]
mod tests;
