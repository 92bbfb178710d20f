//! `/configz`: how this kubelet is set up, in the words of `KubeletConfiguration` v1beta1.
//!
//! Only what kactor has a value for; tools that compare nodes read it.

use std::net::SocketAddr;

use serde_json::{Value, json};

pub fn configz(listen: SocketAddr, domain: &str, dns: Option<&str>) -> Value {
    json!({
        "kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": listen.ip().to_string(),
            "port": listen.port(),
            "authentication": {
                "anonymous": { "enabled": false },
                "webhook": { "enabled": true, "cacheTTL": "2m0s" },
                "x509": {},
            },
            "authorization": {
                "mode": "Webhook",
                "webhook": { "cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s" },
            },
            "clusterDomain": domain,
            "clusterDNS": dns.into_iter().collect::<Vec<_>>(),
            "maxPods": kactor_agent::node_object::PODS_MAX,
            "enableServer": true,
            "nodeStatusReportFrequency": "5m0s",
            "nodeLeaseDurationSeconds": 40,
        },
    })
}
