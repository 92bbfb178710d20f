//! Pods outlive kactor, however it ends; and nothing outlives `down --purge`.

use std::net::TcpStream;
use std::path::Path;

use kactor_tests::harness::kubectl::{Kubectl, newest};
use kactor_tests::harness::{Cluster, traces, wait_until};
use nix::sys::signal::Signal;

use super::services::{WEB, get, names_until_three, pod_names};
use super::{cluster, pod, reaches, ready};

const KILLS: u32 = 50;
/// Kills at which a container has ended meanwhile.
const ENDS: [u32; 4] = [5, 16, 27, 38];

/// What must be the same before and after: containers' start times, restarts, and since when they are ready.
fn lives(kubectl: &Kubectl) -> String {
    let fields = "{.metadata.name} {.status.containerStatuses[0].state.running.startedAt} \
                  {.status.containerStatuses[0].restartCount} {.status.podIP} \
                  {.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}";
    kubectl.ok(&[
        "get",
        "pods",
        "-l",
        "app in (web,steady)",
        "-o",
        &format!("jsonpath={{range .items[*]}}{fields}{{'\\n'}}{{end}}"),
    ])
}

/// Numbered lines without a gap; answers the last number.
#[track_caller]
fn counted(log: &str) -> usize {
    for (index, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {}", index + 1), "the log has a gap");
    }
    log.lines().count()
}

fn everything_that_serves(cluster: &Cluster) -> Option<Kubectl> {
    let kubectl = newest(cluster)?;
    kubectl.give(WEB);
    kubectl.give(&pod(
        "steady",
        "n=0; while true; do n=$((n + 1)); echo line $n; sleep 0.1; done",
        "",
        "",
    ));
    ready(&kubectl, "steady");
    kubectl.ok(&["rollout", "status", "deployment/web", "--timeout=100s"]);
    Some(kubectl)
}

/// Nothing was started again, everything goes on and can be reached.
#[track_caller]
fn assert_goes_on(kubectl: &Kubectl, before: &str) {
    assert_eq!(lives(kubectl), before);
    let one = pod_names(kubectl).pop_first().unwrap();
    for name in ["steady", &one] {
        let then = counted(&kubectl.ok(&["logs", name]));
        kubectl.until(&["logs", name], |it| counted(it) > then);
    }
    assert_eq!(kubectl.ok(&["exec", "steady", "--", "hostname"]), "steady\n");
    let address = format!("{}:80", kubectl.field("service/web", ".spec.clusterIP"));
    assert_eq!(names_until_three(|| get(&address)), pod_names(kubectl));
}

#[test]
fn pods_outlive_fifty_kills_and_a_purge_leaves_nothing() {
    let Some(mut cluster) = cluster() else { return };
    let Some(kubectl) = everything_that_serves(&cluster) else { return };
    let told = cluster.folder().join("told");
    std::fs::create_dir(&told).unwrap();
    enders(&kubectl, &told);
    let before = lives(&kubectl);
    for round in 1..=KILLS {
        cluster.kill();
        if ENDS.contains(&round) {
            std::fs::write(told.join(format!("end-{round}")), "").unwrap();
            wait_until("the container ends while nobody looks", || {
                told.join(format!("ended-{round}")).exists().then_some(()).ok_or_else(String::new)
            });
        }
        cluster.spawn();
        // Killed as soon as it begins, as soon as it listens, or once it serves.
        match round % 3 {
            0 => cluster.wait_ready(),
            1 => wait_until("the API listens", || {
                TcpStream::connect(("127.0.0.1", cluster.port()))
                    .map(drop)
                    .map_err(|it| it.to_string())
            }),
            _ => {}
        }
    }
    cluster.kill();
    cluster.restart();
    for round in ENDS {
        let name = format!("end-{round}");
        reaches(&kubectl, &name, ".status.phase", |it| it == "Failed");
        let ended = ".status.containerStatuses[0].state.terminated.exitCode";
        assert_eq!(kubectl.field(&format!("pod/{name}"), ended), round.to_string());
        assert_eq!(kubectl.ok(&["logs", &name]), "ends\n");
    }
    reaches(&kubectl, "again", ".status.containerStatuses[0].restartCount", |it| it == "1");
    let last = ".status.containerStatuses[0].lastState.terminated.exitCode";
    assert_eq!(kubectl.field("pod/again", last), "9");
    assert_goes_on(&kubectl, &before);

    let kinds = |found: &[String]| -> std::collections::BTreeSet<String> {
        found.iter().filter_map(|it| it.split([' ', ':']).next()).map(str::to_owned).collect()
    };
    let expected = ["link", "nftables", "mount", "cgroup", "process", "folder"];
    let found = kinds(&traces::of(&cluster.data_dir()));
    assert_eq!(found, expected.map(str::to_owned).into(), "the test looks where they are");
    // Web three times, steady, again: no kill left a shim of a pod that is over.
    wait_until("one shim for each pod that runs", || {
        let shims =
            traces::of(&cluster.data_dir()).into_iter().filter(|it| it.contains(" shim --pod "));
        let shims: Vec<String> = shims.collect();
        if shims.len() == 5 { Ok(()) } else { Err(shims.join("\n")) }
    });
    cluster.end(Signal::SIGTERM);
    let purged = cluster.kactor(&["down", "--purge"]);
    assert!(purged.is_ok(), "{}", purged.both());
    assert_eq!(traces::of(&cluster.data_dir()), Vec::<String>::new());
}

/// Containers that end when a file appears: each with a code of its own, and one that is started again.
fn enders(kubectl: &Kubectl, told: &Path) {
    let mount = "volumeMounts: [{name: v, mountPath: /v}]";
    let volume = format!("volumes: [{{name: v, hostPath: {{path: '{}'}}}}]", told.display());
    let wait = |file: &str| format!("until test -e /v/{file}; do sleep 0.05; done");
    for round in ENDS {
        let script = format!(
            "{}; echo ends; touch /v/ended-{round}; exit {round}",
            wait(&format!("end-{round}"))
        );
        kubectl.give(&pod(
            &format!("end-{round}"),
            &script,
            mount,
            &format!("restartPolicy: Never, {volume}"),
        ));
    }
    let first = ENDS[0];
    let script = format!(
        "test -e /v/once && exec sleep 100000; {}; touch /v/once; exit 9",
        wait(&format!("end-{first}"))
    );
    kubectl.give(&pod("again", &script, mount, &volume));
    for round in ENDS {
        ready(kubectl, &format!("end-{round}"));
    }
    ready(kubectl, "again");
}

#[test]
fn an_interrupt_and_down_leave_the_pods_for_the_next_start() {
    let Some(mut cluster) = cluster() else { return };
    let Some(kubectl) = everything_that_serves(&cluster) else { return };
    let before = lives(&kubectl);
    assert!(cluster.end(Signal::SIGINT).success());
    cluster.restart();
    assert_goes_on(&kubectl, &before);
    let down = cluster.kactor(&["down"]);
    assert!(down.is_ok(), "{}", down.both());
    assert!(cluster.wait_end().success());
    let address = format!("{}:80", pod_address(&before));
    assert!(get(&address).is_some(), "a pod answers while kactor is down");
    cluster.restart();
    assert_goes_on(&kubectl, &before);
}

/// A pod's own address, out of `lives`.
fn pod_address(lives: &str) -> &str {
    let web = lives.lines().find(|it| it.starts_with("web-")).unwrap();
    web.split(' ').nth(3).unwrap()
}
