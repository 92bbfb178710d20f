//! What a pod spec becomes when fields are left out. Templates get `spec`, pods get `pod` on top.

use serde_json::{Map, Value, json};

use crate::quantity;
use crate::tree;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const VOLUME_MODE: i64 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

pub(super) fn pod(pod: &mut Value) {
    let Some(spec_value) = tree::find_mut(pod, "spec") else {
        return;
    };
    spec(spec_value);
    for list in ["containers", "initContainers"] {
        for container in tree::each_mut(spec_value, list) {
            requests_from_limits(container);
        }
    }
    if tree::at(spec_value, "enableServiceLinks").is_null() {
        tree::put(spec_value, "enableServiceLinks", true);
    }
}

/// The defaults of every pod spec, in pods and in templates.
pub fn spec(spec: &mut Value) {
    tree::fill(spec, "dnsPolicy", "ClusterFirst");
    tree::fill(spec, "restartPolicy", "Always");
    tree::fill(spec, "schedulerName", "default-scheduler");
    tree::fill(spec, "terminationGracePeriodSeconds", 30);
    tree::fill(spec, "securityContext", json!({}));
    service_account_alias(spec);
    for list in CONTAINER_LISTS {
        for it in tree::each_mut(spec, list) {
            container(it);
        }
    }
    for it in tree::each_mut(spec, "volumes") {
        volume(it);
    }
    for list in ["overhead", "resources.requests", "resources.limits"] {
        if let Some(list) = tree::find_mut(spec, list) {
            canonicalize_quantities(list);
        }
    }
    if tree::is_true(spec, "hostNetwork") {
        for list in ["containers", "initContainers"] {
            for container in tree::each_mut(spec, list) {
                host_ports(container);
            }
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are kept equal.
fn service_account_alias(spec: &mut Value) {
    let name = match tree::text(spec, "serviceAccountName") {
        "" => tree::text(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = name.to_owned();
        tree::put(spec, "serviceAccountName", name.as_str());
        tree::put(spec, "serviceAccount", name);
    }
}

fn container(container: &mut Value) {
    let image = tree::text(container, "image");
    let policy = match tag_is_latest(image) {
        true => "Always",
        false => "IfNotPresent",
    };
    tree::fill(container, "imagePullPolicy", policy);
    tree::fill(container, "terminationMessagePath", "/dev/termination-log");
    tree::fill(container, "terminationMessagePolicy", "File");
    tree::fill(container, "resources", json!({}));
    for port in tree::each_mut(container, "ports") {
        tree::fill(port, "protocol", "TCP");
    }
    for list in ["resources.requests", "resources.limits"] {
        if let Some(list) = tree::find_mut(container, list) {
            canonicalize_quantities(list);
        }
    }
    for it in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(it) = tree::find_mut(container, it) {
            probe(it);
        }
    }
    for it in ["lifecycle.postStart.httpGet", "lifecycle.preStop.httpGet"] {
        if let Some(it) = tree::find_mut(container, it) {
            http_get(it);
        }
    }
    for variable in tree::each_mut(container, "env") {
        if let Some(it) = tree::find_mut(variable, "valueFrom.fieldRef") {
            tree::fill(it, "apiVersion", "v1");
        }
        if let Some(it) = tree::find_mut(variable, "valueFrom.resourceFieldRef") {
            resource_field(it);
        }
    }
}

fn host_ports(container: &mut Value) {
    for port in tree::each_mut(container, "ports") {
        if tree::integer(port, "hostPort").unwrap_or(0) == 0 {
            let number = tree::at(port, "containerPort").clone();
            tree::put(port, "hostPort", number);
        }
    }
}

fn probe(probe: &mut Value) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if tree::integer(probe, field).unwrap_or(0) == 0 {
            tree::put(probe, field, value);
        }
    }
    if let Some(it) = tree::find_mut(probe, "httpGet") {
        http_get(it);
    }
    if let Some(it) = tree::find_mut(probe, "grpc")
        && tree::at(it, "service").is_null()
    {
        tree::put(it, "service", "");
    }
}

fn http_get(action: &mut Value) {
    tree::fill(action, "path", "/");
    tree::fill(action, "scheme", "HTTP");
}

fn resource_field(field: &mut Value) {
    let divisor = tree::at(field, "divisor");
    if divisor.is_null() {
        tree::put(field, "divisor", "0");
    } else if let Ok(it) = quantity::of_json(divisor) {
        tree::put(field, "divisor", it.to_string());
    }
}

fn volume(volume: &mut Value) {
    let has_source = tree::entries(volume, "").any(|(key, _)| key != "name");
    if !has_source {
        tree::put(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(it) = tree::find_mut(volume, source)
            && tree::at(it, "defaultMode").is_null()
        {
            tree::put(it, "defaultMode", VOLUME_MODE);
        }
    }
    if let Some(it) = tree::find_mut(volume, "hostPath")
        && tree::at(it, "type").is_null()
    {
        tree::put(it, "type", "");
    }
    if let Some(it) = tree::find_mut(volume, "emptyDir.sizeLimit") {
        canonicalize(it);
    }
    if let Some(it) = tree::find_mut(volume, "downwardAPI") {
        downward_items(it);
    }
    for source in tree::each_mut(volume, "projected.sources") {
        if let Some(it) = tree::find_mut(source, "serviceAccountToken") {
            tree::fill(it, "expirationSeconds", TOKEN_SECONDS);
        }
        if let Some(it) = tree::find_mut(source, "downwardAPI") {
            downward_items(it);
        }
    }
    if let Some(it) = tree::find_mut(volume, "image") {
        let policy = match tag_is_latest(tree::text(it, "reference")) {
            true => "Always",
            false => "IfNotPresent",
        };
        tree::fill(it, "pullPolicy", policy);
    }
}

fn downward_items(source: &mut Value) {
    for item in tree::each_mut(source, "items") {
        if let Some(it) = tree::find_mut(item, "fieldRef") {
            tree::fill(it, "apiVersion", "v1");
        }
        if let Some(it) = tree::find_mut(item, "resourceFieldRef") {
            resource_field(it);
        }
    }
}

/// A limit without a request requests as much. Pods only: templates stay as written.
fn requests_from_limits(container: &mut Value) {
    let limits: Map<String, Value> = match tree::at(container, "resources.limits") {
        Value::Object(it) => it.clone(),
        _ => return,
    };
    let requests = tree::object(tree::place(container, "resources.requests"));
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
    if requests.is_empty() {
        tree::remove(container, "resources.requests");
    }
}

/// Writes each quantity of a resource list as upstream prints it, rounded up to thousandths; leaves bad ones to
/// validation.
pub(crate) fn canonicalize_quantities(list: &mut Value) {
    if let Some(map) = list.as_object_mut() {
        map.values_mut().for_each(|it| {
            if let Ok(quantity) = quantity::of_json(it) {
                *it = json!(quantity.rounded_to_milli().to_string());
            }
        });
    }
}

fn canonicalize(value: &mut Value) {
    if let Ok(quantity) = quantity::of_json(value) {
        *value = json!(quantity.to_string());
    }
}

/// No tag means `latest`; a digest means none.
fn tag_is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}
