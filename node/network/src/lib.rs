//! Pod network, services and DNS of one node.
//!
//! `network` is what the agent sees; it decides nothing. Decisions are in `ipam`, `view`, `ruleset`, `ways` and
//! `dns::zone` and do no IO; `links`, `nft` and `netns` are the kernel's calls, by netlink and system calls only. Everything
//! made on the host carries the instance's name (`names`), and `network::purge` removes it.

pub mod cidr;
pub mod dns;
pub mod ipam;
pub mod links;
pub mod names;
pub mod netns;
pub mod network;
pub mod nft;
pub mod prober;
pub mod ruleset;
pub mod view;
pub mod ways;
