//! The server against a client made of the same frames.

use proptest::prelude::*;

use super::*;

struct Client {
    deflate: Compressor,
    server: Spdy,
}

impl Client {
    fn new() -> Self {
        Self { deflate: Compressor::new(), server: Spdy::new() }
    }

    fn open(&mut self, stream: StreamId, headers: &[(&str, &str)]) -> Result<(), SpdyError> {
        let block = self.deflate.compress(&Headers::new(headers));
        self.tell(&Frame::SynStream { stream, block, finished: false })
    }

    fn tell(&mut self, frame: &Frame) -> Result<(), SpdyError> {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        // One byte at a time: no frame may need to come in one piece.
        bytes.iter().try_for_each(|it| self.server.receive(&[*it]))
    }

    fn heard(&mut self) -> Vec<Frame> {
        let mut bytes = BytesMut::from(&self.server.take_output()[..]);
        std::iter::from_fn(|| Frame::decode(&mut bytes).unwrap()).collect()
    }

    fn sent_bytes(&mut self) -> usize {
        self.heard()
            .iter()
            .map(|it| match it {
                Frame::Data { bytes, .. } => bytes.len(),
                _ => 0,
            })
            .sum()
    }
}

#[test]
fn streams_open_carry_data_both_ways_and_close() {
    let mut client = Client::new();
    client.open(1, &[("streamType", "stdin")]).unwrap();
    client.tell(&Frame::Data { stream: 1, bytes: Bytes::from("hello"), finished: true }).unwrap();
    let headers = Headers::new(&[("streamtype", "stdin")]);
    let events: Vec<Event> = std::iter::from_fn(|| client.server.next_event()).collect();
    assert_eq!(
        events,
        [
            Event::Opened { stream: 1, headers },
            Event::Data { stream: 1, bytes: Bytes::from("hello") },
            Event::Finished { stream: 1 },
        ]
    );
    client.server.accept(1);
    client.server.send(1, Bytes::from("back"));
    client.server.finish(1);
    let heard = client.heard();
    let [
        Frame::WindowUpdate { stream: 1, delta: 5 },
        Frame::WindowUpdate { stream: 0, delta: 5 },
        reply,
        data,
        end,
    ] = heard.as_slice()
    else {
        panic!("{heard:?}");
    };
    assert!(matches!(reply, Frame::SynReply { stream: 1, .. }));
    assert_eq!(*data, Frame::Data { stream: 1, bytes: Bytes::from("back"), finished: false });
    assert_eq!(*end, Frame::Data { stream: 1, bytes: Bytes::new(), finished: true });
    assert_eq!(client.server.open_streams(), 0);
}

#[test]
fn a_client_that_never_gives_credit_still_gets_everything() {
    let mut client = Client::new();
    client.open(1, &[]).unwrap();
    client.server.send(1, Bytes::from(vec![0; 200_000]));
    assert_eq!(client.sent_bytes(), 200_000);
}

#[test]
fn a_client_that_keeps_books_is_never_sent_more_than_it_takes() {
    let mut client = Client::new();
    client.tell(&Frame::Settings { initial_window: Some(1000) }).unwrap();
    client.open(1, &[]).unwrap();
    client.server.send(1, Bytes::from(vec![0; 5000]));
    client.server.finish(1);
    assert_eq!(client.sent_bytes(), 1000);
    client.tell(&Frame::WindowUpdate { stream: 1, delta: 1500 }).unwrap();
    assert_eq!(client.sent_bytes(), 1500);
    client.tell(&Frame::WindowUpdate { stream: 1, delta: 9999 }).unwrap();
    let heard = client.heard();
    assert!(matches!(heard.last(), Some(Frame::Data { finished: true, .. })), "{heard:?}");
}

#[test]
fn pings_are_echoed_and_resets_forget_the_stream() {
    let mut client = Client::new();
    client.tell(&Frame::Ping { id: 7 }).unwrap();
    client.tell(&Frame::Ping { id: 8 }).unwrap();
    assert_eq!(client.heard(), [Frame::Ping { id: 7 }]);
    client.open(1, &[]).unwrap();
    client.server.send(1, Bytes::from("x"));
    client.tell(&Frame::RstStream { stream: 1, status: 5 }).unwrap();
    assert!(!client.server.is_open(1));
    client.server.send(1, Bytes::from("dropped"));
    assert!(client.server.takes_data());
}

#[test]
fn streams_beyond_the_limit_are_refused_and_wrong_ids_end_the_connection() {
    let mut client = Client::new();
    for n in 0..STREAMS_MAX {
        client.open(u32::try_from(2 * n + 1).unwrap(), &[]).unwrap();
    }
    client.heard();
    let next = u32::try_from(2 * STREAMS_MAX + 1).unwrap();
    client.open(next, &[]).unwrap();
    assert_eq!(client.heard(), [Frame::RstStream { stream: next, status: 3 }]);
    assert_eq!(client.open(3, &[]), Err(SpdyError::StreamOrder { stream: 3, last: next }));
}

#[test]
fn a_frame_that_claims_to_be_huge_is_refused_before_it_is_read() {
    let mut spdy = Spdy::new();
    let error = spdy.receive(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).unwrap_err();
    assert_eq!(error, SpdyError::Frame(FrameError::TooLarge { len: 0x00ff_ffff }));
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let id = 0_u32..0x7fff_ffff;
    let block = proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from);
    prop_oneof![
        (id.clone(), block.clone(), any::<bool>())
            .prop_map(|(stream, block, finished)| Frame::SynStream { stream, block, finished }),
        (id.clone(), block.clone()).prop_map(|(stream, block)| Frame::SynReply { stream, block }),
        (id.clone(), block.clone(), any::<bool>())
            .prop_map(|(stream, bytes, finished)| Frame::Data { stream, bytes, finished }),
        (id.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
        proptest::option::of(id.clone())
            .prop_map(|initial_window| Frame::Settings { initial_window }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (id.clone(), any::<u32>())
            .prop_map(|(last_stream, status)| Frame::GoAway { last_stream, status }),
        (id.clone(), id).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
    ]
}

proptest! {
    #[test]
    fn frames_read_back_as_they_were_written(frames in proptest::collection::vec(any_frame(), 0..8)) {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|it| it.encode(&mut bytes));
        let back: Vec<Frame> = std::iter::from_fn(|| Frame::decode(&mut bytes).unwrap()).collect();
        prop_assert_eq!(back, frames);
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut spdy = Spdy::new();
        let _ = spdy.receive(&bytes);
        while spdy.next_event().is_some() {}
    }

    #[test]
    fn no_frames_make_it_panic(frames in proptest::collection::vec(any_frame(), 0..20)) {
        let mut spdy = Spdy::new();
        for frame in frames {
            let mut bytes = BytesMut::new();
            frame.encode(&mut bytes);
            if spdy.receive(&bytes).is_err() {
                break;
            }
        }
        while let Some(event) = spdy.next_event() {
            if let Event::Opened { stream, .. } = event {
                spdy.accept(stream);
                spdy.send(stream, Bytes::from("x"));
                spdy.finish(stream);
            }
        }
    }
}
