//! One message between hosts: a header of fixed shape, then the body.
//!
//! The header is laid out by hand and will not change its first six bytes: a host can always tell where a frame of any
//! later version ends, so it answers `Unsupported` and keeps the connection. The message's id stands in the header, so
//! permission and existence are decided before a byte of the body is decoded.
//!
//! ```text
//! length u32 | version u16 | message u16 | kind u8 | 0 u8 | letter u64 | trace u64 | cause u64 | timeout ms u32
//! | to: incarnation u64, name length u16, name | from: the same | body            (all little endian)
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::address::{ActorName, Incarnation, NAME_BYTES_MAX};
use crate::codec::{CODEC_BYTES_MAX, encode};
use crate::ids::{LetterId, MessageId, TraceId};
use crate::store::Retry;

/// The version that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes of the length field, which counts what follows it.
pub const LENGTH_BYTES: usize = 4;
/// Longest frame with its length field; refused before it is read into memory.
pub const FRAME_BYTES_MAX: usize = CODEC_BYTES_MAX + HEADER_BYTES_MIN + 2 * NAME_BYTES_MAX;
/// A header with two empty names.
const HEADER_BYTES_MIN: usize = LENGTH_BYTES + 2 + 2 + 1 + 1 + 8 + 8 + 8 + 4 + 2 * (8 + 2);

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// No answer is expected.
    Tell,
    /// One `Reply` or `Refusal` frame with the same letter comes back.
    Ask,
    Reply,
    /// The body is a `Refusal`.
    Refusal,
}

impl FrameKind {
    const ALL: [FrameKind; 4] =
        [FrameKind::Tell, FrameKind::Ask, FrameKind::Reply, FrameKind::Refusal];
}

/// One end of a message: an actor and which life of it. Incarnation 0 takes any life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    pub name: ActorName,
    pub incarnation: Incarnation,
}

/// Everything of a frame but its body. The hosts are not in it: the connection's certificates say who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub message: MessageId,
    pub kind: FrameKind,
    /// Names this message on its sender's host; a reply carries the letter that it answers.
    pub letter: LetterId,
    pub trace: TraceId,
    /// The letter whose handling sent this one; 0 if none did.
    pub cause: LetterId,
    /// What is left of the deadline; deadlines themselves mean nothing on another host. 0 on a tell.
    pub timeout_ms: u32,
    /// `None`: the host itself.
    pub to: Option<Party>,
    pub from: Option<Party>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub body: Bytes,
}

/// What stands at fixed places of a frame of this version, read without looking at the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    pub message: MessageId,
    /// `None`: a kind of a later version.
    pub kind: Option<FrameKind>,
    pub letter: LetterId,
    pub cause: LetterId,
}

/// Why bytes are no frame. After `Unsupported` the next frame begins where this one ends; after the others the
/// stream is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len_bytes} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLarge { len_bytes: usize },
    #[error("the frame ends inside its {part}")]
    Truncated { part: &'static str },
    #[error("the frame's {part} is malformed")]
    Malformed { part: &'static str },
    #[error("the frame speaks protocol version {theirs}, this host speaks {ours}")]
    Unsupported { theirs: u16, ours: u16 },
}

impl Frame {
    /// How many bytes the frame at the start of `bytes` has; `None` until its length field is there.
    pub fn len_bytes(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(field) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let rest = usize::try_from(u32::from_le_bytes(*field)).unwrap_or(usize::MAX);
        let len_bytes = rest.saturating_add(LENGTH_BYTES);
        if len_bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { len_bytes });
        }
        Ok(Some(len_bytes))
    }

    /// The fixed places of a whole frame; `None` when it is too short to have them.
    pub fn peek(bytes: &[u8]) -> Option<Peek> {
        let mut head = bytes.get(LENGTH_BYTES + 2..HEADER_BYTES_MIN)?;
        let message = MessageId(head.get_u16_le());
        let kind = FrameKind::ALL.get(usize::from(head.get_u8())).copied();
        head.advance(1);
        let letter = LetterId(head.get_u64_le());
        head.advance(8);
        Some(Peek { message, kind, letter, cause: LetterId(head.get_u64_le()) })
    }

    /// The frame that answers a question with a refusal.
    pub fn refuse(question: &Header, refusal: &Refusal) -> Bytes {
        let body = encode(refusal).expect("a refusal is a few short texts");
        Self::answer(question, FrameKind::Refusal, body)
    }

    /// The frame that answers a question.
    pub fn answer(question: &Header, kind: FrameKind, body: Bytes) -> Bytes {
        let header = Header {
            kind,
            cause: question.letter,
            timeout_ms: 0,
            to: question.from.clone(),
            from: question.to.clone(),
            ..*question
        };
        Frame { header, body }.encode().expect("the codec bounds the body, names are bounded")
    }

    /// The frame's bytes, length field first. Refuses a body above the limit.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let Header { message, kind, letter, trace, cause, timeout_ms, to, from } = &self.header;
        let names = [to, from].map(|it| it.as_ref().map_or(0, |it| it.name.as_str().len()));
        let len_bytes = HEADER_BYTES_MIN + names[0] + names[1] + self.body.len();
        if len_bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { len_bytes });
        }
        let mut out = BytesMut::with_capacity(len_bytes);
        out.put_u32_le(u32::try_from(len_bytes - LENGTH_BYTES).expect("FRAME_BYTES_MAX fits"));
        out.put_u16_le(PROTOCOL_VERSION);
        out.put_u16_le(message.0);
        out.put_u8(*kind as u8);
        out.put_u8(0);
        out.put_u64_le(letter.0);
        out.put_u64_le(trace.0);
        out.put_u64_le(cause.0);
        out.put_u32_le(*timeout_ms);
        put_party(&mut out, to.as_ref());
        put_party(&mut out, from.as_ref());
        out.put_slice(&self.body);
        assert_eq!(out.len(), len_bytes, "the length was counted before it was written");
        Ok(out.freeze())
    }

    /// Decodes one whole frame, length field included; the body shares `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Frame, FrameError> {
        let expected = Self::len_bytes(&bytes)?.ok_or(FrameError::Truncated { part: "length" })?;
        if bytes.len() < expected {
            return Err(FrameError::Truncated { part: "body" });
        }
        if bytes.len() > expected {
            return Err(FrameError::Malformed { part: "length" });
        }
        bytes.advance(LENGTH_BYTES);
        let theirs =
            bytes.try_get_u16_le().map_err(|_| FrameError::Truncated { part: "version" })?;
        if theirs != PROTOCOL_VERSION {
            return Err(FrameError::Unsupported { theirs, ours: PROTOCOL_VERSION });
        }
        if bytes.len() < HEADER_BYTES_MIN - LENGTH_BYTES - 2 {
            return Err(FrameError::Truncated { part: "header" });
        }
        let message = MessageId(bytes.get_u16_le());
        let kind = FrameKind::ALL
            .get(usize::from(bytes.get_u8()))
            .copied()
            .ok_or(FrameError::Malformed { part: "kind" })?;
        if bytes.get_u8() != 0 {
            return Err(FrameError::Malformed { part: "reserved byte" });
        }
        let header = Header {
            message,
            kind,
            letter: LetterId(bytes.get_u64_le()),
            trace: TraceId(bytes.get_u64_le()),
            cause: LetterId(bytes.get_u64_le()),
            timeout_ms: bytes.get_u32_le(),
            to: take_party(&mut bytes, "receiver")?,
            from: take_party(&mut bytes, "sender")?,
        };
        if bytes.len() > CODEC_BYTES_MAX {
            return Err(FrameError::TooLarge { len_bytes: bytes.len() });
        }
        Ok(Frame { header, body: bytes })
    }
}

