//! Examples of what hosts say of themselves.

use kactor_protocol::cluster::*;
use kactor_protocol::{HostId, Timestamp};

use super::Examples;

pub fn add(out: &mut Examples) {
    let host = |name: &str| HostId::new(name).unwrap();
    let said = AnnounceHost {
        host: host("w1"),
        address: "192.0.2.7:6443".into(),
        version: "0.1.0".into(),
        level: 1,
        started_at: Timestamp(1_795_262_400_000),
    };
    out.request("worker", &said);
    let peer = |name: &str, kind| KnownPeer {
        host: host(name),
        kind,
        address: "192.0.2.1:6443".into(),
        key_hash: [7; 32],
    };
    let peers = vec![peer("c1", HostKind::Control), peer("w2", HostKind::Worker)];
    out.reply::<AnnounceHost>("known", &Ok(HostsKnown { peers }));
    out.reply::<AnnounceHost>("left", &Err(AnnounceError::Left));
    let refused = AnnounceError::Refused { reason: "x is no address".into() };
    out.reply::<AnnounceHost>("refused", &Err(refused));
    let unavailable = AnnounceError::Unavailable { reason: "no quorum".into() };
    out.reply::<AnnounceHost>("unavailable", &Err(unavailable));
}
