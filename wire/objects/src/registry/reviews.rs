//! Rows of authentication.k8s.io and authorization.k8s.io: questions that are answered and never stored.

use super::{Kind, Scope, Storage, Strategy, Verb};
use crate::kinds;
use crate::table::Printer;

/// The names of reviews are not looked at, and mostly absent.
const REVIEW: Kind = Kind {
    group: "authorization.k8s.io",
    version: "v1",
    kind: "",
    resource: "",
    singular: "",
    scope: Scope::Cluster,
    short_names: &[],
    categories: &[],
    verbs: Verb::CREATE,
    subresources: &[],
    storage: Storage::Virtual,
    strategy: Strategy::PLAIN,
    fields: &[],
    printer: Printer::PLAIN,
};

pub(super) static KINDS: &[Kind] = &[
    Kind {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        resource: "selfsubjectreviews",
        singular: "selfsubjectreview",
        ..REVIEW
    },
    Kind {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        resource: "tokenreviews",
        singular: "tokenreview",
        ..REVIEW
    },
    Kind {
        kind: "LocalSubjectAccessReview",
        resource: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        scope: Scope::Namespaced,
        strategy: Strategy {
            validate: kinds::review::validate_local_subject_access_review,
            ..Strategy::PLAIN
        },
        ..REVIEW
    },
    Kind {
        kind: "SelfSubjectAccessReview",
        resource: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        strategy: Strategy {
            validate: kinds::review::validate_self_subject_access_review,
            ..Strategy::PLAIN
        },
        ..REVIEW
    },
    Kind {
        kind: "SelfSubjectRulesReview",
        resource: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        ..REVIEW
    },
    Kind {
        kind: "SubjectAccessReview",
        resource: "subjectaccessreviews",
        singular: "subjectaccessreview",
        strategy: Strategy {
            validate: kinds::review::validate_subject_access_review,
            ..Strategy::PLAIN
        },
        ..REVIEW
    },
];
