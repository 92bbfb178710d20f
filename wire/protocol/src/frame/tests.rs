//! Frames come back as they were; what is no frame is refused for a named reason.

use bytes::Bytes;

use super::*;

fn party(name: &str, incarnation: u64) -> Option<Party> {
    Some(Party { name: ActorName::new(name).unwrap(), incarnation: Incarnation(incarnation) })
}

fn frame() -> Frame {
    Frame {
        header: Header {
            message: MessageId(1),
            kind: FrameKind::Ask,
            letter: LetterId(7),
            trace: TraceId(0xabc),
            cause: LetterId(6),
            timeout_ms: 5_000,
            to: party("store", 3),
            from: party("api", 0),
        },
        body: Bytes::from_static(b"body"),
    }
}

fn encoded() -> Vec<u8> {
    frame().encode().unwrap().to_vec()
}

#[test]
fn a_frame_comes_back_as_it_was() {
    for (kind, to, from) in [
        (FrameKind::Ask, party("store", 3), party("api", 0)),
        (FrameKind::Tell, None, None),
        (FrameKind::Reply, party("a", u64::MAX), None),
        (FrameKind::Refusal, None, party(&"x".repeat(NAME_BYTES_MAX), 1)),
    ] {
        let header = Header { kind, to, from, ..frame().header };
        let sent = Frame { header, body: Bytes::from_static(b"body") };
        let bytes = sent.encode().unwrap();
        assert_eq!(Frame::len_bytes(&bytes), Ok(Some(bytes.len())));
        assert_eq!(Frame::decode(bytes), Ok(sent));
    }
}

#[test]
fn every_prefix_of_a_frame_is_truncated_and_every_suffix_malformed() {
    let whole = encoded();
    for n in 0..whole.len() {
        let refused = Frame::decode(Bytes::copy_from_slice(&whole[..n]));
        assert!(matches!(refused, Err(FrameError::Truncated { .. })), "{n}: {refused:?}");
    }
    let mut longer = whole;
    longer.push(0);
    let refused = Frame::decode(longer.into());
    assert_eq!(refused, Err(FrameError::Malformed { part: "length" }));
}

#[test]
fn a_later_version_is_unsupported_by_both_numbers_and_its_end_is_known() {
    let mut bytes = encoded();
    bytes[4] = 9;
    bytes[10..].fill(0xff); // Whatever it says, it is not read.
    assert_eq!(Frame::len_bytes(&bytes), Ok(Some(bytes.len())));
    let refused = Frame::decode(bytes.into());
    assert_eq!(refused, Err(FrameError::Unsupported { theirs: 9, ours: PROTOCOL_VERSION }));
}

#[test]
fn a_length_above_the_limit_is_refused_from_its_four_bytes() {
    assert_eq!(Frame::len_bytes(&[0, 0]), Ok(None));
    let refused = Frame::len_bytes(&[0xff; 4]);
    assert!(matches!(refused, Err(FrameError::TooLarge { .. })), "{refused:?}");
    let body = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    let refused = Frame { header: frame().header, body }.encode();
    assert!(matches!(refused, Err(FrameError::TooLarge { .. })), "{refused:?}");
}

#[test]
fn bad_fields_are_refused_by_name() {
    for (at, value, part) in [(8, 4, "kind"), (9, 1, "reserved byte"), (48, b' ', "receiver")] {
        let mut bytes = encoded();
        bytes[at] = value;
        assert_eq!(Frame::decode(bytes.into()), Err(FrameError::Malformed { part }));
    }
}
