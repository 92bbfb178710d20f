//! The frozen words of v1: these bytes are in running shims, they may never change.

use super::*;
use expect_test::expect;
use proptest::prelude::*;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

#[test]
fn golden_requests() {
    let requests = [
        Request::Hello,
        Request::Start { container: "web.0".to_owned() },
        Request::Kill { container: "web.0".to_owned(), signal: 15, scope: KillScope::All },
        Request::Wait { container: "web.0".to_owned() },
        Request::Watch,
        Request::Exec {
            container: "web.0".to_owned(),
            args: vec!["sh".to_owned()],
            stdin: true,
            terminal: true,
            columns: 80,
            rows: 24,
        },
        Request::Attach { container: "web.0".to_owned(), stdin: false },
        Request::RotateLog { container: "web.0".to_owned() },
        Request::Forget { container: "web.0".to_owned() },
    ];
    let lines: Vec<String> = requests.iter().map(|it| serde_json::to_string(it).unwrap()).collect();
    expect![[r#"
        {"op":"hello"}
        {"op":"start","container":"web.0"}
        {"op":"kill","container":"web.0","signal":15,"scope":"all"}
        {"op":"wait","container":"web.0"}
        {"op":"watch"}
        {"op":"exec","container":"web.0","args":["sh"],"stdin":true,"terminal":true,"columns":80,"rows":24}
        {"op":"attach","container":"web.0","stdin":false}
        {"op":"rotate_log","container":"web.0"}
        {"op":"forget","container":"web.0"}"#]]
    .assert_eq(&lines.join("\n"));
    for (line, request) in lines.iter().zip(requests) {
        assert_eq!(Request::decode(line.as_bytes()).unwrap(), request);
    }
}

#[test]
fn golden_replies() {
    let exit = Exit { finished_ms: 7, code: 137, signal: Some(9), oom_killed: true };
    let replies = [
        Reply::Hello { version: 1, pid: 7 },
        Reply::Done,
        Reply::Streams { stdin: true, stdout: true, stderr: false, terminal: true },
        Reply::Exited { container: "web.0".to_owned(), exit },
        Reply::Refused { kind: RefusedKind::Start, why: "no such file".to_owned() },
    ];
    let lines: Vec<String> = replies.iter().map(|it| serde_json::to_string(it).unwrap()).collect();
    expect![[r#"
        {"reply":"hello","version":1,"pid":7}
        {"reply":"done"}
        {"reply":"streams","stdin":true,"stdout":true,"stderr":false,"terminal":true}
        {"reply":"exited","container":"web.0","exit":{"finished_ms":7,"code":137,"signal":9,"oom_killed":true}}
        {"reply":"refused","kind":"start","why":"no such file"}"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn later_fields_are_skipped_and_later_requests_refused_in_words() {
    let later = br#"{"op":"start","container":"a.0","priority":3}"#;
    assert_eq!(Request::decode(later).unwrap(), Request::Start { container: "a.0".to_owned() });
    let refused = Request::decode(br#"{"op":"checkpoint"}"#).unwrap_err();
    assert!(matches!(refused, Reply::Refused { kind: RefusedKind::Unsupported, .. }));
    let kind: RefusedKind = serde_json::from_str("\"brand_new\"").unwrap();
    assert_eq!(kind, RefusedKind::Other);
    let record: Record = serde_json::from_str(r#"{"pid":4,"new":[1]}"#).unwrap();
    assert_eq!(record.pid, Some(4));
}

#[test]
fn descriptors_travel_with_frames() {
    let (a, b) = UnixStream::pair().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let bytes = wire::frame(b"{}");
    assert_eq!(wire::send(a.as_fd(), &bytes, &[far.as_fd()]).unwrap(), bytes.len());
    let mut inbox = wire::Inbox::default();
    assert!(inbox.fill(b.as_fd()).unwrap());
    assert_eq!(inbox.frame().unwrap().unwrap(), b"{}");
    let passed = UnixStream::from(inbox.take_descriptor().unwrap());
    std::io::Write::write_all(&mut &passed, b"x").unwrap();
    let mut got = [0];
    std::io::Read::read_exact(&mut &near, &mut got).unwrap();
    assert_eq!(&got, b"x");
}

#[test]
fn an_oversized_frame_is_refused_by_its_header() {
    let (a, b) = UnixStream::pair().unwrap();
    let header = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    std::io::Write::write_all(&mut &a, &header).unwrap();
    let mut inbox = wire::Inbox::default();
    inbox.fill(b.as_fd()).unwrap();
    assert!(inbox.frame().is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Request::decode(&bytes);
    }
}
