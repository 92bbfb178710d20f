//! Clients that write and read while things go wrong, and the judgement of what they saw.
//!
//! Each key is one ConfigMap, a register; writers give out every value once. A write is acknowledged, refused (a 4xx:
//! it did not happen) or of unknown fate. One watcher follows all keys from the first revision on, and resumes after
//! every break where it was. Afterwards: each key's history is linearizable, no acknowledged write is missing in the
//! watch, and the watch never went back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kactor_tests::harness::linear::{Call, Op, Verdict, check};
use kactor_tests::harness::{Hosts, wait_until};
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const KEYS: usize = 4;
/// A client gives up on an answer after this; what became of its write is unknown then.
const ANSWER: Duration = Duration::from_secs(3);

/// What all clients noted.
struct Notes {
    began: Instant,
    next: AtomicU64,
    ends: AtomicBool,
    calls: Vec<Mutex<Vec<Call>>>,
    /// Of acknowledged writes: revision and value.
    acknowledged: Mutex<BTreeMap<u64, u64>>,
    /// What the watch said: revision and value, in its order.
    watched: Mutex<Vec<(u64, u64)>>,
}

/// Clients at work.
pub struct Workload {
    runtime: Runtime,
    notes: Arc<Notes>,
    tasks: Vec<JoinHandle<()>>,
    watcher: JoinHandle<()>,
    clients: Vec<Client>,
}

/// What the clients lived through.
pub struct Outcome {
    pub acknowledged: usize,
    pub unknown: usize,
    /// Longest time between two acknowledgements.
    pub longest_pause: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, longest_pause } = self;
        write!(f, "{acknowledged} writes acknowledged, {unknown} of unknown fate, ")?;
        write!(f, "longest pause {} ms", longest_pause.as_millis())
    }
}

fn client(hosts: &Hosts, index: usize) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // All hosts serve one cluster, so the first host's administrator is known by each.
    let mut kubeconfig = Kubeconfig::read_from(hosts.all()[0].kubeconfig()).unwrap();
    let server = format!("https://{}", hosts.all()[index].server());
    for cluster in &mut kubeconfig.clusters {
        cluster.cluster.as_mut().unwrap().server = Some(server.clone());
    }
    let config = async {
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()
    };
    let mut config = futures::executor::block_on(config);
    config.connect_timeout = Some(Duration::from_secs(1));
    config.read_timeout = None; // Watches are quiet for long.
    // A patch that was answered 504 may have been made: kube would send it again, over what others wrote meanwhile.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn name(key: usize) -> String {
    format!("register-{key}")
}

fn value_of(it: &ConfigMap) -> u64 {
    it.data.as_ref().and_then(|it| it.get("value")?.parse().ok()).unwrap_or_default()
}

fn revision_of(it: &ConfigMap) -> u64 {
    it.metadata.resource_version.as_deref().and_then(|it| it.parse().ok()).unwrap_or_default()
}

impl Workload {
    /// `n` clients, each on the hosts in turn: it goes to the next when one does not answer.
    pub fn start(hosts: &Hosts, n: usize) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let entered = runtime.enter();
        let clients: Vec<Client> = (0..hosts.len()).map(|it| client(hosts, it)).collect();
        drop(entered);
        #[expect(clippy::disallowed_methods, reason = "clients stand outside the cluster")]
        let began = Instant::now();
        let notes = Arc::new(Notes {
            began,
            next: AtomicU64::new(1),
            ends: AtomicBool::new(false),
            calls: (0..KEYS).map(|_| Mutex::default()).collect(),
            acknowledged: Mutex::default(),
            watched: Mutex::default(),
        });
        let first = runtime.block_on(make_keys(&clients[0]));
        let watcher = runtime.spawn(notes.clone().watch(clients.clone(), first));
        let tasks = (0..n).map(|it| runtime.spawn(notes.clone().work(clients.clone(), it)));
        let tasks = tasks.collect();
        Self { runtime, notes, tasks, watcher, clients }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.notes.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more writes were acknowledged.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        let from = self.acknowledged();
        wait_until("writes go on", || {
            let now = self.acknowledged();
            if now >= from + more { Ok(()) } else { Err(format!("{} of {more}", now - from)) }
        });
    }

    /// Ends the clients and judges.
    #[track_caller]
    pub fn end(self) -> Outcome {
        self.notes.ends.store(true, Ordering::SeqCst);
        let Self { runtime, notes, tasks, watcher, clients } = self;
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        notes.read_at_the_end(&runtime, &clients);
        let newest = notes.acknowledged.lock().unwrap().keys().next_back().copied().unwrap_or(0);
        wait_until("the watch comes to the newest write", || {
            let seen = notes.watched.lock().unwrap().last().map_or(0, |it| it.0);
            if seen >= newest { Ok(()) } else { Err(format!("{seen} of {newest}")) }
        });
        watcher.abort();
        runtime.shutdown_timeout(Duration::from_secs(5));
        notes.judge()
    }
}

/// Creates the registers; the revision that the watch begins behind.
async fn make_keys(client: &Client) -> u64 {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut first = u64::MAX;
    for key in 0..KEYS {
        let mut made = ConfigMap::default();
        made.metadata.name = Some(name(key));
        made.metadata.labels = Some(BTreeMap::from([("register".to_owned(), "yes".to_owned())]));
        let made = api.create(&PostParams::default(), &made).await.unwrap();
        first = first.min(revision_of(&made) - 1);
    }
    first
}

