//! The cluster's nameserver: the zone answered from memory, everything else asked of the host's resolvers.
//!
//! One task for UDP and one for TCP; a question that must be forwarded waits in a bounded set beside the next one.
//! `respond` decides what a datagram means and does no IO. Full sets answer SERVFAIL at once: a stub resolver then
//! asks again, while a dropped question costs it five seconds. Its own address is never among the resolvers, so
//! no question can run in a circle.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use kactor_runtime::env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::dns::zone::{Answer, Zone};
use crate::view::View;

pub mod zone;

/// Questions that wait for the host's resolvers at one time.
const FORWARDS_MAX: usize = 256;
const CONNECTIONS_MAX: usize = 64;
/// Of one resolver. A stub resolver waits five seconds for all of them.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);
const RESOLVERS_MAX: usize = 3;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger answers over UDP are lost to fragments on some ways (DNS flag day 2020).
const DATAGRAM_BYTES_MAX: u16 = 1232;
const PLAIN_BYTES_MAX: u16 = 512;

/// What the server answers from.
#[derive(Clone)]
pub struct Nameserver {
    pub env: Env,
    pub zone: Arc<Zone>,
    pub view: Arc<Mutex<View>>,
    /// The host's resolvers; our own address is skipped.
    pub resolvers: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
#[error("the cluster's nameserver cannot listen on {at}: does another program?")]
pub struct ListenError {
    pub at: SocketAddr,
    pub source: io::Error,
}

/// Open sockets, to be served by `Nameserver::serve`.
pub struct Listening {
    datagrams: UdpSocket,
    connections: TcpListener,
}

/// Opens both sockets; on the lane that serves them.
pub async fn listen(address: Ipv4Addr, port: u16) -> Result<Listening, ListenError> {
    let at = SocketAddr::new(IpAddr::V4(address), port);
    let failed = |source| ListenError { at, source };
    let datagrams = UdpSocket::bind(at).await.map_err(failed)?;
    let connections = TcpListener::bind(at).await.map_err(failed)?;
    Ok(Listening { datagrams, connections })
}

/// How a question came, which bounds its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Datagram,
    Stream,
}

/// What is to be done with a question.
#[derive(Debug, PartialEq)]
enum Response {
    Say(Vec<u8>),
    Forward(Box<Message>),
    /// Not a question at all.
    Ignore,
}

impl Nameserver {
    /// Answers until it is dropped.
    pub async fn serve(&self, listening: &Listening) {
        futures::join!(
            self.serve_datagrams(&listening.datagrams),
            self.serve_connections(&listening.connections)
        );
    }

    async fn serve_datagrams(&self, socket: &UdpSocket) {
        let mut forwards = FuturesUnordered::new();
        let mut buffer = vec![0; 4096];
        loop {
            let (len, from) = tokio::select! { biased;
                Some((answer, to)) = forwards.next() => {
                    let answer: Vec<u8> = answer;
                    // A client that is gone needs no answer.
                    let _ = socket.send_to(&answer, to).await;
                    continue;
                }
                received = socket.recv_from(&mut buffer) => match received {
                    Ok(it) => it,
                    Err(_) => {
                        // An earlier client's port is closed; anything that lasts must not spin.
                        self.env.sleep(Duration::from_millis(10)).await;
                        continue;
                    }
                },
            };
            match self.respond(&buffer[..len], Transport::Datagram) {
                Response::Say(answer) => {
                    let _ = socket.send_to(&answer, from).await;
                }
                Response::Forward(question) if forwards.len() < FORWARDS_MAX => {
                    let raw = buffer[..len].to_vec();
                    forwards.push(async move {
                        (self.forward(&question, &raw, Transport::Datagram).await, from)
                    });
                }
                Response::Forward(question) => {
                    let _ = socket.send_to(&failure(&question), from).await;
                }
                Response::Ignore => {}
            }
        }
    }

