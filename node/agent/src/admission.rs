//! Whether this node takes a pod: the last word, after the scheduler's. Pure.
//!
//! Upstream: kubelet lifecycle predicates. A pod that is refused is `Failed` with reason `OutOfcpu`, `OutOfmemory`
//! or `OutOfpods`; its owner makes another one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::machine::Doom;
use crate::node_object::PODS_MAX;
use crate::spec::{Container, Pod};

/// What a pod takes of its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub pods: u32,
}

impl Taken {
    pub fn plus(self, other: Taken) -> Taken {
        Taken {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pods: self.pods + other.pods,
        }
    }
}

/// The sum of the containers and sidecars, or the largest init container with the sidecars before it.
pub fn taken(pod: &Pod) -> Taken {
    let mut sidecars = Taken::default();
    let mut init_peak = Taken::default();
    for container in &pod.spec.init_containers {
        let it = of_container(container);
        if container.is_sidecar() {
            sidecars = sidecars.plus(it);
        }
        let at_once = if container.is_sidecar() { sidecars } else { sidecars.plus(it) };
        init_peak.cpu_milli = init_peak.cpu_milli.max(at_once.cpu_milli);
        init_peak.memory_bytes = init_peak.memory_bytes.max(at_once.memory_bytes);
    }
    let main = pod.spec.containers.iter().map(of_container).fold(sidecars, Taken::plus);
    Taken {
        cpu_milli: main.cpu_milli.max(init_peak.cpu_milli),
        memory_bytes: main.memory_bytes.max(init_peak.memory_bytes),
        pods: 1,
    }
}

fn of_container(container: &Container) -> Taken {
    let amount = |map: &BTreeMap<String, Value>, name: &str| {
        map.get(name).and_then(|it| kactor_objects::quantity::of_json(it).ok())
    };
    let of = |name: &str| {
        amount(&container.resources.requests, name)
            .or_else(|| amount(&container.resources.limits, name))
    };
    Taken {
        cpu_milli: of("cpu").map_or(0, |it| it.milli_value()),
        memory_bytes: of("memory").map_or(0, |it| it.value()),
        pods: 0,
    }
}

/// Takes the pod, or says why not. `others` is what the node's other pods take.
pub fn admit(pod: &Pod, others: Taken, allocatable: Taken) -> Result<(), Doom> {
    let it = taken(pod);
    let rows = [
        ("cpu", it.cpu_milli, others.cpu_milli, allocatable.cpu_milli),
        ("memory", it.memory_bytes, others.memory_bytes, allocatable.memory_bytes),
        ("pods", 1, i64::from(others.pods), i64::from(allocatable.pods.min(PODS_MAX))),
    ];
    for (name, requested, used, capacity) in rows {
        if requested > 0 && requested > capacity.saturating_sub(used) {
            let message = format!(
                "Pod was rejected: Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Err(Doom { reason: format!("OutOf{name}"), message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        crate::spec::parse(format!(r#"{{"metadata":{{"uid":"u"}},"spec":{{{spec}}}}}"#).as_bytes())
            .unwrap()
    }

    fn container(name: &str, cpu: &str) -> String {
        format!(r#"{{"name":"{name}","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}"#)
    }

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_with_the_rest() {
        let sidecar =
            r#"{"name":"s","restartPolicy":"Always","resources":{"limits":{"cpu":"100m"}}}"#;
        let (init, a, b) = (container("i", "1"), container("a", "300m"), container("b", "200m"));
        let spec = format!(r#""initContainers":[{sidecar},{init}],"containers":[{a},{b}]"#);
        assert_eq!(taken(&pod(&spec)).cpu_milli, 1100);
        let spec = format!(r#""initContainers":[{sidecar}],"containers":[{a},{b}]"#);
        assert_eq!(taken(&pod(&spec)).cpu_milli, 600);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let allocatable = Taken { cpu_milli: 1000, memory_bytes: 1 << 20, pods: 2 };
        let it = pod(&format!(r#""containers":[{}]"#, container("a", "600m")));
        let used = |cpu_milli, pods| Taken { cpu_milli, memory_bytes: 0, pods };
        assert!(admit(&it, used(400, 1), allocatable).is_ok());
        let doom = admit(&it, used(500, 1), allocatable).unwrap_err();
        assert_eq!(doom.reason, "OutOfcpu");
        assert!(doom.message.ends_with("cpu, requested: 600, used: 500, capacity: 1000"));
        assert_eq!(admit(&it, used(0, 2), allocatable).unwrap_err().reason, "OutOfpods");
        // A pod that asks for nothing fits a full node.
        let nothing = pod(r#""containers":[{"name":"a"}]"#);
        assert!(admit(&nothing, used(9000, 1), allocatable).is_ok());
    }
}
