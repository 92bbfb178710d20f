//! nfnetlink's framing: a batch of messages with attributes, and the errors that come back.
//!
//! Invariant: every attribute and message is padded to four bytes, and its length field counts without the padding.

use std::ops::Range;

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 16; // NFNL_MSG_BATCH_BEGIN
const BATCH_END: u16 = 17; // NFNL_MSG_BATCH_END
const HEADER_LEN: usize = 16;
const NESTED: u16 = 1 << 15; // NLA_F_NESTED
const REQUEST: u16 = 1; // NLM_F_REQUEST
/// NLM_F_CREATE.
pub const CREATE: u16 = 0x400;
/// NFPROTO_IPV4.
pub const FAMILY_IPV4: u8 = 2;

/// Messages that the kernel carries out together or not at all.
pub struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    titles: Vec<String>,
}

/// A finished batch, and what its messages are about.
pub struct Sealed {
    pub bytes: Vec<u8>,
    titles: Vec<String>,
}

impl Sealed {
    /// For messages to people.
    pub fn title(&self, sequence: u32) -> String {
        let found = usize::try_from(sequence).ok().and_then(|it| self.titles.get(it));
        found.cloned().unwrap_or_else(|| "the batch itself".to_owned())
    }
}

impl Batch {
    pub fn begin() -> Self {
        let mut out = Self { bytes: Vec::new(), sequence: 0, titles: Vec::new() };
        out.frame((BATCH_BEGIN, 0), 0, SUBSYSTEM, "begin".to_owned(), |_| {});
        out
    }

    /// One message of the nftables subsystem. `title` is for errors.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        title: String,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.frame((SUBSYSTEM << 8 | kind, flags), FAMILY_IPV4, 0, title, body);
    }

    pub fn end(mut self) -> Sealed {
        self.frame((BATCH_END, 0), 0, SUBSYSTEM, "end".to_owned(), |_| {});
        Sealed { bytes: self.bytes, titles: self.titles }
    }

    fn frame(
        &mut self,
        (kind, flags): (u16, u16),
        family: u8,
        resource: u16,
        title: String,
        body: impl FnOnce(&mut Attributes<'_>),
    ) {
        let head = Head { kind, flags, sequence: self.sequence, family, resource };
        frame(&mut self.bytes, &head, body);
        self.sequence += 1;
        self.titles.push(title);
    }
}

/// A request outside of any batch.
pub fn request(kind: u16, body: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let kind = SUBSYSTEM << 8 | kind;
    let head = Head { kind, flags: 0, sequence: 0, family: FAMILY_IPV4, resource: 0 };
    frame(&mut bytes, &head, body);
    bytes
}

/// A request whose answer is everything that fits.
pub fn dump_request(kind: u16, body: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
    const DUMP: u16 = 0x300; // NLM_F_DUMP
    let mut bytes = Vec::new();
    let kind = SUBSYSTEM << 8 | kind;
    let head = Head { kind, flags: DUMP, sequence: 0, family: FAMILY_IPV4, resource: 0 };
    frame(&mut bytes, &head, body);
    bytes
}

struct Head {
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
}

fn frame(bytes: &mut Vec<u8>, head: &Head, body: impl FnOnce(&mut Attributes<'_>)) {
    let start = bytes.len();
    bytes.extend([0; 4]); // Its length, written below.
    bytes.extend(head.kind.to_ne_bytes());
    bytes.extend((head.flags | REQUEST).to_ne_bytes());
    bytes.extend(head.sequence.to_ne_bytes());
    bytes.extend([0; 4]); // To the kernel.
    bytes.extend([head.family, 0]); // NFNETLINK_V0
    bytes.extend(head.resource.to_be_bytes());
    body(&mut Attributes { bytes });
    let len = u32::try_from(bytes.len() - start).expect("a message is a few kilobytes");
    bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
}

/// Writes attributes, one behind the other.
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let at = self.open(kind);
        self.bytes.extend(value);
        self.close(at);
    }

    /// With the terminating zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        let at = self.open(kind);
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.close(at);
    }

    /// Numbers of nftables are big-endian.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Attributes<'_>)) {
        let at = self.open(kind | NESTED);
        body(&mut Attributes { bytes: self.bytes });
        self.close(at);
    }

    fn open(&mut self, kind: u16) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        start..start + 2
    }

    fn close(&mut self, at: Range<usize>) {
        let len = self.bytes.len() - at.start;
        let len = u16::try_from(len).expect("lists of elements are cut into messages before this");
        self.bytes[at].copy_from_slice(&len.to_ne_bytes());
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

/// What the kernel says of one message; code 0 acknowledges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelError {
    pub sequence: u32,
    pub code: i32,
}

