//! Two hosts' actors over real QUIC on loopback: order, asks, deadlines, roles, loss, and who is not let in.
#![expect(
    clippy::unwrap_used,
    reason = "the tests stand outside the cluster and stop at the first surprise"
)]

mod echo_actor;
mod world;

use std::time::Duration;

use kactor_links::{Lane, Whom};
use kactor_protocol::frame::Refusal;
use kactor_protocol::insight::Insight;
use kactor_protocol::message::Role;
use kactor_protocol::store::Retry;
use kactor_runtime::env::Machine;

use crate::echo_actor::{PATIENCE, propose, stream_data};
use crate::world::{Ca, Node, entry, host, introduce, pair, until};

#[test]
fn actors_are_asked_and_told_over_the_lane_that_their_row_names() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Control], [Role::Control]).await;
            let answer = a.echo_at("b").ask(propose(3), a.deadline(PATIENCE)).await.unwrap();
            assert_eq!(answer.unwrap().revision.0, 3);
            for number in 0..5_000 {
                a.echo_at("b").tell(stream_data(number)).await.unwrap();
            }
            b.heard.until("all were told", |it| it.told.len() == 5_000).await;
            assert!(b.heard.borrow().told.iter().copied().eq(0..5_000), "in order, each once");
            assert_eq!(b.heard.borrow().from.iter().collect::<Vec<_>>(), ["@a"]);
            let sent = |lane| {
                let status = a.links.status();
                status.iter().filter(|it| it.lane == lane).map(|it| it.sent_frames).sum::<u64>()
            };
            assert_eq!((sent(Lane::Latency), sent(Lane::Bulk)), (1, 5_000));
        })
        .unwrap();
}

#[test]
fn the_directory_says_what_a_peer_may_send_and_its_word_counts_at_once() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Worker], [Role::Control]).await;
            let refused = a.echo_at("b").ask(propose(1), a.deadline(PATIENCE)).await.unwrap_err();
            assert!(matches!(refused, Refusal::NotPermitted { .. }), "{refused:?}");
            introduce(&b, &[(&a, &[Role::Control])]);
            a.echo_at("b").ask(propose(1), a.deadline(PATIENCE)).await.unwrap().unwrap();
            introduce(&b, &[(&a, &[Role::Worker])]);
            let refused = a.echo_at("b").ask(propose(1), a.deadline(PATIENCE)).await.unwrap_err();
            assert!(matches!(refused, Refusal::NotPermitted { .. }), "{refused:?}");
            assert!(b.heard.borrow().lost.is_empty(), "the link stood all the time");
        })
        .unwrap();
}

#[test]
fn an_ask_ends_at_its_deadline_although_the_link_stands() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Control], [Role::Control]).await;
            let soon = a.deadline(Duration::from_millis(50));
            let refused = a.echo_at("b").ask(propose(0), soon).await.unwrap_err();
            assert_eq!(refused, Refusal::DeadlinePassed, "no writes: it is never answered");
            until("both ends forgot it", async || {
                a.links.status().iter().all(|it| it.waiting == 0)
            })
            .await;
            b.heard.until("it arrived", |it| it.asked == 1).await;
        })
        .unwrap();
}

#[test]
fn a_lost_host_is_told_to_its_watchers_and_asks_say_whether_they_were_sent() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Control], [Role::Control]).await;
            a.watch("b");
            let under_way = a.echo_at("b").ask(propose(0), a.deadline(PATIENCE));
            let gone = async {
                b.heard.until("it arrived", |it| it.asked == 1).await;
                b.links.close().await;
            };
            let (under_way, ()) = futures::join!(under_way, gone);
            let lost = under_way.unwrap_err();
            assert!(matches!(lost, Refusal::Lost { .. }), "{lost:?}");
            assert_eq!(lost.retry(), Retry::Replan, "it may have been done");
            a.heard.until("the loss is told", |it| it.lost == ["b"]).await;
            let unsent = a.echo_at("b").ask(propose(1), a.deadline(PATIENCE)).await.unwrap_err();
            assert!(matches!(unsent, Refusal::Unreachable { .. }), "{unsent:?}");
            // Who begins to watch a host that is not there hears it at once.
            a.watch("b");
            a.heard.until("told again", |it| it.lost == ["b", "b"]).await;
        })
        .unwrap();
}

#[test]
fn a_host_that_the_directory_does_not_name_is_refused_with_a_reason_and_comes_in_when_it_does() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let ca = Ca::new();
            let a = Node::start(machine.env(), &ca, "a").await;
            let b = Node::start(machine.env(), &ca, "b").await;
            introduce(&a, &[(&b, &[Role::Control])]);
            a.until_error("host a is not in this cluster's directory").await;
            assert!(b.live().is_empty());
            introduce(&b, &[(&a, &[Role::Control])]);
            a.until_live("b").await;
            a.echo_at("b").ask(propose(1), a.deadline(PATIENCE)).await.unwrap().unwrap();
            b.watch("a");
            introduce(&b, &[]);
            b.heard.until("who left the directory is cut off", |it| it.lost == ["a"]).await;
        })
        .unwrap();
}

#[test]
fn a_name_that_is_bound_to_another_key_is_refused() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let ca = Ca::new();
            let a = Node::start(machine.env(), &ca, "a").await;
            let b = Node::start(machine.env(), &ca, "b").await;
            introduce(&a, &[(&b, &[Role::Control])]);
            let mut bound = entry(&a, &[Role::Control]);
            bound.key_hash = Some([7; 32]);
            b.directory.set([(host("a"), bound)].into());
            a.until_error("the name a is bound to another host's key").await;
            b.until_error("the name a is bound to another host's key").await;
            assert!(a.live().is_empty() && b.live().is_empty());
        })
        .unwrap();
}

