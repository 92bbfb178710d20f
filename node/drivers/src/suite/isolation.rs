//! Cases: what a container sees of itself, its pod and its host.

use super::*;
use crate::spec::{Mount, MountSource, NetworkMode, PidMode, Propagation, Seccomp};

pub(super) fn host_mount(from: &Path, target: &str) -> Mount {
    Mount {
        source: MountSource::Host(from.to_owned()),
        target: target.to_owned(),
        read_only: false,
        propagation: Propagation::Private,
    }
}

fn check_lines(found: &[String], wanted: &[&str]) -> Checked {
    ensure(found == wanted, || format!("{found:?}, not {wanted:?}"))
}

pub(super) async fn env_and_user(stage: &Stage<'_>) -> Checked {
    let script = "echo $GREETING; pwd; id -u; id -g; id -G; hostname; echo $0 $1";
    let mut spec = stage.shell("main", script);
    spec.args = vec!["zero".to_owned(), "first arg".to_owned()];
    spec.env = vec![("GREETING".to_owned(), "hello  world".to_owned())];
    spec.working_dir = Some("/made/for/it".to_owned());
    spec.security.run_as_user = Some(1234);
    spec.security.run_as_group = Some(2345);
    spec.security.supplemental_groups = vec![3456];
    let lines = stage.lines_in(&stage.pod(), &spec).await?;
    let wanted =
        ["hello world", "/made/for/it", "1234", "2345", "2345 3456", "suite-pod", "zero first arg"];
    check_lines(&lines, &wanted)
}

pub(super) async fn mounts(stage: &Stage<'_>) -> Checked {
    let (ro, rw) = (stage.dir().join("ro"), stage.dir().join("rw"));
    for dir in [&ro, &rw] {
        std::fs::create_dir_all(dir).map_err(|it| it.to_string())?;
    }
    std::fs::write(ro.join("file"), "from the host\n").map_err(|it| it.to_string())?;
    let script = "cat /ro/file /one; touch /ro/x 2>/dev/null || echo ro is read-only; \
                  echo out >/rw/file && echo rw is writable; \
                  touch /root-is-read-only 2>/dev/null || echo root is read-only; \
                  echo x >/memory/x && df /memory | grep -q 1024 && echo memory is bounded";
    let mut spec = stage.shell("main", script);
    spec.security.read_only_root = true;
    let mut read_only = host_mount(&ro, "/ro");
    read_only.read_only = true;
    let memory = Mount {
        source: MountSource::Memory { bytes_max: Some(1 << 20) },
        ..host_mount(&ro, "/memory")
    };
    spec.mounts =
        vec![read_only, host_mount(&ro.join("file"), "/one"), host_mount(&rw, "/rw"), memory];
    let (state, log) = stage.run(&spec).await?;
    let wanted = [
        "from the host",
        "from the host",
        "ro is read-only",
        "rw is writable",
        "root is read-only",
        "memory is bounded",
    ];
    check_lines(&lines_of(&log), &wanted).map_err(|it| format!("{it} ({state:?})"))?;
    let written = std::fs::read_to_string(rw.join("file")).unwrap_or_default();
    ensure(written == "out\n", || format!("the host sees {written:?}"))
}

pub(super) async fn limits(stage: &Stage<'_>) -> Checked {
    // v1 has a tree for each controller, v2 one.
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; \
                  cat pids/pids.max pids.max 2>/dev/null; \
                  cat cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 cpu.max; \
                  touch memory/x 2>/dev/null || echo no writing there";
    let mut spec = stage.shell("main", script);
    spec.resources.memory_limit_bytes = Some(64 << 20);
    spec.resources.pids_max = Some(77);
    spec.resources.cpu_quota_us = Some(50_000);
    spec.resources.cpu_shares = Some(512);
    let lines = stage.lines_in(&stage.pod(), &spec).await?;
    check_lines(&lines, &["67108864", "77", "50000", "no writing there"])
}

pub(super) async fn capabilities(stage: &Stage<'_>) -> Checked {
    let script = "sed -n 's/^CapBnd:\\s*0*//p;s/^NoNewPrivs:\\s*/nnp /p' /proc/self/status; \
                  [ -r /proc/kcore ] && [ -s /proc/kcore ] && echo sees kcore; true";
    check_lines(&stage.lines(script).await?, &["a80425fb", "nnp 0"])?;
    let mut spec = stage.shell("main", script);
    spec.security.capabilities.add = vec!["NET_ADMIN".to_owned()];
    spec.security.capabilities.drop = vec!["ALL".to_owned()];
    spec.security.no_new_privileges = true;
    check_lines(&stage.lines_in(&stage.pod(), &spec).await?, &["1000", "nnp 1"])?;
    let mut spec = stage.shell("main", script);
    spec.security.privileged = true;
    let lines = stage.lines_in(&stage.pod(), &spec).await?;
    let bits = lines.first().and_then(|it| u64::from_str_radix(it, 16).ok()).unwrap_or_default();
    const SYS_ADMIN: u32 = 21;
    ensure(bits & (1 << SYS_ADMIN) != 0, || format!("privileged has {lines:?}"))
}

