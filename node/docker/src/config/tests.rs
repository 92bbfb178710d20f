//! What dockerd is asked for, by its JSON.

use expect_test::{Expect, expect};
use kactor_drivers::{ContainerId, ImageConfig, Resources, Security};

use super::*;

fn image(user: &str) -> Image {
    Image {
        id: "sha256:1".to_owned(),
        tags: Vec::new(),
        digests: Vec::new(),
        size_bytes: 1,
        config: ImageConfig {
            cmd: vec!["/bin/x".to_owned()],
            user: user.to_owned(),
            ..ImageConfig::default()
        },
    }
}

fn spec() -> ContainerSpec {
    let sandbox = SandboxId("u-1".to_owned());
    let id = ContainerId { sandbox, name: "main".to_owned(), attempt: 0 };
    ContainerSpec::new(id, "x", "/logs/0.log")
}

fn made(
    pod: &SandboxSpec,
    spec: &ContainerSpec,
    image: &Image,
) -> Result<serde_json::Value, DriverError> {
    made_without(pod, spec, image, &LeftOut::default())
}

fn made_without(
    pod: &SandboxSpec,
    spec: &ContainerSpec,
    image: &Image,
    left_out: &LeftOut,
) -> Result<serde_json::Value, DriverError> {
    let around = Surroundings {
        instance: "i",
        pod,
        pause: "PAUSE",
        image,
        cgroup_parent: "/parent",
        seccomp_profile: None,
        left_out,
    };
    let mut body = container(spec, &around)?;
    body.labels = None;
    Ok(serde_json::to_value(body).unwrap())
}

#[track_caller]
fn check(value: &serde_json::Value, wanted: Expect) {
    wanted.assert_eq(&serde_json::to_string_pretty(value).unwrap());
}

