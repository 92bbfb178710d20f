//! The server against frames as a client masks them.

use proptest::prelude::*;

use super::*;

/// One frame as a client sends it.
pub(crate) fn masked(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let mut out = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(at, it)| it ^ mask[at % 4]));
    out
}

#[test]
fn the_accept_key_is_that_of_the_rfc() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn messages_arrive_whole_however_they_are_cut() {
    let long = vec![7; 70_000];
    let mut bytes = masked(true, 1, b"text");
    bytes.extend(masked(false, 2, b"one "));
    bytes.extend(masked(true, 9, b"ping"));
    bytes.extend(masked(true, 0, b"message"));
    bytes.extend(masked(true, 2, &long));
    bytes.extend(masked(true, 8, &[]));
    let mut socket = WebSocket::new();
    for byte in &bytes {
        socket.receive(&[*byte]).unwrap();
    }
    let messages: Vec<Message> = std::iter::from_fn(|| socket.next_message()).collect();
    assert_eq!(
        messages,
        [
            Message::Text(Bytes::from("text")),
            Message::Binary(Bytes::from("one message")),
            Message::Binary(Bytes::from(long)),
            Message::Close,
        ]
    );
    assert_eq!(&socket.take_output()[..], b"\x8a\x04ping\x88\x02\x03\xe8");
}

#[test]
fn what_the_rfc_forbids_is_refused() {
    for (bytes, expected) in [
        (vec![0x82, 0x01, 0], WebSocketError::Unmasked),
        (masked(true, 0, b"x"), WebSocketError::Protocol("a continuation of nothing")),
        (vec![0xc2, 0x80], WebSocketError::Protocol("reserved bits are set")),
        (
            masked(true, 9, &[0; 126]),
            WebSocketError::Protocol("a control frame is long or in pieces"),
        ),
        (masked(true, 5, b""), WebSocketError::Protocol("an opcode that there is not")),
        (vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0], WebSocketError::TooLarge),
    ] {
        assert_eq!(WebSocket::new().receive(&bytes), Err(expected), "{bytes:x?}");
    }
}

#[test]
fn fragments_together_are_bounded_too() {
    let mut socket = WebSocket::new();
    socket.receive(&masked(false, 2, &vec![0; MESSAGE_BYTES_MAX])).unwrap();
    assert_eq!(socket.receive(&masked(true, 0, b"x")), Err(WebSocketError::TooLarge));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = WebSocket::new().receive(&bytes);
    }

    #[test]
    fn what_is_written_has_the_length_it_says(len in 0_usize..70_000) {
        let mut socket = WebSocket::new();
        socket.send(Kind::Binary, &[b"\x01", &vec![0; len]]);
        let out = socket.take_output();
        let head = match len + 1 { 0..126 => 2, 126..0x1_0000 => 4, _ => 10 };
        prop_assert_eq!(out.len(), head + len + 1);
    }
}
