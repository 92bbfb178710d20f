//! Frames and descriptors on a unix socket: the only unsafe part of the protocol.
//!
//! The reading side is a buffer machine (`Inbox`) that never allocates more than one frame; who reads decides when.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{DESCRIPTORS_MAX, FRAME_BYTES_MAX};

/// Bytes and descriptors that came, until they make a frame.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    ended: bool,
}

/// Room for the control message of `DESCRIPTORS_MAX` descriptors, aligned as cmsghdr wants.
const CONTROL_WORDS: usize = 8;

impl Inbox {
    /// Reads once. `Ok(false)` at the end of the stream; `WouldBlock` is the caller's to wait for.
    pub fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut buffer = [0_u8; 4096];
        let n = receive(socket.as_raw_fd(), &mut buffer, &mut self.descriptors)?;
        self.bytes.extend_from_slice(&buffer[..n]);
        self.ended = n == 0;
        Ok(n > 0)
    }

    /// The next whole frame's body.
    pub fn frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(header) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*header) as usize;
        if len > FRAME_BYTES_MAX {
            let why = format!("a frame of {len} bytes; at most {FRAME_BYTES_MAX} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if self.bytes.len() < 4 + len {
            return Ok(None);
        }
        let body = self.bytes[4..4 + len].to_vec();
        self.bytes.drain(..4 + len);
        Ok(Some(body))
    }

    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }
}

/// Length and body.
pub fn frame(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).expect("bodies are made by serde from bounded messages");
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Sends some of `bytes`, with the descriptors on the first; how many bytes went.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], with: &[BorrowedFd<'_>]) -> io::Result<usize> {
    assert!(with.len() <= DESCRIPTORS_MAX);
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain pointers and integers; all are set below.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !with.is_empty() {
        let raw: Vec<RawFd> = with.iter().map(|it| it.as_raw_fd()).collect();
        let n_bytes = u32::try_from(size_of_val(raw.as_slice())).expect("three descriptors");
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; the control buffer is aligned, zeroed and larger than
        // the space for DESCRIPTORS_MAX descriptors (24 + 16 bytes), so the first header and its data are in it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(n_bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(n_bytes) as _;
            std::ptr::copy_nonoverlapping(
                raw.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(header),
                n_bytes as usize,
            );
        }
    }
    // SAFETY: `message` points to buffers that outlive the call.
    let n = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

fn receive(
    socket: RawFd,
    out: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    // SAFETY: msghdr is plain pointers and integers; all that matter are set below.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `message` points to buffers that outlive the call.
    let n = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel filled the control buffer and its length; the CMSG macros walk within it. Each descriptor
    // in an SCM_RIGHTS message is new and ours alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let n_bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for index in 0..n_bytes / size_of::<RawFd>() {
                    descriptors.push_back(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok(n)
}
