//! The fuzz target: no bytes whatever make a decoder panic, and what decodes encodes to a value that decodes again.
//!
//! `tests/fuzz.rs` runs it bounded, with a fixed seed; cargo-fuzz or bolero call `any_bytes` as it is.

use bytes::Bytes;

use crate::codec::decode;
use crate::frame::{Frame, Refusal};
use crate::store::Key;
use crate::table::MESSAGES;
use crate::time::Timestamp;

/// Runs every decoder of this crate over `data`.
pub fn any_bytes(data: &[u8]) {
    for row in MESSAGES {
        for reencode in [row.reencode_request, row.reencode_reply] {
            if let Ok(again) = reencode(data) {
                assert_eq!(reencode(&again), Ok(again.clone()), "{}: not stable", row.name);
            }
        }
    }
    let _ = decode::<Refusal>(data);
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(frame.encode().as_deref(), Ok(data), "a frame has one encoding");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<Timestamp>();
        let _ = Key::parse(text);
    }
}
