//! Tables over `next`: each names the behaviour that it guards.

use super::*;

fn pod(spec: &str, metadata: &str) -> Pod {
    let json = format!(
        r#"{{"metadata":{{"name":"web","namespace":"default","uid":"u"{metadata}}},"spec":{{{spec}}}}}"#
    );
    crate::spec::parse(json.as_bytes()).unwrap()
}

fn now() -> Timestamp {
    Timestamp(1_000_000)
}

fn ready() -> Observed {
    Observed {
        volumes: Progress::Ready,
        sandbox: Sandbox::Ready { id: "s".to_owned(), addresses: vec![] },
        ..Observed::default()
    }
}

fn ended(code: i32, finished: u64) -> Run {
    Run::Ended(Ended {
        id: "c".to_owned(),
        exit_code: code,
        signal: None,
        reason: String::new(),
        message: String::new(),
        started: Timestamp(1),
        finished: Timestamp(finished),
    })
}

fn running() -> Run {
    Run::Running { id: "c".to_owned(), started: Timestamp(1) }
}

fn seen(runs: &[(&str, Run)]) -> Observed {
    let mut seen = ready();
    for (name, run) in runs {
        let it = ContainerSeen { image: Progress::Ready, run: run.clone(), ..Default::default() };
        seen.containers.insert((*name).to_owned(), it);
    }
    seen
}

fn text(next: &Next) -> String {
    let mut parts: Vec<String> = next
        .actions
        .iter()
        .map(|it| match it {
            Action::EnsureImage { container } => format!("image {container}"),
            Action::Start { container, attempt } => format!("start {container}#{attempt}"),
            Action::Stop { container, grace, .. } => {
                format!("stop {container} {}s", grace.as_secs())
            }
            other => format!("{other:?}"),
        })
        .collect();
    if let Some(at) = next.look_again {
        parts.push(format!("again +{}ms", at.0 as i64 - now().0 as i64));
    }
    parts.join(", ")
}

#[track_caller]
fn check(pod: &Pod, seen: &Observed, expected: &str) {
    assert_eq!(text(&next(pod, seen, now())), expected);
}

const ONE: &str = r#""containers":[{"name":"a"}]"#;
const DELETED: &str =
    r#","deletionTimestamp":"1970-01-01T00:17:00Z","deletionGracePeriodSeconds":30"#;

#[test]
fn a_new_pod_is_brought_up_in_order() {
    let pod = pod(ONE, "");
    let mut seen = Observed::default();
    check(&pod, &seen, "MountVolumes");
    seen.busy.insert(Subject::Volumes);
    check(&pod, &seen, "");
    seen.busy.clear();
    seen.volumes = Progress::Ready;
    check(&pod, &seen, "CreateSandbox");
    check(&pod, &ready(), "image a");
    let mut seen = ready();
    let it = ContainerSeen { image: Progress::Ready, ..Default::default() };
    seen.containers.insert("a".to_owned(), it);
    check(&pod, &seen, "start a#0");
}

#[test]
fn failures_are_tried_again_when_their_time_has_come() {
    let pod = pod(ONE, "");
    let failed =
        |at: u64| Progress::Failed { message: String::new(), retry_at: Timestamp(at), attempts: 1 };
    let mut seen = Observed { volumes: failed(now().0 + 500), ..Observed::default() };
    check(&pod, &seen, "again +500ms");
    seen.volumes = failed(now().0);
    check(&pod, &seen, "MountVolumes");
    let mut seen = ready();
    let it = ContainerSeen { image: failed(now().0 + 7), ..Default::default() };
    seen.containers.insert("a".to_owned(), it);
    check(&pod, &seen, "again +7ms");
}

