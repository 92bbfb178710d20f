//! A state as a stream of checked chunks: what is sent to a replica that is far behind, and what `snapshot save` writes.
//!
//! Layout, little endian: `KACTSNAP`, format u32, then chunks of {length u32, crc32c of the payload u32, payload}. A
//! payload is the codec's encoding of `Chunk` (frozen). The last chunk says how many versions there were and the sum
//! over the ranges' checksums, so a cut or exchanged file is never taken for a whole one. Migrations of older formats
//! belong here and run when a snapshot is read.

use bytes::{BufMut, Bytes, BytesMut};
use kactor_protocol::codec;
use serde::{Deserialize, Serialize};

use crate::record::{MetaRecord, RecordError, VersionRecord};
use crate::state::ClusterState;

pub const SNAPSHOT_FORMAT: u32 = 1;
/// A chunk is closed when its versions have this many bytes; one large object may exceed it.
pub const CHUNK_BYTES: usize = 256 << 10;
const MAGIC: &[u8; 8] = b"KACTSNAP";
const HEAD_BYTES: usize = 12;
const CHUNK_HEAD_BYTES: usize = 8;
/// Longest payload that is believed.
const PAYLOAD_BYTES_MAX: usize = codec::CODEC_BYTES_MAX;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Chunk {
    Meta(MetaRecord),
    Versions(Vec<VersionRecord>),
    End { n_versions: u64, sum: u64 },
}

/// Why bytes are no snapshot that this binary can take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("this is no kactor snapshot")]
    Foreign,
    #[error(
        "the snapshot has format {found}; this kactor reads up to {SNAPSHOT_FORMAT}: use the newer one"
    )]
    Newer { found: u32 },
    #[error("the snapshot is damaged at byte {offset}: {reason}")]
    Damaged { offset: u64, reason: String },
    #[error(
        "the snapshot ends after {n_bytes} bytes, before its last chunk: it was not copied whole"
    )]
    Cut { n_bytes: u64 },
    #[error("the snapshot's records contradict each other")]
    Contradiction(#[from] RecordError),
    #[error("the snapshot's sum over all objects is wrong")]
    Sum,
}

/// Turns a state into chunks. It holds a copy of the state that shares all bytes with it.
pub struct SnapshotWriter {
    records: Box<dyn Iterator<Item = VersionRecord> + Send>,
    meta: Option<MetaRecord>,
    n_versions: u64,
    sum: u64,
    ended: bool,
}

impl SnapshotWriter {
    pub fn new(state: &ClusterState) -> Self {
        let records: Vec<VersionRecord> = state.version_records().collect();
        Self {
            meta: Some(state.meta_record()),
            n_versions: records.len() as u64,
            sum: sum_of(state),
            records: Box::new(records.into_iter()),
            ended: false,
        }
    }
}

impl Iterator for SnapshotWriter {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(meta) = self.meta.take() {
            let mut head = BytesMut::with_capacity(HEAD_BYTES);
            head.put_slice(MAGIC);
            head.put_u32_le(SNAPSHOT_FORMAT);
            head.extend_from_slice(&framed(&Chunk::Meta(meta)));
            return Some(head.freeze());
        }
        if self.ended {
            return None;
        }
        let mut versions = Vec::new();
        let mut n_bytes = 0;
        while n_bytes < CHUNK_BYTES {
            let Some(record) = self.records.next() else { break };
            n_bytes += record.key.as_str().len()
                + record.object.as_ref().map_or(0, |it| it.value.body.len())
                + 64;
            versions.push(record);
        }
        if versions.is_empty() {
            self.ended = true;
            return Some(framed(&Chunk::End { n_versions: self.n_versions, sum: self.sum }));
        }
        Some(framed(&Chunk::Versions(versions)))
    }
}

fn framed(chunk: &Chunk) -> Bytes {
    let payload = codec::encode(chunk)
        .expect("a chunk holds CHUNK_BYTES and one object, less than the codec's limit");
    let mut out = BytesMut::with_capacity(CHUNK_HEAD_BYTES + payload.len());
    out.put_u32_le(u32::try_from(payload.len()).expect("below the codec's limit"));
    out.put_u32_le(crc32c::crc32c(&payload));
    out.extend_from_slice(&payload);
    out.freeze()
}

