//! SIGKILL in the middle of concurrent writes, again and again: nothing that was acknowledged is lost, revisions
//! never go back, and a watch that resumes misses nothing.
//!
//! Writers keep a ledger of what they were told. A write whose answer never came may or may not have happened:
//! it is the only freedom that the check leaves.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kactor_tests::harness::rest::{Call, Connection};
use kactor_tests::harness::{Access, Cluster, Runtime, skip, wait_until};
use serde_json::{Value, json};

const CONFIGS: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: usize = 8;
/// Objects of one writer; it goes round them with create, update and delete.
const NAMES_PER_WRITER: u64 = 6;

/// Kills in a row: all where CI demands them.
fn kills() -> u64 {
    if skip::demanded() { 50 } else { 5 }
}

/// What a writer knows of one object: the value at the last acknowledgement, and one that was never answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Known {
    acknowledged: Option<u64>,
    /// `Some(None)`: a delete without an answer.
    unanswered: Option<Option<u64>>,
}

#[derive(Default)]
struct Ledger {
    objects: Mutex<BTreeMap<String, Known>>,
    /// Revision of each acknowledged create and update, with what was written.
    acknowledged: Mutex<BTreeMap<u64, (String, u64)>>,
    count: AtomicU64,
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn value_of(object: &Value) -> u64 {
    object["data"]["value"].as_str().unwrap().parse().unwrap()
}

impl Ledger {
    fn highest(&self) -> u64 {
        self.acknowledged.lock().unwrap().keys().next_back().copied().unwrap_or(0)
    }

    fn known(&self, name: &str) -> Known {
        self.objects.lock().unwrap().get(name).cloned().unwrap_or_default()
    }

    fn note(&self, name: &str, known: Known) {
        self.objects.lock().unwrap().insert(name.to_owned(), known);
    }