fn put_party(out: &mut BytesMut, party: Option<&Party>) {
    let name = party.map_or("", |it| it.name.as_str());
    out.put_u64_le(party.map_or(0, |it| it.incarnation.0));
    out.put_u16_le(u16::try_from(name.len()).expect("NAME_BYTES_MAX fits"));
    out.put_slice(name.as_bytes());
}

fn take_party(bytes: &mut Bytes, part: &'static str) -> Result<Option<Party>, FrameError> {
    let truncated = |_| FrameError::Truncated { part };
    let incarnation = bytes.try_get_u64_le().map_err(truncated)?;
    let len = usize::from(bytes.try_get_u16_le().map_err(truncated)?);
    if len > bytes.len() {
        return Err(FrameError::Truncated { part });
    }
    let name = bytes.split_to(len);
    match (incarnation, len) {
        (0, 0) => Ok(None),
        _ => {
            let malformed = FrameError::Malformed { part };
            let name = std::str::from_utf8(&name).ok().and_then(|it| ActorName::new(it).ok());
            let name = name.ok_or(malformed)?;
            Ok(Some(Party { name, incarnation: Incarnation(incarnation) }))
        }
    }
}

/// Why an ask got no reply. It stands for the answer, so that no request ends in silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("message {message} is not known here: we speak protocol {ours}, they speak {theirs}")]
    Unsupported { message: MessageId, theirs: u16, ours: u16 },
    #[error("this host may not send {message}; {permitted} may")]
    NotPermitted { message: String, permitted: String },
    #[error("no actor {name} runs here")]
    NoSuchActor { name: String },
    #[error("{name} does not take {message}")]
    NotTaken { name: String, message: String },
    #[error("the message is malformed: {reason}")]
    Malformed { reason: String },
    #[error("the mailbox is full")]
    Overloaded,
    #[error("the deadline passed before an answer came")]
    DeadlinePassed,
    /// The actor dropped the reply token.
    #[error("the actor did not answer")]
    Ignored,
    /// It panicked; supervision restarts it.
    #[error("the actor failed while it handled the message")]
    Failed,
    #[error("the actor stopped")]
    Stopped,
    /// It was not sent.
    #[error("host {host} can't be reached: {reason}")]
    Unreachable { host: String, reason: String },
    /// It was sent; whether it arrived, and what it did there, is not known.
    #[error("the link to host {host} broke before an answer came: {reason}")]
    Lost { host: String, reason: String },
}

impl Refusal {
    /// Only asks whose handling is known not to have begun are safe to repeat as they are.
    pub fn retry(&self) -> Retry {
        match self {
            Refusal::Overloaded => Retry::After { ms: 100 },
            Refusal::Unreachable { .. } | Refusal::NoSuchActor { .. } => Retry::After { ms: 500 },
            Refusal::DeadlinePassed
            | Refusal::Ignored
            | Refusal::Failed
            | Refusal::Stopped
            | Refusal::Lost { .. } => Retry::Replan,
            Refusal::Unsupported { .. }
            | Refusal::NotPermitted { .. }
            | Refusal::NotTaken { .. }
            | Refusal::Malformed { .. } => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests;
