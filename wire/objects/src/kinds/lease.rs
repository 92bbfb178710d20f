//! Leases: who holds something and since when. Nodes renew theirs; leader election writes them.

use serde_json::{Value, json};

use crate::field_error::{FieldError, Path};
use crate::meta;
use crate::registry::{PutOfAbsent, PutWithoutRevision, Strategy};
use crate::table::{self, Column, Printer};
use crate::tree;

pub const STRATEGY: Strategy = Strategy {
    validate,
    put_of_absent: PutOfAbsent::Create,
    put_without_revision: PutWithoutRevision::Refuse,
    ..Strategy::PLAIN
};

pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Holder", "Identity of who holds the lease."),
        Column::AGE,
    ],
    cells: |lease, now| {
        vec![
            json!(meta::name(lease)),
            json!(tree::text(lease, "spec.holderIdentity")),
            table::age(lease, now),
        ]
    },
};

fn validate(lease: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    if let Some(seconds @ ..=0) = tree::integer(lease, "spec.leaseDurationSeconds") {
        let why = "must be greater than 0";
        errors.push(FieldError::invalid(path.child("leaseDurationSeconds"), seconds, why));
    }
    if let Some(transitions @ ..0) = tree::integer(lease, "spec.leaseTransitions") {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(path.child("leaseTransitions"), transitions, why));
    }
    let strategy = tree::text(lease, "spec.strategy");
    let preferred = tree::text(lease, "spec.preferredHolder");
    if !preferred.is_empty() && strategy.is_empty() {
        let why = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden(path.child("preferredHolder"), why));
    }
    errors
}
