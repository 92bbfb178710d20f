//! One connection to a pod's shim: frames out, frames and descriptors in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use futures::FutureExt;
use kactor_drivers::{DriverError, SandboxId};
use kactor_runtime::env::Env;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::ANSWER_TIMEOUT;
use crate::layout::PodLayout;
use crate::protocol::wire::{Inbox, frame, send};
use crate::protocol::{Reply, Request};

pub struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    whom: String,
}

impl Connection {
    /// Needs a tokio runtime around it.
    pub fn open(pod: &PodLayout, id: &SandboxId) -> Result<Self, DriverError> {
        let whom = format!("the shim of pod {id}");
        let opened = open_socket(pod);
        let stream = opened
            .map_err(|it| DriverError::Unreachable { whom: whom.clone(), why: it.to_string() })?;
        Ok(Self { stream, inbox: Inbox::default(), whom })
    }

    fn broken(&self, why: impl ToString) -> DriverError {
        DriverError::Unreachable { whom: self.whom.clone(), why: why.to_string() }
    }

    pub fn unexpected(&self, reply: &Reply) -> DriverError {
        match reply {
            Reply::Refused { why, .. } => {
                DriverError::Runtime { doing: self.whom.clone(), why: why.clone() }
            }
            other => self.broken(format!("it answered {other:?}")),
        }
    }

    /// One request, one answer, within `ANSWER_TIMEOUT`.
    pub async fn ask(&mut self, request: &Request, env: &Env) -> Result<Reply, DriverError> {
        let whom = self.whom.clone();
        let mut sleep = env.sleep(ANSWER_TIMEOUT).fuse();
        let mut answer = std::pin::pin!(
            async {
                self.send(request).await?;
                self.receive().await
            }
            .fuse()
        );
        futures::select_biased! {
            answer = answer => answer,
            () = sleep => Err(DriverError::Timeout {
                doing: format!("waiting for {whom}"),
                limit_ms: ANSWER_TIMEOUT.as_millis() as u64,
            }),
        }
    }

    pub async fn send(&mut self, request: &Request) -> Result<(), DriverError> {
        let body = serde_json::to_vec(request).map_err(|it| self.broken(it))?;
        let bytes = frame(&body);
        let mut sent = 0;
        while sent < bytes.len() {
            self.stream.writable().await.map_err(|it| self.broken(it))?;
            let wrote = self
                .stream
                .try_io(Interest::WRITABLE, || send(self.stream.as_fd(), &bytes[sent..], &[]));
            match wrote {
                Ok(n) => sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    pub async fn receive(&mut self) -> Result<Reply, DriverError> {
        loop {
            if let Some(body) = self.inbox.frame().map_err(|it| self.broken(it))? {
                return serde_json::from_slice(&body).map_err(|it| self.broken(it));
            }
            self.stream.readable().await.map_err(|it| self.broken(it))?;
            let (stream, inbox) = (&self.stream, &mut self.inbox);
            match stream.try_io(Interest::READABLE, || inbox.fill(stream.as_fd())) {
                Ok(true) => {}
                Ok(false) => return Err(self.broken("it hung up")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// Those that came with the replies so far.
    pub fn take_descriptors(&mut self) -> VecDeque<OwnedFd> {
        std::iter::from_fn(|| self.inbox.take_descriptor()).collect()
    }
}

/// Through the folder's descriptor: a path may be longer than a socket's address.
fn open_socket(pod: &PodLayout) -> io::Result<UnixStream> {
    let mut options = std::fs::OpenOptions::new();
    let dir = options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&pod.run)?;
    let name = pod.socket();
    let name = name.file_name().expect("the socket has a name").to_string_lossy().into_owned();
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
