//! Golden bytes: one encoded example of every message and of every variant it can carry, kept for ever.
//!
//! A file that was committed once must decode for all time, to a value that encodes to the same bytes. `UPDATE_EXPECT=1`
//! writes examples that have no file yet; it never changes one. A test fails for a row without an example.

#![allow(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use kactor_protocol::certificates::*;
use kactor_protocol::codec::encode;
use kactor_protocol::frame::{Frame, FrameKind, Header, Party, Refusal};
use kactor_protocol::ids::LetterId;
use kactor_protocol::insight::*;
use kactor_protocol::message::{Message, Row};
use kactor_protocol::store::*;
use kactor_protocol::table::MESSAGES;
use kactor_protocol::*;

#[path = "golden/cluster_examples.rs"]
mod cluster_examples;
#[path = "golden/node_examples.rs"]
mod node_examples;
#[path = "golden/raft_examples.rs"]
mod raft_examples;

/// File name → bytes.
struct Examples(BTreeMap<String, Bytes>);

impl Examples {
    fn request<M: Message>(&mut self, variant: &str, message: &M) {
        self.add(&M::ROW, "request", variant, encode(message).unwrap());
    }

    fn reply<M: Message>(&mut self, variant: &str, reply: &M::Reply) {
        self.add(&M::ROW, "reply", variant, encode(reply).unwrap());
    }

    fn add(&mut self, row: &Row, side: &str, variant: &str, bytes: Bytes) {
        let name = format!("{:04}-{}.{side}.{variant}.bin", row.id.0, row.name);
        assert!(self.0.insert(name.clone(), bytes).is_none(), "two examples are named {name}");
    }
}

fn examples() -> Examples {
    let mut out = Examples(BTreeMap::new());
    store_examples(&mut out);
    node_examples::add(&mut out);
    raft_examples::add(&mut out);
    certificate_examples(&mut out);
    cluster_examples::add(&mut out);
    insight_questions(&mut out);
    insight_answers(&mut out);
    looks_inside(&mut out);
    out
}

fn key(name: &str) -> Key {
    Key::new("", "pods", "default", name).unwrap()
}

