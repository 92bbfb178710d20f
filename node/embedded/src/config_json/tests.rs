//! The document for typical containers, read back by the runtime's own types.

use super::*;
use kactor_drivers::{ContainerId, Mount, SandboxId};
use libcontainer::oci_spec::runtime::Spec;

#[derive(Debug)]
struct Pins;

impl NamespacePaths for Pins {
    fn path(&self, kind: &str) -> PathBuf {
        PathBuf::from("/run/pod/ns").join(kind)
    }
}

fn bounding() -> BTreeSet<String> {
    let names = DEFAULT_CAPABILITIES.iter().chain(&["NET_ADMIN", "SYS_ADMIN"]);
    names.map(|it| format!("CAP_{it}")).collect()
}

#[track_caller]
fn built(change: impl FnOnce(&mut SandboxSpec, &mut ContainerSpec)) -> Result<Value, DriverError> {
    let id = ContainerId { sandbox: SandboxId("u".to_owned()), name: "web".to_owned(), attempt: 0 };
    let mut sandbox = SandboxSpec::new("u", "default", "web-0");
    let mut container = ContainerSpec::new(id, "busybox", "/var/log/0.log");
    change(&mut sandbox, &mut container);
    let prepared = Prepared {
        sandbox: &sandbox,
        container: &container,
        args: vec!["/bin/sh".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        working_dir: "/".to_owned(),
        identity: Identity { uid: 7, gid: 8, groups: vec![9], home: "/home".to_owned() },
        rootfs: PathBuf::from("/data/rootfs"),
        cgroup: "/kactor-x/kubepods/besteffort/podu/web.0".to_owned(),
        namespace: &Pins,
        bounding: bounding(),
        devices: Vec::new(),
        shm: PathBuf::from("/run/pod/shm"),
    };
    let document = config_json(&prepared)?;
    let read: Spec = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(read.process().as_ref().unwrap().user().uid(), 7);
    Ok(document)
}

fn kinds(document: &Value) -> Vec<&str> {
    let list = document["linux"]["namespaces"].as_array().unwrap();
    list.iter().map(|it| it["type"].as_str().unwrap()).collect()
}

fn caps(document: &Value) -> Vec<&str> {
    let list = document["process"]["capabilities"]["bounding"].as_array().unwrap();
    list.iter().map(|it| it.as_str().unwrap()).collect()
}

#[test]
fn the_pods_namespaces_are_joined_and_the_hosts_are_kept() {
    let own = built(|_, _| {}).unwrap();
    assert_eq!(kinds(&own), ["mount", "network", "uts", "ipc", "pid"]);
    assert_eq!(own["linux"]["namespaces"][1]["path"], "/run/pod/ns/net");
    let shared = built(|pod, _| pod.pid = PidMode::Pod).unwrap();
    assert_eq!(shared["linux"]["namespaces"][4]["path"], "/run/pod/ns/pid");
    let host = built(|pod, _| {
        pod.network = NetworkMode::Host;
        pod.ipc = IpcMode::Host;
        pod.pid = PidMode::Host;
    });
    assert_eq!(kinds(&host.unwrap()), ["mount"]);
}

#[test]
fn capabilities_start_from_dockers_set() {
    let set = |add: &[&str], drop: &[&str]| {
        built(|_, it| {
            it.security.capabilities.add = add.iter().map(|it| it.to_string()).collect();
            it.security.capabilities.drop = drop.iter().map(|it| it.to_string()).collect();
        })
    };
    assert_eq!(caps(&set(&[], &[]).unwrap()).len(), 14);
    assert_eq!(caps(&set(&["NET_BIND_SERVICE"], &["ALL"]).unwrap()), ["CAP_NET_BIND_SERVICE"]);
    assert!(caps(&set(&["net_admin"], &["chown"]).unwrap()).contains(&"CAP_NET_ADMIN"));
    assert_eq!(caps(&set(&["ALL"], &[]).unwrap()).len(), 16);
    let refused = set(&["SYS_RESOURCE"], &[]).unwrap_err();
    assert!(matches!(refused, DriverError::Unsupported { .. }), "{refused}");
}

#[test]
fn privileged_is_everything_this_machine_lets_us_give() {
    let document = built(|_, it| it.security.privileged = true).unwrap();
    assert_eq!(caps(&document).len(), 16);
    assert_eq!(document["linux"]["maskedPaths"], json!([]));
    assert_eq!(document["linux"]["resources"]["devices"][0]["allow"], true);
}

#[test]
fn limits_and_mounts_arrive() {
    let document = built(|_, it| {
        it.resources.cpu_shares = Some(1);
        it.resources.cpu_quota_us = Some(20_000);
        it.resources.memory_limit_bytes = Some(1 << 20);
        it.security.read_only_root = true;
        it.mounts = vec![
            Mount {
                source: MountSource::Host(PathBuf::from("/data/v")),
                target: "/v".to_owned(),
                read_only: true,
                propagation: Propagation::HostToContainer,
            },
            Mount {
                source: MountSource::Memory { bytes_max: Some(4096) },
                target: "/dev/shm".to_owned(),
                read_only: false,
                propagation: Propagation::Private,
            },
        ];
    })
    .unwrap();
    let resources = &document["linux"]["resources"];
    assert_eq!(resources["cpu"], json!({"shares": 2, "quota": 20_000, "period": 100_000}));
    assert_eq!(resources["memory"], json!({"limit": 1 << 20}));
    assert_eq!(document["root"]["readonly"], true);
    assert_eq!(document["linux"]["rootfsPropagation"], "slave");
    let mounts = document["mounts"].as_array().unwrap();
    let at = |target: &str| mounts.iter().filter(|it| it["destination"] == target).count();
    assert_eq!((at("/v"), at("/dev/shm")), (1, 1));
    assert_eq!(mounts[mounts.len() - 2]["options"], json!(["rbind", "rslave", "ro"]));
}

#[test]
fn a_mount_that_climbs_out_is_refused() {
    for target in ["relative", "/a/../../etc", ""] {
        let refused = built(|_, it| {
            it.mounts = vec![Mount {
                source: MountSource::Memory { bytes_max: None },
                target: target.to_owned(),
                read_only: false,
                propagation: Propagation::Private,
            }];
        });
        assert!(matches!(refused, Err(DriverError::Invalid { .. })), "{target:?}");
    }
}
