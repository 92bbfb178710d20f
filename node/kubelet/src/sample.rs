//! One look at what runs here and what it uses; everything that is told about it comes from such a sample.
//!
//! A sample is shared by all who ask within [`FRESH`], so many scrapers cost what one does. Rates are made of a
//! sample and the one before it; the first has none. Only containers that run are sampled, as in a kubelet.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use kactor_agent::perform::Host;
use kactor_drivers::error::DriverError;
use kactor_drivers::spec::{ContainerId, NetworkMode, QosClass, Resources};
use kactor_drivers::status::{ContainerState, ContainerStats, ContainerStatus, SandboxStatus};
use kactor_protocol::Timestamp;
use tokio::sync::Mutex;

use crate::machine::{FileSystem, Interface, Machine, Totals};

/// How long a sample serves.
const FRESH: Duration = Duration::from_millis(500);
/// Containers that the driver is asked about at once.
const ASKED_AT_ONCE: usize = 8;

pub struct Sampler {
    host: Host,
    machine: Arc<dyn Machine>,
    last: Mutex<Option<(Duration, Arc<Sample>)>>,
}

#[derive(Debug, Default)]
pub struct Sample {
    pub at: Timestamp,
    pub node: Option<Totals>,
    /// Of the time between the last sample and this one.
    pub node_cpu_nano_cores: Option<u64>,
    pub interfaces: Vec<Interface>,
    pub file_system: Option<FileSystem>,
    pub pods: Vec<PodSample>,
    /// What could not be read, in sentences.
    pub failures: Vec<String>,
}

#[derive(Debug)]
pub struct PodSample {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub qos: QosClass,
    pub started: Timestamp,
    pub interfaces: Vec<Interface>,
    pub containers: Vec<ContainerSample>,
}

#[derive(Debug)]
pub struct ContainerSample {
    pub name: String,
    pub image: String,
    /// Without the driver's scheme.
    pub external_id: String,
    pub started: Timestamp,
    pub at: Timestamp,
    pub stats: ContainerStats,
    pub cpu_nano_cores: Option<u64>,
    pub limits: Resources,
}

impl PodSample {
    /// A pod is its containers together.
    pub fn total(&self) -> ContainerStats {
        self.containers.iter().fold(ContainerStats::default(), |all, it| ContainerStats {
            cpu_usage_ns: all.cpu_usage_ns + it.stats.cpu_usage_ns,
            memory_usage_bytes: all.memory_usage_bytes + it.stats.memory_usage_bytes,
            memory_working_set_bytes: all.memory_working_set_bytes
                + it.stats.memory_working_set_bytes,
            memory_rss_bytes: all.memory_rss_bytes + it.stats.memory_rss_bytes,
            page_faults: all.page_faults + it.stats.page_faults,
            major_page_faults: all.major_page_faults + it.stats.major_page_faults,
            n_processes: all.n_processes + it.stats.n_processes,
        })
    }

    /// `None` until every container has a rate.
    pub fn cpu_nano_cores(&self) -> Option<u64> {
        self.containers.iter().map(|it| it.cpu_nano_cores).sum()
    }
}

impl Sampler {
    pub fn new(host: Host, machine: Arc<dyn Machine>) -> Self {
        Self { host, machine, last: Mutex::new(None) }
    }

    /// The last sample if it is fresh, else a new one. Askers that come meanwhile wait for the same.
    pub async fn sample(&self) -> Arc<Sample> {
        let mut last = self.last.lock().await;
        let now = self.host.env.monotonic();
        if let Some((at, sample)) = &*last
            && now.saturating_sub(*at) < FRESH
        {
            return sample.clone();
        }
        let mut sample = self.look().await;
        if let Some((_, before)) = &*last {
            add_rates(&mut sample, before);
        }
        let sample = Arc::new(sample);
        *last = Some((now, sample.clone()));
        sample
    }