/// The errors in a datagram of the kernel. What is cut off or is no error is skipped.
pub fn errors(datagram: &[u8]) -> Vec<KernelError> {
    const NLMSG_ERROR: u16 = 2;
    let read = |(head, body): (&[u8], &[u8])| {
        let code = body.first_chunk::<4>().filter(|_| kind_of(head) == NLMSG_ERROR)?;
        let sequence = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]);
        Some(KernelError { sequence, code: i32::from_ne_bytes(*code).saturating_neg() })
    };
    messages(datagram).into_iter().filter_map(read).collect()
}

/// True if a dump's last message is in the datagram.
pub fn is_last(datagram: &[u8]) -> bool {
    const NLMSG_DONE: u16 = 3;
    messages(datagram).iter().any(|(head, _)| kind_of(head) == NLMSG_DONE)
}

/// One object's outermost attributes: kind and value.
pub type Found = Vec<(u16, Vec<u8>)>;

/// The objects of the nftables subsystem in a datagram.
pub fn objects(datagram: &[u8]) -> Vec<Found> {
    const FAMILY_HEADER_LEN: usize = 4;
    let all = messages(datagram).into_iter();
    let ours = all.filter(|(head, _)| kind_of(head) >> 8 == SUBSYSTEM);
    ours.filter_map(|(_, body)| body.get(FAMILY_HEADER_LEN..)).map(attributes).collect()
}

fn attributes(mut bytes: &[u8]) -> Found {
    let mut out = Vec::new();
    while let Some(head) = bytes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = bytes.get(4..len) else { break };
        out.push((u16::from_ne_bytes([head[2], head[3]]) & 0x3fff, value.to_vec()));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    out
}

fn kind_of(head: &[u8]) -> u16 {
    u16::from_ne_bytes([head[4], head[5]])
}

/// Headers (whole) and bodies, as far as they are not cut off.
fn messages(mut datagram: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut out = Vec::new();
    while let Some((head, rest)) = datagram.split_at_checked(HEADER_LEN) {
        let len = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some(body) = len.checked_sub(HEADER_LEN).and_then(|it| rest.get(..it)) else { break };
        out.push((head, body));
        let Some(next) = datagram.get(len.next_multiple_of(4)..) else { break };
        datagram = next;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_lengths_and_padding_right() {
        let bytes = request(1, |it| {
            it.text(1, "ab");
            it.nested(2, |it| it.number(3, 7));
        });
        assert_eq!(
            bytes,
            [
                &[40, 0, 0, 0, 1, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], // nlmsghdr
                &[2, 0, 0, 0],                                           // nfgenmsg
                &[7, 0, 1, 0, b'a', b'b', 0, 0],                         // seven bytes, padded
                &[12, 0, 2, 0x80, 8, 0, 3, 0, 0, 0, 0, 7],               // nested, big-endian
            ]
            .concat()
        );
    }

    #[test]
    fn errors_are_read_and_damage_is_skipped() {
        let mut datagram = vec![20, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend((-17_i32).to_ne_bytes());
        let error = KernelError { sequence: 5, code: 17 };
        assert_eq!(errors(&datagram), [error]);
        let twice = [datagram.clone(), datagram.clone()].concat();
        assert_eq!(errors(&twice), [error, error]);
        for cut in 0..datagram.len() {
            assert_eq!(errors(&datagram[..cut]), [], "{cut}");
        }
        assert_eq!(errors(&[0; 64]), []);
        assert_eq!(errors(&[255; 64]), []);
    }
}