pub(super) async fn seccomp(stage: &Stage<'_>) -> Checked {
    let script = "sed -n 's/^Seccomp:\\s*//p' /proc/self/status; \
                  sed -n 's/^CapEff:\\s*0*//p' /proc/self/status; \
                  unshare -U true 2>/dev/null || echo refused";
    let mut spec = stage.shell("main", script);
    spec.security.seccomp = Seccomp::RuntimeDefault;
    check_lines(&stage.lines_in(&stage.pod(), &spec).await?, &["2", "a80425fb", "refused"])?;
    spec.security.run_as_user = Some(1000);
    let lines = stage.lines_in(&stage.pod(), &spec).await?;
    check_lines(&lines, &["2", "", "refused"])
}

pub(super) async fn non_root(stage: &Stage<'_>) -> Checked {
    let mut spec = stage.shell("main", "id -u");
    spec.security.run_as_non_root = true;
    stage.make_pod(&stage.pod()).await?;
    match stage.driver().create_container(&spec).await {
        Err(DriverError::Invalid { .. }) => {}
        other => return Err(format!("an image of root answered {other:?}")),
    }
    stage.clean_up().await?;
    spec.security.run_as_user = Some(1000);
    check_lines(&stage.lines_in(&stage.pod(), &spec).await?, &["1000"])
}

/// What two running containers of a pod print: numbers of ended namespaces are given out again.
async fn two(stage: &Stage<'_>, pod: &SandboxSpec, script: &str) -> Result<Vec<String>, String> {
    stage.make_pod(pod).await?;
    let mut lines = Vec::new();
    for name in ["one", "two"] {
        let spec = stage.shell(name, &format!("{script}; echo printed; exec sleep 100000"));
        stage.begin(&spec).await?;
        stage.log_has(&spec, "printed").await?;
        lines.extend(lines_of(&text_of(&spec.log_path)));
    }
    lines.retain(|it| it != "printed");
    stage.clean_up().await?;
    Ok(lines)
}

fn own(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
    link.display().to_string()
}

pub(super) async fn shared_network(stage: &Stage<'_>) -> Checked {
    let script =
        "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid";
    let found = two(stage, &stage.pod(), script).await?;
    let [net, ipc, pid, net2, ipc2, pid2] = found.as_slice() else {
        return Err(format!("{found:?}"));
    };
    ensure(net == net2 && ipc == ipc2, || format!("they do not share: {found:?}"))?;
    ensure(pid != pid2, || format!("they share processes: {found:?}"))?;
    ensure(*net != own("net") && *ipc != own("ipc"), || format!("they share the host's: {found:?}"))
}

pub(super) async fn host_network(stage: &Stage<'_>) -> Checked {
    let mut pod = stage.pod();
    pod.network = NetworkMode::Host;
    let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/uts";
    let found = stage.lines_in(&pod, &stage.shell("main", script)).await?;
    check_lines(&found, &[&own("net"), &own("uts")])
}

pub(super) async fn host_pids(stage: &Stage<'_>) -> Checked {
    let mut pod = stage.pod();
    pod.pid = PidMode::Host;
    stage.make_pod(&pod).await?;
    let script = "readlink /proc/self/ns/pid; sleep 100000 & exec sleep 100000";
    let spec = stage.shell("main", script);
    stage.begin(&spec).await?;
    stage.log_has(&spec, "pid:").await?;
    check_lines(&lines_of(&text_of(&spec.log_path)), &[&own("pid")])?;
    // What it left beside itself goes with it.
    stage.driver().stop_container(&spec.id, Duration::ZERO).await.map_err(said)?;
    stage
        .until("its children are gone too", async || {
            let stats = stage.driver().stats(&spec.id).await.map_err(said)?;
            Ok((stats.n_processes == 0).then_some(()))
        })
        .await
}

pub(super) async fn shared_pids(stage: &Stage<'_>) -> Checked {
    let mut pod = stage.pod();
    pod.pid = PidMode::Pod;
    stage.make_pod(&pod).await?;
    let first = stage.shell("one", "exec sleep 98765");
    stage.begin(&first).await?;
    let second = stage.shell("two", "[ $$ != 1 ] && echo not first; ps | grep -c 'sleep [9]8765'");
    stage.begin(&second).await?;
    stage.ended(&second.id).await?;
    check_lines(&lines_of(&text_of(&second.log_path)), &["not first", "1"])?;
    stage.driver().stop_container(&first.id, Duration::ZERO).await.map_err(said)
}

pub(super) async fn stats(stage: &Stage<'_>) -> Checked {
    let spec =
        stage.shell("main", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exec sleep 100000");
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    stage
        .until("it has used memory and CPU", async || {
            let it = stage.driver().stats(&spec.id).await.map_err(said)?;
            let used = it.cpu_usage_ns > 0 && it.memory_usage_bytes > 0 && it.n_processes > 0;
            let used = used && it.memory_rss_bytes > 0 && it.page_faults > 0;
            Ok((used && it.memory_working_set_bytes <= it.memory_usage_bytes).then_some(()))
        })
        .await
}
