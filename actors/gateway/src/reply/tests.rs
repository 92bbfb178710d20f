//! Bodies and headers of answers.

use std::io::Read;

use futures::executor::block_on;
use http_body_util::BodyExt;

use super::*;

fn collect(reply: Reply) -> Vec<u8> {
    block_on(reply.into_body().collect()).unwrap().to_bytes().to_vec()
}

fn accepting(encoding: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    headers
}

#[test]
fn a_large_body_is_compressed_chunk_by_chunk_and_reads_back_whole() {
    let chunks: Vec<Bytes> = (0_u8..20).map(|it| Bytes::from(vec![it; 30_000])).collect();
    let reply = with_body(200, JSON, ReplyBody::of(chunks.clone()));
    let reply = compress(reply, &accepting("deflate, gzip;q=0.9"));
    assert_eq!(reply.headers()[CONTENT_ENCODING], "gzip");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(collect(reply).as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, chunks.concat());
}

#[test]
fn small_bodies_and_clients_without_gzip_get_plain_bytes() {
    let large = vec![b'x'; GZIP_BYTES_MIN];
    for (body, encoding) in [(b"{}".to_vec(), "gzip"), (large, "identity")] {
        let reply = compress(bytes(200, JSON, body.clone()), &accepting(encoding));
        assert!(!reply.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(collect(reply), body);
    }
}

#[test]
fn a_refusal_carries_its_code_its_reason_and_when_to_retry() {
    let reply = status(&Status::too_many_requests("too many requests, please try again later", 1));
    assert_eq!(reply.status(), 429);
    assert_eq!(reply.headers()[RETRY_AFTER], "1");
    let body: Value = serde_json::from_slice(&collect(reply)).unwrap();
    assert_eq!(body["reason"], "TooManyRequests");
    assert_eq!(body["kind"], "Status");
}

#[test]
fn warnings_are_quoted_so_that_no_text_can_end_the_header() {
    let mut reply = json(200, &Value::Null);
    warn(&mut reply, &["unknown field \"spec.x\"\r\nSet-Cookie: a".to_owned()]);
    assert_eq!(
        reply.headers()[http::header::WARNING],
        "299 - \"unknown field \\\"spec.x\\\"Set-Cookie: a\""
    );
}
