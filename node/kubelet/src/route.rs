//! What a path of the kubelet's API names, and which right it needs. Pure.
//!
//! Rights are verbs on subresources of this node, as kubernetes pkg/kubelet/server/auth.go maps them, with the fine
//! ones of KubeletFineGrainedAuthz: any of several suffices. Stricter than upstream in one thing: whatever runs or
//! connects to something inside a container needs `create`, also by GET, as WebSockets ask.

use http::Method;
use kactor_streams::query::{Plus, decode};

/// Deeper paths name nothing.
const SEGMENTS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Healthz,
    Pods,
    RunningPods,
    /// The kubelet's own.
    Metrics,
    Cadvisor,
    Resource,
    Probes,
    Summary,
    Configz,
    Logs(Place),
    Exec(Place),
    Attach(Place),
    PortForward(Place),
    Unknown,
}

/// A pod, and for all but port-forwards a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    pub namespace: String,
    pub pod: String,
    /// Empty when the path names none.
    pub uid: String,
    pub container: String,
}

pub fn route(path: &str) -> Endpoint {
    let segments: Vec<String> =
        path.split('/').filter(|it| !it.is_empty()).map(|it| decode(it, Plus::Plus)).collect();
    // Names become parts of files' paths on the way to a log: none may lead elsewhere.
    let leads_away = |it: &String| it.contains(['/', '\0']) || it == "." || it == "..";
    if segments.len() > SEGMENTS_MAX || segments.iter().any(leads_away) {
        return Endpoint::Unknown;
    }
    let names: Vec<&str> = segments.iter().map(String::as_str).collect();
    match names.as_slice() {
        ["healthz"] | ["healthz", "ping" | "log" | "syncloop"] => Endpoint::Healthz,
        ["pods"] => Endpoint::Pods,
        ["runningpods"] => Endpoint::RunningPods,
        ["metrics"] => Endpoint::Metrics,
        ["metrics", "cadvisor"] => Endpoint::Cadvisor,
        ["metrics", "resource"] => Endpoint::Resource,
        ["metrics", "probes"] => Endpoint::Probes,
        ["stats", "summary"] => Endpoint::Summary,
        ["configz"] => Endpoint::Configz,
        ["containerLogs", namespace, pod, container] => {
            Endpoint::Logs(place(namespace, pod, "", container))
        }
        ["exec", rest @ ..] => in_container(rest).map_or(Endpoint::Unknown, Endpoint::Exec),
        ["attach", rest @ ..] => in_container(rest).map_or(Endpoint::Unknown, Endpoint::Attach),
        ["portForward", namespace, pod] => Endpoint::PortForward(place(namespace, pod, "", "")),
        ["portForward", namespace, pod, uid] => {
            Endpoint::PortForward(place(namespace, pod, uid, ""))
        }
        _ => Endpoint::Unknown,
    }
}

fn place(namespace: &str, pod: &str, uid: &str, container: &str) -> Place {
    Place {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.to_owned(),
        container: container.to_owned(),
    }
}

fn in_container(rest: &[&str]) -> Option<Place> {
    match rest {
        [namespace, pod, container] => Some(place(namespace, pod, "", container)),
        [namespace, pod, uid, container] => Some(place(namespace, pod, uid, container)),
        _ => None,
    }
}

impl Endpoint {
    /// Under which name requests are counted: as many names as there are endpoints, whatever is asked.
    pub fn name(&self) -> &'static str {
        match self {
            Endpoint::Healthz => "healthz",
            Endpoint::Pods => "pods",
            Endpoint::RunningPods => "runningpods",
            Endpoint::Metrics => "metrics",
            Endpoint::Cadvisor => "metrics/cadvisor",
            Endpoint::Resource => "metrics/resource",
            Endpoint::Probes => "metrics/probes",
            Endpoint::Summary => "stats",
            Endpoint::Configz => "configz",
            Endpoint::Logs(_) => "containerLogs",
            Endpoint::Exec(_) => "exec",
            Endpoint::Attach(_) => "attach",
            Endpoint::PortForward(_) => "portForward",
            Endpoint::Unknown => "other",
        }
    }

    pub fn is_long_running(&self) -> bool {
        self.enters_container() || matches!(self, Endpoint::Logs(_))
    }

    fn enters_container(&self) -> bool {
        matches!(self, Endpoint::Exec(_) | Endpoint::Attach(_) | Endpoint::PortForward(_))
    }
}

/// May somebody do `verb` on one of these subresources of the node?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub verb: &'static str,
    /// Any of them suffices, tried in this order.
    pub subresources: &'static [&'static str],
}

/// The right that a request needs. The path decides, also where nothing is served.
pub fn right(method: &Method, path: &str) -> Right {
    let verb = match method.as_str() {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    };
    let verb = if route(path).enters_container() { "create" } else { verb };
    let first = path.split('/').find(|it| !it.is_empty()).unwrap_or_default();
    let subresources: &'static [&'static str] = match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        "pods" | "runningpods" => &["pods", "proxy"],
        _ => &["proxy"],
    };
    Right { verb, subresources }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_a_kubelet_serves() {
        for (path, expected) in [
            ("/healthz", Endpoint::Healthz),
            ("/pods", Endpoint::Pods),
            ("/runningpods/", Endpoint::RunningPods),
            ("/metrics", Endpoint::Metrics),
            ("/metrics/resource", Endpoint::Resource),
            ("/metrics/none", Endpoint::Unknown),
            ("/stats/summary", Endpoint::Summary),
            ("/containerLogs/a/b/c", Endpoint::Logs(place("a", "b", "", "c"))),
            ("/exec/a/b/c", Endpoint::Exec(place("a", "b", "", "c"))),
            ("/attach/a/b/u/c", Endpoint::Attach(place("a", "b", "u", "c"))),
            ("/portForward/a/b", Endpoint::PortForward(place("a", "b", "", ""))),
            ("/portForward/a", Endpoint::Unknown),
            ("/containerLogs/a/b/..", Endpoint::Unknown),
            ("/containerLogs/a/..%2f..%2fetc/c", Endpoint::Unknown),
            ("/exec/a/b%00/c", Endpoint::Unknown),
            ("/", Endpoint::Unknown),
            ("/a/b/c/d/e/f/g/h/i", Endpoint::Unknown),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn each_path_needs_its_own_right() {
        let get = Method::GET;
        for (method, path, verb, subresources) in [
            (&get, "/metrics/resource", "get", &["metrics"][..]),
            (&get, "/stats/summary", "get", &["stats"]),
            (&get, "//stats//summary", "get", &["stats"]),
            (&get, "/logs/x", "get", &["log"]),
            (&get, "/healthz/ping", "get", &["healthz", "proxy"]),
            (&get, "/pods", "get", &["pods", "proxy"]),
            (&get, "/configz", "get", &["configz", "proxy"]),
            (&get, "/metricsx", "get", &["proxy"]),
            (&get, "/containerLogs/a/b/c", "get", &["proxy"]),
            (&get, "/exec/a/b/c", "create", &["proxy"]),
            (&Method::POST, "/exec/a/b/c", "create", &["proxy"]),
            (&Method::OPTIONS, "/x", "", &["proxy"]),
        ] {
            assert_eq!(right(method, path), Right { verb, subresources }, "{method} {path}");
        }
    }
}
