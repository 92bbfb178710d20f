//! What the gateway answers operators from: this host's inside, its status, its images, the cluster as a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kactor_cluster::records::Records;
use kactor_drivers::driver::Driver;
use kactor_gateway::{ALL_HOSTS, ByteStream, ImageOrder, InsightSource};
use kactor_links::{HostLinks, Lane, Whom};
use kactor_protocol::HostId;
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::insight::{Insight, InsightReply};
use kactor_runtime::ActorSystem;
use kactor_store::{Members, Store, SyncLatency};
use kactor_streams::BoxFuture;
use serde_json::{Value, json};

use super::hosts_status::Seen;
use super::{DELIVERY, Plan};
use crate::data_dir::DataDir;

/// How long a snapshot waits for a leader to confirm that it is current; without one it is sent all the same.
const CONFIRM_MAX: Duration = Duration::from_secs(2);

/// What the gateway answers operators from.
pub(super) struct Inside {
    pub system: ActorSystem,
    pub store: Store,
    pub dir: DataDir,
    pub plan: Value,
    pub ready: Arc<AtomicBool>,
    /// The node's driver, where there is a node.
    pub driver: Option<Arc<dyn Driver>>,
    pub records: Records,
    pub members: Arc<dyn Members>,
    pub own: ReplicaId,
    pub links: Arc<HostLinks>,
}

impl InsightSource for Inside {
    fn images(&self, order: ImageOrder) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move {
            let driver = self.driver.as_ref().ok_or("no node runs here, so there are no images")?;
            images(driver, order).await
        })
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<ByteStream, String>> {
        Box::pin(async move {
            let deadline = self.system.deadline(CONFIRM_MAX);
            let is_current = self.store.read_index(deadline).await.is_ok();
            let setup = self.plan.as_object().into_iter().flatten();
            let word = |it: &Value| it.as_str().map(str::to_owned);
            let setup = setup.filter_map(|(name, value)| Some((name.clone(), word(value)?)));
            let chunks =
                crate::snapshot::chunks(&self.store, &self.dir, setup.collect(), is_current);
            let chunks = chunks.map_err(|it| crate::print::chain(&it))?;
            Ok(Box::pin(futures::stream::iter(chunks)) as ByteStream)
        })
    }

    fn ask(&self, question: Insight) -> BoxFuture<'_, InsightReply> {
        Box::pin(self.system.insight(question))
    }

    fn ask_hosts(&self, host: String, question: Insight) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move {
            let whom = match host.as_str() {
                ALL_HOSTS => Whom::All,
                name => Whom::One(HostId::new(name).map_err(|it| format!("{name:?}: {it}"))?),
            };
            Ok(self.links.look(&self.system, whom, question).await)
        })
    }

    fn status(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let leadership = self.store.leadership().current();
            let serves = self.ready.load(Ordering::Acquire) && leadership.leader.is_some();
            let (hosts, members) = (self.records.hosts(), self.members.state());
            let seen = Seen {
                hosts: &hosts,
                members: &members,
                leader: leadership.leader,
                leads: leadership.ours.is_some(),
                own: self.own,
            };
            let leader = leadership.leader.and_then(|it| members.hosts.get(&it));
            json!({
                "host": self.plan,
                "serves": serves,
                "wrong": wrong(&self.store, serves, (&seen, &self.links)),
                "cluster": self.records.cluster(),
                "leader": leader,
                "hosts": seen.rows(),
                "links": self.links.report(),
                "store": kactor_replica::report(&self.store),
                "uptime_seconds": self.system.env().monotonic().as_secs(),
            })
        })
    }
}

/// Carries out an order of `kactor image`.
pub(super) async fn images(driver: &Arc<dyn Driver>, order: ImageOrder) -> Result<Value, String> {
    let told = |it: kactor_drivers::DriverError| it.to_string();
    let images = match order {
        ImageOrder::Import { path } => driver.import_images(&path).await.map_err(told)?,
        ImageOrder::List => driver.images().await.map_err(told)?,
        ImageOrder::Remove { reference } => {
            driver.remove_image(&reference).await.map_err(told)?;
            Vec::new()
        }
    };
    serde_json::to_value(images).map_err(|it| it.to_string())
}

/// Syncs that take longer make every write slow (etcd's advice is a 99th percentile of 10 ms).
const SLOW_SYNC_US: u64 = 250_000;
/// Fewer syncs are no ground to call a disk slow.
const SYNCS_JUDGED: u64 = 64;

/// What is wrong, in a sentence; `null` when nothing is.
fn wrong(store: &Store, serves: bool, (seen, links): (&Seen<'_>, &HostLinks)) -> Value {
    let log = store.status();
    if let Some(trouble) = log.trouble {
        return json!(trouble);
    }
    if store.leadership().current().leader.is_none() {
        return json!(format!("the store has no leader yet: writes wait{}", unreached(links)));
    }
    if let Some(trouble) = store.status().trouble {
        return json!(trouble);
    }
    if let Some(trouble) = seen.trouble() {
        return json!(trouble);
    }
    if !serves {
        let unreached = unreached(links);
        return json!(format!("the default objects are still being written{unreached}"));
    }
    let SyncLatency { n_recent, us_p50, us_p99 } = log.sync_latency;
    if n_recent >= SYNCS_JUDGED && us_p99 >= SLOW_SYNC_US {
        return json!(format!(
            "the disk is slow: of the last {n_recent} syncs half took {} ms or more and one in a hundred {} ms; every write waits for one. `kactor doctor` measures the disk",
            us_p50 / 1000,
            us_p99 / 1000
        ));
    }
    Value::Null
}

/// Why other hosts are not reached, such as that they no longer know this one.
pub(super) fn unreached(links: &HostLinks) -> String {
    let status = links.status();
    let away = status.iter().filter(|it| !it.is_live && it.lane == Lane::Latency);
    let words: Vec<String> = away
        .filter_map(|it| Some(format!("{} ({})", it.host, it.last_error.as_deref()?)))
        .collect();
    if words.is_empty() { String::new() } else { format!("; not linked: {}", words.join(", ")) }
}

pub(super) fn summary(plan: &Plan) -> Value {
    json!({
        "node": plan.node_name,
        "data_dir": plan.dir.root().display().to_string(),
        "listen": plan.listen.to_string(),
        "runtime": format!("{:?}", plan.runtime).to_lowercase(),
        "pod_cidr": plan.pod_cidr,
        "service_cidr": plan.service_cidr,
        "letters": format!("{DELIVERY:?}").to_lowercase(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}
