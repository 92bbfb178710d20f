//! What datagrams mean, and forwarding to a resolver that the test plays.

use hickory_proto::op::Query;
use hickory_proto::rr::{Name, RecordType};
use kactor_protocol::node::Feed;
use kactor_runtime::env::Machine;
use serde_json::json;

use super::*;

fn server(env: &Env, resolvers: Vec<SocketAddr>) -> Nameserver {
    let mut view = View::default();
    let name = ("default".to_owned(), "many".to_owned());
    let endpoints: Vec<_> =
        (0..60).map(|it| json!({"addresses": [format!("10.244.0.{it}")]})).collect();
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints,
    });
    let service = json!({"spec": {"clusterIP": "None"}});
    view.change(Feed::Services, name.clone(), Some(&service)).unwrap();
    view.change(Feed::EndpointSlices, name, Some(&slice)).unwrap();
    let zone = Zone::new("cluster.local", "10.96.0.0/16".parse().unwrap()).unwrap();
    let view = Arc::new(Mutex::new(view));
    Nameserver { env: env.clone(), zone: Arc::new(zone), view, resolvers }
}

fn question(name: &str) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn said_to(response: Response) -> Message {
    match response {
        Response::Say(bytes) => Message::from_vec(&bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_too_long_for_a_datagram_is_cut_and_whole_over_a_stream() {
    let machine = Machine::start();
    let server = server(machine.env(), vec![]);
    let raw = question("many.default.svc.cluster.local.");
    let cut = said_to(server.respond(&raw, Transport::Datagram));
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = said_to(server.respond(&raw, Transport::Stream));
    assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 60));
    assert_eq!(whole.metadata.id, 7);
}

#[test]
fn a_name_that_does_not_exist_is_denied_with_authority() {
    let machine = Machine::start();
    let server = server(machine.env(), vec![]);
    let raw = question("nope.default.svc.cluster.local.");
    let denied = said_to(server.respond(&raw, Transport::Datagram));
    assert_eq!(denied.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(denied.authorities.len(), 1);
}

#[test]
fn damage_is_a_format_error_or_silence_and_never_a_panic() {
    let machine = Machine::start();
    let server = server(machine.env(), vec![]);
    let raw = question("many.default.svc.cluster.local.");
    for len in 0..raw.len() {
        let response = server.respond(&raw[..len], Transport::Datagram);
        if len < 12 {
            assert_eq!(response, Response::Ignore);
        } else {
            assert_eq!(said_to(response).metadata.response_code, ResponseCode::FormErr);
        }
    }
    let mut answer = raw.clone();
    answer[2] |= 0x80; // QR: answers are not answered, or two servers could talk for ever.
    assert_eq!(server.respond(&answer, Transport::Datagram), Response::Ignore);
}

#[test]
fn other_names_are_asked_of_the_hosts_resolver_and_a_wrong_id_is_not_believed() {
    let machine = Machine::start();
    let env = machine.env().clone();
    let passed = machine.block_on(async move {
        let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = server(&env, vec![resolver.local_addr().unwrap()]);
        let raw = question("www.example.com.");
        let Response::Forward(asked) = server.respond(&raw, Transport::Datagram) else {
            panic!("it is not ours to answer");
        };
        let play = async {
            let mut buffer = [0; 512];
            let (len, from) = resolver.recv_from(&mut buffer).await.unwrap();
            let mut answer = Message::from_vec(&buffer[..len]).unwrap().into_response();
            let id = answer.metadata.id;
            answer.metadata.id = id.wrapping_add(1);
            answer.metadata.response_code = ResponseCode::Refused;
            resolver.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            answer.metadata.id = id;
            answer.metadata.response_code = ResponseCode::NXDomain;
            resolver.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        };
        let (answer, ()) = futures::join!(server.forward(&asked, &raw, Transport::Datagram), play);
        Message::from_vec(&answer).unwrap()
    });
    let passed = passed.unwrap();
    assert_eq!(passed.metadata.id, 7);
    assert_eq!(passed.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn without_resolvers_the_client_is_told_at_once() {
    let machine = Machine::start();
    let server = server(machine.env(), vec![]);
    let raw = question("www.example.com.");
    let asked = Message::from_vec(&raw).unwrap();
    let answer =
        machine.block_on(async { server.forward(&asked, &raw, Transport::Datagram).await });
    let answer = Message::from_vec(&answer.unwrap()).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}
