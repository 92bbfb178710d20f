//! Root CA publisher: every open Namespace has the ConfigMap `kube-root-ca.crt`, by which Pods trust the API server.

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Object, json as fields};
use serde_json::json;

use crate::controller::{Controller, NoMemory, Pass};
use crate::namespace::{is_open, metadata, namespace_key};
use crate::plan::Plan;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

pub struct RootCaPublisher {
    /// PEM of the certificates that sign the API's own.
    pub bundle: String,
}

impl Controller for RootCaPublisher {
    const NAME: &'static str = "root-ca-cert-publisher";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, _: &ClusterView) -> Vec<Key> {
        match changed.object() {
            Some(Object::Namespace(namespace)) => vec![namespace.meta.key.clone()],
            Some(Object::ConfigMap(map)) if map.meta.name() == NAME => {
                vec![namespace_key(map.meta.namespace())]
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let Some(namespace) = pass.view.namespaces().get(pass.key).filter(|it| is_open(it)) else {
            return plan;
        };
        let key = Key::new("", "configmaps", namespace.meta.name(), NAME)
            .expect("made from a name that is stored");
        let data = json!({"ca.crt": self.bundle});
        match pass.view.config_maps().get(&key) {
            None => {
                let mut metadata = metadata(namespace, NAME);
                metadata["annotations"] = json!({"kubernetes.io/description": DESCRIPTION});
                let body = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": metadata,
                    "data": data,
                });
                plan.create(key, body);
            }
            Some(map) if map.content != fields::fingerprint(&fields::canonical(&data)) => {
                // A merge patch keeps other keys; clearing first is a second pass's work in no case that matters.
                plan.patch(&map.meta, json!({"data": data}));
            }
            Some(_) => {}
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Life;
    use kactor_view::fixture::key_of;

    #[test]
    fn the_bundle_is_published_and_restored() {
        let publisher = RootCaPublisher { bundle: "PEM".to_owned() };
        let mut life =
            Life::new("ns/shop\nns/old\ncm/old/kube-root-ca.crt .data={\"ca.crt\":\"OLD\"}");
        life.settle(&publisher);
        for key in ["cm/shop/kube-root-ca.crt", "cm/old/kube-root-ca.crt"] {
            assert_eq!(life.world.body(&key_of(key)).unwrap()["data"]["ca.crt"], "PEM");
        }
    }
}
