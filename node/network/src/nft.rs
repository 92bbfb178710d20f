//! nftables over netlink: one instance's table, replaced as a whole in one transaction of the kernel.
//!
//! The host's `nft` is not started and no library is linked: `message` encodes nfnetlink, `expression` what rules
//! consist of, `table` a `Ruleset`. Reference: linux/netfilter/nf_tables.h; the listing of `nft list table`
//! reads back what is written here.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::ruleset::Ruleset;

pub mod expression;
pub mod forwarding;
pub mod message;
pub mod table;

/// What the kernel takes in one send: 50,000 service ports with a few endpoints each.
const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("no netfilter socket: is nf_tables in this kernel, and are we root?")]
    Socket(#[source] io::Error),
    #[error("the rules have {bytes} bytes, at most {BATCH_BYTES_MAX} can be sent at once")]
    TooLarge { bytes: usize },
    #[error("the kernel took no rules ({bytes} bytes)")]
    Send { bytes: usize, source: io::Error },
    #[error("the kernel refused the rules of table {table} at message {sequence}, {what}")]
    Refused { table: String, sequence: u32, what: String, source: io::Error },
}

/// Makes the instance's table say this and nothing else, and lets the bridge forward. The network namespace is the calling thread's.
pub fn replace(rules: &Ruleset) -> Result<(), NftError> {
    let mut batch = message::Batch::begin();
    table::write(rules, &mut batch);
    commit(batch, &rules.table)?;
    // A host that lets all forwarding through, or has no such chain, has nothing to be asked.
    match forwarding::allow(rules) {
        Err(NftError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

/// Removes the table; one that does not exist is fine.
pub fn remove(table: &str) -> Result<(), NftError> {
    forwarding::withdraw(table)?;
    let mut batch = message::Batch::begin();
    // Created first, so that the deletion finds one whatever was there.
    table::create_table(table, &mut batch);
    table::delete_table(table, &mut batch);
    commit(batch, table)
}

/// True if the kernel has the table.
pub fn exists(table: &str) -> Result<bool, NftError> {
    let request = table::get_table(table);
    let socket = open()?;
    send(&socket, &request)?;
    let (answer, _) = socket.recv_from_full().map_err(NftError::Socket)?;
    match message::errors(&answer).first() {
        Some(error) if error.code == libc::ENOENT => Ok(false),
        Some(error) if error.code != 0 => Err(NftError::Refused {
            table: table.to_owned(),
            sequence: error.sequence,
            what: "asking for the table".to_owned(),
            source: io::Error::from_raw_os_error(error.code),
        }),
        _ => Ok(true),
    }
}

/// All answers to a dump; `None` if what is asked for is not there.
fn dump(request: &[u8], table: &str) -> Result<Option<Vec<message::Found>>, NftError> {
    let socket = open()?;
    send(&socket, request)?;
    let mut out = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full().map_err(NftError::Socket)?;
        match message::errors(&answer).first() {
            Some(error) if error.code == libc::ENOENT => return Ok(None),
            Some(error) if error.code != 0 => {
                return Err(NftError::Refused {
                    table: table.to_owned(),
                    sequence: error.sequence,
                    what: "listing rules".to_owned(),
                    source: io::Error::from_raw_os_error(error.code),
                });
            }
            _ => out.extend(message::objects(&answer)),
        }
        if message::is_last(&answer) {
            return Ok(Some(out));
        }
    }
}

fn open() -> Result<Socket, NftError> {
    let mut socket = Socket::new(NETLINK_NETFILTER).map_err(NftError::Socket)?;
    socket.bind_auto().map_err(NftError::Socket)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(NftError::Socket)?;
    Ok(socket)
}

fn send(socket: &Socket, bytes: &[u8]) -> Result<(), NftError> {
    let failed = |source| NftError::Send { bytes: bytes.len(), source };
    let sent = socket.send(bytes, 0).map_err(failed)?;
    if sent != bytes.len() {
        return Err(failed(io::ErrorKind::WriteZero.into()));
    }
    Ok(())
}

/// The kernel works through the batch before `send` returns, and reports only what went wrong.
pub fn commit(batch: message::Batch, table: &str) -> Result<(), NftError> {
    let sent = batch.end();
    if sent.bytes.len() > BATCH_BYTES_MAX {
        return Err(NftError::TooLarge { bytes: sent.bytes.len() });
    }
    let socket = open()?;
    allow_size(&socket, sent.bytes.len());
    send(&socket, &sent.bytes)?;
    socket.set_non_blocking(true).map_err(NftError::Socket)?;
    loop {
        let answer = match socket.recv_from_full() {
            Ok((answer, _)) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(NftError::Socket(error)),
        };
        if let Some(error) = message::errors(&answer).into_iter().find(|it| it.code != 0) {
            return Err(NftError::Refused {
                table: table.to_owned(),
                sequence: error.sequence,
                what: sent.title(error.sequence),
                source: io::Error::from_raw_os_error(error.code),
            });
        }
    }
}

/// A batch is one datagram; the usual bound of a socket is far below a large cluster's rules.
fn allow_size(socket: &Socket, bytes: usize) {
    use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
    let room = bytes.saturating_mul(2).max(1 << 20);
    // Refused without CAP_NET_ADMIN; the send then says so itself.
    let _ = setsockopt(socket, SndBufForce, &room);
}