    async fn serve_connections(&self, listener: &TcpListener) {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! { biased;
                Some(()) = open.next() => {}
                accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => open.push(self.serve_connection(stream)),
                    // Out of descriptors, most likely: others end in the meantime.
                    Err(_) => self.env.sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }

    /// Until the client closes, is silent for too long, or says what is no question.
    async fn serve_connection(&self, mut stream: TcpStream) {
        while let Some(Ok(raw)) = self.within(IDLE_TIMEOUT, read_framed(&mut stream)).await {
            let answer = match self.respond(&raw, Transport::Stream) {
                Response::Say(answer) => answer,
                Response::Forward(question) => {
                    self.forward(&question, &raw, Transport::Stream).await
                }
                Response::Ignore => return,
            };
            let Some(Ok(())) = self.within(IDLE_TIMEOUT, write_framed(&mut stream, &answer)).await
            else {
                return;
            };
        }
    }

    fn respond(&self, raw: &[u8], transport: Transport) -> Response {
        let Ok(question) = Message::from_vec(raw) else {
            let Some(id) = raw.first_chunk::<2>().filter(|_| raw.len() >= 12) else {
                return Response::Ignore;
            };
            let id = u16::from_be_bytes(*id);
            let answer = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
            return answer.to_vec().map_or(Response::Ignore, Response::Say);
        };
        if question.metadata.message_type == MessageType::Response {
            return Response::Ignore;
        }
        let mut answer = reply(&question);
        let [query] = question.queries.as_slice() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return said(&question, answer, transport);
        };
        if question.metadata.op_code != OpCode::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
            return said(&question, answer, transport);
        }
        let meant = {
            let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
            self.zone.answer(&view, query.name(), query.query_type())
        };
        answer.metadata.authoritative = true;
        match meant {
            Answer::Elsewhere => return Response::Forward(Box::new(question)),
            Answer::Records { answers, additionals } => {
                answer.answers = answers;
                answer.additionals = additionals;
            }
            Answer::NoData => answer.authorities = vec![self.zone.authority()],
            Answer::NoSuchName => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities = vec![self.zone.authority()];
            }
        }
        said(&question, answer, transport)
    }

    /// Asks the host's resolvers one after the other, with an id of our own that an outsider cannot guess.
    async fn forward(&self, question: &Message, raw: &[u8], transport: Transport) -> Vec<u8> {
        let id = self.env.random_u64().to_be_bytes();
        let mut asked = raw.to_vec();
        asked[..2].copy_from_slice(&id[..2]);
        for resolver in self.resolvers.iter().take(RESOLVERS_MAX) {
            let answer = match transport {
                Transport::Datagram => {
                    self.within(RESOLVER_TIMEOUT, ask_datagram(*resolver, &asked, question)).await
                }
                Transport::Stream => {
                    self.within(RESOLVER_TIMEOUT, ask_stream(*resolver, &asked, question)).await
                }
            };
            if let Some(Ok(mut answer)) = answer {
                answer[..2].copy_from_slice(&raw[..2]);
                return answer;
            }
        }
        failure(question)
    }

    async fn within<T>(&self, time: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! { biased;
            done = work => Some(done),
            () = self.env.sleep(time) => None,
        }
    }
}

fn reply(question: &Message) -> Message {
    let mut out = Message::response(question.metadata.id, question.metadata.op_code);
    out.metadata.recursion_desired = question.metadata.recursion_desired;
    out.metadata.recursion_available = true;
    out.queries = question.queries.clone();
    out.edns = question.edns.as_ref().map(|_| {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX);
        edns
    });
    out
}

fn said(question: &Message, answer: Message, transport: Transport) -> Response {
    let room = match (transport, &question.edns) {
        (Transport::Stream, _) => u16::MAX,
        (Transport::Datagram, Some(edns)) => {
            edns.max_payload().clamp(PLAIN_BYTES_MAX, DATAGRAM_BYTES_MAX)
        }
        (Transport::Datagram, None) => PLAIN_BYTES_MAX,
    };
    let bytes = answer.to_vec().unwrap_or_default();
    if !bytes.is_empty() && bytes.len() <= usize::from(room) {
        return Response::Say(bytes);
    }
    answer.truncate().to_vec().map_or(Response::Ignore, Response::Say)
}

/// "Ask again, or somebody else."
fn failure(question: &Message) -> Vec<u8> {
    let mut answer = reply(question);
    answer.metadata.response_code = ResponseCode::ServFail;
    answer.to_vec().unwrap_or_default()
}

/// True if `raw` answers what was asked: same id, same question.
fn answers(raw: &[u8], asked: &[u8], question: &Message) -> bool {
    let same_id = raw.get(..2) == asked.get(..2);
    let told = || Message::from_vec(raw).ok();
    let is_answer = |it: &Message| {
        it.metadata.message_type == MessageType::Response
            && (it.queries.is_empty() || it.queries == question.queries)
    };
    same_id && told().as_ref().is_some_and(is_answer)
}

async fn ask_datagram(at: SocketAddr, asked: &[u8], question: &Message) -> io::Result<Vec<u8>> {
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(at).await?;
    socket.send(asked).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if answers(&buffer[..len], asked, question) {
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

async fn ask_stream(at: SocketAddr, asked: &[u8], question: &Message) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(at).await?;
    write_framed(&mut stream, asked).await?;
    let answer = read_framed(&mut stream).await?;
    if answers(&answer, asked, question) {
        return Ok(answer);
    }
    Err(io::ErrorKind::InvalidData.into())
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut out = vec![0; usize::from(len)];
    stream.read_exact(&mut out).await?;
    Ok(out)
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let framed = [&len.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests;
