//! The Kubernetes `Status` object: how every refused or failed request is answered.
//!
//! Clients switch on `reason`, `code` and causes, and people read `message`, so the texts are upstream's
//! (apimachinery, api/errors). This crate only builds the object; which error becomes which Status is decided by
//! the api. In `details`, `kind` is the resource for not-found and conflict, and the kind for invalid objects.

use std::fmt;

use serde_json::{Value, json};

use crate::field_error::{FieldError, quote};
use crate::registry::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No reason; only successes have it.
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The word on the wire and its HTTP code.
    fn row(self) -> (&'static str, u16) {
        match self {
            Self::Unknown => ("", 200),
            Self::Unauthorized => ("Unauthorized", 401),
            Self::Forbidden => ("Forbidden", 403),
            Self::NotFound => ("NotFound", 404),
            Self::AlreadyExists => ("AlreadyExists", 409),
            Self::Conflict => ("Conflict", 409),
            Self::Gone => ("Gone", 410),
            Self::Invalid => ("Invalid", 422),
            Self::ServerTimeout => ("ServerTimeout", 500),
            Self::Timeout => ("Timeout", 504),
            Self::TooManyRequests => ("TooManyRequests", 429),
            Self::BadRequest => ("BadRequest", 400),
            Self::MethodNotAllowed => ("MethodNotAllowed", 405),
            Self::NotAcceptable => ("NotAcceptable", 406),
            Self::RequestEntityTooLarge => ("RequestEntityTooLarge", 413),
            Self::UnsupportedMediaType => ("UnsupportedMediaType", 415),
            Self::InternalError => ("InternalError", 500),
            Self::Expired => ("Expired", 410),
            Self::ServiceUnavailable => ("ServiceUnavailable", 503),
        }
    }

    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    pub fn code(self) -> u16 {
        self.row().1
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// What a Status is about. Empty members are not printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: set when an expired list may go on inconsistently.
    pub continue_token: Option<String>,
}

/// The group and resource that an error names: `pods`, `deployments.apps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupResource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

impl<'a> From<&'a Kind> for GroupResource<'a> {
    fn from(kind: &'a Kind) -> Self {
        Self { group: kind.group, resource: kind.resource }
    }
}

