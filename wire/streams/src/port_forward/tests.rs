//! Pairs of streams, plain and inside a WebSocket.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::spdy::Frame;
use crate::websocket::tests::masked;

struct Client {
    zlib: flate2::Compress,
    carrier: Carrier,
    server: PortForward,
}

impl Client {
    fn new(carrier: Carrier) -> Self {
        let zlib = flate2::Compress::new(flate2::Compression::default(), true);
        Self { zlib, carrier, server: PortForward::new(carrier) }
    }

    fn open(&mut self, stream: u32, pairs: &[(&str, &str)]) {
        let mut plain = u32::try_from(pairs.len()).unwrap().to_be_bytes().to_vec();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(512);
        self.zlib.compress_vec(&plain, &mut block, flate2::FlushCompress::Sync).unwrap();
        self.tell(&Frame::SynStream { stream, block: Bytes::from(block), finished: false });
    }

    fn tell(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        match self.carrier {
            Carrier::Plain => self.server.receive(&bytes).unwrap(),
            // Cut in the middle: a message of the tunnel need not hold a whole frame.
            Carrier::WebSocket => {
                let (left, right) = bytes.split_at(bytes.len() / 2);
                self.server.receive(&masked(true, 2, left)).unwrap();
                self.server.receive(&masked(true, 2, right)).unwrap();
            }
        }
    }

    fn events(&mut self) -> Vec<PortForwardEvent> {
        std::iter::from_fn(|| self.server.next_event()).collect()
    }

    fn heard(&mut self) -> Vec<Frame> {
        let bytes = self.server.take_bytes();
        let mut bytes = match self.carrier {
            Carrier::Plain => BytesMut::from(&bytes[..]),
            Carrier::WebSocket => {
                assert_eq!(bytes[0], 0x82, "one binary message");
                let head = if bytes[1] < 126 { 2 } else { 4 };
                BytesMut::from(&bytes[head..])
            }
        };
        std::iter::from_fn(|| Frame::decode(&mut bytes).unwrap()).collect()
    }
}

#[test]
fn a_connection_is_a_pair_of_streams_in_either_carrier() {
    for carrier in [Carrier::Plain, Carrier::WebSocket] {
        let mut client = Client::new(carrier);
        client.open(1, &[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
        client.open(3, &[("streamtype", "data"), ("port", "80"), ("requestid", "0")]);
        client.tell(&Frame::Data { stream: 1, bytes: Bytes::new(), finished: true });
        client.tell(&Frame::Data { stream: 3, bytes: Bytes::from("GET /"), finished: true });
        assert_eq!(
            client.events(),
            [
                PortForwardEvent::Opened { connection: 3, port: 80 },
                PortForwardEvent::Data { connection: 3, bytes: Bytes::from("GET /") },
                PortForwardEvent::Finished { connection: 3 },
            ],
            "{carrier:?}"
        );
        client.heard();
        client.server.send(3, Bytes::from("200"));
        client.server.finish(3);
        assert_eq!(
            client.heard(),
            [
                Frame::Data { stream: 3, bytes: Bytes::from("200"), finished: false },
                Frame::Data { stream: 3, bytes: Bytes::new(), finished: true },
                Frame::Data { stream: 1, bytes: Bytes::new(), finished: true },
            ],
            "{carrier:?}"
        );
    }
}

#[test]
fn a_failed_connection_is_told_on_its_error_stream() {
    let mut client = Client::new(Carrier::Plain);
    client.open(1, &[("streamtype", "error"), ("port", "80")]);
    client.open(3, &[("streamtype", "data"), ("port", "80")]);
    assert_eq!(client.events(), [PortForwardEvent::Opened { connection: 3, port: 80 }]);
    client.heard();
    client.server.fail(3, "connection refused");
    let heard = client.heard();
    assert_eq!(
        heard[0],
        Frame::Data { stream: 1, bytes: Bytes::from("connection refused"), finished: false }
    );
}

#[test]
fn a_stream_without_a_partner_or_port_is_reset() {
    let mut client = Client::new(Carrier::Plain);
    for (stream, headers) in [
        (1, vec![("streamtype", "data"), ("port", "80"), ("requestid", "9")]),
        (3, vec![("streamtype", "error"), ("port", "0")]),
        (5, vec![("streamtype", "other"), ("port", "80")]),
    ] {
        client.open(stream, &headers);
        assert_eq!(client.heard(), [Frame::RstStream { stream, status: 1 }]);
    }
    assert_eq!(client.events(), []);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = PortForward::new(Carrier::Plain).receive(&bytes);
        let _ = PortForward::new(Carrier::WebSocket).receive(&masked(true, 2, &bytes));
    }
}