#[test]
fn init_containers_run_one_by_one_before_the_others() {
    let pod =
        pod(r#""initContainers":[{"name":"i"},{"name":"j"}],"containers":[{"name":"a"}]"#, "");
    check(&pod, &seen(&[]), "image i");
    check(&pod, &seen(&[("i", running())]), "");
    check(&pod, &seen(&[("i", ended(0, 5))]), "image j");
    check(&pod, &seen(&[("i", ended(1, 5))]), "start i#1");
    check(&pod, &seen(&[("i", ended(0, 5)), ("j", ended(0, 6))]), "image a");
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let spec =
        r#""initContainers":[{"name":"i"}],"containers":[{"name":"a"}],"restartPolicy":"Never""#;
    check(&pod(spec, ""), &seen(&[("i", ended(1, 5))]), "RemoveSandbox");
    assert_eq!(
        course(&pod(spec, ""), &seen(&[("i", ended(1, 5))])),
        Course::Done { succeeded: false }
    );
}

#[test]
fn a_sidecar_starts_before_and_ends_after_the_others() {
    let spec = r#""initContainers":[{"name":"s","restartPolicy":"Always"}],"containers":[{"name":"a"}],"restartPolicy":"Never""#;
    let pod = pod(spec, "");
    let mut up = seen(&[("s", running())]);
    check(&pod, &up, "");
    up.containers.get_mut("s").unwrap().startup_passed = true;
    check(&pod, &up, "image a");
    check(&pod, &seen(&[("s", ended(1, 5)), ("a", running())]), "start s#1");
    check(&pod, &seen(&[("s", running()), ("a", ended(0, 5))]), "stop s 30s");
    check(&pod, &seen(&[("s", ended(137, 5)), ("a", ended(0, 5))]), "RemoveSandbox");
}

#[test]
fn restart_policies_decide_who_starts_again() {
    for (policy, code, expected) in [
        ("Always", 0, "start a#1"),
        ("OnFailure", 1, "start a#1"),
        ("OnFailure", 0, "RemoveSandbox"),
        ("Never", 1, "RemoveSandbox"),
    ] {
        let pod = pod(&format!(r#"{ONE},"restartPolicy":"{policy}""#), "");
        check(&pod, &seen(&[("a", ended(code, 5))]), expected);
    }
}

#[test]
fn a_container_that_keeps_failing_waits_longer_each_time() {
    let pod = pod(ONE, "");
    for (failures, expected) in [
        (1, "start a#4"),
        (2, "again +10000ms"),
        (3, "again +20000ms"),
        (7, "again +300000ms"),
        (4_000_000, "again +300000ms"),
    ] {
        let mut seen = seen(&[("a", ended(1, now().0))]);
        let it = seen.containers.get_mut("a").unwrap();
        (it.failures, it.restarts) = (failures, 3);
        check(&pod, &seen, expected);
    }
}

#[test]
fn a_probe_that_failed_stops_its_container_only() {
    let pod =
        pod(r#""containers":[{"name":"a"},{"name":"b"}],"terminationGracePeriodSeconds":5"#, "");
    let mut seen = seen(&[("a", running()), ("b", running())]);
    seen.containers.get_mut("a").unwrap().must_restart = Some("liveness".to_owned());
    check(&pod, &seen, "stop a 5s");
}

#[test]
fn a_dead_sandbox_takes_its_containers_along_and_is_made_anew() {
    let pod = pod(ONE, "");
    let mut seen = seen(&[("a", running())]);
    seen.sandbox = Sandbox::Dead { id: "s".to_owned() };
    check(&pod, &seen, "stop a 30s");
    seen.containers.get_mut("a").unwrap().run = ended(137, 5);
    check(&pod, &seen, "RemoveSandbox");
    seen.sandbox = Sandbox::Absent;
    check(&pod, &seen, "CreateSandbox");
}

#[test]
fn a_deleted_pod_ends_with_the_grace_that_is_left_and_then_is_given_up() {
    let pod = pod(ONE, DELETED);
    let mut seen = seen(&[("a", running())]);
    check(&pod, &seen, "stop a 20s"); // 1,020 s is the end of the grace, 1,000 s is now.
    seen.busy.insert(Subject::Container("a".to_owned()));
    check(&pod, &seen, "");
    seen.busy.clear();
    seen.containers.get_mut("a").unwrap().run = ended(0, 5);
    check(&pod, &seen, "RemoveSandbox");
    seen.sandbox = Sandbox::Absent;
    check(&pod, &seen, "UnmountVolumes");
    seen.volumes = Progress::Absent;
    check(&pod, &seen, "GiveUpObject");
}

#[test]
fn a_pod_deleted_while_it_starts_never_starts_a_container() {
    let pod = pod(ONE, DELETED);
    let mut seen = ready();
    seen.busy.insert(Subject::Container("a".to_owned()));
    check(&pod, &seen, "");
    seen.busy.clear();
    check(&pod, &seen, "RemoveSandbox");
    check(&pod, &Observed::default(), "GiveUpObject");
}

#[test]
fn a_doomed_pod_ends_but_keeps_its_object() {
    let pod = pod(ONE, "");
    let doom = Doom { reason: "Evicted".to_owned(), message: "memory".to_owned() };
    let mut seen = Observed { doomed: Some(doom), ..Observed::default() };
    check(&pod, &seen, "");
    seen.sandbox = Sandbox::Ready { id: "s".to_owned(), addresses: vec![] };
    check(&pod, &seen, "RemoveSandbox");
}

#[test]
fn the_active_deadline_is_looked_at_again_when_it_ends() {
    let pod = pod(&format!(r#"{ONE},"activeDeadlineSeconds":60"#), "");
    let mut seen = seen(&[("a", running())]);
    seen.started = Some(Timestamp(now().0 - 59_000));
    check(&pod, &seen, "again +1000ms");
    assert!(!is_past_deadline(&pod, &seen, now()));
    assert!(is_past_deadline(&pod, &seen, Timestamp(now().0 + 1000)));
}
