//! What a node is made of, for each `--runtime`: driver, network, volumes, probes.
//!
//! Everything that is made on the host outside the data directory bears the instance's name, which follows from the
//! data directory; so several kactors run on one machine and `down --purge` finds what is its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use kactor_agent::hollow::HollowPorts;
use kactor_agent::host_volumes::HostVolumes;
use kactor_agent::perform::LinkedServices;
use kactor_agent::ports::{NetworkFeed, Plumbing, PodDialer, Prober, VolumeHost};
use kactor_docker::{DockerConfig, DockerDriver, PauseProgram};
use kactor_drivers::driver::Driver;
use kactor_drivers::hollow::HollowDriver;
use kactor_embedded::{EmbeddedConfig, EmbeddedDriver, ShimProgram};
use kactor_images::store::{ImageStore, Limits};
use kactor_network::network::{Network, NetworkConfig};
use kactor_network::prober::HostProber;
use kactor_runtime::env::Env;

use crate::data_dir::DataDir;
use crate::machine_facts;

/// The ports of a node's agent.
pub struct NodeParts {
    pub driver: Arc<dyn Driver>,
    pub plumbing: Arc<dyn Plumbing>,
    pub volumes: Arc<dyn VolumeHost>,
    pub services: Arc<dyn LinkedServices>,
    pub prober: Arc<dyn Prober>,
    pub network: Arc<dyn NetworkFeed>,
    pub dialer: Arc<dyn PodDialer>,
}

/// Pods that pretend.
pub fn hollow(env: &Env) -> NodeParts {
    let driver = Arc::new(HollowDriver::new(env.clone()));
    let ports = Arc::new(HollowPorts::new(driver.clone()));
    NodeParts {
        driver,
        plumbing: ports.clone(),
        volumes: ports.clone(),
        services: ports.clone(),
        prober: ports.clone(),
        network: ports.clone(),
        dialer: ports,
    }
}

/// Real containers, without a daemon.
pub fn embedded(
    env: &Env,
    dir: &DataDir,
    node_name: &str,
    service_cidr: &str,
    domain: &str,
) -> anyhow::Result<NodeParts> {
    anyhow::ensure!(
        !dir.docker().exists(),
        "pods of {} run on Docker: use --runtime docker, or remove them with `kactor down --purge`",
        dir.root().display()
    );
    let instance = instance(dir);
    let images = ImageStore::open(&dir.images(), Limits::default())
        .with_context(|| format!("opening the images in {}", dir.images().display()))?;
    let config = EmbeddedConfig {
        instance: instance.clone(),
        state_dir: dir.pods(),
        run_dir: run_dir(&instance),
        images: Arc::new(images),
        shim: ShimProgram::this_program(),
    };
    let driver: Arc<dyn Driver> = Arc::new(EmbeddedDriver::start(config, env.clone())?);
    around(env, dir, driver, network_config(dir, node_name, service_cidr, domain))
}

/// Containers of this machine's Docker Engine, in our own pod network.
pub async fn docker(
    env: &Env,
    dir: &DataDir,
    node_name: &str,
    service_cidr: &str,
    domain: &str,
) -> anyhow::Result<NodeParts> {
    let has_pods =
        std::fs::read_dir(dir.pods().join("pods")).is_ok_and(|mut it| it.next().is_some());
    anyhow::ensure!(
        !has_pods,
        "pods of {} run without a daemon: use --runtime embedded, or remove them with `kactor down --purge`",
        dir.root().display()
    );
    let config = DockerConfig {
        instance: instance(dir),
        state_dir: dir.docker(),
        socket: docker_socket()?,
        pause: PauseProgram::this_program(),
    };
    let driver: Arc<dyn Driver> = Arc::new(DockerDriver::start(config, env.clone()).await?);
    around(env, dir, driver, network_config(dir, node_name, service_cidr, domain))
}

/// As `DOCKER_HOST` or Docker's default says.
pub fn docker_socket() -> anyhow::Result<PathBuf> {
    Ok(kactor_docker::socket_path(std::env::var("DOCKER_HOST").ok().as_deref())?)
}

fn network_config(dir: &DataDir, node: &str, service_cidr: &str, domain: &str) -> NetworkConfig {
    NetworkConfig {
        instance: instance(dir),
        node_name: node.to_owned(),
        service_cidr: service_cidr.to_owned(),
        domain: domain.to_owned(),
        data_dir: dir.root().join("network"),
        resolvers: nameservers(),
    }
}

/// What real containers have around them, whoever runs them.
fn around(
    env: &Env,
    dir: &DataDir,
    driver: Arc<dyn Driver>,
    config: NetworkConfig,
) -> anyhow::Result<NodeParts> {
    let network = Network::new(env.clone(), config)?;
    Ok(NodeParts {
        prober: Arc::new(HostProber::new(env.clone(), driver.clone())),
        driver,
        plumbing: network.clone(),
        volumes: Arc::new(HostVolumes::new(env.clone(), dir.kubelet())),
        services: network.clone(),
        network: network.clone(),
        dialer: network,
    })
}

fn nameservers() -> Vec<std::net::IpAddr> {
    machine_facts::host_resolver().nameservers.iter().filter_map(|it| it.parse().ok()).collect()
}

/// The instance's name: short, and the same for the same data directory.
pub fn instance(dir: &DataDir) -> String {
    // FNV-1a: stable over releases, which a hasher of the standard library does not promise.
    let path = dir.root().to_string_lossy();
    let hash = path
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

/// Sockets and namespaces: gone after a reboot, as what they stand for.
fn run_dir(instance: &str) -> PathBuf {
    Path::new("/run/kactor").join(instance)
}

/// Removes everything that this data directory's kactor made on the host.
pub fn purge(dir: &DataDir) -> anyhow::Result<()> {
    let instance = instance(dir);
    if nix::unistd::geteuid().is_root() {
        let run = run_dir(&instance);
        kactor_embedded::purge_instance(&instance, &dir.pods(), &run).context("removing pods")?;
        if dir.docker().exists() {
            purge_docker(dir, &instance)?;
        }
        kactor_network::network::purge(&instance).context("removing the pod network")?;
        if run.exists() {
            std::fs::remove_dir_all(&run).with_context(|| format!("removing {}", run.display()))?;
        }
        if let Some(shared) = run.parent() {
            let _ = std::fs::remove_dir(shared); // Stays while another instance has a folder in it.
        }
        unmount_below(dir.root())?;
    }
    Ok(())
}

/// dockerd must answer, or its containers would stay for ever.
fn purge_docker(dir: &DataDir, instance: &str) -> anyhow::Result<()> {
    let (docker, socket, env) = (dir.docker(), docker_socket()?, Env::machine());
    crate::client::block_on(async {
        let purged = kactor_docker::purge_instance(instance, &docker, &socket, &env).await;
        purged.context("removing pods from Docker")
    })
}

/// Mounts of volumes that outlived their pods.
fn unmount_below(root: &Path) -> anyhow::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|it| it.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|it| it.starts_with(root))
        .collect();
    mounts.sort();
    for path in mounts.iter().rev() {
        let flags = nix::mount::MntFlags::MNT_DETACH;
        nix::mount::umount2(path, flags)
            .with_context(|| format!("unmounting {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_for_its_directory() {
        let of = |path: &str| instance(&DataDir::find(Some(Path::new(path))).unwrap());
        assert_eq!(of("/var/lib/kactor"), of("/var/lib/kactor"));
        assert_ne!(of("/a"), of("/b"));
        assert_eq!(of("/a").len(), 8);
    }
}
