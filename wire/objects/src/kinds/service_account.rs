//! Service accounts: identities of pods. Nothing to default or check beyond the metadata.

use serde_json::json;

use crate::meta;
use crate::registry::Strategy;
use crate::table::{self, Column, Printer};
use crate::tree;

pub const STRATEGY: Strategy = Strategy::PLAIN;

/// The column shows what old clusters generated; tokens are requested now, so it is 0 as a rule.
pub const PRINTER: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::integer("Secrets", "Number of secrets listed in the service account."),
        Column::AGE,
    ],
    cells: |account, now| {
        vec![
            json!(meta::name(account)),
            json!(tree::list(account, "secrets").len()),
            table::age(account, now),
        ]
    },
};

/// The user name of a service account: `system:serviceaccount:NAMESPACE:NAME`.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}
