//! How new a read must be: `resourceVersion` and `resourceVersionMatch` turned into a revision to read at.
//!
//! Absent or empty: a consistent read, by the store's read-index. "0": whatever is here. N: at least N, waited for up to
//! three seconds. `Exact` (and N with a limit): the state as it was at N. Reference: Kubernetes API concepts,
//! "Resource versions"; apimachinery's list and watch option validation.

use std::time::Duration;

use kactor_objects::status::{Cause, Reason, Status};
use kactor_protocol::ids::Revision;
use kactor_protocol::time::Deadline;

use crate::api::Api;
use crate::commit::read_refused;
use crate::request::VersionMatch;

/// How long a read waits for a revision that is not here yet.
const REVISION_WAIT: Duration = Duration::from_secs(3);

/// The revision that a client named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// Absent or empty.
    Latest,
    /// "0"
    Any,
    At(Revision),
}

impl Named {
    pub fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            None | Some("") => Ok(Self::Latest),
            Some("0") => Ok(Self::Any),
            Some(text) => match text.parse::<u64>() {
                Ok(revision) => Ok(Self::At(Revision(revision))),
                Err(_) => Err(invalid_options(
                    "ListOptions",
                    "resourceVersion",
                    &format!(
                        "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                    ),
                )),
            },
        }
    }
}

/// What a list must be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadAt {
    /// The newest local state, after waiting.
    Now,
    /// The state at this revision.
    Exactly(Revision),
}

/// Checks the options of a list as Kubernetes does, and says what to read.
pub(crate) fn of_list(
    named: Named,
    version_match: Option<VersionMatch>,
    limit: u64,
) -> Result<ReadAt, Status> {
    match (named, version_match) {
        (Named::Latest, Some(_)) => Err(invalid_options(
            "ListOptions",
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (Named::Any, Some(VersionMatch::Exact)) => Err(invalid_options(
            "ListOptions",
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Named::At(revision), Some(VersionMatch::Exact)) => Ok(ReadAt::Exactly(revision)),
        (Named::At(revision), None) if limit > 0 => Ok(ReadAt::Exactly(revision)),
        _ => Ok(ReadAt::Now),
    }
}

impl Api {
    /// Waits until the local state is as new as `named` asks.
    pub(crate) async fn freshen(&self, named: Named, deadline: Deadline) -> Result<(), Status> {
        match named {
            Named::Any => Ok(()),
            Named::Latest => {
                self.store().read_index(deadline).await.map(drop).map_err(read_refused)
            }
            Named::At(revision) => {
                if revision <= self.store().revision() {
                    return Ok(());
                }
                let soon = Deadline::after(self.env().monotonic(), REVISION_WAIT);
                let waited = self.store().wait_applied(revision, deadline.earlier(soon)).await;
                waited
                    .map_err(|_| Status::revision_too_large(revision.0, self.store().revision().0))
            }
        }
    }
}

/// 422 about one of a request's options.
pub(crate) fn invalid_options(options: &str, field: &str, problem: &str) -> Status {
    invalid_field(&format!("{options}.meta.k8s.io"), field, problem)
}

/// 422 about one field of a body that is no registered kind.
pub(crate) fn invalid_field(qualified: &str, field: &str, problem: &str) -> Status {
    let reason = match problem.split(':').next() {
        Some("Forbidden") => "FieldValueForbidden",
        Some("Required value") => "FieldValueRequired",
        Some("Unsupported value") => "FieldValueNotSupported",
        _ => "FieldValueInvalid",
    };
    let message = format!("{qualified} \"\" is invalid: {field}: {problem}");
    let cause =
        Cause { reason: reason.to_owned(), message: problem.to_owned(), field: field.to_owned() };
    Status::new(Reason::Invalid, message).with_causes(vec![cause])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_list_are_judged_as_kubernetes_does() {
        let at = Named::At(Revision(7));
        for (named, version_match, limit, expected) in [
            (Named::Latest, None, 5, Some(ReadAt::Now)),
            (Named::Latest, Some(VersionMatch::Exact), 0, None),
            (Named::Any, Some(VersionMatch::Exact), 0, None),
            (Named::Any, Some(VersionMatch::NotOlderThan), 0, Some(ReadAt::Now)),
            (at, None, 0, Some(ReadAt::Now)),
            (at, None, 5, Some(ReadAt::Exactly(Revision(7)))),
            (at, Some(VersionMatch::NotOlderThan), 5, Some(ReadAt::Now)),
            (at, Some(VersionMatch::Exact), 0, Some(ReadAt::Exactly(Revision(7)))),
        ] {
            assert_eq!(
                of_list(named, version_match, limit).ok(),
                expected,
                "{named:?} {version_match:?} {limit}"
            );
        }
        assert!(Named::parse(Some("-1")).is_err() && Named::parse(Some("x")).is_err());
    }
}
