//! Content negotiation: what the client can read and what it sent.
//!
//! Objects are JSON or YAML; a Table or bare metadata is asked for by parameters of the media type
//! (k8s.io/apiserver pkg/endpoints/handlers/negotiation). Clauses are taken by their `q`, then in order; the first
//! that can be served wins, so a client that prefers protobuf and takes JSON gets JSON, and one that takes only
//! protobuf is told 406 with what there is.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use kactor_api::{Form, IncludeObject, PatchType, Status};

use crate::protobuf;
use crate::query::Query;
use crate::reply;

/// More clauses than this are not looked at.
const CLAUSES_MAX: usize = 64;

/// What is answered with.
const ACCEPTED: [&str; 2] = [reply::JSON, reply::YAML];
/// What bodies may be.
const TAKEN: [&str; 3] = [reply::JSON, reply::YAML, protobuf::MEDIA_TYPE];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    /// Indented, for people: `?pretty=true`, or a browser or curl without an `Accept` of its own.
    PrettyJson,
    Yaml,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::PrettyJson => reply::JSON,
            Self::Yaml => reply::YAML,
        }
    }
}

/// What to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    pub encoding: Encoding,
    pub form: Form,
}

/// Whether one answer is asked for, or a stream of them (a watch, which cannot be YAML).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Single,
    /// One answer without rows: a review, which is no stored object.
    Review,
    Stream,
}

/// One clause of an `Accept` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    pub media_type: String,
    pub parameters: Vec<(String, String)>,
    /// Thousandths; 1000 is the greatest preference.
    pub quality: u16,
}

impl Clause {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    pub fn takes(&self, media_type: &str) -> bool {
        let kind = media_type.split('/').next().unwrap_or_default();
        self.media_type == media_type
            || self.media_type == "*/*"
            || self.media_type.strip_suffix("/*").is_some_and(|it| it == kind)
    }
}

/// The clauses of the request's `Accept` that are wanted, best first.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause> {
    let mut found: Vec<Clause> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .filter(|it| !it.trim().is_empty())
        .take(CLAUSES_MAX)
        .map(clause)
        .filter(|it| it.quality > 0)
        .collect();
    found.sort_by_key(|it| std::cmp::Reverse(it.quality)); // Stable: equal ones stay in order.
    found
}

fn clause(text: &str) -> Clause {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut quality = 1000;
    let mut parameters = Vec::new();
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
        if name == "q" {
            let parsed = value.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0);
            quality = (parsed * 1000.0) as u16;
        } else {
            parameters.push((name, value.to_owned()));
        }
    }
    Clause { media_type, parameters, quality }
}

/// Chooses encoding and form, or 406.
pub fn negotiate(headers: &HeaderMap, query: &Query, shape: Shape) -> Result<Negotiated, Status> {
    let clauses = clauses(headers);
    let plain = Negotiated { encoding: pretty(headers, query), form: Form::Object };
    let anything = headers.get_all(ACCEPT).iter().all(|it| it.as_bytes().trim_ascii().is_empty());
    if anything {
        return Ok(plain);
    }
    for clause in &clauses {
        let yaml = clause.media_type == reply::YAML && shape != Shape::Stream;
        let encoding = if yaml {
            Encoding::Yaml
        } else if clause.takes(reply::JSON) {
            plain.encoding
        } else {
            continue;
        };
        let form = form(clause, query)?;
        if shape == Shape::Review && matches!(form, Some(Form::Table(_))) {
            continue;
        }
        if let Some(form) = form {
            return Ok(Negotiated { encoding, form });
        }
    }
    Err(Status::not_acceptable(&ACCEPTED))
}

/// The form that the clause's `as` names; `None` where it names one that there is not.
fn form(clause: &Clause, query: &Query) -> Result<Option<Form>, Status> {
    let Some(kind) = clause.parameter("as") else {
        return Ok(Some(Form::Object));
    };
    let group = clause.parameter("g").unwrap_or_default();
    let version = clause.parameter("v").unwrap_or_default();
    if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") {
        return Ok(None);
    }
    match kind {
        "Table" => Ok(Some(Form::Table(include_object(query)?))),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Ok(Some(Form::Metadata)),
        _ => Ok(None),
    }
}

fn include_object(query: &Query) -> Result<IncludeObject, Status> {
    match query.get("includeObject") {
        None | Some("" | "Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => {
            Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}")))
        }
    }
}

fn pretty(headers: &HeaderMap, query: &Query) -> Encoding {
    let by_agent = || {
        let agent = headers.get(http::header::USER_AGENT).and_then(|it| it.to_str().ok());
        agent.is_some_and(|it| ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| it.starts_with(p)))
    };
    let wanted = match query.get("pretty") {
        Some(_) => query.flag("pretty"),
        None => by_agent(),
    };
    if wanted { Encoding::PrettyJson } else { Encoding::Json }
}

/// The media type of the request's body, or 415 where it is none that is read. Absent means JSON.
pub fn body_type(headers: &HeaderMap) -> Result<&'static str, Status> {
    match content_type(headers).as_deref() {
        None | Some("" | reply::JSON) => Ok(reply::JSON),
        Some(reply::YAML) => Ok(reply::YAML),
        Some(protobuf::MEDIA_TYPE) => Ok(protobuf::MEDIA_TYPE),
        Some(_) => Err(Status::unsupported_media_type(&TAKEN)),
    }
}

const PATCHES: [(&str, PatchType); 4] = [
    ("application/json-patch+json", PatchType::Json),
    ("application/merge-patch+json", PatchType::Merge),
    ("application/strategic-merge-patch+json", PatchType::Strategic),
    ("application/apply-patch+yaml", PatchType::Apply),
];

/// Which patch the body is, or 415.
pub fn patch_type(headers: &HeaderMap) -> Result<(&'static str, PatchType), Status> {
    let sent = content_type(headers).unwrap_or_default();
    PATCHES
        .into_iter()
        .find(|(name, _)| *name == sent)
        .ok_or_else(|| Status::unsupported_media_type(&PATCHES.map(|(name, _)| name)))
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let sent = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