    async fn look(&self) -> Sample {
        let mut sample = Sample {
            at: self.host.env.wall(),
            node: self.machine.totals(),
            interfaces: self.machine.interfaces(None),
            file_system: self.machine.file_system(),
            ..Sample::default()
        };
        if sample.node.is_none() {
            sample.failures.push("/proc says nothing of processors and memory".to_owned());
        }
        match self.host.driver.list().await {
            Ok(sandboxes) => self.look_at(&sandboxes, &mut sample).await,
            Err(error) => sample.failures.push(format!("listing pods: {error}")),
        }
        sample
    }

    fn stats(&self, id: &ContainerId) -> BoxFuture<'static, Result<ContainerStats, DriverError>> {
        let (driver, id) = (self.host.driver.clone(), id.clone());
        Box::pin(async move { driver.stats(&id).await })
    }

    async fn look_at(&self, sandboxes: &[SandboxStatus], sample: &mut Sample) {
        for sandbox in sandboxes {
            let running = running(sandbox);
            let asked = running.iter().map(|(status, _, _)| self.stats(status.id())).collect();
            let mut answers = futures::stream::iter::<Vec<_>>(asked).buffered(ASKED_AT_ONCE);
            let mut containers = Vec::new();
            for (status, started, _) in &running {
                match answers.next().await {
                    Some(Ok(stats)) => {
                        containers.push(container(status, *started, stats, self.host.env.wall()));
                    }
                    Some(Err(error)) => sample.failures.push(format!("{}: {error}", status.id())),
                    None => break,
                }
            }
            let own_network = sandbox.spec.network == NetworkMode::Pod;
            let pid = running.iter().map(|(_, _, pid)| *pid).find(|it| *it > 1 && own_network);
            sample.pods.push(PodSample {
                namespace: sandbox.spec.namespace.clone(),
                name: sandbox.spec.name.clone(),
                uid: sandbox.spec.id.0.clone(),
                qos: sandbox.spec.qos,
                started: sandbox.created,
                interfaces: pid.map(|it| self.machine.interfaces(Some(it))).unwrap_or_default(),
                containers,
            });
        }
    }
}

fn running(sandbox: &SandboxStatus) -> Vec<(&ContainerStatus, Timestamp, u32)> {
    let all = sandbox.containers.iter();
    all.filter_map(|it| match &it.state {
        ContainerState::Running { started, pid } => Some((it, *started, *pid)),
        _ => None,
    })
    .collect()
}

fn container(
    status: &ContainerStatus,
    started: Timestamp,
    stats: ContainerStats,
    at: Timestamp,
) -> ContainerSample {
    let id = &status.external_id;
    ContainerSample {
        name: status.id().name.clone(),
        image: status.spec.image.clone(),
        external_id: id.split_once("://").map_or(id.as_str(), |it| it.1).to_owned(),
        started,
        at,
        stats,
        cpu_nano_cores: None,
        limits: status.spec.resources.clone(),
    }
}

fn nano_cores(used_ns: u64, before_ns: u64, took: Duration) -> Option<u64> {
    let took_ns = u64::try_from(took.as_nanos()).ok().filter(|it| *it > 0)?;
    let used = u128::from(used_ns.checked_sub(before_ns)?) * 1_000_000_000;
    u64::try_from(used / u128::from(took_ns)).ok()
}

/// Compares each container with the same run of it in the sample before.
fn add_rates(sample: &mut Sample, before: &Sample) {
    if let (Some(now), Some(then)) = (&sample.node, &before.node) {
        sample.node_cpu_nano_cores =
            nano_cores(now.cpu_usage_ns, then.cpu_usage_ns, sample.at.since(before.at));
    }
    for pod in &mut sample.pods {
        let Some(old) = before.pods.iter().find(|it| it.uid == pod.uid) else { continue };
        for it in &mut pod.containers {
            let same = |other: &&ContainerSample| other.external_id == it.external_id;
            let Some(then) = old.containers.iter().find(same) else { continue };
            it.cpu_nano_cores =
                nano_cores(it.stats.cpu_usage_ns, then.stats.cpu_usage_ns, it.at.since(then.at));
        }
    }
}

