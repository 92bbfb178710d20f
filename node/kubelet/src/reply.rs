//! What the kubelet's API answers with.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

pub type Reply = Response<Content>;

/// The body of an answer.
pub enum Content {
    Bytes(Bytes),
    /// A log; it ends where the connection ends.
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Content {
    pub fn into_body(self) -> UnsyncBoxBody<Bytes, Infallible> {
        match self {
            Content::Bytes(bytes) => Full::new(bytes).boxed_unsync(),
            Content::Stream(stream) => {
                StreamBody::new(stream.map(|it| Ok(Frame::data(it)))).boxed_unsync()
            }
        }
    }
}

fn with(code: StatusCode, content_type: &'static str, content: Content) -> Reply {
    let mut reply = Response::new(content);
    *reply.status_mut() = code;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A sentence, or `ok`.
pub fn text(code: StatusCode, text: impl Into<String>) -> Reply {
    let bytes = Bytes::from(text.into().into_bytes());
    let mut reply = with(code, "text/plain; charset=utf-8", Content::Bytes(bytes));
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

pub fn json(tree: &Value) -> Reply {
    json_bytes(serde_json::to_vec(tree).expect("a tree has string keys only").into())
}

pub fn json_bytes(bytes: Bytes) -> Reply {
    with(StatusCode::OK, "application/json", Content::Bytes(bytes))
}

/// Prometheus' text format.
pub fn metrics(page: String) -> Reply {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    with(StatusCode::OK, kind, Content::Bytes(page.into_bytes().into()))
}

pub fn log(stream: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    with(StatusCode::OK, "text/plain", Content::Stream(Box::pin(stream)))
}
