//! The pages that Prometheus and metrics-server scrape: `/metrics/resource`, `/metrics/cadvisor`, `/metrics/probes`.
//!
//! Names, labels and units are the contract of kubernetes pkg/kubelet/metrics/collectors and of cAdvisor. What is not
//! measured here is left out, never shown as zero.

use kactor_agent::probe_counts::ProbeCount;
use kactor_agent::probes::ProbeKind;
use kactor_drivers::spec::QosClass;

use crate::exposition::{Kind, Page};
use crate::machine::Interface;
use crate::sample::{ContainerSample, PodSample, Sample};

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

fn each<'a>(
    sample: &'a Sample,
) -> impl Iterator<Item = (&'a PodSample, &'a ContainerSample)> + use<'a> {
    sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |it| (pod, it)))
}

/// What metrics-server reads. Times stand beside counters, because a rate needs to know when they were read.
pub fn resource(sample: &Sample) -> String {
    let mut page = Page::default();
    let labels = |pod: &PodSample, it: &ContainerSample| {
        [
            ("container", it.name.clone()),
            ("namespace", pod.namespace.clone()),
            ("pod", pod.name.clone()),
        ]
    };
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    let mut family = page.family("container_cpu_usage_seconds_total", Kind::Counter, help);
    for (pod, it) in each(sample) {
        family.row(&refs(&labels(pod, it)), seconds(it.stats.cpu_usage_ns), Some(it.at));
    }
    let help = "Current working set of the container in bytes";
    let mut family = page.family("container_memory_working_set_bytes", Kind::Gauge, help);
    for (pod, it) in each(sample) {
        let bytes = it.stats.memory_working_set_bytes as f64;
        family.row(&refs(&labels(pod, it)), bytes, Some(it.at));
    }
    let help = "Start time of the container since unix epoch in seconds";
    let mut family = page.family("container_start_time_seconds", Kind::Gauge, help);
    for (pod, it) in each(sample) {
        family.row(&refs(&labels(pod, it)), it.started.0 as f64 / 1e3, None);
    }
    if let Some(node) = &sample.node {
        let help = "Cumulative cpu time consumed by the node in core-seconds";
        let mut family = page.family("node_cpu_usage_seconds_total", Kind::Counter, help);
        family.row(&[], seconds(node.cpu_usage_ns), Some(sample.at));
        let help = "Current working set of the node in bytes";
        let mut family = page.family("node_memory_working_set_bytes", Kind::Gauge, help);
        family.row(&[], node.memory_working_set_bytes as f64, Some(sample.at));
        let help = "Current swap usage of the node in bytes";
        let swap = node.swap_total_bytes.saturating_sub(node.swap_free_bytes) as f64;
        page.family("node_swap_usage_bytes", Kind::Gauge, help).row(&[], swap, Some(sample.at));
    }
    let labels =
        |pod: &PodSample| [("namespace", pod.namespace.clone()), ("pod", pod.name.clone())];
    let with_containers = || sample.pods.iter().filter(|it| !it.containers.is_empty());
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    let mut family = page.family("pod_cpu_usage_seconds_total", Kind::Counter, help);
    for pod in with_containers() {
        family.row(&refs(&labels(pod)), seconds(pod.total().cpu_usage_ns), Some(sample.at));
    }
    let help = "Current working set of the pod in bytes";
    let mut family = page.family("pod_memory_working_set_bytes", Kind::Gauge, help);
    for pod in with_containers() {
        let bytes = pod.total().memory_working_set_bytes as f64;
        family.row(&refs(&labels(pod)), bytes, Some(sample.at));
    }
    let failed = if sample.failures.is_empty() { 0.0 } else { 1.0 };
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    page.single("resource_scrape_error", Kind::Gauge, help, failed);
    page.single("scrape_error", Kind::Gauge, help, failed);
    page.into_text()
}

fn refs<'a, const N: usize>(labels: &'a [(&'a str, String); N]) -> [(&'a str, &'a str); N] {
    labels.each_ref().map(|(name, value)| (*name, value.as_str()))
}

const CPU_USAGE: &str = "container_cpu_usage_seconds_total";

type Read = fn(&ContainerSample) -> Option<f64>;

/// The families of containers: name, kind, help, value.
const CONTAINER_FAMILIES: &[(&str, Kind, &str, Read)] = &[
    (
        "container_cpu_usage_seconds_total",
        Kind::Counter,
        "Cumulative cpu time consumed in seconds.",
        |it| Some(seconds(it.stats.cpu_usage_ns)),
    ),
    (
        "container_memory_failures_total",
        Kind::Counter,
        "Cumulative count of memory allocation failures.",
        |it| Some(it.stats.page_faults as f64),
    ),
    ("container_memory_rss", Kind::Gauge, "Size of RSS in bytes.", |it| {
        Some(it.stats.memory_rss_bytes as f64)
    }),
    (
        "container_memory_usage_bytes",
        Kind::Gauge,
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |it| Some(it.stats.memory_usage_bytes as f64),
    ),
    ("container_memory_working_set_bytes", Kind::Gauge, "Current working set in bytes.", |it| {
        Some(it.stats.memory_working_set_bytes as f64)
    }),
    (
        "container_processes",
        Kind::Gauge,
        "Number of processes running inside the container.",
        |it| Some(it.stats.n_processes as f64),
    ),
    ("container_spec_cpu_period", Kind::Gauge, "CPU period of the container.", |it| {
        it.limits.cpu_quota_us.map(|_| it.limits.cpu_period_us.unwrap_or(100_000) as f64)
    }),
    ("container_spec_cpu_quota", Kind::Gauge, "CPU quota of the container.", |it| {
        it.limits.cpu_quota_us.map(|it| it as f64)
    }),
    ("container_spec_cpu_shares", Kind::Gauge, "CPU share of the container.", |it| {
        it.limits.cpu_shares.map(|it| it as f64)
    }),
    ("container_spec_memory_limit_bytes", Kind::Gauge, "Memory limit for the container.", |it| {
        it.limits.memory_limit_bytes.map(|it| it as f64)
    }),
    (
        "container_start_time_seconds",
        Kind::Gauge,
        "Start time of the container since unix epoch in seconds.",
        |it| Some((it.started.0 / 1000) as f64),
    ),
];

type ReadInterface = fn(&Interface) -> u64;

const NETWORK_FAMILIES: &[(&str, &str, ReadInterface)] = &[
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |it| {
        it.rx_bytes
    }),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        |it| it.rx_errors,
    ),
    (
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        |it| it.rx_dropped,
    ),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |it| {
        it.rx_packets
    }),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |it| {
        it.tx_bytes
    }),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        |it| it.tx_errors,
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |it| it.tx_dropped,
    ),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |it| {
        it.tx_packets
    }),
];