#[test]
fn a_plain_container_shares_its_pods_namespaces_and_docker_does_nothing_by_itself() {
    let body = made(&SandboxSpec::new("u-1", "d", "p"), &spec(), &image("")).unwrap();
    check(
        &body,
        expect![[r#"
        {
          "Env": [],
          "Healthcheck": {
            "Test": [
              "NONE"
            ]
          },
          "HostConfig": {
            "CapAdd": [],
            "CapDrop": [],
            "CgroupParent": "/parent",
            "GroupAdd": [],
            "IpcMode": "container:PAUSE",
            "LogConfig": {
              "Config": {
                "max-file": "6",
                "max-size": "10485760"
              },
              "Type": "json-file"
            },
            "Mounts": [],
            "NetworkMode": "container:PAUSE",
            "Privileged": false,
            "ReadonlyRootfs": false,
            "RestartPolicy": {
              "Name": "no"
            },
            "SecurityOpt": [
              "seccomp=unconfined"
            ]
          },
          "Image": "sha256:1",
          "OpenStdin": false,
          "StdinOnce": false,
          "Tty": false,
          "User": "0"
        }"#]],
    );
}

#[test]
fn limits_and_security_are_translated() {
    let mut pod = SandboxSpec::new("u-1", "d", "p");
    (pod.network, pod.pid, pod.ipc) = (NetworkMode::Host, PidMode::Pod, IpcMode::Host);
    let mut spec = spec();
    spec.resources = Resources {
        cpu_shares: Some(1),
        cpu_quota_us: Some(50_000),
        memory_limit_bytes: Some(64 << 20),
        pids_max: Some(7),
        oom_score_adj: Some(900),
        ..Resources::default()
    };
    spec.security = Security {
        run_as_user: Some(1000),
        supplemental_groups: vec![3],
        unmasked_proc: true,
        seccomp: Seccomp::RuntimeDefault,
        no_new_privileges: true,
        ..Security::default()
    };
    let body = made(&pod, &spec, &image("5:6")).unwrap();
    assert_eq!(body["User"], "1000");
    check(
        &body["HostConfig"],
        expect![[r#"
        {
          "CapAdd": [],
          "CapDrop": [],
          "CgroupParent": "/parent",
          "CpuPeriod": 100000,
          "CpuQuota": 50000,
          "CpuShares": 2,
          "GroupAdd": [
            "3"
          ],
          "IpcMode": "host",
          "LogConfig": {
            "Config": {
              "max-file": "6",
              "max-size": "10485760"
            },
            "Type": "json-file"
          },
          "MaskedPaths": [],
          "Memory": 67108864,
          "MemorySwap": 67108864,
          "Mounts": [],
          "NetworkMode": "host",
          "OomScoreAdj": 900,
          "PidMode": "container:PAUSE",
          "PidsLimit": 7,
          "Privileged": false,
          "ReadonlyPaths": [],
          "ReadonlyRootfs": false,
          "RestartPolicy": {
            "Name": "no"
          },
          "SecurityOpt": [
            "no-new-privileges"
          ],
          "UTSMode": "host"
        }"#]],
    );
}

#[test]
fn what_the_machine_refuses_is_left_out_once_and_said() {
    let mut spec = spec();
    spec.security.privileged = true;
    spec.resources.oom_score_adj = Some(-998);
    let have = || Privileges {
        capabilities: vec!["CAP_BPF".to_owned(), "CAP_SYS_ADMIN".to_owned()],
        devices: vec!["/dev/fuse".to_owned()],
    };
    let nothing = LeftOut::default();
    assert_eq!(nothing.after(&spec, "no such file", have), None);
    let said = "runc: write /proc/self/oom_score_adj: permission denied";
    let less = nothing.after(&spec, said, have).unwrap();
    assert_eq!(less.after(&spec, said, have), None);
    let said = "unable to apply caps: operation not permitted";
    let least = less.after(&spec, said, have).unwrap();
    assert_eq!(least.after(&spec, said, have), None);
    assert_eq!(least.warnings.len(), 2);
    let body = made_without(&SandboxSpec::new("u-1", "d", "p"), &spec, &image(""), &least);
    let host = &body.unwrap()["HostConfig"];
    assert_eq!((&host["Privileged"], &host["OomScoreAdj"]), (&false.into(), &().into()));
    assert_eq!(host["CapAdd"], serde_json::json!(["CAP_SYS_ADMIN"]));
    assert_eq!(host["Devices"][0]["PathOnHost"], "/dev/fuse");
}

#[test]
fn root_is_found_out_also_behind_a_name() {
    let pod = SandboxSpec::new("u-1", "d", "p");
    let mut spec = spec();
    spec.security.run_as_non_root = true;
    for (user, is_fine) in [("", false), ("0", false), ("root", false), ("web", false), ("5", true)]
    {
        assert_eq!(made(&pod, &spec, &image(user)).is_ok(), is_fine, "{user:?}");
    }
    spec.security.run_as_user = Some(7);
    assert!(made(&pod, &spec, &image("root")).is_ok());
}

#[test]
fn what_makes_no_sense_is_refused_by_its_field() {
    let pod = SandboxSpec::new("u-1", "d", "p");
    let mut bad = spec();
    bad.working_dir = Some("relative".to_owned());
    let said = made(&pod, &bad, &image("")).unwrap_err().to_string();
    assert!(said.contains("workingDir"), "{said}");
    let mut bad = spec();
    bad.mounts.push(Mount {
        source: MountSource::Memory { bytes_max: None },
        target: "/a/../b".to_owned(),
        read_only: false,
        propagation: Propagation::Private,
    });
    let said = made(&pod, &bad, &image("")).unwrap_err().to_string();
    assert!(said.contains("mountPath"), "{said}");
    let mut empty = image("");
    empty.config.cmd.clear();
    let said = made(&pod, &spec(), &empty).unwrap_err().to_string();
    assert!(said.contains("command"), "{said}");
}

#[test]
fn a_pods_cgroup_has_the_name_that_the_driver_of_dockerd_wants() {
    let id = SandboxId("0c9b-1".to_owned());
    let of = |driver| pod_cgroup(driver, "i-1", QosClass::Burstable, &id);
    let plain = of(CgroupDriver::Cgroupfs);
    assert_eq!(plain.parent, "/kactor-i-1/kubepods/burstable/pod0c9b-1");
    assert_eq!(plain.parent, plain.path);
    let slice = of(CgroupDriver::Systemd);
    assert_eq!(slice.parent, "kactor-i_1-burstable-pod0c9b_1.slice");
    assert_eq!(
        slice.path,
        "/kactor.slice/kactor-i_1.slice/kactor-i_1-burstable.slice/kactor-i_1-burstable-pod0c9b_1.slice"
    );
}
