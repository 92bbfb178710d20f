//! Cases: a new agent finds what an old one left.

use super::*;

pub(super) async fn found_again(stage: &Stage<'_>) -> Checked {
    let mut spec =
        stage.shell("main", "n=0; while true; do n=$((n+1)); echo tick $n; sleep 0.05; done");
    spec.annotations.insert("note".to_owned(), "kept".to_owned());
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    stage.log_has(&spec, "tick 1").await?;
    let before = stage.status(&spec.id).await?;
    let driver = (stage.subject.restart)().await;
    let listed = driver.list().await.map_err(said)?;
    let pod = listed.into_iter().find(|it| it.spec.id == stage.pod().id);
    let pod = pod.ok_or("the pod is not listed")?;
    ensure(pod.spec == stage.pod(), || format!("its spec changed: {:?}", pod.spec))?;
    ensure(pod.containers == [before.clone()], || {
        format!("{:?} became {:?}", before.state, pod.containers)
    })?;
    let n_lines = text_of(&spec.log_path).lines().count();
    stage.log_has(&spec, &format!("tick {}", n_lines + 3)).await?;
    // The new one has the same power over it.
    driver.stop_container(&spec.id, Duration::ZERO).await.map_err(said)?;
    let state = stage.status(&spec.id).await?.state;
    ensure(matches!(state, ContainerState::Exited { exit_code: 137, .. }), || format!("{state:?}"))
}

pub(super) async fn ended_while_away(stage: &Stage<'_>) -> Checked {
    let dir = stage.dir().join("go");
    std::fs::create_dir_all(&dir).map_err(|it| it.to_string())?;
    let script = "while [ ! -e /go/on ]; do sleep 0.02; done; echo last words; exit 9";
    let mut spec = stage.shell("main", script);
    spec.mounts.push(isolation::host_mount(&dir, "/go"));
    stage.make_pod(&stage.pod()).await?;
    stage.begin(&spec).await?;
    // Nobody asks the driver anything while it ends; the log is the container's own sign.
    std::fs::write(dir.join("on"), "").map_err(|it| it.to_string())?;
    stage.log_has(&spec, "last words").await?;
    let driver = (stage.subject.restart)().await;
    let state = stage
        .until("the new driver knows the end", async || {
            let pod = driver.sandbox(&spec.id.sandbox).await.map_err(said)?;
            let state = pod.containers.into_iter().next().map(|it| it.state);
            Ok(state.filter(|it| matches!(it, ContainerState::Exited { .. })))
        })
        .await?;
    ensure(matches!(state, ContainerState::Exited { exit_code: 9, .. }), || format!("{state:?}"))
}
