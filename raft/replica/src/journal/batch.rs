//! A batch's bytes: header, then records with their lengths, padded to eight.
//!
//! Header, little endian: magic u32, checksum u32 (crc32c of all that follows), segment u64, offset u64, durable u64,
//! previous batch's checksum u32, payload length u32, format u32, zero u32.

/// The journal's format; a newer one is refused.
pub const FORMAT: u32 = 1;
pub(super) const HEADER_BYTES: usize = 48;
const MAGIC: u32 = 0x4a54_434b; // "KCTJ"
const RECORD_HEAD_BYTES: usize = 4;

/// Records put together, before their header is known.
#[derive(Default)]
pub(super) struct Framed {
    payload: Vec<u8>,
    pub last_index: Option<u64>,
}

impl Framed {
    pub fn push(&mut self, record: &[u8]) {
        let len = u32::try_from(record.len()).expect("the codec bounds a record to 8 MiB");
        self.payload.extend_from_slice(&len.to_le_bytes());
        self.payload.extend_from_slice(record);
    }

    pub fn append(&mut self, mut other: Framed) {
        self.payload.append(&mut other.payload);
    }

    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Length on disk, with room for a head record.
    pub fn framed_len(&self) -> u64 {
        padded(HEADER_BYTES + self.payload.len() + 64) as u64
    }
}

fn padded(n_bytes: usize) -> usize {
    n_bytes.next_multiple_of(8)
}

/// The batch's bytes and its checksum.
pub(super) fn frame(
    batch: &Framed,
    segment: u64,
    offset: u64,
    durable: u64,
    previous: u32,
) -> (Vec<u8>, u32) {
    let payload = &batch.payload;
    let len = u32::try_from(payload.len()).expect("a batch is bounded");
    let mut out = Vec::with_capacity(padded(HEADER_BYTES + payload.len()));
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&durable.to_le_bytes());
    out.extend_from_slice(&previous.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    let checksum = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
    out.resize(padded(out.len()), 0);
    (out, checksum)
}

/// A batch that was found whole.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub durable: u64,
    pub previous: u32,
    pub checksum: u32,
    pub format: u32,
    pub payload: &'a [u8],
    /// Length on disk.
    pub n_bytes: usize,
}

/// The batch at `offset` of a segment's bytes, if there is a whole one that belongs there.
pub(super) fn find(segment: &[u8], seq: u64, offset: usize) -> Option<Found<'_>> {
    let bytes = segment.get(offset..)?;
    let header = bytes.get(..HEADER_BYTES)?;
    if le_u32(header, 0) != MAGIC || le_u64(header, 8) != seq || le_u64(header, 16) != offset as u64
    {
        return None;
    }
    let len = le_u32(header, 36) as usize;
    let whole = bytes.get(..HEADER_BYTES.checked_add(len)?)?;
    let checksum = le_u32(header, 4);
    if crc32c::crc32c(&whole[8..]) != checksum {
        return None;
    }
    Some(Found {
        durable: le_u64(header, 24),
        previous: le_u32(header, 32),
        checksum,
        format: le_u32(header, 40),
        payload: &whole[HEADER_BYTES..],
        n_bytes: padded(HEADER_BYTES + len),
    })
}

/// The records of a payload, or `None` when their lengths do not add up.
pub(super) fn records(mut payload: &[u8]) -> Option<Vec<&[u8]>> {
    let mut out = Vec::new();
    while !payload.is_empty() {
        let len = le_u32(payload.get(..RECORD_HEAD_BYTES)?, 0) as usize;
        let record = payload.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES.checked_add(len)?)?;
        out.push(record);
        payload = &payload[RECORD_HEAD_BYTES + len..];
    }
    Some(out)
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