fn store_examples(out: &mut Examples) {
    let value = Value {
        storage_version: 1,
        flags: 3,
        uid: "0a1b".into(),
        body: Bytes::from_static(br#"{"a":1}"#),
    };
    let put = |precondition| Write::Put {
        key: key("web"),
        precondition,
        value: value.clone(),
        expires_at: None,
    };
    let expiring = Write::Put {
        key: key("event"),
        precondition: Precondition::None,
        value: value.clone(),
        expires_at: Some(Timestamp(1_795_262_400_000)),
    };
    let delete =
        Write::Delete { key: key("web"), precondition: Precondition::Revision(Revision(300)) };
    let (r, u) = (Revision(70_000), Uid::from("0a1b"));
    for (variant, write) in [
        ("put-absent", put(Precondition::Absent)),
        ("put-revision", put(Precondition::Revision(r))),
        ("put-uid", put(Precondition::Uid(u.clone()))),
        ("put-uid-revision", put(Precondition::UidAndRevision(u.clone(), r))),
        ("put-expiring", expiring),
        ("delete", delete),
        ("touch", Write::Touch { key: key("web") }),
        ("add", Write::Add { key: key("count"), delta: -2, at_most: None }),
        ("add-bounded", Write::Add { key: key("count"), delta: 2, at_most: Some(10) }),
    ] {
        out.request(variant, &Propose::one(write));
    }
    let guards = vec![
        Guard::Revision { key: key("a"), revision: r },
        Guard::Absent { key: key("b") },
        Guard::Present { key: key("c") },
        Guard::AtMost { key: key("d"), value: 9 },
    ];
    let writes = vec![Write::Touch { key: key("web") }];
    out.request("guards", &Propose { reign: Some(Reign(4)), guards, writes, trace: TraceId(5) });
    propose_answers(out, r, u);
}

fn propose_answers(out: &mut Examples, r: Revision, u: Uid) {
    let outcomes = vec![
        WriteOutcome { revision: r, changed: Changed::Yes },
        WriteOutcome { revision: r, changed: Changed::Unchanged },
    ];
    out.reply::<Propose>("committed", &Ok(Committed { revision: r, outcomes }));
    let guard = |failure| ProposeError::GuardFailed { key: key("web"), failure };
    let k = || key("web");
    for (variant, error) in [
        ("not-leader", ProposeError::NotLeader { leader: Some(ReplicaId(2)) }),
        ("conflict", ProposeError::Conflict { key: k(), assumed: Revision(1), current: r }),
        ("exists", ProposeError::Exists { key: k() }),
        ("not-found", ProposeError::NotFound { key: k() }),
        ("uid", ProposeError::UidMismatch { key: k(), assumed: u.clone(), current: u }),
        ("guard-revision", guard(GuardFailure::Revision { assumed: r, current: None })),
        ("guard-present", guard(GuardFailure::Present)),
        ("guard-absent", guard(GuardFailure::Absent)),
        ("guard-bound", guard(GuardFailure::AboveBound { current: 3, at_most: 2 })),
        ("above-limit", ProposeError::AboveLimit { key: k(), value: 3, at_most: 2 }),
        ("not-counter", ProposeError::NotCounter { key: k() }),
        ("deposed", ProposeError::Deposed { reign: Reign(1), current: Reign(2) }),
        ("too-large", ProposeError::TooLarge { what: "writes".into(), size: 129, max: 128 }),
        ("invalid", ProposeError::Invalid { reason: "empty".into() }),
        ("full", ProposeError::Full),
        ("overloaded", ProposeError::Overloaded),
        ("no-quorum", ProposeError::NoQuorum),
        ("timeout", ProposeError::Timeout),
        ("stopped", ProposeError::Stopped),
    ] {
        out.reply::<Propose>(variant, &Err(error));
    }
}

fn certificate_examples(out: &mut Examples) {
    out.request("renew", &RenewCertificate { request: "-----BEGIN".into() });
    let renewed = RenewedCertificate { certificate: "-----BEGIN C".into(), ca: "CA".into() };
    out.reply::<RenewCertificate>("renewed", &Ok(renewed));
    let why = || "another key".into();
    out.reply::<RenewCertificate>("refused", &Err(RenewError::Refused { why: why() }));
    out.reply::<RenewCertificate>("unavailable", &Err(RenewError::Unavailable { why: why() }));
}

fn actor(name: &str) -> ActorName {
    ActorName::new(name).unwrap()
}

fn insight_questions(out: &mut Examples) {
    let key = || "//pods/default/web".to_owned();
    for (variant, question) in [
        ("actors", Insight::Actors { prefix: "pod/".into(), limit: 10 }),
        ("inspect", Insight::Inspect { actor: actor("store") }),
        ("mailbox", Insight::Mailbox { actor: actor("store"), limit: 10 }),
        ("tap", Insight::Tap { actor: actor("store"), after: 300, limit: 10 }),
        ("trace", Insight::Trace { trace: TraceId(7), limit: 10 }),
        ("trace-of", Insight::TraceOf { key: key(), limit: 10 }),
        ("why", Insight::Why { key: key(), limit: 10 }),
        ("dead", Insight::Dead { limit: 10 }),
        ("top-busy", Insight::Top { by: TopBy::Busy, limit: 10 }),
        ("top-handled", Insight::Top { by: TopBy::Handled, limit: 10 }),
        ("top-mailbox", Insight::Top { by: TopBy::Mailbox, limit: 10 }),
        ("top-oldest-wait", Insight::Top { by: TopBy::OldestWait, limit: 10 }),
        ("top-restarts", Insight::Top { by: TopBy::Restarts, limit: 10 }),
    ] {
        out.request(variant, &question);
    }
}

fn looks_inside(out: &mut Examples) {
    let question = Insight::Inspect { actor: actor("store") };
    out.request("inspect", &LookInside { question });
    out.reply::<LookInside>("not-found", &InsightReply::NotFound { what: "actor x".into() });
}

fn actor_row(status: ActorStatus) -> ActorRow {
    ActorRow {
        address: ActorAddress {
            host: HostId::new("n1").unwrap(),
            name: actor("store"),
            incarnation: Incarnation(2),
        },
        kind: "Store".into(),
        lane: "Control".into(),
        status,
        parent: Some(actor("root")),
        mailbox_len: 1,
        mailbox_len_max: 256,
        oldest_wait_ms: 3,
        handled: 70_000,
        busy_us: 5,
        restarts: 1,
        last_error: Some("panicked".into()),
    }
}

fn insight_answers(out: &mut Examples) {
    let (at, trace, cause) = (Timestamp(1_795_262_400_000), TraceId(7), LetterId(8));
    let record = RecordRow {
        sequence: 301,
        at,
        actor: actor("store"),
        from: "api".into(),
        message: "Propose".into(),
        letter: LetterId(9),
        trace,
        cause,
        note: "1 write".into(),
    };
    let note = NoteRow {
        at,
        actor: "scheduler".into(),
        key: "//pods/default/web".into(),
        trace,
        cause,
        text: "0/1 nodes fit".into(),
    };
    let waiting = WaitingRow {
        message: "Propose".into(),
        from: "api".into(),
        trace,
        cause,
        letter: LetterId(9),
        waits_ms: 4,
    };
    let dead = DeadRow {
        at,
        to: "pod/default/web".into(),
        from: "node".into(),
        message: "StopPod".into(),
        trace,
        reason: "it stopped".into(),
    };
    let report = Box::new(ActorReport {
        row: actor_row(ActorStatus::Running),
        state: Some("{}".into()),
        handling: Some(HandlingRow { message: "Propose".into(), trace, for_ms: 2 }),
        last_inputs: vec![record.clone()],
        children: vec![actor("child")],
    });
    let all = [ActorStatus::Starting, ActorStatus::BackingOff, ActorStatus::Stopped];
    let (records, notes) = (vec![record], vec![note]);
    for (variant, answer) in [
        ("actors", InsightReply::Actors { actors: all.map(actor_row).to_vec() }),
        ("inspect", InsightReply::Inspect { report }),
        ("mailbox", InsightReply::Mailbox { letters: vec![waiting] }),
        ("tap", InsightReply::Tap { records: records.clone(), next: 301 }),
        ("trace", InsightReply::Trace { records: records.clone(), notes: notes.clone() }),
        ("trace-of", InsightReply::TraceOf { records, notes: notes.clone() }),
        ("why", InsightReply::Why { notes }),
        ("dead", InsightReply::Dead { letters: vec![dead], total: 12 }),
        ("top", InsightReply::Top { actors: vec![actor_row(ActorStatus::Running)] }),
        ("not-found", InsightReply::NotFound { what: "actor x".into() }),
    ] {
        out.reply::<Insight>(variant, &answer);
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn committed() -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder()).map(|it| it.collect::<Vec<_>>()).unwrap_or_default();
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
    };
    entries.into_iter().map(read).collect()
}

