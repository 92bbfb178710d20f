//! Tables over `status`: phases, waiting reasons, conditions.

use super::*;

fn pod(spec: &str) -> Pod {
    let json = format!(
        r#"{{"metadata":{{"name":"web","namespace":"default","uid":"u"}},"spec":{{{spec}}}}}"#
    );
    crate::spec::parse(json.as_bytes()).unwrap()
}

const ONE: &str = r#""containers":[{"name":"a","image":"i"}]"#;

fn up() -> Observed {
    Observed {
        volumes: Progress::Ready,
        sandbox: Sandbox::Ready { id: "s".to_owned(), addresses: vec!["10.0.0.9".to_owned()] },
        started: Some(Timestamp(1000)),
        ..Observed::default()
    }
}

fn end(code: i32) -> Ended {
    Ended {
        id: "c1".to_owned(),
        exit_code: code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
        started: Timestamp(2000),
        finished: Timestamp(3000),
    }
}

fn with(run: Run, failures: u32) -> Observed {
    let mut seen = up();
    let it = ContainerSeen {
        image: Progress::Ready,
        run,
        failures,
        ready: true,
        startup_passed: true,
        ..Default::default()
    };
    seen.containers.insert("a".to_owned(), it);
    seen
}

fn running() -> Run {
    Run::Running { id: "c1".to_owned(), started: Timestamp(2000) }
}

fn run(pod: &Pod, seen: &Observed, previous: &Value) -> Value {
    let host = HostFacts { addresses: vec!["192.0.2.1".to_owned()], driver: "embedded".to_owned() };
    status(pod, seen, previous, &host, Timestamp(60_000))
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|it| it["type"] == kind).unwrap()
}

#[test]
fn a_running_pod_is_ready_and_has_its_addresses() {
    let out = run(&pod(ONE), &with(running(), 0), &json!({}));
    assert_eq!(out["phase"], "Running");
    assert_eq!(out["podIP"], "10.0.0.9");
    assert_eq!(out["hostIP"], "192.0.2.1");
    assert_eq!(out["startTime"], "1970-01-01T00:00:01Z");
    assert_eq!(condition(&out, "Ready")["status"], "True");
    assert_eq!(out["containerStatuses"][0]["containerID"], "embedded://c1");
    assert_eq!(out["containerStatuses"][0]["started"], true);
    assert_eq!(out["qosClass"], "BestEffort");
}

#[test]
fn waiting_says_what_it_waits_for() {
    let reason = |seen: &Observed| {
        let out = run(&pod(ONE), seen, &json!({}));
        assert_eq!(out["phase"], "Pending");
        out["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(&up()), "ContainerCreating");
    let failed =
        |attempts| Progress::Failed { message: "no".to_owned(), retry_at: Timestamp(1), attempts };
    for (attempts, expected) in [(1, "ErrImagePull"), (2, "ImagePullBackOff")] {
        let mut seen = with(Run::NotStarted, 0);
        seen.containers.get_mut("a").unwrap().image = failed(attempts);
        assert_eq!(reason(&seen), expected);
    }
    let refused = Run::Refused {
        reason: "CreateContainerConfigError",
        message: String::new(),
        retry_at: Timestamp(1),
    };
    assert_eq!(reason(&with(refused, 1)), "CreateContainerConfigError");
}

#[test]
fn a_container_that_keeps_failing_is_in_crash_loop_back_off() {
    let out = run(&pod(ONE), &with(Run::Ended(end(1)), 3), &json!({}));
    let it = &out["containerStatuses"][0];
    assert_eq!(it["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let message = it["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "back-off 20s restarting failed container=a pod=web_default(u)");
    assert_eq!(it["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(out["phase"], "Running");
    assert_eq!(condition(&out, "Ready")["reason"], "ContainersNotReady");
}

#[test]
fn ends_give_the_phase_that_the_policy_asks_for() {
    for (policy, code, phase) in [
        ("Never", 0, "Succeeded"),
        ("Never", 2, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("Always", 0, "Running"),
    ] {
        let pod = pod(&format!(r#"{ONE},"restartPolicy":"{policy}""#));
        let out = run(&pod, &with(Run::Ended(end(code)), 1), &json!({}));
        assert_eq!(out["phase"], phase, "{policy} {code}");
        if phase == "Succeeded" {
            assert_eq!(condition(&out, "Ready")["reason"], "PodCompleted");
            assert_eq!(condition(&out, "Initialized")["status"], "True");
        }
    }
}

#[test]
fn init_containers_hold_the_phase_at_pending() {
    let pod = pod(r#""initContainers":[{"name":"i"}],"containers":[{"name":"a"}]"#);
    let out = run(&pod, &up(), &json!({}));
    assert_eq!(out["phase"], "Pending");
    assert_eq!(out["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(condition(&out, "Initialized")["message"], "containers with incomplete status: [i]");
}

#[test]
fn transition_times_change_only_with_the_status_and_others_conditions_stay() {
    let pod = pod(ONE);
    let before = json!({ "conditions": [
        { "type": "PodScheduled", "status": "True", "lastTransitionTime": "t0" },
        { "type": "Ready", "status": "True", "lastTransitionTime": "t1" },
    ]});
    let out = run(&pod, &with(running(), 0), &before);
    assert_eq!(condition(&out, "Ready")["lastTransitionTime"], "t1");
    assert_eq!(condition(&out, "PodScheduled")["lastTransitionTime"], "t0");
    let again = run(&pod, &with(running(), 0), &out);
    assert_eq!(again, out, "an unchanged pod has an unchanged status");
}

#[test]
fn readiness_gates_hold_the_pod_back() {
    let pod = pod(&format!(r#"{ONE},"readinessGates":[{{"conditionType":"example.com/lb"}}]"#));
    let out = run(&pod, &with(running(), 0), &json!({}));
    assert_eq!(condition(&out, "Ready")["reason"], "ReadinessGatesNotReady");
    assert_eq!(condition(&out, "ContainersReady")["status"], "True");
    let open = json!({ "conditions": [{ "type": "example.com/lb", "status": "True" }] });
    assert_eq!(condition(&run(&pod, &with(running(), 0), &open), "Ready")["status"], "True");
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    for (resources, expected) in [
        ("", "BestEffort"),
        (r#","resources":{"requests":{"cpu":"1"}}"#, "Burstable"),
        (
            r#","resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1","memory":"1Gi"}}"#,
            "Guaranteed",
        ),
        (
            r#","resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"500m"}}"#,
            "Burstable",
        ),
    ] {
        assert_eq!(
            qos_class(&pod(&format!(r#""containers":[{{"name":"a"{resources}}}]"#))),
            expected
        );
    }
}
