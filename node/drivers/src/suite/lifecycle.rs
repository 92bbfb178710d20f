//! Cases: from create to remove.

use std::time::Duration;

use super::*;
use crate::event::DriverEvent;
use crate::status::ExitReason;

pub(super) async fn exit_code(stage: &Stage<'_>) -> Checked {
    let spec = stage.shell("main", "exit 7");
    stage.make_pod(&stage.pod()).await?;
    stage.driver().create_container(&spec).await.map_err(said)?;
    let state = stage.status(&spec.id).await?.state;
    ensure(state == ContainerState::Created, || format!("{state:?} before its start"))?;
    stage.driver().start_container(&spec.id).await.map_err(said)?;
    let state = stage.ended(&spec.id).await?;
    let is_seven = matches!(
        state,
        ContainerState::Exited {
            exit_code: 7,
            signal: None,
            reason: ExitReason::Error,
            started: Some(started),
            finished,
            ..
        } if started <= finished
    );
    ensure(is_seven, || format!("exit 7 is {state:?}"))
}

pub(super) async fn cri_log(stage: &Stage<'_>) -> Checked {
    let spec = stage.shell("main", "echo one; echo two >&2; printf three");
    let (_, log) = stage.run(&spec).await?;
    let mut found: Vec<&str> =
        log.lines().map(|it| it.split_once(' ').map_or("", |(_, rest)| rest)).collect();
    found.sort_unstable(); // The two streams race.
    ensure(found == ["stderr F two", "stdout F one", "stdout F three"], || {
        format!("the log is {log:?}")
    })?;
    let times = log.lines().filter_map(|it| it.split(' ').next());
    let is_nano =
        |it: &str| it.len() == "2016-10-06T00:17:09.669794202Z".len() && it.ends_with('Z');
    ensure(times.clone().all(is_nano), || format!("times are {:?}", times.collect::<Vec<_>>()))
}

pub(super) async fn log_rotation(stage: &Stage<'_>) -> Checked {
    let dir = stage.dir().join("go");
    std::fs::create_dir_all(&dir).map_err(|it| it.to_string())?;
    let script = "echo before; while [ ! -e /go/on ]; do sleep 0.05; done; echo after; \
                  exec sleep 1000";
    let mut spec = stage.shell("main", script);
    spec.mounts.push(isolation::host_mount(&dir, "/go"));
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    stage.log_has(&spec, "before").await?;
    stage.driver().rotate_log(&spec.id).await.map_err(said)?;
    std::fs::write(dir.join("on"), "").map_err(|it| it.to_string())?;
    stage.log_has(&spec, "after").await?;
    let old = text_of(&PathBuf::from(format!("{}.1", spec.log_path.display())));
    ensure(old.contains("before") && !text_of(&spec.log_path).contains("before"), || {
        format!("the rotated log is {old:?}")
    })
}

pub(super) async fn start_failure(stage: &Stage<'_>) -> Checked {
    let mut spec = stage.shell("main", "");
    spec.command = vec!["/bin/no-such-program".to_owned()];
    stage.make_pod(&stage.pod()).await?;
    stage.driver().create_container(&spec).await.map_err(said)?;
    match stage.driver().start_container(&spec.id).await {
        Err(DriverError::Start { why, .. }) => {
            ensure(why.contains("no-such-program"), || format!("it says only {why:?}"))?;
        }
        other => return Err(format!("starting answered {other:?}")),
    }
    let state = stage.status(&spec.id).await?.state;
    let failed = matches!(&state, ContainerState::Exited { reason: ExitReason::StartFailed, .. });
    ensure(failed, || format!("after that it is {state:?}"))
}

pub(super) async fn no_image(stage: &Stage<'_>) -> Checked {
    let mut spec = stage.shell("main", "");
    spec.image = "docker.io/kactor/never-made:1".to_owned();
    stage.make_pod(&stage.pod()).await?;
    match stage.driver().create_container(&spec).await {
        Err(DriverError::NoImage { .. }) => Ok(()),
        other => Err(format!("creating answered {other:?}")),
    }
}

pub(super) async fn stop_gracefully(stage: &Stage<'_>) -> Checked {
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.05; done";
    let spec = stage.shell("main", script);
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    stage.log_has(&spec, "ready").await?;
    stage.driver().stop_container(&spec.id, Duration::from_secs(600)).await.map_err(said)?;
    let state = stage.status(&spec.id).await?.state;
    let stopped = matches!(state, ContainerState::Exited { exit_code: 3, .. });
    ensure(stopped, || format!("it ended as {state:?}"))?;
    ensure(text_of(&spec.log_path).contains("bye"), || "its last words are lost".to_owned())
}