#[test]
fn every_example_encodes_to_its_committed_bytes() {
    let mut files = committed();
    let mut missing = Vec::new();
    for (name, bytes) in examples().0 {
        match files.remove(&name) {
            Some(golden) => assert_eq!(bytes, golden, "{name} changed: add a message instead"),
            None if std::env::var_os("UPDATE_EXPECT").is_some() => {
                std::fs::create_dir_all(folder()).unwrap();
                std::fs::write(folder().join(&name), &bytes).unwrap();
            }
            None => missing.push(name),
        }
    }
    assert!(missing.is_empty(), "no golden bytes; UPDATE_EXPECT=1 writes them: {missing:?}");
}

#[test]
fn every_file_ever_committed_decodes_and_encodes_identically() {
    let files = committed();
    let mut n_messages = 0;
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".bin")) {
        if name.starts_with("frame") {
            let frame = Frame::decode(Bytes::copy_from_slice(bytes)).expect(name);
            assert_eq!(frame.encode().unwrap(), bytes, "{name}");
            continue;
        }
        let id = MessageId(name[..4].parse().expect(name));
        let row = Row::of(id, 1).expect("a row is never removed");
        let reencode =
            if name.contains(".request.") { row.reencode_request } else { row.reencode_reply };
        assert_eq!(&reencode(bytes).expect(name)[..], bytes, "{name}");
        n_messages += 1;
    }
    assert!(n_messages >= 2 * MESSAGES.len());
}

#[test]
fn every_row_has_golden_bytes_of_its_request_and_its_reply() {
    let files = committed();
    for row in MESSAGES {
        for side in ["request", "reply"] {
            let prefix = format!("{:04}-{}.{side}.", row.id.0, row.name);
            assert!(files.keys().any(|it| it.starts_with(&prefix)), "no file {prefix}*.bin");
        }
    }
}

#[test]
fn frames_have_golden_bytes() {
    let party = |name| Some(Party { name: actor(name), incarnation: Incarnation(3) });
    let header = |kind| Header {
        message: MessageId(101),
        kind,
        letter: LetterId(7),
        trace: TraceId(8),
        cause: LetterId(6),
        timeout_ms: 5000,
        to: party("store"),
        from: None,
    };
    let refusals = [
        ("unsupported", Refusal::Unsupported { message: MessageId(9), theirs: 2, ours: 1 }),
        ("not-permitted", Refusal::NotPermitted { message: "A".into(), permitted: "B".into() }),
        ("no-such-actor", Refusal::NoSuchActor { name: "x".into() }),
        ("not-taken", Refusal::NotTaken { name: "x".into(), message: "A".into() }),
        ("malformed", Refusal::Malformed { reason: "short".into() }),
        ("overloaded", Refusal::Overloaded),
        ("deadline", Refusal::DeadlinePassed),
        ("ignored", Refusal::Ignored),
        ("failed", Refusal::Failed),
        ("stopped", Refusal::Stopped),
        ("unreachable", Refusal::Unreachable { host: "n2".into(), reason: "no route".into() }),
        ("lost", Refusal::Lost { host: "n2".into(), reason: "timed out".into() }),
    ];
    let mut frames = vec![("ask".to_owned(), FrameKind::Ask, Bytes::from_static(b"body"))];
    for (name, refusal) in refusals {
        frames.push((format!("refusal-{name}"), FrameKind::Refusal, encode(&refusal).unwrap()));
    }
    for (name, kind, body) in frames {
        let bytes = Frame { header: header(kind), body }.encode().unwrap();
        let path = folder().join(format!("frame.{name}.bin"));
        if !path.exists() && std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).expect("UPDATE_EXPECT=1 writes it"), bytes, "{name}");
    }
}
