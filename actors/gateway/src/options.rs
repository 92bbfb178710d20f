//! The query of an API request as typed options, and the refusals of those that make no sense.
//!
//! A value of the wrong type is 400, a value that is not allowed is 422 with the field
//! (apimachinery pkg/apis/meta/v1/validation, pkg/apis/meta/internalversion/validation). Unknown names are ignored.

use kactor_api::{
    Bookmarks, Conflicts, DryRun, FieldValidation, Form, InitialEvents, Options, Propagation,
    VersionMatch,
};
use kactor_api::{Reason, Status};
use kactor_objects::status::{Cause, Details};

use crate::query::Query;

/// Options of a watch that other reads have not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    pub initial: InitialEvents,
    pub bookmarks: Bookmarks,
    pub timeout_seconds: Option<u64>,
}

/// What is done, as far as options differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Use {
    /// The options object that Kubernetes names in a refusal.
    fn kind(self) -> &'static str {
        match self {
            Self::Get => "GetOptions",
            Self::List | Self::Watch => "ListOptions",
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch => "PatchOptions",
            Self::Delete | Self::DeleteCollection => "DeleteOptions",
        }
    }

    fn selects(self) -> bool {
        matches!(self, Self::List | Self::Watch | Self::DeleteCollection)
    }

    fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// Reads the options that `of` has; `form` comes from content negotiation.
pub fn parse(query: &Query, of: Use, form: Form) -> Result<Options, Status> {
    let mut options = Options { form, ..Options::default() };
    if matches!(of, Use::Get) || of.selects() {
        options.resource_version = query.text("resourceVersion");
    }
    if of.selects() {
        selecting(query, &mut options)?;
        check_version_match(query, of, &options)?;
    }
    if of.writes() {
        options.dry_run = dry_run(query, of)?;
        options.field_validation = field_validation(query, of)?;
    }
    if of == Use::Patch && query.flag("force") {
        options.conflicts = Conflicts::Force;
    }
    if matches!(of, Use::Delete | Use::DeleteCollection) {
        options.grace_period_seconds = number(query, "gracePeriodSeconds")?;
        options.propagation = propagation(query, of)?;
    }
    Ok(options)
}

