//! The message table: every message that may cross hosts, one row each.
//!
//! A new message is a struct in the file of its subject and a row here, with an id that was never used (README.md,
//! "A new message"). Ids by hundreds: 1 the store, 2 nodes, 3 the cluster, 9 insight. A row is never changed and never removed. A row
//! that ends with `Bulk` travels beside the urgent ones; all messages of one conversation take the same lane.

use crate::ids::MessageId;
use crate::message::{Lane, Message, Overload, Row, Sender, reencode};
use crate::{certificates, cluster, insight, node, raft, store};

macro_rules! lane {
    () => {
        Lane::Latency
    };
    ($lane:ident) => {
        Lane::$lane
    };
}

macro_rules! messages {
    ($($id:literal $message:ty => $reply:ty, from [$($sender:ident),+], $overload:ident $(, $lane:ident)?;)*) => {
        /// All rows, by ascending id.
        pub const MESSAGES: &[Row] = &[$(<$message as Message>::ROW),*];

        $(impl Message for $message {
            type Reply = $reply;
            const ROW: Row = Row {
                id: MessageId($id),
                name: last_segment(stringify!($message)),
                senders: &[$(Sender::$sender),+],
                overload: Overload::$overload,
                lane: lane!($($lane)?),
                reencode_request: reencode::<$message>,
                reencode_reply: reencode::<$reply>,
            };
        })*
    };
}

messages! {
    101 store::Propose => Result<store::Committed, store::ProposeError>, from [Control], Wait;
    102 raft::ReadIndex => Result<u64, raft::ReadIndexError>, from [Control], Wait;
    111 raft::AppendEntries => Result<raft::AppendReply, raft::RaftRefusal>, from [Replica], Wait;
    112 raft::RequestVote => Result<raft::VoteReply, raft::RaftRefusal>, from [Replica], Wait;
    113 raft::InstallSnapshot => Result<raft::SnapshotReply, raft::RaftRefusal>, from [Replica], Wait, Bulk;
    114 raft::CompareState => Result<raft::StateSums, raft::RaftRefusal>, from [Replica], Wait;
    115 raft::TransferLeader => Result<raft::TransferReply, raft::RaftRefusal>, from [Replica], Wait;
    201 node::CallApi => Result<node::ApiReply, node::CallError>, from [WorkerSelf], Wait;
    202 node::Follow => node::Following, from [WorkerSelf], Wait, Bulk;
    203 node::Heartbeat => (), from [WorkerSelf], Coalesce;
    204 node::OpenSession => Result<node::SessionOpened, node::SessionRefused>, from [WorkerSelf], Shed;
    205 node::Pulses => (), from [Control], Shed;
    211 node::ObjectsChanged => (), from [Control], Wait, Bulk;
    221 node::OpenStream => Result<(), node::OpenStreamError>, from [Control], Shed, Bulk;
    222 node::StreamData => (), from [Control, WorkerSelf], Wait, Bulk;
    223 node::StreamCredit => (), from [Control, WorkerSelf], Wait, Bulk;
    224 node::StreamResize => (), from [Control], Wait, Bulk;
    225 node::StreamEnded => (), from [Control, WorkerSelf], Wait, Bulk;
    301 cluster::AnnounceHost => Result<cluster::HostsKnown, cluster::AnnounceError>, from [WorkerSelf], Shed;
    303 certificates::RenewCertificate => Result<certificates::RenewedCertificate, certificates::RenewError>, from [WorkerSelf, Control], Shed;
    901 insight::Insight => insight::InsightReply, from [Operator], Shed;
    902 insight::LookInside => insight::InsightReply, from [Control], Shed, Bulk;
}

/// `store::Propose` → `Propose`.
const fn last_segment(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut at = bytes.len();
    while at > 0 && bytes[at - 1] != b':' && bytes[at - 1] != b' ' {
        at -= 1;
    }
    path.split_at(at).1
}

#[cfg(test)]
mod tests {
    use super::MESSAGES;
    use crate::address::HostId;
    use crate::frame::{PROTOCOL_VERSION, Refusal};
    use crate::ids::MessageId;
    use crate::message::{Peer, Role, Row, Sender};

    #[test]
    fn ids_ascend_and_names_are_unique() {
        assert!(MESSAGES.windows(2).all(|pair| pair[0].id < pair[1].id), "ids ascend");
        let mut names: Vec<_> = MESSAGES.iter().map(|it| it.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert!(names.iter().all(|it| it.chars().all(char::is_alphanumeric)), "{names:?}");
    }

    #[test]
    fn an_unknown_id_is_unsupported_by_both_versions() {
        assert_eq!(
            Row::of(MessageId(65_000), 7).err(),
            Some(Refusal::Unsupported {
                message: MessageId(65_000),
                theirs: 7,
                ours: PROTOCOL_VERSION
            })
        );
    }

    /// Walks every row with every role: exactly the named senders pass, and a worker only for itself.
    #[test]
    fn only_the_named_senders_are_permitted() {
        let (own, other) = (HostId::new("n1").unwrap(), HostId::new("n2").unwrap());
        for row in MESSAGES {
            for (role, sender) in [
                (Role::Replica, Sender::Replica),
                (Role::Control, Sender::Control),
                (Role::Worker, Sender::WorkerSelf),
                (Role::Operator, Sender::Operator),
            ] {
                let peer = Peer { host: own.clone(), roles: vec![role] };
                let named = row.senders.contains(&sender);
                assert_eq!(row.permit(&peer, &own).is_ok(), named, "{} {role:?}", row.name);
                let for_another = named && role != Role::Worker;
                assert_eq!(row.permit(&peer, &other).is_ok(), for_another, "{}", row.name);
            }
            let nobody = Peer { host: own.clone(), roles: Vec::new() };
            assert!(row.permit(&nobody, &own).is_err(), "a certificate alone permits nothing");
        }
    }
}
