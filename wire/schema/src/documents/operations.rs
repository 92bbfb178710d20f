//! The paths of served kinds and what can be done there; one description from which v2 and v3 are written.
//!
//! kubectl reads from it that a PATCH takes `fieldValidation` and `dryRun`, and which kind a path is about.

use super::{Served, ServedSubresource, group_version_path};
use crate::schema::{Schema, Shape};

/// One path and its operations.
pub(super) struct Path {
    pub path: String,
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
}

#[derive(Clone, Copy)]
pub(super) enum Place {
    Path,
    Query,
}

#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub name: &'static str,
    pub place: Place,
    pub type_name: &'static str,
    pub description: &'static str,
}

pub(super) struct Operation {
    pub method: &'static str,
    /// `x-kubernetes-action`
    pub action: &'static str,
    pub id: String,
    pub tag: String,
    pub description: String,
    /// group, version, kind
    pub kind: (String, String, String),
    pub parameters: Vec<Parameter>,
    /// The definition that the request's body is.
    pub body: Option<String>,
    pub consumes: &'static [&'static str],
    /// The definition that the answer is; none means text.
    pub answer: Option<String>,
    pub codes: &'static [&'static str],
}

const fn query(
    name: &'static str,
    type_name: &'static str,
    description: &'static str,
) -> Parameter {
    Parameter { name, place: Place::Query, type_name, description }
}

const fn in_path(name: &'static str, description: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, type_name: "string", description }
}

const NAMESPACE: Parameter = in_path("namespace", "the namespace of the object");
const NAME: Parameter = in_path("name", "the name of the object");
const PRETTY: Parameter = query("pretty", "string", "if 'true', the output is indented");
const DRY_RUN: Parameter = query(
    "dryRun",
    "string",
    "'All': do everything but the writing, and answer as if it were written",
);
const FIELD_MANAGER: Parameter =
    query("fieldManager", "string", "the name under which the written fields are owned");
const FIELD_VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "what to do about unknown or duplicate fields: 'Ignore', 'Warn' or 'Strict'",
);
const FORCE: Parameter =
    query("force", "boolean", "an apply takes fields over that other managers own");

const WRITING: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCHING: [Parameter; 4] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETING: [Parameter; 4] = [
    DRY_RUN,
    query("gracePeriodSeconds", "integer", "seconds until the object is deleted; 0 is at once"),
    query("orphanDependents", "boolean", "deprecated: use propagationPolicy"),
    query("propagationPolicy", "string", "'Orphan', 'Background' or 'Foreground'"),
];
const LISTING: [Parameter; 10] = [
    query("allowWatchBookmarks", "boolean", "a watch may send BOOKMARK events"),
    query("continue", "string", "the token of the previous page"),
    query("fieldSelector", "string", "which objects, by their fields"),
    query("labelSelector", "string", "which objects, by their labels"),
    query("limit", "integer", "at most so many objects in one answer"),
    query("resourceVersion", "string", "how fresh the answer must be"),
    query("resourceVersionMatch", "string", "'NotOlderThan' or 'Exact'"),
    query("sendInitialEvents", "boolean", "a watch begins with the objects that there are"),
    query("timeoutSeconds", "integer", "the longest time of the call"),
    query("watch", "boolean", "send changes as they happen instead of a list"),
];

const ANY: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// All paths of one kind.
pub(super) fn paths(kind: &Served) -> Vec<Path> {
    let base = format!("/{}", group_version_path(&kind.group, &kind.version));
    let resource = &kind.resource;
    let (collection, scope) = match kind.namespaced {
        true => (format!("{base}/namespaces/{{namespace}}/{resource}"), vec![NAMESPACE]),
        false => (format!("{base}/{resource}"), Vec::new()),
    };
    let item = format!("{collection}/{{name}}");
    let with = |more: &[Parameter]| [&scope[..], more].concat();
    let target = Target::of(kind);
    let mut paths = Vec::new();
    if kind.namespaced && kind.verbs.iter().any(|verb| verb == "list") {
        let operations = target.operations(&["list"], "ForAllNamespaces");
        paths.push(Path {
            path: format!("{base}/{resource}"),
            parameters: vec![PRETTY],
            operations,
        });
    }
    paths.push(Path {
        path: collection.clone(),
        parameters: with(&[PRETTY]),
        operations: target.operations(&["list", "create", "deletecollection"], ""),
    });
    paths.push(Path {
        path: item.clone(),
        parameters: with(&[NAME, PRETTY]),
        operations: target.operations(&["get", "update", "patch", "delete"], ""),
    });
    for subresource in &kind.subresources {
        paths.push(Path {
            path: format!("{item}/{}", subresource.name),
            parameters: with(&[NAME, PRETTY]),
            operations: Target::of_subresource(kind, subresource)
                .operations(&["get", "create", "update", "patch", "delete"], ""),
        });
    }
    paths.retain(|path| !path.operations.is_empty());
    paths
}

/// The definition of a kind, when the facts know it.
pub(super) fn definition_of(group: &str, version: &str, kind: &str) -> Option<String> {
    match Schema::of(group, version, kind)?.root().shape() {
        Shape::Struct(fields) => Some(fields.definition_name().to_owned()),
        _ => None,
    }
}