#[cfg(test)]
pub mod fixture {
    //! Two pods: one busy, one that pretends.

    use super::*;

    pub fn stats(cpu_usage_ns: u64) -> ContainerStats {
        ContainerStats {
            cpu_usage_ns,
            memory_usage_bytes: 4096,
            memory_working_set_bytes: 3072,
            memory_rss_bytes: 2048,
            page_faults: 9,
            major_page_faults: 1,
            n_processes: 2,
        }
    }

    fn container(name: &str, stats: ContainerStats, at: u64) -> ContainerSample {
        ContainerSample {
            name: name.to_owned(),
            image: "busybox:latest".to_owned(),
            external_id: format!("id-{name}"),
            started: Timestamp(1_500),
            at: Timestamp(at),
            stats,
            cpu_nano_cores: None,
            limits: Resources { memory_limit_bytes: Some(8192), ..Resources::default() },
        }
    }

    pub fn sample(at: u64, cpu_usage_ns: u64) -> Sample {
        let pod = |name: &str, containers| PodSample {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            qos: QosClass::Burstable,
            started: Timestamp(1_000),
            interfaces: Vec::new(),
            containers,
        };
        let busy = vec![container("app", stats(cpu_usage_ns), at), container("side", stats(0), at)];
        let mut pods = vec![
            pod("busy", busy),
            pod("idle", vec![container("app", ContainerStats::default(), at)]),
        ];
        pods[0].interfaces.push(Interface {
            name: "eth0".to_owned(),
            rx_bytes: 10,
            rx_packets: 1,
            rx_errors: 0,
            rx_dropped: 0,
            tx_bytes: 20,
            tx_packets: 2,
            tx_errors: 0,
            tx_dropped: 0,
        });
        Sample {
            at: Timestamp(at),
            node: Some(Totals {
                cpu_usage_ns: 5_000_000_000 + cpu_usage_ns,
                memory_total_bytes: 1 << 30,
                memory_available_bytes: 1 << 29,
                memory_usage_bytes: 1 << 29,
                memory_working_set_bytes: 1 << 28,
                memory_rss_bytes: 1 << 27,
                swap_total_bytes: 0,
                swap_free_bytes: 0,
                booted: Timestamp(0),
            }),
            pods,
            ..Sample::default()
        }
    }

    pub fn with_rates() -> Sample {
        let mut now = sample(12_000, 3_000_000_000);
        add_rates(&mut now, &sample(10_000, 2_000_000_000));
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_two_samples_of_the_same_run() {
        let now = fixture::with_rates();
        assert_eq!(now.node_cpu_nano_cores, Some(500_000_000), "half a core");
        assert_eq!(now.pods[0].containers[0].cpu_nano_cores, Some(500_000_000));
        assert_eq!(now.pods[0].cpu_nano_cores(), Some(500_000_000));
        let mut restarted = fixture::sample(12_000, 1);
        restarted.pods[0].containers[0].external_id = "another".to_owned();
        add_rates(&mut restarted, &fixture::sample(10_000, 2_000_000_000));
        assert_eq!(restarted.pods[0].containers[0].cpu_nano_cores, None);
        assert_eq!(restarted.pods[0].cpu_nano_cores(), None);
        assert_eq!(nano_cores(1, 2, Duration::from_secs(1)), None, "a counter that went back");
        assert_eq!(nano_cores(2, 1, Duration::ZERO), None);
    }

    #[test]
    fn a_pod_is_its_containers_together() {
        let sample = fixture::sample(1_000, 7);
        let total = sample.pods[0].total();
        assert_eq!((total.cpu_usage_ns, total.memory_working_set_bytes), (7, 2 * 3072));
    }
}