/// The cgroup-like path of a pod, as dashboards group by it.
fn pod_id(pod: &PodSample) -> String {
    let class = match pod.qos {
        QosClass::Guaranteed => "guaranteed",
        QosClass::Burstable => "burstable",
        QosClass::BestEffort => "besteffort",
    };
    format!("/kubepods/{class}/pod{}", pod.uid)
}

/// With cAdvisor's names and labels: containers, the networks of pods (`container=""`) and the machine (`id="/"`).
pub fn cadvisor(sample: &Sample) -> String {
    let mut page = Page::default();
    for (name, kind, help, read) in CONTAINER_FAMILIES {
        let is_faults = *name == "container_memory_failures_total";
        let mut family = page.family(name, *kind, help);
        for (pod, it) in each(sample) {
            let Some(value) = read(it) else { continue };
            let id = format!("{}/{}", pod_id(pod), it.external_id);
            let mut labels = vec![("container", it.name.as_str())];
            if *name == CPU_USAGE {
                labels.push(("cpu", "total"));
            }
            if is_faults {
                labels.push(("failure_type", "pgfault"));
            }
            labels.extend([("id", id.as_str()), ("image", &it.image), ("name", &it.external_id)]);
            labels.extend([("namespace", pod.namespace.as_str()), ("pod", &pod.name)]);
            if is_faults {
                labels.push(("scope", "container"));
            }
            family.row(&labels, value, Some(it.at));
            if is_faults {
                labels[1].1 = "pgmajfault";
                family.row(&labels, it.stats.major_page_faults as f64, Some(it.at));
            }
        }
        if let Some(value) = machine_value(sample, name) {
            let cpu = (*name == CPU_USAGE).then_some(("cpu", "total"));
            let labels = [("id", "/"), ("image", ""), ("name", "")].into_iter();
            let labels = [("container", "")].into_iter().chain(cpu).chain(labels);
            let labels: Vec<_> = labels.chain([("namespace", ""), ("pod", "")]).collect();
            family.row(&labels, value, Some(sample.at));
        }
    }
    for (name, help, read) in NETWORK_FAMILIES {
        let mut family = page.family(name, Kind::Counter, help);
        for pod in &sample.pods {
            let id = pod_id(pod);
            for it in &pod.interfaces {
                let labels = [
                    ("container", ""),
                    ("id", id.as_str()),
                    ("image", ""),
                    ("interface", &it.name),
                    ("name", ""),
                    ("namespace", &pod.namespace),
                    ("pod", &pod.name),
                ];
                family.row(&labels, read(it) as f64, Some(sample.at));
            }
        }
    }
    if let Some(node) = &sample.node {
        let help = "Amount of memory installed on the machine.";
        page.single("machine_memory_bytes", Kind::Gauge, help, node.memory_total_bytes as f64);
    }
    page.into_text()
}

fn machine_value(sample: &Sample, family: &str) -> Option<f64> {
    let node = sample.node.as_ref()?;
    match family {
        "container_cpu_usage_seconds_total" => Some(seconds(node.cpu_usage_ns)),
        "container_memory_usage_bytes" => Some(node.memory_usage_bytes as f64),
        "container_memory_working_set_bytes" => Some(node.memory_working_set_bytes as f64),
        "container_memory_rss" => Some(node.memory_rss_bytes as f64),
        _ => None,
    }
}

/// One container's probe of one kind.
pub struct ProbeRow {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub kind: ProbeKind,
    pub count: ProbeCount,
}

pub fn probes(rows: &[ProbeRow]) -> String {
    let mut page = Page::default();
    let help =
        "Cumulative number of a liveness, readiness or startup probe for a container by result.";
    let mut family = page.family("prober_probe_total", Kind::Counter, help);
    for it in rows {
        for (result, n) in [("successful", it.count.successful), ("failed", it.count.failed)] {
            let labels = [
                ("container", it.container.as_str()),
                ("namespace", &it.namespace),
                ("pod", &it.pod),
                ("pod_uid", &it.uid),
                ("probe_type", it.kind.title()),
                ("result", result),
            ];
            if n > 0 {
                family.row(&labels, n as f64, None);
            }
        }
    }
    page.into_text()
}

#[cfg(test)]
mod tests;