pub(super) async fn kill_after_grace(stage: &Stage<'_>) -> Checked {
    let spec = stage.shell("main", "trap '' TERM; echo ready; while true; do sleep 0.05; done");
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    stage.log_has(&spec, "ready").await?;
    stage.driver().stop_container(&spec.id, Duration::from_millis(50)).await.map_err(said)?;
    let state = stage.status(&spec.id).await?.state;
    // A driver that is told of exit codes only cannot name the signal.
    let killed =
        matches!(state, ContainerState::Exited { exit_code: 137, signal: Some(9) | None, .. });
    ensure(killed, || format!("it ended as {state:?}"))
}

pub(super) async fn out_of_memory(stage: &Stage<'_>) -> Checked {
    let mut spec = stage.shell("main", "exec tail /dev/zero");
    spec.resources.memory_limit_bytes = Some(16 << 20);
    let (state, _) = stage.run(&spec).await?;
    let is_oom = matches!(
        state,
        ContainerState::Exited { exit_code: 137, reason: ExitReason::OomKilled, .. }
    );
    ensure(is_oom, || format!("it ended as {state:?}"))
}

pub(super) async fn repeated_requests(stage: &Stage<'_>) -> Checked {
    let driver = stage.driver();
    let spec = stage.shell("main", "exit 0");
    stage.make_pod(&stage.pod()).await?;
    match driver.create_sandbox(&stage.pod()).await {
        Err(DriverError::Exists { .. }) => {}
        other => return Err(format!("a second create_sandbox answered {other:?}")),
    }
    driver.create_container(&spec).await.map_err(said)?;
    match driver.create_container(&spec).await {
        Err(DriverError::Exists { .. }) => {}
        other => return Err(format!("a second create_container answered {other:?}")),
    }
    driver.start_container(&spec.id).await.map_err(said)?;
    stage.ended(&spec.id).await?;
    ensure(driver.start_container(&spec.id).await.is_err(), || "it started twice".to_owned())?;
    driver.stop_container(&spec.id, Duration::ZERO).await.map_err(said)?;
    driver.remove_container(&spec.id).await.map_err(said)?;
    driver.remove_container(&spec.id).await.map_err(said)?;
    driver.stop_container(&spec.id, Duration::ZERO).await.map_err(said)?;
    driver.remove_sandbox(&stage.pod().id).await.map_err(said)?;
    driver.remove_sandbox(&stage.pod().id).await.map_err(said)
}

pub(super) async fn exit_event(stage: &Stage<'_>) -> Checked {
    let mut events = stage.driver().events();
    let spec = stage.shell("main", "exit 0");
    stage.run(&spec).await?;
    for _ in 0..100 {
        match events.next().await {
            Some(DriverEvent::ContainerExited(id)) if id == spec.id => return Ok(()),
            Some(_) => {}
            None => break,
        }
    }
    Err("the driver told of other things only".to_owned())
}

pub(super) async fn image_in_use(stage: &Stage<'_>) -> Checked {
    let driver = stage.driver();
    let image = driver.image(BUSYBOX_IMAGE).await.map_err(said)?;
    let image = image.ok_or_else(|| format!("{BUSYBOX_IMAGE} is not here"))?;
    let spec = stage.shell("main", "exit 0");
    stage.run(&spec).await?;
    let status = stage.status(&spec.id).await?;
    ensure(status.image_id == image.id, || {
        format!("{} runs, {} was asked", status.image_id, image.id)
    })?;
    match driver.remove_image(BUSYBOX_IMAGE).await {
        Err(DriverError::ImageInUse { .. }) => {}
        other => return Err(format!("removing a used image answered {other:?}")),
    }
    let listed = driver.images().await.map_err(said)?;
    ensure(listed.iter().any(|it| it.id == image.id), || "it is not listed any more".to_owned())
}

pub(super) async fn remove_all(stage: &Stage<'_>) -> Checked {
    let mut pod = stage.pod();
    pod.resources.memory_limit_bytes = Some(256 << 20);
    stage.make_pod(&pod).await?;
    // Grandchildren that ignore signals, and an end that nobody waited for.
    let script = "trap '' TERM; (trap '' TERM; while true; do sleep 1; done) & echo ready; wait";
    let stubborn = stage.shell("stubborn", script);
    stage.begin(&stubborn).await?;
    stage.log_has(&stubborn, "ready").await?;
    stage.driver().create_container(&stage.shell("fresh", "true")).await.map_err(said)?;
    stage.driver().remove_sandbox(&pod.id).await.map_err(said)?;
    let listed = stage.driver().list().await.map_err(said)?;
    ensure(!listed.iter().any(|it| it.spec.id == pod.id), || "it is still listed".to_owned())?;
    let left = (stage.subject.leftovers)(&pod.id.0);
    ensure(left.is_empty(), || format!("left behind: {left:?}"))?;
    ensure(text_of(&stubborn.log_path).contains("ready"), || "the log went too".to_owned())
}