/// Whether a call can have to do with what `at` saw: close in time, or the same value at any time.
fn touches(it: &Call, at: &Call) -> bool {
    const CLOSE: Duration = Duration::from_millis(50);
    let value = |it: &Call| match it.op {
        Op::Write(value) => Some(value),
        Op::Read(value) => value,
    };
    let is_close = it.from < at.from + CLOSE && it.until.is_some_and(|it| it + CLOSE > at.from);
    is_close || value(it) == value(at)
}

impl Notes {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    async fn work(self: Arc<Self>, clients: Vec<Client>, number: usize) {
        let mut at = number;
        let mut step = number;
        while !self.ends.load(Ordering::SeqCst) {
            step += 1;
            let key = step % KEYS;
            let api: Api<ConfigMap> = Api::default_namespaced(clients[at % clients.len()].clone());
            let went_well = if step.is_multiple_of(3) {
                self.read(&api, key).await
            } else {
                self.write(&api, key).await
            };
            if !went_well {
                at += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn write(&self, api: &Api<ConfigMap>, key: usize) -> bool {
        let value = self.next.fetch_add(1, Ordering::SeqCst);
        let body = Patch::Merge(json!({"data": {"value": value.to_string()}}));
        let (name, params) = (name(key), PatchParams::default());
        let from = self.now();
        let answer = tokio::time::timeout(ANSWER, api.patch(&name, &params, &body)).await;
        let until = match &answer {
            Ok(Ok(written)) => {
                self.acknowledged.lock().unwrap().insert(revision_of(written), value);
                Some(self.now())
            }
            // The server decided against it. (429: it was not taken.)
            Ok(Err(kube::Error::Api(it))) if (400..500).contains(&it.code) => return false,
            _ => None,
        };
        self.calls[key].lock().unwrap().push(Call { op: Op::Write(value), from, until });
        until.is_some()
    }

    async fn read(&self, api: &Api<ConfigMap>, key: usize) -> bool {
        let name = name(key);
        let from = self.now();
        let Ok(Ok(found)) = tokio::time::timeout(ANSWER, api.get(&name)).await else {
            return false;
        };
        let value = Some(value_of(&found)).filter(|it| *it != 0);
        let call = Call { op: Op::Read(value), from, until: Some(self.now()) };
        self.calls[key].lock().unwrap().push(call);
        true
    }

    /// From every host: what was acknowledged is there.
    fn read_at_the_end(&self, runtime: &Runtime, clients: &[Client]) {
        for client in clients {
            let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
            for key in 0..KEYS {
                wait_until("every host answers at the end", || {
                    if runtime.block_on(self.read(&api, key)) { Ok(()) } else { Err(name(key)) }
                });
            }
        }
    }

    /// Follows for ever, on the next host when one lets go.
    async fn watch(self: Arc<Self>, clients: Vec<Client>, first: u64) {
        let mut revision = first;
        for at in 0.. {
            let api: Api<ConfigMap> = Api::default_namespaced(clients[at % clients.len()].clone());
            let params = WatchParams::default().labels("register=yes").timeout(20);
            let behind = revision.to_string();
            let opened = api.watch(&params, &behind);
            let Ok(Ok(stream)) = tokio::time::timeout(ANSWER, opened).await else { continue };
            let mut stream = stream.boxed();
            // A host that is frozen says nothing and does not hang up: bookmarks or events come within this.
            while let Ok(Some(Ok(event))) =
                tokio::time::timeout(Duration::from_secs(5), stream.next()).await
            {
                match event {
                    WatchEvent::Added(it) | WatchEvent::Modified(it) => {
                        revision = revision_of(&it);
                        self.watched.lock().unwrap().push((revision, value_of(&it)));
                    }
                    WatchEvent::Error(error) => {
                        assert_ne!(error.code, 410, "nothing was compacted: {error}");
                        break;
                    }
                    _ => {}
                }
            }
        }
    }

    #[track_caller]
    fn judge(&self) -> Outcome {
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        let watched = self.watched.lock().unwrap().clone();
        for pair in watched.windows(2) {
            assert!(pair[0].0 < pair[1].0, "the watch went back: {pair:?}");
        }
        let seen: BTreeMap<u64, u64> = watched.iter().copied().collect();
        let mut written = BTreeMap::new();
        for (revision, value) in watched.iter().filter(|it| it.1 != 0) {
            if let Some(before) = written.insert(*value, *revision) {
                panic!("the write of {value} took effect twice, at {before} and at {revision}");
            }
        }
        for (revision, value) in &acknowledged {
            assert_eq!(seen.get(revision), Some(value), "revision {revision} is not in the watch");
        }
        let mut unknown = 0;
        let mut ends = Vec::new();
        for (key, calls) in self.calls.iter().enumerate() {
            let calls = calls.lock().unwrap();
            unknown += calls.iter().filter(|it| it.until.is_none()).count();
            let writes = calls.iter().filter(|it| matches!(it.op, Op::Write(_)));
            ends.extend(writes.filter_map(|it| it.until));
            let verdict = check(&calls);
            if let Verdict::Broken { at } = &verdict {
                let near = calls.iter().filter(|it| touches(it, at));
                let near: Vec<String> = near.map(|it| format!("{it:?}")).collect();
                panic!("register {key}: nothing explains {at:?} among\n{}", near.join("\n"));
            }
            assert_eq!(verdict, Verdict::Linearizable, "register {key} of {} calls", calls.len());
        }
        ends.sort();
        let pauses = ends.windows(2).map(|it| it[1] - it[0]);
        let longest_pause = pauses.max().unwrap_or_default();
        Outcome { acknowledged: acknowledged.len(), unknown, longest_pause }
    }
}
