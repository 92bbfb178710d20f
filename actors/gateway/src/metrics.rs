//! `/metrics`: what the gateway counted, in Prometheus' text form, under the names that upstream's dashboards read.
//!
//! Labels come from the kinds registry and from fixed words, never from a request's text, so the number of series
//! is bounded by the kinds that are served. Figures of the process are read from `/proc/self` when they are asked for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds in seconds, as upstream's `apiserver_request_duration_seconds`, thinned.
const BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// What a request was, for counting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// `GET`, `LIST`, `WATCH`, `POST`, `APPLY`, `CONNECT`, …
    pub verb: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
    /// `resource`, `namespace`, `cluster` or empty.
    pub scope: &'static str,
}

impl Labels {
    /// A request that names no resource that is served.
    pub fn other(verb: &'static str) -> Self {
        Self { verb, group: "", version: "", resource: "", subresource: "", scope: "" }
    }

    fn text(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope } = self;
        format!(
            "component=\"apiserver\",dry_run=\"\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

#[derive(Debug, Default)]
struct Series {
    by_code: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    count: u64,
}

#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Labels, Series>>,
    long_running: Mutex<BTreeMap<Labels, i64>>,
}

impl Metrics {
    /// One request was answered. `took` is not kept of streams, which take as long as they are wanted.
    pub fn answered(&self, labels: &Labels, code: u16, took: Option<Duration>) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let series = requests.entry(labels.clone()).or_default();
        *series.by_code.entry(code).or_default() += 1;
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            series.seconds += seconds;
            series.count += 1;
            for (bound, bucket) in BUCKETS.iter().zip(&mut series.buckets) {
                *bucket += u64::from(seconds <= *bound);
            }
        }
    }

    pub fn stream_began(&self, labels: &Labels) {
        self.add_stream(labels, 1);
    }

    pub fn stream_ended(&self, labels: &Labels) {
        self.add_stream(labels, -1);
    }

    fn add_stream(&self, labels: &Labels, delta: i64) {
        let mut streams = self.long_running.lock().unwrap_or_else(PoisonError::into_inner);
        *streams.entry(labels.clone()).or_default() += delta;
    }

    /// The text form; `in_flight` is (reads, writes).
    pub fn render(&self, in_flight: (usize, usize), connections: usize) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.render_requests(&mut out);
        let streams = self.long_running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !streams.is_empty() {
            header(&mut out, "apiserver_longrunning_requests", "gauge", "Streams that are open.");
        }
        for (labels, n) in &streams {
            let _ = writeln!(out, "apiserver_longrunning_requests{{{}}} {n}", labels.text());
        }
        header(&mut out, "apiserver_current_inflight_requests", "gauge", "Requests in work.");
        for (kind, n) in [("readOnly", in_flight.0), ("mutating", in_flight.1)] {
            let _ =
                writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {n}");
        }
        header(&mut out, "kactor_gateway_connections", "gauge", "TLS connections that are open.");
        let _ = writeln!(out, "kactor_gateway_connections {connections}");
        render_process(&mut out);
        out
    }

    fn render_requests(&self, out: &mut String) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.is_empty() {
            return; // Strict scrapers take no family without rows.
        }
        header(out, "apiserver_request_total", "counter", "Requests by verb, resource and code.");
        for (labels, series) in &*requests {
            for (code, n) in &series.by_code {
                let labels = labels.text();
                let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{labels}}} {n}");
            }
        }
        let name = "apiserver_request_duration_seconds";
        if requests.values().any(|it| it.count > 0) {
            header(out, name, "histogram", "Time to answer, without streams.");
        }
        for (labels, series) in requests.iter().filter(|(_, it)| it.count > 0) {
            let labels = labels.text();
            for (bound, n) in BUCKETS.iter().zip(series.buckets) {
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {n}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", series.seconds);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", series.count);
        }
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Kernel ticks per second in `/proc/self/stat`: 100 on every architecture that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

fn render_process(out: &mut String) {
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            header(out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name, in parentheses, may hold spaces; numbers follow it.
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|it| it.parse().unwrap_or(0))
        .collect();
    let field = |at: usize| fields.get(at).copied();
    let cpu =
        field(11).zip(field(12)).map(|(user, system)| (user + system) as f64 / TICKS_PER_SECOND);
    gauge("process_cpu_seconds_total", "counter", "CPU time of this process.", cpu);
    gauge("process_virtual_memory_bytes", "gauge", "Address space.", field(20).map(|it| it as f64));
    let resident = field(21).map(|it| (it * PAGE_BYTES) as f64);
    gauge("process_resident_memory_bytes", "gauge", "Resident memory.", resident);
    let open = std::fs::read_dir("/proc/self/fd").map(|it| it.count() as f64).ok();
    gauge("process_open_fds", "gauge", "Open file descriptors.", open);
    let booted = std::fs::read_to_string("/proc/stat").ok().and_then(|it| {
        it.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())
    });
    let started =
        booted.zip(field(19)).map(|(booted, ticks)| booted + ticks as f64 / TICKS_PER_SECOND);
    gauge("process_start_time_seconds", "gauge", "Start, in seconds since the epoch.", started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_code_and_their_times_fall_into_every_bucket_above() {
        let metrics = Metrics::default();
        let labels = Labels {
            verb: "LIST",
            version: "v1",
            resource: "pods",
            scope: "namespace",
            ..Labels::other("")
        };
        metrics.answered(&labels, 200, Some(Duration::from_millis(7)));
        metrics.answered(&labels, 200, Some(Duration::from_secs(90)));
        metrics.answered(&labels, 404, None);
        let text = metrics.render((3, 0), 2);
        let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line}\nnot in\n{text}");
        let common = r#"component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1""#;
        has(&format!("apiserver_request_total{{code=\"200\",{common}}} 2"));
        has(&format!("apiserver_request_total{{code=\"404\",{common}}} 1"));
        has(&format!("apiserver_request_duration_seconds_bucket{{{common},le=\"0.005\"}} 0"));
        has(&format!("apiserver_request_duration_seconds_bucket{{{common},le=\"0.01\"}} 1"));
        has(&format!("apiserver_request_duration_seconds_bucket{{{common},le=\"+Inf\"}} 2"));
        has("apiserver_current_inflight_requests{request_kind=\"readOnly\"} 3");
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
