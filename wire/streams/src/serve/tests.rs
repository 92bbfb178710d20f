//! The loops over a pipe in memory, with a client written by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures::channel::mpsc;
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use futures::{AsyncReadExt, AsyncWriteExt, SinkExt, StreamExt};

use super::*;
use crate::node_streams::{
    ContainerEnd, ContainerStreams, Outcome, Output, PortConnection, PortEnd, StdStreams,
    StreamError,
};
use crate::port_forward::{Carrier, PortForward};
use crate::remote_command::{Encoding, Version, WebSocketCommand};
use crate::spdy::Frame;
use crate::websocket::tests::masked;

/// One direction of a pipe that holds little, so that every write may have to wait.
struct Half {
    read: mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
    write: mpsc::Sender<Vec<u8>>,
}

fn pipe() -> (Half, Half) {
    let (a, from_a) = mpsc::channel(1);
    let (b, from_b) = mpsc::channel(1);
    (
        Half { read: from_b, rest: Vec::new(), write: a },
        Half { read: from_a, rest: Vec::new(), write: b },
    )
}

impl AsyncRead for Half {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.rest.is_empty() {
            match self.read.poll_next_unpin(cx) {
                Poll::Ready(Some(bytes)) => self.rest = bytes,
                Poll::Ready(None) => return Poll::Ready(Ok(0)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let n = self.rest.len().min(out.len());
        out[..n].copy_from_slice(&self.rest[..n]);
        self.rest.drain(..n);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Half {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        match self.write.poll_ready(cx) {
            Poll::Ready(Ok(())) => {
                let n = bytes.len().min(1000);
                self.write.start_send(bytes[..n].to_vec()).map_err(|_| broken())?;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(broken())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.close_channel();
        Poll::Ready(Ok(()))
    }
}

fn never(_: Duration) -> BoxFuture<'static, ()> {
    Box::pin(std::future::pending())
}

fn at_once(_: Duration) -> BoxFuture<'static, ()> {
    Box::pin(std::future::ready(()))
}

const ALL: StdStreams = StdStreams { stdin: true, stdout: true, stderr: true, tty: false };

fn socket_session() -> Box<WebSocketCommand> {
    Box::new(WebSocketCommand::new(Version::V5, Encoding::Binary, ALL))
}

/// Echoes stdin to stdout in upper case until it closes, then ends with 7.
async fn shout(mut end: ContainerEnd) {
    while let Some(bytes) = end.stdin.next().await {
        let upper = Bytes::from(bytes.to_ascii_uppercase());
        if end.output.send(Output::Stdout(upper)).await.is_err() {
            return;
        }
    }
    drop(end.output);
    let _ = end.outcome.send(Outcome::Exited(7));
}

#[test]
fn a_command_gets_its_stdin_and_the_client_all_output_before_the_exit_code() {
    let mut pool = LocalPool::new();
    let (mut client, server) = pipe();
    let (streams, end) = ContainerStreams::pair();
    pool.spawner().spawn_local(shout(end)).unwrap();
    let served = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&served);
    let serving = async move {
        serve_command(server, socket_session(), streams, &never).await.unwrap();
        flag.store(true, Ordering::Relaxed);
    };
    pool.spawner().spawn_local(serving).unwrap();
    // More than every buffer on the way holds.
    let n_messages = 64;
    let (mut reader, mut writer) = {
        let (read, write) =
            futures::AsyncReadExt::split(&mut client as &mut (dyn AsyncReadWrite + Unpin));
        (read, write)
    };
    let all = pool.run_until(async {
        let sending = async {
            for _ in 0..n_messages {
                writer
                    .write_all(&masked(true, 2, &[&[0][..], &[b'a'; 20_000]].concat()))
                    .await
                    .unwrap();
            }
            writer.write_all(&masked(true, 2, &[255, 0])).await.unwrap();
        };
        let receiving = async {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            all
        };
        futures::join!(sending, receiving).1
    });
    drop((reader, writer));
    drop(client);
    pool.run_until_stalled();
    assert!(served.load(Ordering::Relaxed));
    assert_eq!(all.iter().filter(|it| **it == b'A').count(), n_messages * 20_000);
    let text = String::from_utf8_lossy(&all);
    let last = text.rfind('A').unwrap();
    assert!(text[last..].contains(r#""message":"7""#), "the exit code comes after all output");
}

trait AsyncReadWrite: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> AsyncReadWrite for T {}

#[test]
fn a_client_that_leaves_closes_the_containers_ends() {
    let mut pool = LocalPool::new();
    let (client, server) = pipe();
    let (streams, mut end) = ContainerStreams::pair();
    drop(client);
    let result = pool.run_until(serve_command(server, socket_session(), streams, &never));
    assert!(result.is_ok() || matches!(result, Err(ServeError::Io(_))));
    assert_eq!(pool.run_until(end.stdin.next()), None);
    assert!(end.outcome.is_canceled());
}

#[test]
fn a_client_that_opens_no_streams_is_given_up() {
    let mut pool = LocalPool::new();
    let (_client, server) = pipe();
    let (streams, _end) = ContainerStreams::pair();
    let session = Box::new(crate::remote_command::SpdyCommand::new(Version::V4, ALL));
    let result = pool.run_until(serve_command(server, session, streams, &at_once));
    assert!(matches!(result, Err(ServeError::NoStreams)));
}

#[test]
fn a_command_whose_node_is_lost_ends_with_a_failure() {
    let mut pool = LocalPool::new();
    let (mut client, server) = pipe();
    let (streams, end) = ContainerStreams::pair();
    drop(end);
    let serving = async move {
        serve_command(server, socket_session(), streams, &at_once).await.unwrap();
    };
    pool.spawner().spawn_local(serving).unwrap();
    let mut all = Vec::new();
    pool.run_until(client.read_to_end(&mut all)).unwrap();
    assert!(String::from_utf8_lossy(&all).contains("the node's connection was lost"));
}

fn open(zlib: &mut flate2::Compress, stream: u32, kind: &str, port: &str) -> Vec<u8> {
    let mut plain = 2_u32.to_be_bytes().to_vec();
    for text in ["streamtype", kind, "port", port] {
        plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        plain.extend(text.as_bytes());
    }
    let mut block = Vec::with_capacity(512);
    zlib.compress_vec(&plain, &mut block, flate2::FlushCompress::Sync).unwrap();
    let mut out = BytesMut::new();
    Frame::SynStream { stream, block: Bytes::from(block), finished: false }.encode(&mut out);
    out.to_vec()
}

#[test]
fn forwarded_connections_reach_their_ports_and_failures_are_told() {
    let mut pool = LocalPool::new();
    let spawner = pool.spawner();
    let (mut client, server) = pipe();
    let serving = async move {
        let (ask, mut asked) = mpsc::channel::<PortEnd>(4);
        let echo = async move {
            while let Some(mut end) = asked.next().await {
                while let Some(bytes) = end.from_client.next().await {
                    end.to_client.send(Ok(bytes)).await.unwrap();
                }
            }
        };
        let connect = move |port: u16| -> BoxFuture<'static, Result<PortConnection, StreamError>> {
            let mut ask = ask.clone();
            Box::pin(async move {
                if port == 81 {
                    return Err(StreamError::Failed("connection refused".to_owned()));
                }
                let (connection, end) = PortConnection::pair();
                ask.send(end).await.unwrap();
                Ok(connection)
            })
        };
        let session = PortForward::new(Carrier::Plain);
        futures::join!(echo, async {
            serve_port_forward(server, session, &connect, &at_once).await.unwrap();
            drop(connect);
        });
    };
    spawner.spawn_local(serving).unwrap();
    let mut zlib = flate2::Compress::new(flate2::Compression::default(), true);
    let mut sent = Vec::new();
    for (stream, port) in [(1, "80"), (5, "81")] {
        sent.extend(open(&mut zlib, stream, "error", port));
        sent.extend(open(&mut zlib, stream + 2, "data", port));
    }
    let mut data = BytesMut::new();
    Frame::Data { stream: 3, bytes: Bytes::from("hello"), finished: true }.encode(&mut data);
    sent.extend_from_slice(&data);
    let mut heard = Vec::new();
    let mut bytes = BytesMut::new();
    pool.run_until(async {
        client.write_all(&sent).await.unwrap();
        let ended = |heard: &[Frame]| {
            heard.iter().filter(|it| matches!(it, Frame::Data { finished: true, .. })).count() == 4
        };
        while !ended(&heard) {
            let mut buffer = [0; 4096];
            let n = client.read(&mut buffer).await.unwrap();
            assert_ne!(n, 0, "the server closed early: {heard:?}");
            bytes.extend_from_slice(&buffer[..n]);
            while let Some(frame) = Frame::decode(&mut bytes).unwrap() {
                heard.push(frame);
            }
        }
    });
    let said = |stream, text: &'static str| {
        heard.contains(&Frame::Data { stream, bytes: Bytes::from(text), finished: false })
    };
    assert!(said(3, "hello"));
    assert!(said(5, "error forwarding port 81: connection refused"));
}
