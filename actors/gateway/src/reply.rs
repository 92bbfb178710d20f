//! What the gateway answers with: bodies that are chunks, compressed chunks or an endless stream, and their headers.
//!
//! A list's chunks are never copied together; gzip compresses one chunk at a time, when the connection asks for it,
//! so a slow client holds its chunks and nothing more. Every error leaves as a `Status` (design section 13).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::Stream;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    VARY,
};
use http::{Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use kactor_objects::status::Status;
use serde_json::Value;

/// Smaller answers are not worth compressing (k8s.io/apiserver: 128 KiB).
const GZIP_BYTES_MIN: usize = 128 * 1024;
/// A chunk is cut to this before it is compressed, so that one poll does a bounded amount of work.
const GZIP_STEP_BYTES: usize = 64 * 1024;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

pub type Reply = Response<ReplyBody>;

/// The body of an answer.
pub enum ReplyBody {
    Chunks(VecDeque<Bytes>),
    Gzip(Box<Compressing>),
    /// A watch or a log; it ends where the connection ends.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

/// Chunks that are compressed as they are sent.
pub struct Compressing {
    chunks: VecDeque<Bytes>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Compressing {
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let encoder = self.encoder.as_mut()?;
            let done = match self.chunks.pop_front() {
                Some(mut chunk) => {
                    let step = chunk.split_to(chunk.len().min(GZIP_STEP_BYTES));
                    if !chunk.is_empty() {
                        self.chunks.push_front(chunk);
                    }
                    encoder.write_all(&step).expect("writing into memory does not fail");
                    std::mem::take(encoder.get_mut())
                }
                None => {
                    let encoder = self.encoder.take()?;
                    encoder.finish().expect("writing into memory does not fail")
                }
            };
            if !done.is_empty() {
                return Some(Bytes::from(done));
            }
        }
    }
}

impl ReplyBody {
    pub fn empty() -> Self {
        Self::Chunks(VecDeque::new())
    }

    pub fn of(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        Self::Chunks(chunks.into_iter().filter(|it| !it.is_empty()).collect())
    }

    pub fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::Stream(Box::pin(stream))
    }

    fn bytes_len(&self) -> usize {
        match self {
            Self::Chunks(chunks) => chunks.iter().map(Bytes::len).sum(),
            _ => 0,
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Chunks(chunks) => Poll::Ready(chunks.pop_front()),
            Self::Gzip(compressing) => Poll::Ready(compressing.next()),
            Self::Stream(stream) => stream.as_mut().poll_next(cx),
        };
        next.map(|it| it.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Chunks(chunks) if chunks.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Chunks(_) => SizeHint::with_exact(self.bytes_len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// An answer with this body; `content_type` is one of the constants of this file or what was negotiated.
pub fn with_body(code: u16, content_type: &str, body: ReplyBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        reply.headers_mut().insert(CONTENT_TYPE, value);
    }
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    reply
}

pub fn bytes(code: u16, content_type: &str, bytes: impl Into<Bytes>) -> Reply {
    with_body(code, content_type, ReplyBody::of([bytes.into()]))
}

pub fn json(code: u16, tree: &Value) -> Reply {
    let mut text = serde_json::to_vec(tree).expect("a tree has string keys only");
    text.push(b'\n');
    bytes(code, JSON, text)
}

pub fn text(code: u16, text: impl Into<String>) -> Reply {
    let mut reply = bytes(code, TEXT, text.into().into_bytes());
    let nosniff = HeaderValue::from_static("nosniff");
    reply.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, nosniff);
    reply
}

/// A refusal, always JSON: what clients switch on.
pub fn status(status: &Status) -> Reply {
    let mut reply = json(status.code, &status.to_json());
    if let Some(seconds) = status.retry_after_seconds() {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

/// Compresses a large body when the client takes gzip.
pub fn compress(mut reply: Reply, request: &HeaderMap) -> Reply {
    let takes_gzip = request
        .get_all(http::header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .any(|it| it.split(';').next().is_some_and(|it| it.trim().eq_ignore_ascii_case("gzip")));
    if !takes_gzip || reply.body().bytes_len() < GZIP_BYTES_MIN {
        return reply;
    }
    let body = std::mem::replace(reply.body_mut(), ReplyBody::empty());
    *reply.body_mut() = match body {
        ReplyBody::Chunks(chunks) => ReplyBody::Gzip(Box::new(Compressing {
            chunks,
            encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())),
        })),
        other => other,
    };
    let headers = reply.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    reply
}

/// One `Warning` header for each text (RFC 7234, code 299, no agent).
pub fn warn(reply: &mut Reply, warnings: &[String]) {
    for warning in warnings {
        let clean: String = warning.chars().filter(|it| !it.is_control()).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            reply.headers_mut().append(http::header::WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests;
