//! Taking things away, to the last: containers, their cgroups, the pause image, our folders. Everything may be repeated.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters::{
    ListContainersOptions, ListImagesOptions, RemoveContainerOptions, RemoveImageOptions,
};
use kactor_drivers::cgroups::{self, instance_path};
use kactor_drivers::{DriverError, SandboxId};
use kactor_runtime::env::Env;

use crate::config::pod_cgroup;
use crate::driver::{CLASSES, Inner};
use crate::engine::{CgroupDriver, Engine, code};
use crate::labels;

/// A container that dockerd is removing already, or a cgroup that its last process is leaving.
const TRIES: u32 = 400;
const PAUSE: Duration = Duration::from_millis(25);

impl Inner {
    pub async fn remove_pod(&self, id: &SandboxId) -> Result<(), DriverError> {
        let found = self.found(Some(id)).await?;
        // The pause container last: while it is there, the pod is listed and removed again after a crash.
        let is_pause = |it: &&crate::status::Found| matches!(it.whose, labels::Whose::Sandbox(_));
        let (pauses, containers): (Vec<_>, Vec<_>) = found.iter().partition(is_pause);
        for it in &containers {
            if it.is_running() {
                self.end(&it.docker_id).await?;
            }
            self.copiers.settle(&it.docker_id).await; // The logs stay, whole.
        }
        for it in containers.into_iter().chain(pauses) {
            remove_container(&self.engine, &self.env, &it.docker_id).await?;
            self.copiers.forget(&it.docker_id);
        }
        for class in CLASSES {
            let path = pod_cgroup(self.engine.cgroups, &self.instance, class, id).path;
            remove_cgroup(&self.env, &path).await?;
        }
        Ok(())
    }

    pub async fn purge(&self) -> Result<(), DriverError> {
        purge(&self.engine, &self.env, &self.instance).await?;
        remove_dir(&self.state_dir)
    }
}

/// Kills it if it runs, and takes its anonymous volumes along.
pub async fn remove_container(
    engine: &Engine,
    env: &Env,
    docker_id: &str,
) -> Result<(), DriverError> {
    for _ in 0..TRIES {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match engine.docker.remove_container(docker_id, Some(options)).await {
            Ok(()) => return Ok(()),
            Err(error) if code(&error) == Some(404) => return Ok(()),
            // "removal of container … is already in progress"
            Err(error) if code(&error) == Some(409) => env.sleep(PAUSE).await,
            Err(error) => {
                return Err(engine.error(format!("removing container {docker_id}"), error));
            }
        }
    }
    let limit_ms = (PAUSE * TRIES).as_millis() as u64;
    Err(DriverError::Timeout { doing: format!("removing container {docker_id}"), limit_ms })
}

/// In every tree, those that only Docker uses too.
async fn remove_cgroup(env: &Env, path: &str) -> Result<(), DriverError> {
    let doing = || format!("removing cgroup {path}");
    let trees = cgroups::mount_points().map_err(|it| DriverError::io(doing(), it))?;
    let mut last = None;
    for _ in 0..TRIES {
        let done = trees
            .iter()
            .try_for_each(|it| cgroups::remove_tree(&it.join(path.trim_start_matches('/'))));
        match done {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        env.sleep(PAUSE).await;
    }
    Err(DriverError::io(doing(), last.unwrap_or_else(|| std::io::Error::other("it is busy"))))
}

async fn purge(engine: &Engine, env: &Env, instance: &str) -> Result<(), DriverError> {
    let mine = || {
        let label = vec![format!("{}={instance}", labels::INSTANCE)];
        Some([("label".to_owned(), label)].into_iter().collect())
    };
    let failed = |doing: &str, it: Error| engine.error(doing, it);
    let options = ListContainersOptions { all: true, filters: mine(), ..Default::default() };
    let containers = engine.docker.list_containers(Some(options)).await;
    let containers = containers.map_err(|it| failed("listing containers", it))?;
    for id in containers.iter().filter_map(|it| it.id.as_deref()) {
        remove_container(engine, env, id).await?;
    }
    // Only the pause image bears our label: what users imported is theirs.
    let options = ListImagesOptions { all: false, filters: mine(), ..Default::default() };
    let images = engine.docker.list_images(Some(options)).await;
    for image in images.map_err(|it| failed("listing images", it))? {
        for tag in image.repo_tags.iter().filter(|it| it.ends_with(&format!("-{instance}"))) {
            match engine.docker.remove_image(tag, None::<RemoveImageOptions>, None).await {
                Ok(_) => {}
                Err(error) if code(&error) == Some(404) => {}
                Err(error) => return Err(failed("removing the pause image", error)),
            }
        }
    }
    let top = match engine.cgroups {
        CgroupDriver::Cgroupfs => instance_path(instance),
        // systemd takes empty slices away by itself.
        CgroupDriver::Systemd => return Ok(()),
    };
    remove_cgroup(env, &top).await
}

fn remove_dir(dir: &Path) -> Result<(), DriverError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DriverError::io(format!("removing {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// `down --purge` without a running kactor. `state_dir` is there if this instance ever used Docker; then dockerd must
/// answer, or its containers would stay for ever.
pub async fn purge_instance(
    instance: &str,
    state_dir: &Path,
    socket: &Path,
    env: &Env,
) -> Result<(), DriverError> {
    if !state_dir.exists() {
        return Ok(());
    }
    let engine = Arc::new(Engine::connect(socket).await?);
    purge(&engine, env, instance).await?;
    remove_dir(state_dir)
}
