//! Counts what the kubelet's API was asked, and shows it with the rest of the kubelet's own numbers at `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kactor_drivers::status::{ContainerState, SandboxState, SandboxStatus};

use crate::exposition::{Kind, Page};
use crate::machine::Own;
use crate::route::Endpoint;

/// (method, endpoint, long running, code)
type Row = (&'static str, &'static str, bool, u16);

/// Counters by words that are known beforehand, so their number is bounded.
#[derive(Default)]
pub struct Requests {
    answered: Mutex<BTreeMap<Row, u64>>,
}

impl Requests {
    pub fn answered(&self, method: &str, endpoint: &Endpoint, code: u16) {
        let method = match method {
            "GET" => "GET",
            "POST" => "POST",
            "HEAD" => "HEAD",
            _ => "other",
        };
        let key = (method, endpoint.name(), endpoint.is_long_running(), code);
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        *answered.entry(key).or_default() += 1;
    }

    /// The kubelet's own page.
    pub fn page(
        &self,
        node: &str,
        version: &str,
        own: &Own,
        sandboxes: &[SandboxStatus],
    ) -> String {
        let mut page = Page::default();
        let help = "Number of http requests answered, by code. The count is of answers begun.";
        let mut family = page.family("kubelet_http_requests_total", Kind::Counter, help);
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, path, long_running, code), n) in answered.iter() {
            let (long_running, code) = (long_running.to_string(), code.to_string());
            let labels = [
                ("code", code.as_str()),
                ("long_running", &long_running),
                ("method", method),
                ("path", path),
                ("server_type", "readwrite"),
            ];
            family.row(&labels, *n as f64, None);
        }
        drop(answered);
        let help = "The node's name. The count is always 1.";
        page.family("kubelet_node_name", Kind::Gauge, help).row(&[("node", node)], 1.0, None);
        containers(&mut page, sandboxes);
        let labels = [("git_version", version), ("platform", std::env::consts::OS)];
        let help = "A metric with a constant '1' value labeled by git version and platform.";
        page.family("kubernetes_build_info", Kind::Gauge, help).row(&labels, 1.0, None);
        process(&mut page, own);
        page.into_text()
    }
}

fn containers(page: &mut Page, sandboxes: &[SandboxStatus]) {
    let mut by_state = BTreeMap::from([("created", 0_u32), ("exited", 0), ("running", 0)]);
    for it in sandboxes.iter().flat_map(|it| &it.containers) {
        let state = match it.state {
            ContainerState::Created => "created",
            ContainerState::Running { .. } => "running",
            ContainerState::Exited { .. } => "exited",
        };
        *by_state.entry(state).or_default() += 1;
    }
    let help = "Number of containers currently running";
    let mut family = page.family("kubelet_running_containers", Kind::Gauge, help);
    for (state, n) in by_state {
        family.row(&[("container_state", state)], f64::from(n), None);
    }
    let ready = sandboxes.iter().filter(|it| it.state == SandboxState::Ready).count();
    let help = "Number of pods that have a running pod sandbox";
    page.single("kubelet_running_pods", Kind::Gauge, help, ready as f64);
}

fn process(page: &mut Page, own: &Own) {
    let help = "Total user and system CPU time spent in seconds.";
    page.single("process_cpu_seconds_total", Kind::Counter, help, own.cpu_ns as f64 / 1e9);
    let help = "Number of open file descriptors.";
    page.single("process_open_fds", Kind::Gauge, help, own.open_files as f64);
    let help = "Resident memory size in bytes.";
    page.single("process_resident_memory_bytes", Kind::Gauge, help, own.resident_bytes as f64);
    let help = "Number of OS threads of this process.";
    page.single("process_threads", Kind::Gauge, help, own.threads as f64);
    let help = "Virtual memory size in bytes.";
    page.single("process_virtual_memory_bytes", Kind::Gauge, help, own.virtual_bytes as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::route;

    #[test]
    fn requests_are_counted_under_known_words() {
        let requests = Requests::default();
        requests.answered("GET", &route("/metrics"), 200);
        requests.answered("GET", &route("/metrics"), 200);
        requests.answered("BREW", &route("/exec/a/b/c"), 405);
        requests.answered("GET", &route("/made/up"), 404);
        let page = requests.page("n1", "v1.36.0", &Own::default(), &[]);
        for row in [
            r#"kubelet_http_requests_total{code="200",long_running="false",method="GET",path="metrics",server_type="readwrite"} 2"#,
            r#"kubelet_http_requests_total{code="405",long_running="true",method="other",path="exec",server_type="readwrite"} 1"#,
            r#"kubelet_http_requests_total{code="404",long_running="false",method="GET",path="other",server_type="readwrite"} 1"#,
            r#"kubelet_node_name{node="n1"} 1"#,
            "kubelet_running_pods 0",
        ] {
            assert!(page.lines().any(|it| it == row), "{row}\nis not in\n{page}");
        }
    }
}
