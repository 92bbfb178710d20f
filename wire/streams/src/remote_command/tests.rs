//! Sessions against what clients send, for each version and transport.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::spdy::Frame;
use crate::websocket::tests::masked;

const ALL: StdStreams = StdStreams { stdin: true, stdout: true, stderr: true, tty: false };
const TTY: StdStreams = StdStreams { stdin: true, stdout: true, stderr: true, tty: true };

fn events(session: &mut dyn CommandSession) -> Vec<CommandEvent> {
    std::iter::from_fn(|| session.next_event()).collect()
}

#[test]
fn protocols_are_chosen_in_the_clients_order() {
    let newest = choose_spdy(&["v9.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]);
    assert_eq!(newest, Some((Some("v4.channel.k8s.io"), Version::V4)));
    assert_eq!(choose_spdy(&[]), Some((None, Version::V1)));
    assert_eq!(choose_spdy(&["v5.channel.k8s.io"]), None); // Version 5 is WebSocket's alone.
    let socket = choose_websocket(&["v5.channel.k8s.io"]);
    assert_eq!(socket, Some((Some("v5.channel.k8s.io"), Version::V5, Encoding::Binary)));
    assert_eq!(choose_websocket(&["chat"]), None);
}

#[test]
fn a_websocket_session_carries_stdin_sizes_output_and_the_exit_code() {
    let mut session = WebSocketCommand::new(Version::V5, Encoding::Binary, TTY);
    assert_eq!(
        &session.take_bytes()[..],
        [0x82, 1, STDOUT],
        "an empty message on stdout comes first"
    );
    let mut bytes = masked(true, 2, b"\x00ls\n");
    bytes.extend(masked(true, 2, b"\x04{\"Width\":80,\"Height\":24}\n"));
    bytes.extend(masked(true, 2, &[255, 0]));
    bytes.extend(masked(true, 8, &[]));
    session.receive(&bytes).unwrap();
    assert_eq!(
        events(&mut session),
        [
            CommandEvent::Ready,
            CommandEvent::Stdin(Bytes::from("ls\n")),
            CommandEvent::Resize(TerminalSize { width: 80, height: 24 }),
            CommandEvent::StdinClosed,
            CommandEvent::Closed,
        ]
    );
    let mut session = WebSocketCommand::new(Version::V4, Encoding::Binary, ALL);
    session.take_bytes();
    session.write(Output::Stderr(Bytes::from("no")));
    session.finish(&Outcome::Exited(3));
    let out = session.take_bytes();
    assert_eq!(&out[..5], b"\x82\x03\x02no");
    let json = &out[out.iter().position(|it| *it == b'{').unwrap()..out.len() - 4];
    let status: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
    assert_eq!(&out[out.len() - 4..], b"\x88\x02\x03\xe8", "and it closes");
}

const STDOUT: u8 = 1;

#[test]
fn base64_channels_carry_the_same() {
    let mut session = WebSocketCommand::new(Version::V4, Encoding::Base64, ALL);
    assert_eq!(&session.take_bytes()[..], b"\x81\x011");
    session.receive(&masked(true, 1, b"0bHM=")).unwrap();
    assert_eq!(events(&mut session)[1], CommandEvent::Stdin(Bytes::from("ls")));
    session.write(Output::Stdout(Bytes::from("ok")));
    assert_eq!(&session.take_bytes()[..], b"\x81\x051b2s=");
    assert_eq!(session.receive(&masked(true, 1, b"0!")), Err(SessionError::Base64));
}

#[test]
fn a_spdy_session_is_ready_when_every_stream_is_there() {
    let mut client = Client::new();
    let mut session = SpdyCommand::new(Version::V4, TTY);
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        session.receive(&client.open(stream, kind)).unwrap();
        assert_eq!(events(&mut session), []);
    }
    session.receive(&client.open(7, "resize")).unwrap();
    assert_eq!(events(&mut session), [CommandEvent::Ready]);
    session.receive(&data(7, b"{\"Width\":8", false)).unwrap();
    session.receive(&data(7, b"0,\"Height\":24}\n{\"Width\":81,\"Height\":24}\n", false)).unwrap();
    session.receive(&data(3, b"ls\n", true)).unwrap();
    assert_eq!(
        events(&mut session),
        [
            CommandEvent::Resize(TerminalSize { width: 80, height: 24 }),
            CommandEvent::Resize(TerminalSize { width: 81, height: 24 }),
            CommandEvent::Stdin(Bytes::from("ls\n")),
            CommandEvent::StdinClosed,
        ]
    );
    session.take_bytes();
    session.write(Output::Stdout(Bytes::from("out")));
    session.finish(&Outcome::Exited(0));
    let mut bytes = BytesMut::from(&session.take_bytes()[..]);
    let heard: Vec<Frame> = std::iter::from_fn(|| Frame::decode(&mut bytes).unwrap()).collect();
    let data_of = |stream: u32| -> Vec<u8> {
        let parts = heard.iter().filter_map(|it| match it {
            Frame::Data { stream: id, bytes, .. } if *id == stream => Some(bytes.to_vec()),
            _ => None,
        });
        parts.flatten().collect()
    };
    assert_eq!(data_of(5), b"out");
    assert_eq!(data_of(1), br#"{"metadata":{},"status":"Success"}"#);
    let ends =
        |stream| heard.contains(&Frame::Data { stream, bytes: Bytes::new(), finished: true });
    assert!(ends(1) && ends(5));
}

#[test]
fn before_version_4_a_success_says_nothing_and_a_failure_is_text() {
    assert_eq!(last_words(Version::V1, &Outcome::Exited(0)), "");
    assert_eq!(
        last_words(Version::V3, &Outcome::Exited(2)),
        "command terminated with non-zero exit code: exit status 2"
    );
    let lost = Outcome::Failed("the container is gone".to_owned());
    assert_eq!(
        last_words(Version::V2, &lost),
        "Internal error occurred: error executing command in container: the container is gone"
    );
}

#[test]
fn streams_that_were_not_asked_for_are_refused() {
    let mut client = Client::new();
    let mut session =
        SpdyCommand::new(Version::V4, StdStreams { stdout: true, ..StdStreams::default() });
    session.receive(&client.open(1, "stdin")).unwrap();
    let mut bytes = BytesMut::from(&session.take_bytes()[..]);
    assert_eq!(Frame::decode(&mut bytes), Ok(Some(Frame::RstStream { stream: 1, status: 3 })));
}

/// Opens streams as a client does, with its one zlib stream.
struct Client {
    zlib: flate2::Compress,
}

impl Client {
    fn new() -> Self {
        Self { zlib: flate2::Compress::new(flate2::Compression::default(), true) }
    }

    fn open(&mut self, stream: u32, kind: &str) -> BytesMut {
        let mut plain = 1_u32.to_be_bytes().to_vec();
        for text in ["streamtype", kind] {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(256);
        self.zlib.compress_vec(&plain, &mut block, flate2::FlushCompress::Sync).unwrap();
        let mut out = BytesMut::new();
        Frame::SynStream { stream, block: Bytes::from(block), finished: false }.encode(&mut out);
        out
    }
}

fn data(stream: u32, bytes: &[u8], finished: bool) -> BytesMut {
    let mut out = BytesMut::new();
    Frame::Data { stream, bytes: Bytes::copy_from_slice(bytes), finished }.encode(&mut out);
    out
}

proptest! {
    #[test]
    fn no_messages_make_a_session_panic(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
        base64 in any::<bool>(),
    ) {
        let encoding = if base64 { Encoding::Base64 } else { Encoding::Binary };
        let mut session = WebSocketCommand::new(Version::V5, encoding, ALL);
        for message in messages {
            if session.receive(&masked(true, 2, &message)).is_err() {
                break;
            }
            while session.next_event().is_some() {}
        }
    }
}
