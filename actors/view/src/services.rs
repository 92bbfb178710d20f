//! Service and what tells where its Pods are: EndpointSlice and Endpoints.

use std::sync::Arc;

use serde_json::Value;

use crate::json;
use crate::meta::{Labels, Meta};
use crate::selector::Selector;
use crate::table::Projected;

/// A port by number, or by the name that a container gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    Number(i64),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub port: i64,
    pub target: TargetPort,
    pub protocol: String,
    pub app_protocol: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub meta: Arc<Meta>,
    /// `None`: endpoints are somebody else's business.
    pub selector: Option<Selector>,
    pub kind: String,
    pub cluster_ip: String,
    pub ip_families: Vec<String>,
    pub ports: Vec<ServicePort>,
    pub publishes_not_ready: bool,
}

impl Service {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        let selector: Labels = json::text_map(body, "/spec/selector");
        let is_headless = json::text(body, "/spec/clusterIP") == "None";
        Self {
            meta,
            selector: (!selector.is_empty()).then(|| Selector::from_map(selector)),
            kind: json::opt_text(body, "/spec/type").unwrap_or("ClusterIP").to_owned(),
            cluster_ip: if is_headless { "None" } else { json::text(body, "/spec/clusterIP") }
                .to_owned(),
            ip_families: json::texts(body, "/spec/ipFamilies"),
            ports: json::list(body, "/spec/ports").iter().map(service_port).collect(),
            publishes_not_ready: json::is_true(body, "/spec/publishNotReadyAddresses"),
        }
    }

    pub fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }
}

fn service_port(entry: &Value) -> ServicePort {
    let port = json::int(entry, "/port").unwrap_or(0);
    let target = match entry.get("targetPort") {
        Some(Value::Number(number)) => TargetPort::Number(number.as_i64().unwrap_or(port)),
        Some(Value::String(name)) if !name.is_empty() => TargetPort::Name(name.clone()),
        _ => TargetPort::Number(port),
    };
    // `targetPort: 0` is how an absent one is stored by some clients.
    let target = if target == TargetPort::Number(0) { TargetPort::Number(port) } else { target };
    ServicePort {
        name: json::text(entry, "/name").to_owned(),
        port,
        target,
        protocol: json::opt_text(entry, "/protocol").unwrap_or("TCP").to_owned(),
        app_protocol: json::opt_text(entry, "/appProtocol").map(str::to_owned),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    pub meta: Arc<Meta>,
    pub address_type: String,
    /// As they stand, to be compared with what they should be.
    pub endpoints: Vec<Value>,
    pub ports: Value,
}

impl EndpointSlice {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        Self {
            meta,
            address_type: json::text(body, "/addressType").to_owned(),
            endpoints: json::list(body, "/endpoints").to_vec(),
            ports: body.get("ports").cloned().unwrap_or_default(),
        }
    }

    /// The Service that it belongs to.
    pub fn service(&self) -> Option<&str> {
        self.meta.labels.get("kubernetes.io/service-name").map(String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub meta: Arc<Meta>,
    /// As they stand, to be compared with what they should be.
    pub subsets: Value,
}

impl Endpoints {
    pub fn parse(meta: Arc<Meta>, body: &Value) -> Self {
        Self { meta, subsets: body.get("subsets").cloned().unwrap_or_default() }
    }
}

macro_rules! projected {
    ($($kind:ty),*) => {$(
        impl Projected for $kind {
            fn meta(&self) -> &Arc<Meta> {
                &self.meta
            }
        }
    )*};
}

projected!(Service, EndpointSlice, Endpoints);
