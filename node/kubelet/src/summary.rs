//! `/stats/summary`: the JSON of stats v1alpha1, which monitoring agents and eviction tools read.
//!
//! Reference: kubernetes staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1/types.go. Optional fields that are not
//! measured here (volumes, logs, root file systems, accelerators) are absent, which the format allows.

use kactor_drivers::status::ContainerStats;
use kactor_protocol::Timestamp;
use serde_json::{Map, Value, json};

use crate::machine::{FileSystem, Interface, Totals};
use crate::sample::{ContainerSample, PodSample, Sample};

pub fn summary(node_name: &str, sample: &Sample) -> Value {
    let mut node = json!({ "nodeName": node_name });
    if let Some(totals) = &sample.node {
        node["startTime"] = json!(totals.booted.to_string());
        node["cpu"] = cpu(sample.at, totals.cpu_usage_ns, sample.node_cpu_nano_cores);
        node["memory"] = node_memory(sample.at, totals);
        node["swap"] = json!({
            "time": sample.at.to_string(),
            "swapAvailableBytes": totals.swap_free_bytes,
            "swapUsageBytes": totals.swap_total_bytes.saturating_sub(totals.swap_free_bytes),
        });
    }
    if let Some(network) = network(sample.at, &sample.interfaces) {
        node["network"] = network;
    }
    if let Some(it) = &sample.file_system {
        let disk = file_system(sample.at, it);
        node["fs"] = disk.clone();
        node["runtime"] = json!({ "imageFs": disk });
    }
    let pods: Vec<Value> = sample.pods.iter().map(|it| pod(sample.at, it)).collect();
    json!({ "node": node, "pods": pods })
}

fn cpu(at: Timestamp, used_ns: u64, nano_cores: Option<u64>) -> Value {
    let mut cpu = json!({ "time": at.to_string(), "usageCoreNanoSeconds": used_ns });
    if let Some(rate) = nano_cores {
        cpu["usageNanoCores"] = json!(rate);
    }
    cpu
}

fn node_memory(at: Timestamp, it: &Totals) -> Value {
    json!({
        "time": at.to_string(),
        "availableBytes": it.memory_total_bytes.saturating_sub(it.memory_working_set_bytes),
        "usageBytes": it.memory_usage_bytes,
        "workingSetBytes": it.memory_working_set_bytes,
        "rssBytes": it.memory_rss_bytes,
    })
}

/// `availableBytes` only where there is a limit that something can be left of.
fn memory(at: Timestamp, it: &ContainerStats, limit_bytes: Option<u64>) -> Value {
    let mut memory = json!({
        "time": at.to_string(),
        "usageBytes": it.memory_usage_bytes,
        "workingSetBytes": it.memory_working_set_bytes,
        "rssBytes": it.memory_rss_bytes,
        "pageFaults": it.page_faults,
        "majorPageFaults": it.major_page_faults,
    });
    if let Some(limit) = limit_bytes {
        memory["availableBytes"] = json!(limit.saturating_sub(it.memory_working_set_bytes));
    }
    memory
}

/// The first interface by itself, as upstream shows the default one, and all of them.
fn network(at: Timestamp, interfaces: &[Interface]) -> Option<Value> {
    let counters = |it: &Interface| {
        json!({
            "name": it.name,
            "rxBytes": it.rx_bytes,
            "rxErrors": it.rx_errors,
            "txBytes": it.tx_bytes,
            "txErrors": it.tx_errors,
        })
    };
    let first = interfaces.iter().find(|it| it.name == "eth0").or(interfaces.first())?;
    let mut network: Map<String, Value> =
        counters(first).as_object().cloned().expect("json! of braces is an object");
    network.insert("time".to_owned(), json!(at.to_string()));
    let all: Vec<Value> = interfaces.iter().map(counters).collect();
    network.insert("interfaces".to_owned(), all.into());
    Some(network.into())
}

fn file_system(at: Timestamp, it: &FileSystem) -> Value {
    json!({
        "time": at.to_string(),
        "availableBytes": it.available_bytes,
        "capacityBytes": it.capacity_bytes,
        "usedBytes": it.used_bytes,
        "inodes": it.inodes,
        "inodesFree": it.inodes_free,
        "inodesUsed": it.inodes.saturating_sub(it.inodes_free),
    })
}

fn pod(at: Timestamp, it: &PodSample) -> Value {
    let total = it.total();
    let mut pod = json!({
        "podRef": { "name": it.name, "namespace": it.namespace, "uid": it.uid },
        "startTime": it.started.to_string(),
        "containers": it.containers.iter().map(container).collect::<Vec<_>>(),
    });
    if !it.containers.is_empty() {
        pod["cpu"] = cpu(at, total.cpu_usage_ns, it.cpu_nano_cores());
        pod["memory"] = memory(at, &total, None);
        pod["process_stats"] = json!({ "process_count": total.n_processes });
    }
    if let Some(network) = network(at, &it.interfaces) {
        pod["network"] = network;
    }
    pod
}

fn container(it: &ContainerSample) -> Value {
    let limit = it.limits.memory_limit_bytes.and_then(|it| u64::try_from(it).ok());
    json!({
        "name": it.name,
        "startTime": it.started.to_string(),
        "cpu": cpu(it.at, it.stats.cpu_usage_ns, it.cpu_nano_cores),
        "memory": memory(it.at, &it.stats, limit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::fixture;

    #[test]
    fn a_summary_names_node_pods_and_containers_with_rates_where_there_are_any() {
        let tree = summary("n1", &fixture::with_rates());
        assert_eq!(tree["node"]["nodeName"], "n1");
        assert_eq!(tree["node"]["cpu"]["usageNanoCores"], 500_000_000);
        assert_eq!(tree["node"]["memory"]["availableBytes"], (1_u64 << 30) - (1 << 28));
        let pod = &tree["pods"][0];
        assert_eq!(pod["podRef"]["name"], "busy");
        assert_eq!(pod["cpu"]["usageCoreNanoSeconds"], 3_000_000_000_u64);
        assert_eq!(pod["network"]["name"], "eth0");
        assert_eq!(pod["network"]["interfaces"][0]["txBytes"], 20);
        let app = &pod["containers"][0];
        assert_eq!(app["cpu"]["usageNanoCores"], 500_000_000);
        assert_eq!(app["memory"]["availableBytes"], 8192 - 3072);
        assert_eq!(app["startTime"], "1970-01-01T00:00:01Z");

        let first = summary("n1", &fixture::sample(1, 1));
        assert_eq!(first["pods"][0]["containers"][0]["cpu"].get("usageNanoCores"), None);
        assert_eq!(first["node"].get("fs"), None, "what is not known is absent");
    }
}
