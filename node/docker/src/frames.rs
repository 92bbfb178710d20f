//! Docker's framing of two streams on one: 8 bytes of header (stream, length), then the bytes. Pure.
//!
//! Reference: Docker Engine API, "Attach to a container", stream format.

use bytes::{Buf, Bytes, BytesMut};

/// dockerd writes at most what one read gave it (32 KiB) and a timestamp.
const FRAME_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Whole frames out of bytes as they come.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: BytesMut,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame that is all here; an error if these are no frames.
    pub fn next(&mut self) -> Result<Option<(Stream, Bytes)>, String> {
        if self.bytes.len() < 8 {
            return Ok(None);
        }
        let stream = match self.bytes[0] {
            0 | 1 => Stream::Stdout,
            2 => Stream::Stderr,
            other => return Err(format!("dockerd sent a frame of unknown stream {other}")),
        };
        let length =
            u32::from_be_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]]);
        let length = length as usize;
        if length > FRAME_BYTES_MAX {
            return Err(format!(
                "dockerd sent a frame of {length} bytes; at most {FRAME_BYTES_MAX} are read"
            ));
        }
        if self.bytes.len() < 8 + length {
            return Ok(None);
        }
        self.bytes.advance(8);
        Ok(Some((stream, self.bytes.split_to(length).freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![stream, 0, 0, 0];
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text);
        bytes
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let all = [frame(1, b"out"), frame(2, b""), frame(2, b"err\n")].concat();
        for cut in 1..all.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in all.chunks(cut) {
                frames.push(piece);
                while let Some((stream, bytes)) = frames.next().unwrap() {
                    found.push((stream, bytes.to_vec()));
                }
            }
            let wanted = [
                (Stream::Stdout, b"out".to_vec()),
                (Stream::Stderr, Vec::new()),
                (Stream::Stderr, b"err\n".to_vec()),
            ];
            assert_eq!(found, wanted, "cut every {cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_kept() {
        for bad in [vec![9; 8], vec![1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
            let mut frames = Frames::default();
            frames.push(&bad);
            assert!(frames.next().is_err());
        }
    }
}
