//! Pod network, services and DNS of one node.

pub mod cidr;
pub mod ipam;
pub mod names;
pub mod ruleset;
pub mod view;