/// Reads what only a watch has.
pub fn parse_watch(query: &Query) -> Result<WatchOptions, Status> {
    let initial = match query.get("sendInitialEvents") {
        None => InitialEvents::Unset,
        Some(_) if query.flag("sendInitialEvents") => InitialEvents::Send,
        Some(_) => InitialEvents::Skip,
    };
    if initial != InitialEvents::Unset && query.get("resourceVersionMatch") != Some("NotOlderThan")
    {
        return Err(forbidden(
            Use::Watch,
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let bookmarks =
        if query.flag("allowWatchBookmarks") { Bookmarks::Allow } else { Bookmarks::No };
    let timeout_seconds =
        number(query, "timeoutSeconds")?.and_then(|it| u64::try_from(it).ok()).filter(|it| *it > 0);
    Ok(WatchOptions { initial, bookmarks, timeout_seconds })
}

fn selecting(query: &Query, options: &mut Options) -> Result<(), Status> {
    options.label_selector = query.text("labelSelector");
    options.field_selector = query.text("fieldSelector");
    options.limit = number(query, "limit")?.and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    options.continue_token = query.text("continue");
    options.version_match = match query.get("resourceVersionMatch") {
        None | Some("") => None,
        Some("Exact") => Some(VersionMatch::Exact),
        Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
        Some(other) => {
            return Err(unsupported(
                Use::List,
                "resourceVersionMatch",
                other,
                r#""Exact", "NotOlderThan", """#,
            ));
        }
    };
    Ok(())
}

fn check_version_match(query: &Query, of: Use, options: &Options) -> Result<(), Status> {
    let refuse = |why: &str| Err(forbidden(of, "resourceVersionMatch", why));
    if of != Use::Watch && query.get("sendInitialEvents").is_some() {
        return Err(forbidden(of, "sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    let Some(version_match) = options.version_match else {
        return Ok(());
    };
    if of == Use::Watch {
        return match query.get("sendInitialEvents") {
            None => refuse(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            Some(_) => Ok(()),
        };
    }
    match options.resource_version.as_deref() {
        _ if options.continue_token.is_some() => {
            refuse("resourceVersionMatch is forbidden when continue is provided")
        }
        None => refuse("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        Some("0") if version_match == VersionMatch::Exact => {
            refuse(r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#)
        }
        Some(_) => Ok(()),
    }
}

fn dry_run(query: &Query, of: Use) -> Result<DryRun, Status> {
    let mut answer = DryRun::No;
    for value in query.all("dryRun") {
        match value {
            "All" => answer = DryRun::All,
            "" => {}
            other => return Err(unsupported(of, "dryRun", other, r#""All""#)),
        }
    }
    Ok(answer)
}

fn field_validation(query: &Query, of: Use) -> Result<FieldValidation, Status> {
    match query.get("fieldValidation") {
        None | Some("") => Ok(FieldValidation::default()),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some("Warn") => Ok(FieldValidation::Warn),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some(other) => {
            Err(unsupported(of, "fieldValidation", other, r#""", "Ignore", "Strict", "Warn""#))
        }
    }
}

fn propagation(query: &Query, of: Use) -> Result<Option<Propagation>, Status> {
    let orphan = query.get("orphanDependents").map(|_| query.flag("orphanDependents"));
    match query.get("propagationPolicy") {
        None | Some("") => Ok(orphan.map(|it| match it {
            true => Propagation::Orphan,
            false => Propagation::Background,
        })),
        Some(_) if orphan.is_some() => Err(invalid(
            of,
            "propagationPolicy",
            "FieldValueInvalid",
            "Invalid value: orphanDependents and deletionPropagation cannot be both set",
        )),
        Some("Orphan") => Ok(Some(Propagation::Orphan)),
        Some("Background") => Ok(Some(Propagation::Background)),
        Some("Foreground") => Ok(Some(Propagation::Foreground)),
        Some(other) => Err(unsupported(
            of,
            "propagationPolicy",
            other,
            r#""Background", "Foreground", "Orphan""#,
        )),
    }
}

fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    query.number(name).map_err(Status::bad_request)
}

fn unsupported(of: Use, field: &str, value: &str, supported: &str) -> Status {
    let why = format!("Unsupported value: {value:?}: supported values: {supported}");
    invalid(of, field, "FieldValueNotSupported", &why)
}

fn forbidden(of: Use, field: &str, why: &str) -> Status {
    invalid(of, field, "FieldValueForbidden", &format!("Forbidden: {why}"))
}

fn invalid(of: Use, field: &str, reason: &str, body: &str) -> Status {
    invalid_options(of.kind(), "", "meta.k8s.io", &[(field, reason, body)])
}

/// 422 for an options object, which is no registered kind: one (field, reason, text) for each problem.
pub fn invalid_options(
    kind: &str,
    name: &str,
    group: &str,
    problems: &[(&str, &str, &str)],
) -> Status {
    let qualified = match group {
        "" => kind.to_owned(),
        group => format!("{kind}.{group}"),
    };
    let texts: Vec<String> =
        problems.iter().map(|(field, _, body)| format!("{field}: {body}")).collect();
    let all = match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let causes = problems
        .iter()
        .map(|(field, reason, body)| Cause {
            reason: (*reason).to_owned(),
            message: (*body).to_owned(),
            field: (*field).to_owned(),
        })
        .collect();
    let mut status =
        Status::new(Reason::Invalid, format!("{qualified} {name:?} is invalid: {all}"));
    status.details = Some(Box::new(Details {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        causes,
        ..Details::default()
    }));
    status
}

#[cfg(test)]
mod tests;