    /// Writes until the connection breaks.
    async fn write_on(&self, access: &Access, writer: usize, round: u64) {
        let Ok(mut connection) = Connection::open(access).await else {
            return;
        };
        for step in 1_u64.. {
            let name = format!("w{writer}-{}", step % NAMES_PER_WRITER);
            let value = round * 1_000_000 + step;
            let before = self.known(&name).acknowledged;
            let path = format!("{CONFIGS}/{name}");
            let body = json!({"metadata": {"name": name}, "data": {"value": value.to_string()}});
            let (call, wanted) = match before {
                None => (Call::post(CONFIGS, &body), Some(value)),
                Some(_) if step % 5 == 0 => (Call::delete(&path), None),
                Some(_) => (Call::put(&path, &body), Some(value)),
            };
            self.note(&name, Known { acknowledged: before, unanswered: Some(wanted) });
            let Ok(reply) = connection.send(&call).await else {
                return; // Its outcome is unknown.
            };
            let object = reply.object();
            self.note(&name, Known { acknowledged: wanted, unanswered: None });
            if wanted.is_some() {
                let said = (name, value);
                let twice = self.acknowledged.lock().unwrap().insert(revision(&object), said);
                assert_eq!(twice, None, "two writes were given one revision");
            }
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Compares with what is there after a restart, and takes the outcome of unanswered writes from it.
    fn settle(&self, there: &BTreeMap<String, u64>) {
        let mut objects = self.objects.lock().unwrap();
        for (name, known) in objects.iter_mut() {
            let found = there.get(name).copied();
            let may_be = [Some(known.acknowledged), known.unanswered];
            assert!(
                may_be.contains(&Some(found)),
                "{name}: found {found:?}, acknowledged {:?}, unanswered {:?}",
                known.acknowledged,
                known.unanswered
            );
            *known = Known { acknowledged: found, unanswered: None };
        }
        for name in there.keys() {
            assert!(objects.contains_key(name), "{name} was never written");
        }
    }
}

async fn listed(access: &Access) -> (u64, BTreeMap<String, u64>) {
    let mut connection = Connection::open(access).await.unwrap();
    let list = connection.send(&Call::get(CONFIGS)).await.unwrap().object();
    let items = list["items"].as_array().unwrap().iter();
    let ours = items.filter(|it| name_of(it).starts_with('w'));
    (revision(&list), ours.map(|it| (name_of(it).to_owned(), value_of(it))).collect())
}

/// What a watch was told, over all its resumptions.
#[derive(Default)]
struct Seen {
    last: u64,
    writes: BTreeMap<u64, (String, u64)>,
    state: BTreeMap<String, u64>,
}

impl Seen {
    fn take(&mut self, event: &Value) {
        let object = &event["object"];
        let at = revision(object);
        assert!(at > self.last, "the watch went from {} to {at}", self.last);
        self.last = at;
        if !name_of(object).starts_with('w') {
            return;
        }
        let (name, value) = (name_of(object).to_owned(), || value_of(object));
        match event["type"].as_str().unwrap() {
            "DELETED" => drop(self.state.remove(&name)),
            "ADDED" => {
                assert_eq!(
                    self.state.insert(name.clone(), value()),
                    None,
                    "{name} was added twice"
                );
                self.writes.insert(at, (name, value()));
            }
            "MODIFIED" => {
                assert!(
                    self.state.insert(name.clone(), value()).is_some(),
                    "{name} was never added"
                );
                self.writes.insert(at, (name, value()));
            }
            other => panic!("{other}: {event}"),
        }
    }
}

/// Follows from where the watch was cut until it is cut again.
async fn follow(access: Access, seen: Arc<Mutex<Seen>>) {
    let last = seen.lock().unwrap().last;
    let Ok(connection) = Connection::open(&access).await else {
        return;
    };
    let path = format!("{CONFIGS}?watch=true&resourceVersion={last}&timeoutSeconds=3600");
    let Ok(mut watch) = connection.watch(&path).await else {
        return;
    };
    while let Some(event) = watch.next().await {
        seen.lock().unwrap().take(&event);
    }
}

/// One round: writers and a watch at work, then SIGKILL in their midst, then a restart.
async fn crash(cluster: &mut Cluster, ledger: &Arc<Ledger>, seen: &Arc<Mutex<Seen>>, round: u64) {
    let access = Access::admin(cluster);
    let watch = start(follow(access.clone(), seen.clone()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (ledger, access) = (ledger.clone(), access.clone());
            start(async move { ledger.write_on(&access, writer, round).await })
        })
        .collect();
    // Anywhere between the first writes and a few hundred; another place each round.
    let goal = ledger.count.load(Ordering::Relaxed) + 10 + (round * 37) % 150;
    wait_until("writes are acknowledged", || match ledger.count.load(Ordering::Relaxed) {
        count if count >= goal => Ok(()),
        _ if writers.iter().all(tokio::task::JoinHandle::is_finished) => Ok(()),
        count => Err(format!("{count} of {goal}")),
    });
    cluster.kill();
    for it in writers {
        it.await.unwrap();
    }
    watch.await.unwrap();
    assert!(ledger.count.load(Ordering::Relaxed) >= goal, "writers gave up before the kill");
    cluster.restart();
}

fn start<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "the test stands outside the cluster")]
    tokio::spawn(work)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_and_no_watch_has_a_gap_over_many_crashes() {
    let mut cluster = Cluster::start(Runtime::Hollow);
    let ledger = Arc::new(Ledger::default());
    let (first, _) = listed(&Access::admin(&cluster)).await;
    let seen = Arc::new(Mutex::new(Seen { last: first, ..Seen::default() }));
    let mut highest = first;
    for round in 1..=kills() {
        crash(&mut cluster, &ledger, &seen, round).await;
        let (at, there) = listed(&Access::admin(&cluster)).await;
        let acknowledged = ledger.highest();
        assert!(at >= acknowledged.max(highest), "round {round}: back from {acknowledged} to {at}");
        highest = at;
        ledger.settle(&there);
        println!("round {round}: {} writes, revision {at}", ledger.count.load(Ordering::Relaxed));
    }
    let (end, there) = listed(&Access::admin(&cluster)).await;
    // A last write, after which the watch has nothing more to tell.
    let mut connection = Connection::open(&Access::admin(&cluster)).await.unwrap();
    let last = json!({"metadata": {"name": "z-last"}});
    let last = revision(&connection.send(&Call::post(CONFIGS, &last)).await.unwrap().object());
    assert!(last > end, "the next revision {last} comes after {end}");
    let watch = start(follow(Access::admin(&cluster), seen.clone()));
    wait_until("the watch to come to the end", || match seen.lock().unwrap().last {
        at if at >= last => Ok(()),
        at => Err(format!("at {at} of {last}")),
    });
    watch.abort();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.state, there, "the watch's events add up to what is there");
    for (at, write) in ledger.acknowledged.lock().unwrap().iter() {
        assert_eq!(seen.writes.get(at), Some(write), "the watch missed revision {at}");
    }
}
