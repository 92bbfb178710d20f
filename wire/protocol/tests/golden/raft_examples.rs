//! Golden examples of what replicas say to each other.

use bytes::Bytes;
use kactor_protocol::ids::{ReplicaId, Revision};
use kactor_protocol::raft::*;

use super::Examples;

const LAST: LogId = LogId { term: 7, index: 70_000 };
const VOTE: RaftVote = RaftVote { term: 7, voted_for: ReplicaId(2), committed: true };

fn head() -> RaftHead {
    RaftHead { cluster: "c1".into(), from: ReplicaId(2), to: ReplicaId(3) }
}

pub(super) fn add(out: &mut Examples) {
    reads(out);
    entries(out);
    votes(out);
    snapshots(out);
    transfers(out);
    sums(out);
}

fn reads(out: &mut Examples) {
    out.request("now", &ReadIndex {});
    out.reply::<ReadIndex>("index", &Ok(70_000));
    for (variant, error) in [
        ("not-leader", ReadIndexError::NotLeader { leader: Some(ReplicaId(2)) }),
        ("no-quorum", ReadIndexError::NoQuorum),
        ("stopped", ReadIndexError::Stopped),
    ] {
        out.reply::<ReadIndex>(variant, &Err(error));
    }
}

fn entries(out: &mut Examples) {
    let heartbeat = AppendEntries {
        head: head(),
        vote: VOTE,
        previous: Some(LAST),
        committed: Some(LAST),
        entries: Vec::new(),
    };
    out.request("heartbeat", &heartbeat);
    let entries = vec![Bytes::from_static(b"first"), Bytes::from_static(b"second")];
    out.request("entries", &AppendEntries { previous: None, entries, ..heartbeat });
    for (variant, reply) in [
        ("success", Ok(AppendReply::Success)),
        ("partly", Ok(AppendReply::Partly { last: Some(LAST) })),
        ("conflict", Ok(AppendReply::Conflict)),
        ("higher-vote", Ok(AppendReply::HigherVote { vote: VOTE })),
        ("other-cluster", Err(RaftRefusal::OtherCluster { ours: "c2".into() })),
        ("other-replica", Err(RaftRefusal::OtherReplica { ours: ReplicaId(4) })),
        ("full", Err(RaftRefusal::Full)),
        ("malformed", Err(RaftRefusal::Malformed { reason: "no record".into() })),
        ("stopped", Err(RaftRefusal::Stopped)),
        ("slow", Err(RaftRefusal::Slow)),
    ] {
        out.reply::<AppendEntries>(variant, &reply);
    }
}

fn votes(out: &mut Examples) {
    let vote = RaftVote { committed: false, ..VOTE };
    for (variant, kind) in
        [("pre", VoteKind::Pre), ("real", VoteKind::Real), ("transfer", VoteKind::Transfer)]
    {
        out.request(variant, &RequestVote { head: head(), kind, vote, last: Some(LAST) });
    }
    out.reply::<RequestVote>("granted", &Ok(VoteReply { vote, granted: true, last: None }));
    out.reply::<RequestVote>("refused", &Err(RaftRefusal::Stopped));
}

fn snapshots(out: &mut Examples) {
    let piece = InstallSnapshot {
        head: head(),
        vote: VOTE,
        transfer: 300,
        offset: 0,
        chunk: Bytes::from_static(b"KACTSNAP"),
        end: None,
    };
    out.request("piece", &piece);
    let membership = Bytes::from_static(b"membership");
    let end = SnapshotEnd { last: Some(LAST), membership_id: Some(LAST), membership };
    out.request("end", &InstallSnapshot { offset: 8, end: Some(end), ..piece });
    for (variant, reply) in [
        ("next", Ok(SnapshotReply::Next { offset: 8 })),
        ("done", Ok(SnapshotReply::Done { vote: VOTE })),
        ("unknown", Ok(SnapshotReply::Unknown)),
        ("damaged", Ok(SnapshotReply::Damaged { reason: "it is cut".into() })),
        ("refused", Err(RaftRefusal::Full)),
    ] {
        out.reply::<InstallSnapshot>(variant, &reply);
    }
}

fn transfers(out: &mut Examples) {
    let transfer =
        TransferLeader { head: head(), vote: VOTE, successor: ReplicaId(3), last: Some(LAST) };
    out.request("asked", &transfer);
    for (variant, reply) in [
        ("taken", Ok(TransferReply::Taken)),
        ("vote-changed", Ok(TransferReply::VoteChanged { vote: VOTE })),
        ("behind", Ok(TransferReply::Behind { last: None })),
        ("refused", Err(RaftRefusal::Stopped)),
    ] {
        out.reply::<TransferLeader>(variant, &reply);
    }
}

fn sums(out: &mut Examples) {
    let all = CompareState { head: head(), index: 70_000, range: None };
    out.request("ranges", &all);
    out.request("objects", &CompareState { range: Some("//pods/".into()), ..all });
    let range = RangeSums { range: "//pods/".into(), n_objects: 300, sum: u64::MAX };
    let object = ObjectSums { key: super::key("web"), modified: Revision(70_000), hash: 1 << 60 };
    for (variant, reply) in [
        ("passed", Ok(StateSums::Passed { applied: 70_001 })),
        ("ranges", Ok(StateSums::Ranges(vec![range]))),
        ("objects", Ok(StateSums::Objects(vec![object]))),
        ("refused", Err(RaftRefusal::Stopped)),
    ] {
        out.reply::<CompareState>(variant, &reply);
    }
}