impl Status {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            code: reason.code(),
            reason,
            message: message.into(),
            details: None,
            continue_token: None,
        }
    }

    fn about(reason: Reason, of: GroupResource<'_>, name: &str, message: String) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: of.group.to_owned(),
            kind: of.resource.to_owned(),
            ..Details::default()
        };
        Self { details: Some(Box::new(details)), ..Self::new(reason, message) }
    }

    /// The answer to a delete that left nothing behind.
    pub fn deleted(kind: &Kind, name: &str, uid: &str) -> Self {
        let mut status = Self::about(Reason::Unknown, kind.into(), name, String::new());
        status.details_mut().uid = uid.to_owned();
        status
    }

    pub fn success() -> Self {
        Self::new(Reason::Unknown, "")
    }

    pub fn not_found<'a>(of: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let of = of.into();
        let message = format!("{of} {} not found", quote(name));
        Self::about(Reason::NotFound, of, name, message)
    }

    /// No such path: the URL names nothing that is served.
    pub fn path_not_found() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(Reason::NotFound, "the server could not find the requested resource")
        }
    }

    pub fn already_exists<'a>(of: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let of = of.into();
        let message = format!("{of} {} already exists", quote(name));
        Self::about(Reason::AlreadyExists, of, name, message)
    }

    /// Generated names were taken, several times over.
    pub fn generated_name_exists<'a>(of: impl Into<GroupResource<'a>>, name: &str) -> Self {
        let of = of.into();
        let message = format!(
            "{of} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        Self::about(Reason::AlreadyExists, of, name, message).retry_after(1)
    }

    /// The stored object is newer than the one that the request is based on.
    pub fn modified<'a>(of: impl Into<GroupResource<'a>>, name: &str) -> Self {
        Self::conflict(
            of,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn conflict<'a>(of: impl Into<GroupResource<'a>>, name: &str, why: &str) -> Self {
        let of = of.into();
        let message = format!("Operation cannot be fulfilled on {of} {}: {why}", quote(name));
        Self::about(Reason::Conflict, of, name, message)
    }

    pub fn uid_precondition<'a>(
        of: impl Into<GroupResource<'a>>,
        name: &str,
        wanted: &str,
        found: &str,
    ) -> Self {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
        );
        Self::conflict(of, name, &why)
    }

    pub fn revision_precondition<'a>(
        of: impl Into<GroupResource<'a>>,
        name: &str,
        wanted: &str,
        found: &str,
    ) -> Self {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {found}"
        );
        Self::conflict(of, name, &why)
    }

    /// Server-side apply met fields that others manage. One cause per field, reason `FieldManagerConflict`.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        Self::new(Reason::Conflict, message).with_causes(causes)
    }

    /// 422 with one cause per field. The same message is said once.
    pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let qualified = GroupResource { group: kind.group, resource: kind.kind };
        let mut messages: Vec<String> = Vec::new();
        for error in errors {
            let message = error.to_string();
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        let why = match messages.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let causes = errors.iter().map(Cause::from).collect();
        let message = format!("{qualified} {} is invalid{why}", quote(name));
        Self::about(Reason::Invalid, qualified, name, message).with_causes(causes)
    }

    /// 403. `name` may be empty (lists, creates).
    pub fn forbidden<'a>(of: impl Into<GroupResource<'a>>, name: &str, why: &str) -> Self {
        let of = of.into();
        let message = match (of.resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{of} is forbidden: {why}"),
            _ => format!("{of} {} is forbidden: {why}", quote(name)),
        };
        Self::about(Reason::Forbidden, of, name, message)
    }

    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 405: the resource is there, this verb is not.
    pub fn method_not_allowed<'a>(of: impl Into<GroupResource<'a>>, action: &str) -> Self {
        let of = of.into();
        let message =
            format!("{action} is not supported on resources of kind {}", quote(&of.to_string()));
        Self::about(Reason::MethodNotAllowed, of, "", message)
    }

    /// 406. The types that would have been accepted, in order of preference.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message =
            format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(Reason::NotAcceptable, message)
    }

    /// 415. The types that would have been accepted.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(Reason::UnsupportedMediaType, message)
    }

    pub fn request_too_large(bytes_max: usize) -> Self {
        Self::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {bytes_max}"),
        )
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(Reason::Gone, message)
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 410: a watch or list asked for a revision that was compacted.
    pub fn revision_too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410 for a `continue` token whose revision is gone; `token` lets the client go on without one snapshot.
    pub fn continue_expired(token: Option<String>) -> Self {
        let message = match token {
            Some(_) => {
                "The provided continue parameter is too old to display a consistent list result. \
                 You can start a new list without the continue parameter, or use the continue token \
                 in this response to retrieve the remainder of the results. Continuing with the \
                 provided token results in an inconsistent list - objects that were created, \
                 modified, or deleted between the time the first chunk was returned and now may \
                 show up in the list."
            }
            None => {
                "The provided continue parameter is too old to display a consistent list result. \
                 You must start a new list without the continue."
            }
        };
        Self { continue_token: token, ..Self::expired(message) }
    }

    pub fn timeout(message: &str, retry_after_seconds: u32) -> Self {
        Self::new(Reason::Timeout, format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }

    /// 504: this server has not seen revision `asked` yet.
    pub fn revision_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self::timeout(&message, 1).with_causes(vec![Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }])
    }

    pub fn server_timeout<'a>(
        of: impl Into<GroupResource<'a>>,
        operation: &str,
        retry_after_seconds: u32,
    ) -> Self {
        let of = of.into();
        let message = format!(
            "The {operation} operation against {of} could not be completed at this time, please try again."
        );
        Self::about(Reason::ServerTimeout, of, operation, message).retry_after(retry_after_seconds)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(Reason::TooManyRequests, message).retry_after(retry_after_seconds)
    }

    pub fn service_unavailable(why: impl Into<String>) -> Self {
        Self::new(Reason::ServiceUnavailable, why)
    }

    pub fn internal(why: &str) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {why}"))
            .with_causes(vec![Cause { message: why.to_owned(), ..Cause::default() }])
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details_mut().retry_after_seconds = Some(seconds);
        self
    }

    pub fn with_causes(mut self, causes: Vec<Cause>) -> Self {
        self.details_mut().causes = causes;
        self
    }

    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref().and_then(|it| it.retry_after_seconds)
    }

    fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// The object on the wire.
    pub fn to_json(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let success = self.code < 400;
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": if success { "Success" } else { "Failure" },
        });
        for (key, value) in [("message", self.message.as_str()), ("reason", self.reason.as_str())] {
            if !value.is_empty() {
                status[key] = json!(value);
            }
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_json();
        }
        if !success {
            status["code"] = json!(self.code);
        }
        status
    }
}

impl Details {
    fn to_json(&self) -> Value {
        let mut details = json!({});
        for (key, value) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !value.is_empty() {
                details[key] = json!(value);
            }
        }
        if !self.causes.is_empty() {
            details["causes"] = self.causes.iter().map(Cause::to_json).collect();
        }
        if let Some(seconds @ 1..) = self.retry_after_seconds {
            details["retryAfterSeconds"] = json!(seconds);
        }
        details
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut cause = json!({});
        for (key, value) in
            [("reason", &self.reason), ("message", &self.message), ("field", &self.field)]
        {
            if !value.is_empty() {
                cause[key] = json!(value);
            }
        }
        cause
    }
}

impl From<&FieldError> for Cause {
    fn from(error: &FieldError) -> Self {
        Self {
            reason: error.kind.reason().to_owned(),
            message: error.body(),
            field: error.path.to_string(),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests;