/// What the operations of one path are about.
struct Target<'a> {
    verbs: &'a [String],
    kind: (String, String, String),
    /// None for streams: they are connected to, not read.
    definition: Option<String>,
    list: Option<String>,
    answers_text: bool,
    tag: String,
    /// `Namespaced` and the kind, and the subresource; part of operation ids.
    subject: String,
    group_word: String,
}

impl<'a> Target<'a> {
    fn of(kind: &'a Served) -> Target<'a> {
        let group = match kind.group.as_str() {
            "" => "core",
            group => group.strip_suffix(".k8s.io").unwrap_or(group),
        };
        let words = group.split(['.', '-']).chain([kind.version.as_str()]).map(capitalized);
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        let definition = |name: &str| definition_of(&kind.group, &kind.version, name);
        Target {
            verbs: &kind.verbs,
            kind: (kind.group.clone(), kind.version.clone(), kind.kind.clone()),
            definition: definition(&kind.kind),
            list: definition(&format!("{}List", kind.kind)),
            answers_text: false,
            tag: format!("{}_{}", group.replace(['.', '-'], "_"), kind.version),
            subject: format!("{scope}{}", kind.kind),
            group_word: words.collect(),
        }
    }

    fn of_subresource(kind: &'a Served, subresource: &'a ServedSubresource) -> Target<'a> {
        let own = (kind.group.clone(), kind.version.clone());
        let (group, version) = subresource.group_version.clone().unwrap_or(own);
        let target = Target::of(kind);
        Target {
            verbs: &subresource.verbs,
            definition: definition_of(&group, &version, &subresource.kind),
            list: None,
            answers_text: subresource.name == "log",
            kind: (group, version, subresource.kind.clone()),
            subject: format!("{}{}", target.subject, capitalized(&subresource.name)),
            ..target
        }
    }

    /// Those of `verbs` that are served here.
    fn operations(&self, verbs: &[&str], id_suffix: &str) -> Vec<Operation> {
        let served = verbs.iter().filter(|verb| self.verbs.iter().any(|served| served == *verb));
        served.filter_map(|verb| self.operation(verb, id_suffix)).collect()
    }

    fn operation(&self, verb: &str, id_suffix: &str) -> Option<Operation> {
        let row = VERBS.iter().find(|row| row.verb == verb)?;
        let streams = self.definition.is_none();
        let (action, id_word) = match streams {
            true => ("connect", format!("connect{}{}", self.group_word, capitalized(row.method))),
            false => (row.action, format!("{}{}", row.id, self.group_word)),
        };
        Some(Operation {
            method: row.method,
            action,
            id: format!("{id_word}{}{}{id_suffix}", row.id_infix, self.subject),
            tag: self.tag.clone(),
            description: format!("{verb} {}", self.subject),
            kind: self.kind.clone(),
            parameters: row.parameters.concat(),
            body: self.part(row.body),
            consumes: if verb == "patch" { PATCHES } else { ANY },
            answer: self.part(row.answer).filter(|_| !self.answers_text),
            codes: row.codes,
        })
    }

    fn part(&self, part: Part) -> Option<String> {
        match part {
            Part::Nothing => None,
            Part::Own => self.definition.clone(),
            Part::List => self.list.clone(),
            Part::Meta(name) => Some(format!("{META}{name}")),
        }
    }
}

/// What a request's or an answer's body is.
#[derive(Clone, Copy)]
enum Part {
    Nothing,
    Own,
    List,
    Meta(&'static str),
}

/// How a verb stands in a document.
struct VerbRow {
    verb: &'static str,
    method: &'static str,
    action: &'static str,
    /// The words of an operation id, before and after its group.
    id: &'static str,
    id_infix: &'static str,
    parameters: &'static [&'static [Parameter]],
    body: Part,
    answer: Part,
    codes: &'static [&'static str],
}

const fn row(
    verb: &'static str,
    method: &'static str,
    id: &'static str,
    body: Part,
    answer: Part,
) -> VerbRow {
    let (parameters, codes): (&[&[Parameter]], &[&str]) = match method.as_bytes() {
        b"post" => (&[&WRITING], &["200", "201", "202"]),
        b"put" => (&[&WRITING], &["200", "201"]),
        b"patch" => (&[&PATCHING], &["200", "201"]),
        b"delete" => (&[&DELETING], &["200", "202"]),
        _ => (&[], &["200"]),
    };
    VerbRow { verb, method, action: method, id, id_infix: "", parameters, body, answer, codes }
}

const VERBS: [VerbRow; 7] = [
    row("get", "get", "read", Part::Nothing, Part::Own),
    VerbRow {
        action: "list",
        parameters: &[&LISTING],
        ..row("list", "get", "list", Part::Nothing, Part::List)
    },
    row("create", "post", "create", Part::Own, Part::Own),
    row("update", "put", "replace", Part::Own, Part::Own),
    row("patch", "patch", "patch", Part::Meta("Patch"), Part::Own),
    row("delete", "delete", "delete", Part::Meta("DeleteOptions"), Part::Meta("Status")),
    VerbRow {
        action: "deletecollection",
        id_infix: "Collection",
        parameters: &[&DELETING, LISTING.split_at(1).1.split_at(6).0],
        codes: &["200"],
        ..row(
            "deletecollection",
            "delete",
            "delete",
            Part::Meta("DeleteOptions"),
            Part::Meta("Status"),
        )
    },
];

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