fn sum_of(state: &ClusterState) -> u64 {
    state.checksums().values().fold(0, |sum, it| sum.wrapping_add(it.sum).rotate_left(1))
}

/// Takes a snapshot's bytes in pieces of any size.
#[derive(Default)]
pub struct SnapshotReader {
    buffer: BytesMut,
    offset: u64,
    has_head: bool,
    meta: Option<MetaRecord>,
    versions: Vec<VersionRecord>,
    end: Option<(u64, u64)>,
}

impl SnapshotReader {
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.buffer.extend_from_slice(bytes);
        if !self.has_head {
            if self.buffer.len() < HEAD_BYTES {
                return Ok(());
            }
            self.take_head()?;
        }
        while let Some(chunk) = self.take_chunk()? {
            self.take(chunk)?;
        }
        Ok(())
    }

    fn take_head(&mut self) -> Result<(), SnapshotError> {
        let head = self.buffer.split_to(HEAD_BYTES);
        self.offset += HEAD_BYTES as u64;
        if &head[..8] != MAGIC {
            return Err(SnapshotError::Foreign);
        }
        match le_u32(&head[8..]) {
            SNAPSHOT_FORMAT => self.has_head = true,
            found if found > SNAPSHOT_FORMAT => return Err(SnapshotError::Newer { found }),
            _ => return Err(SnapshotError::Foreign),
        }
        Ok(())
    }

    fn take_chunk(&mut self) -> Result<Option<Chunk>, SnapshotError> {
        if self.buffer.len() < CHUNK_HEAD_BYTES {
            return Ok(None);
        }
        let n_bytes = le_u32(&self.buffer) as usize;
        if n_bytes > PAYLOAD_BYTES_MAX {
            return Err(self.damaged("a chunk is longer than any can be"));
        }
        if self.buffer.len() < CHUNK_HEAD_BYTES + n_bytes {
            return Ok(None);
        }
        let crc = le_u32(&self.buffer[4..]);
        if crc32c::crc32c(&self.buffer[CHUNK_HEAD_BYTES..CHUNK_HEAD_BYTES + n_bytes]) != crc {
            return Err(self.damaged("a chunk's checksum is wrong"));
        }
        let chunk = self.buffer.split_to(CHUNK_HEAD_BYTES + n_bytes);
        let decoded = codec::decode(&chunk[CHUNK_HEAD_BYTES..])
            .map_err(|error| self.damaged(&error.to_string()))?;
        self.offset += chunk.len() as u64;
        Ok(Some(decoded))
    }

    fn take(&mut self, chunk: Chunk) -> Result<(), SnapshotError> {
        match chunk {
            _ if self.end.is_some() => Err(self.damaged("a chunk follows the last one")),
            Chunk::Meta(meta) if self.meta.is_none() => {
                self.meta = Some(meta);
                Ok(())
            }
            Chunk::Meta(_) => Err(self.damaged("it begins twice")),
            _ if self.meta.is_none() => Err(self.damaged("its first chunk is missing")),
            Chunk::Versions(mut versions) => {
                self.versions.append(&mut versions);
                Ok(())
            }
            Chunk::End { n_versions, sum } => {
                self.end = Some((n_versions, sum));
                Ok(())
            }
        }
    }

    fn damaged(&self, reason: &str) -> SnapshotError {
        SnapshotError::Damaged { offset: self.offset, reason: reason.to_owned() }
    }

    /// The state, once all bytes were pushed.
    pub fn finish(self) -> Result<ClusterState, SnapshotError> {
        let n_bytes = self.offset + self.buffer.len() as u64;
        if n_bytes >= HEAD_BYTES as u64 && !self.has_head {
            return Err(SnapshotError::Foreign);
        }
        let (Some(meta), Some((n_versions, sum))) = (self.meta, self.end) else {
            return Err(SnapshotError::Cut { n_bytes });
        };
        if !self.buffer.is_empty() || n_versions != self.versions.len() as u64 {
            return Err(SnapshotError::Cut { n_bytes });
        }
        let state = ClusterState::from_records(meta, self.versions)?;
        if sum_of(&state) == sum { Ok(state) } else { Err(SnapshotError::Sum) }
    }
}

/// A snapshot that lies in memory whole.
pub fn decode_snapshot(bytes: &[u8]) -> Result<ClusterState, SnapshotError> {
    let mut reader = SnapshotReader::default();
    reader.push(bytes)?;
    reader.finish()
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
