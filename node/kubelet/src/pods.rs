//! `/pods` and `/runningpods/`: what this node was given, and what its driver runs.

use bytes::{BufMut, Bytes, BytesMut};
use kactor_drivers::status::{ContainerState, SandboxStatus};
use serde_json::{Value, json};

/// A `v1.PodList` of objects that are JSON already.
pub fn list(pods: &[Bytes]) -> Bytes {
    let head = br#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#;
    let len = head.len() + pods.iter().map(|it| it.len() + 1).sum::<usize>() + 2;
    let mut out = BytesMut::with_capacity(len);
    out.put_slice(head);
    for (index, pod) in pods.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(pod);
    }
    out.put_slice(b"]}");
    out.freeze()
}

/// What runs, as far as a driver knows of Pods: names and images.
pub fn running(sandboxes: &[SandboxStatus]) -> Value {
    let items: Vec<Value> = sandboxes.iter().map(running_pod).collect();
    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
}

fn running_pod(sandbox: &SandboxStatus) -> Value {
    let runs = sandbox.containers.iter();
    let runs = runs.filter(|it| matches!(it.state, ContainerState::Running { .. }));
    let containers: Vec<Value> =
        runs.map(|it| json!({ "name": it.id().name, "image": it.spec.image })).collect();
    let spec = &sandbox.spec;
    json!({
        "metadata": { "name": spec.name, "namespace": spec.namespace, "uid": spec.id.0 },
        "spec": { "containers": containers },
        "status": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_json_document() {
        for n in 0..3 {
            let pods = vec![Bytes::from_static(br#"{"kind":"Pod"}"#); n];
            let tree: Value = serde_json::from_slice(&list(&pods)).unwrap();
            assert_eq!(
                (&tree["kind"], tree["items"].as_array().unwrap().len()),
                (&json!("PodList"), n)
            );
        }
    }
}
