//! A hollow node's ports: no network, no volumes, probes that always succeed.
//!
//! With the hollow driver they make a node whose pods pretend. The pod CIDR goes to the driver, which gives the
//! pretended addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use kactor_drivers::hollow::HollowDriver;
use kactor_drivers::spec::ContainerId;
use kactor_protocol::node::Feed;
use kactor_volumes::content::Files;
use kactor_volumes::plan::Volume;
use serde_json::Value;

use crate::environment::LinkedService;
use crate::perform::LinkedServices;
use crate::ports::{
    Duplex, HostPort, NetworkFeed, Plumbing, PlumbingError, PodDialer, Prober, VolumeFailure,
    VolumeHost,
};
use crate::probes::ProbeOutcome;
use crate::spec::{Container, Pod, Probe};

/// Everything that a hollow node does not have.
pub struct HollowPorts {
    driver: Arc<HollowDriver>,
}

impl HollowPorts {
    pub fn new(driver: Arc<HollowDriver>) -> Self {
        Self { driver }
    }
}

#[async_trait]
impl Plumbing for HollowPorts {
    async fn attach(
        &self,
        _: &str,
        _: &Path,
        _: &[HostPort],
    ) -> Result<Vec<IpAddr>, PlumbingError> {
        Ok(Vec::new()) // Never asked: hollow sandboxes have no namespace.
    }

    async fn detach(&self, _: &str) -> Result<(), PlumbingError> {
        Ok(())
    }

    fn cluster_dns(&self) -> Option<IpAddr> {
        None
    }
}

#[async_trait]
impl VolumeHost for HollowPorts {
    async fn mount(
        &self,
        _: &Pod,
        volumes: &[Volume],
        _: BTreeMap<String, Files>,
        _: &str,
    ) -> Result<BTreeMap<String, PathBuf>, VolumeFailure> {
        Ok(volumes
            .iter()
            .map(|it| (it.name.clone(), PathBuf::from("/hollow").join(&it.name)))
            .collect())
    }

    async fn unmount(&self, _: &str) -> Result<(), VolumeFailure> {
        Ok(())
    }

    async fn write_file(&self, _: &str, name: &str, _: Vec<u8>) -> Result<PathBuf, VolumeFailure> {
        Ok(PathBuf::from("/hollow").join(name))
    }

    async fn read_file(&self, _: &str, _: &str, _: usize) -> Vec<u8> {
        Vec::new()
    }
}

impl NetworkFeed for HollowPorts {
    fn configure(&self, pod_cidr: &str) -> Result<(), String> {
        self.driver.set_pod_cidr(pod_cidr).map_err(|it| it.to_string())
    }

    fn changed(&self, _: Feed, _: &str, _: &str, _: Option<&Value>) {}

    fn complete(&self, _: Feed) {}
}

#[async_trait]
impl Prober for HollowPorts {
    async fn probe(
        &self,
        _: &ContainerId,
        _: &Container,
        _: &Probe,
        _: Option<&str>,
    ) -> ProbeOutcome {
        ProbeOutcome::Success
    }
}

impl LinkedServices for HollowPorts {
    fn of(&self, _: &str) -> Vec<LinkedService> {
        Vec::new()
    }
}

#[async_trait]
impl PodDialer for HollowPorts {
    async fn connect(&self, _: Option<&Path>, port: u16) -> Result<Box<dyn Duplex>, String> {
        Err(format!(
            "port {port}: the pods of a hollow node only pretend to run and listen nowhere"
        ))
    }
}
