//! Links between hosts over real UDP on loopback: order, loss, refusal, renewal.
#![expect(
    clippy::unwrap_used,
    reason = "the tests stand outside the cluster and stop at the first surprise"
)]

mod world;

use std::net::UdpSocket;
use std::sync::Arc;

use kactor_protocol::frame::{FrameKind, Refusal};
use kactor_quic::{Lane, LinkError};

use crate::world::{Ca, PATIENCE, frame, fresh, host, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_ask_each_other_on_both_lanes_although_one_dialed() {
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    a.dial("b", b.address);
    a.until_live("b", true).await;
    b.until_live("a", true).await;
    for lane in Lane::ALL {
        assert_eq!(a.ask("b", lane, 1, b"hello").await, (FrameKind::Reply, "hello".into()));
        assert_eq!(b.ask("a", lane, 1, b"you too").await, (FrameKind::Reply, "you too".into()));
    }
    assert_eq!(a.listener.heard().found, [host("b")], "once, not once per lane");
    assert!(a.links.status().iter().all(|it| it.waiting == 0 && it.round_trip.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_arrive_in_order_and_once_while_both_hosts_dial() {
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    // The larger name first, so that its connections are superseded while tells are under way.
    b.dial("a", a.address);
    b.until_live("a", true).await;
    a.dial("b", b.address);
    for number in 0..20_000 {
        b.tell("a", Lane::Latency, number).await;
        if number == 5_000 {
            // What dials again by itself when credentials change also crosses.
            b.links.set_credentials(&ca.credentials("b")).unwrap();
            a.links.set_credentials(&ca.credentials("a")).unwrap();
        }
    }
    let heard = a.listener.until("all were told", |it| it.told.len() >= 20_000).await;
    assert!(heard.told.iter().copied().eq(0..20_000), "in order, each once");
    assert!(heard.lost.is_empty(), "the host was there all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_credentials_take_over_without_losing_a_frame() {
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    a.dial("b", b.address);
    a.until_live("b", true).await;
    a.tell("b", Lane::Latency, 0).await;
    b.listener.until("the first came", |it| it.told == [0]).await;
    a.links.set_credentials(&ca.credentials("a")).unwrap();
    let mut number = 1;
    while b.listener.heard().keys.len() < 2 {
        a.tell("b", Lane::Latency, number).await;
        number += 1;
        tokio::task::yield_now().await;
    }
    let heard = b.listener.until("all came", |it| it.told.len() as u64 >= number).await;
    assert!(heard.told.iter().copied().eq(0..number), "in order, each once");
    assert!(heard.lost.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_the_largest_size_delays_no_urgent_one() {
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    a.dial("b", b.address);
    a.until_live("b", true).await;
    let body = vec![7; kactor_protocol::codec::CODEC_BYTES_MAX];
    let large = a.ask("b", Lane::Bulk, 1, &body);
    let urgent = a.ask("b", Lane::Latency, 2, b"urgent");
    let ((kind, answer), (_, urgent)) = tokio::join!(large, urgent);
    assert_eq!((kind, answer.len()), (FrameKind::Reply, body.len()));
    assert_eq!(urgent, "urgent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_host_is_told_once_and_an_ask_under_way_is_not_safe_to_repeat() {
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    a.dial("b", b.address);
    a.until_live("b", true).await;
    a.ask("b", Lane::Latency, 1, b"there").await;
    let b_host = host("b");
    let unanswered = a.links.ask(&b_host, Lane::Latency, frame(FrameKind::Ask, 2, b"never"));
    let gone = async {
        a.ask("b", Lane::Latency, 3, b"the one before arrived").await;
        b.links.close().await;
    };
    let (unanswered, ()) = tokio::join!(unanswered, gone);
    assert!(matches!(unanswered, Err(LinkError::Lost { .. })), "{unanswered:?}");
    let heard = a.listener.until("the loss is told", |it| !it.lost.is_empty()).await;
    assert_eq!(heard.lost, [host("b")]);
    let refused = a.links.ask(&b_host, Lane::Latency, frame(FrameKind::Ask, 4, b"?")).await;
    assert!(matches!(refused, Err(LinkError::Unreachable { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_comes_back_at_another_address_is_found_again() {
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    a.dial("b", b.address);
    a.until_live("b", true).await;
    b.links.close().await;
    a.until_live("b", false).await;
    let b = start("b", 2, ca.credentials("b"), "127.0.0.1:0");
    a.dial("b", b.address);
    a.until_live("b", true).await;
    assert_eq!(a.ask("b", Lane::Bulk, 9, b"again").await.1, "again");
    let heard = a.listener.heard();
    assert_eq!((heard.found.len(), heard.lost.len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_another_cluster_is_refused_with_a_reason() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (a, b) = (fresh("a", &ours), fresh("b", &theirs));
    a.dial("b", b.address);
    a.until_error("certificate").await;
    assert!(a.listener.heard().found.is_empty() && b.listener.heard().found.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_names_no_host_and_another_host_at_an_address_are_refused() {
    let ca = Ca::new();
    let b = fresh("b", &ca);
    let person =
        start("a", 1, ca.credentials_of("kubernetes-admin", "system:masters"), "127.0.0.1:0");
    person.dial("b", b.address);
    person.until_error("kubernetes-admin").await;
    let a = fresh("a", &ca);
    a.dial("c", b.address);
    a.until_error("is host b, not c").await;
    assert!(b.listener.heard().told.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_admitted_hears_why() {
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    b.listener.refuse_all("host a was removed from the cluster");
    a.dial("b", b.address);
    a.until_error("host a was removed from the cluster").await;
    assert!(b.listener.heard().found.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_asks_than_are_worked_on_are_overloaded_and_the_rest_go_on() {
    const MORE: u64 = 4096 + 50;
    let ca = Ca::new();
    let (a, b) = (fresh("a", &ca), fresh("b", &ca));
    a.dial("b", b.address);
    a.until_live("b", true).await;
    let b_host = host("b");
    let asks = (1..=MORE).map(|letter| {
        let frame = frame(FrameKind::Ask, letter, b"never");
        Box::pin(a.links.ask(&b_host, Lane::Latency, frame))
    });
    let (first, _, rest) = tokio::time::timeout(PATIENCE, futures::future::select_all(asks))
        .await
        .expect("one above the limit is answered");
    let answer = kactor_protocol::frame::Frame::decode(first.unwrap()).unwrap();
    assert_eq!(answer.header.kind, FrameKind::Refusal);
    let refusal: Refusal = kactor_protocol::codec::decode(&answer.body).unwrap();
    assert_eq!(refusal, Refusal::Overloaded);
    assert_eq!(a.ask("b", Lane::Bulk, 1, b"fine").await.1, "fine", "the other lane has its own");
    drop(rest);
    assert!(a.links.status().iter().all(|it| it.waiting == 0), "who gave up is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_of_the_protocol_fails_in_the_handshake() {
    let ca = Ca::new();
    let b = fresh("b", &ca);
    let credentials = ca.credentials("a");
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_root_certificates(credentials.roots.clone())
    .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
    .unwrap();
    tls.alpn_protocols = vec![b"kactor/9/latency".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::new(
        quinn::EndpointConfig::default(),
        None,
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        Arc::new(quinn::TokioRuntime),
    )
    .unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let refused = endpoint.connect_with(config, b.address, "host.kactor").unwrap().await;
    assert!(refused.is_err());
    assert!(b.listener.heard().found.is_empty());
}