#[test]
fn new_credentials_of_the_same_key_take_over_while_actors_talk() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Control], [Role::Control]).await;
            let before = a.links.status();
            a.watch("b");
            for number in 0..2_000 {
                if number % 500 == 250 {
                    a.renew();
                    b.renew();
                }
                a.echo_at("b").tell(stream_data(number)).await.unwrap();
                let asked = a.echo_at("b").ask(propose(1), a.deadline(PATIENCE)).await;
                asked.unwrap().unwrap();
            }
            b.heard.until("all were told", |it| it.told.len() == 2_000).await;
            assert!(b.heard.borrow().told.iter().copied().eq(0..2_000), "in order, each once");
            assert!(a.heard.borrow().lost.is_empty(), "nobody was lost");
            let ends = |status: &[kactor_links::LinkStatus]| {
                status.iter().filter_map(|it| it.certificate_ends).min().unwrap()
            };
            until("the new certificates are in use", async || {
                ends(&a.links.status()) > ends(&before)
            })
            .await;
        })
        .unwrap();
}

#[test]
fn a_host_reaches_its_own_actors_by_its_name_without_a_link() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, _b) = pair(machine.env(), [Role::Control], [Role::Control]).await;
            a.echo_at("a").ask(propose(1), a.deadline(PATIENCE)).await.unwrap().unwrap();
        })
        .unwrap();
}

#[test]
fn credentials_of_another_host_do_not_start() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let ca = Ca::new();
            let refused = Node::try_start(machine.env(), "a", ca.pems("b")).await.err().unwrap();
            assert!(refused.to_string().contains("this host is a"), "{refused}");
        })
        .unwrap();
}

#[test]
fn a_certificate_that_is_due_is_renewed_by_a_control_host_and_nobody_is_lost() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Worker], [Role::Control]).await;
            a.watch("b");
            b.certify();
            let mut kept = a.keep_fresh(None);
            let kept = kept.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            let (from, until) = a.links.certificate();
            assert!(until.0 > 32_000_000_000_000, "the new one is in use: {from:?} {until:?}");
            // What was kept is what the next start begins with.
            Node::try_start(machine.env(), "a", kept).await.unwrap().close().await;
            until_shown(&b, until).await;
            assert!(a.heard.borrow().lost.is_empty(), "nobody was lost");
            let state = a.report("host-certificate").await;
            assert_eq!((&state["renewed"], &state["last_error"]), (&1.into(), &().into()));
            assert_eq!(b.report("certificates").await["renewed"], 1);
        })
        .unwrap();
}

/// Waits until the peer sees a certificate that ends then.
async fn until_shown(node: &Node, ends: kactor_protocol::Timestamp) {
    let shown = || node.links.status().iter().all(|it| it.certificate_ends == Some(ends));
    until("the peer sees it on both lanes", async || shown()).await;
}

#[test]
fn a_host_can_not_renew_its_name_for_another_key() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Worker], [Role::Control]).await;
            b.certify();
            let kept = a.keep_fresh(Some(rcgen::KeyPair::generate().unwrap()));
            until("it is refused", async || {
                let error = a.report("host-certificate").await["last_error"].to_string();
                error.contains("bound to another key")
            })
            .await;
            assert!(kept.borrow().is_none());
            assert_eq!(b.report("certificates").await["renewed"], 0);
        })
        .unwrap();
}

#[test]
fn an_operator_looks_into_all_hosts_or_one_through_any_and_a_worker_may_not() {
    let machine = Machine::start();
    machine
        .block_on(async {
            let (a, b) = pair(machine.env(), [Role::Worker], [Role::Control]).await;
            a.show_inside();
            b.show_inside();
            let all = b.look(Whom::All, actors()).await;
            let rows = all["Actors"]["actors"].as_array().unwrap();
            let seen: Vec<_> = rows
                .iter()
                .map(|it| format!("{}@{}", it["address"]["name"], it["host"]).replace('"', ""))
                .collect();
            assert_eq!(seen, ["echo@a", "echo@b", "links@a", "links@b"]);
            let actor = kactor_protocol::ActorName::new("links").unwrap();
            let inspect = Insight::Inspect { actor };
            let one = b.look(Whom::One(host("a")), inspect).await;
            let state = one["Inspect"]["report"]["state"].as_str().unwrap();
            let state: serde_json::Value = serde_json::from_str(state).unwrap();
            assert_eq!(state["host"], "a");
            let lanes = state["links"].as_array().unwrap();
            assert!(lanes.iter().all(|it| it["host"] == "b" && it["live"] == true), "{state}");
            assert_eq!(lanes.len(), 2);
            // What a worker asks of a control host is refused, whoever it says it asks for.
            let refused = a.look(Whom::One(host("b")), actors()).await;
            let why = refused["unanswered"][0]["why"].as_str().unwrap();
            assert!(why.contains("may not send LookInside"), "{refused}");
            let nobody = b.look(Whom::One(host("nobody")), actors()).await;
            assert_eq!(nobody["unanswered"][0]["why"], "no host of this cluster has that name");
        })
        .unwrap();
}

fn actors() -> Insight {
    Insight::Actors { prefix: String::new(), limit: 100 }
}
