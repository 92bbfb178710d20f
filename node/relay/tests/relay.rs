//! The relay between real sockets: bytes both ways, hosts that are lost, bounds.

#![allow(clippy::disallowed_methods, reason = "threads play control hosts")]
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use kactor_relay::{Relay, RelayLimits};
use kactor_runtime::env::Machine;
use tokio::sync::watch;

/// Says `name`, and then what it hears, until it hears no more.
fn control_host(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                stream.write_all(name.as_bytes()).unwrap();
                let mut heard = Vec::new();
                if stream.read_to_end(&mut heard).is_ok() {
                    let _ = stream.write_all(&heard);
                }
            });
        }
    });
    at
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn relay(
    machine: &Machine,
    targets: &[SocketAddr],
    connections_max: u32,
) -> (Relay, watch::Sender<Vec<SocketAddr>>) {
    let (tell, told) = watch::channel(targets.to_vec());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let limits = RelayLimits { connections_max, ..RelayLimits::default() };
    (Relay::start(machine.env(), listener, told, limits).unwrap(), tell)
}

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(relay.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// The name of the host at the other end.
fn name(stream: &mut TcpStream) -> String {
    let mut name = [0; 1];
    stream.read_exact(&mut name).unwrap();
    String::from_utf8_lossy(&name).into_owned()
}

#[test]
fn bytes_go_both_ways_and_an_end_on_one_side_is_passed_on() {
    let machine = Machine::start();
    let (relay, _tell) = relay(&machine, &[control_host("a")], 8);
    let mut stream = connect(&relay);
    assert_eq!(name(&mut stream), "a");
    let sent: Vec<u8> = (0..300_000_u32).map(|it| (it % 251) as u8).collect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == sent, "{} bytes came back", back.len());
    machine.stop();
}

#[test]
fn connections_are_spread_and_a_host_that_does_not_answer_is_passed_over() {
    let machine = Machine::start();
    let hosts = [control_host("a"), nobody(), control_host("b")];
    let (relay, _tell) = relay(&machine, &hosts, 16);
    let mut met: Vec<String> = (0..8).map(|_| name(&mut connect(&relay))).collect();
    met.sort();
    met.dedup();
    assert_eq!(met, ["a", "b"]);
    let counts = relay.counts();
    assert_eq!((counts.passed_on, counts.turned_away), (8, 0));
    assert!(counts.dials_failed < 4, "it is tried last after it failed: {counts:?}");
    machine.stop();
}

#[test]
fn a_lost_host_loses_its_connections_and_others_keep_theirs() {
    let machine = Machine::start();
    let (a, b) = (control_host("a"), control_host("b"));
    let (relay, tell) = relay(&machine, &[a, b], 8);
    let (mut one, mut other) = (connect(&relay), connect(&relay));
    let names = [name(&mut one), name(&mut other)];
    let (mut of_a, mut of_b) = if names[0] == "a" { (one, other) } else { (other, one) };
    tell.send(vec![b]).unwrap();
    let ended = of_a.read(&mut [0; 1]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    of_b.write_all(b"still here").unwrap();
    of_b.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    of_b.read_to_string(&mut back).unwrap();
    assert_eq!(back, "still here");
    assert_eq!(name(&mut connect(&relay)), "b");
    // Nobody is left: who comes is turned away, and nothing hangs.
    tell.send(Vec::new()).unwrap();
    let refused = connect(&relay).read(&mut [0; 1]);
    assert!(matches!(refused, Ok(0) | Err(_)), "{refused:?}");
    assert_eq!(relay.counts().turned_away, 1);
    tell.send(vec![a]).unwrap();
    assert_eq!(name(&mut connect(&relay)), "a", "a host that is back is used again");
    machine.stop();
}

#[test]
fn connections_beyond_the_bound_wait_until_one_ends() {
    let machine = Machine::start();
    let (relay, _tell) = relay(&machine, &[control_host("a")], 2);
    let (mut one, mut two) = (connect(&relay), connect(&relay));
    assert_eq!([name(&mut one), name(&mut two)], ["a", "a"]);
    let mut three = connect(&relay);
    three.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let waits = three.read(&mut [0; 1]).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!((relay.counts().open, relay.counts().passed_on), (2, 2));
    drop(one);
    three.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(name(&mut three), "a");
    machine.stop();
}
