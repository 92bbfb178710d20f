//! What a directory is refused for before anybody is asked.

use kactor_cluster::host::{HostRole, KeyHash};

use super::*;
use crate::args::Runtime;

fn dir() -> (tempfile::TempDir, DataDir) {
    let temp = tempfile::tempdir().unwrap();
    let dir = DataDir::find(Some(temp.path())).unwrap();
    (temp, dir)
}

fn invitation(ca: [u8; 32]) -> Invitation {
    let token = Token { id: "00000000".into(), secret: "0".repeat(32), ca: KeyHash(ca) };
    Invitation { host: "192.0.2.1:6443".into(), token }
}

fn kept(joined: bool) -> Kept {
    Kept {
        node: "n2".to_owned(),
        role: HostRole::Control,
        joined,
        ca: String::new(),
        listen: "127.0.0.1:7443".parse().unwrap(),
        runtime: Runtime::None,
        kubelet: None,
        pod_cidr: String::new(),
        service_cidr: String::new(),
        revision: 0,
        hosts: Vec::new(),
    }
}

fn refusal(dir: &DataDir, kept: Option<&Kept>, invitation: Option<&Invitation>) -> String {
    check(dir, kept, invitation).err().map(|it| it.to_string()).unwrap_or_default()
}

#[test]
fn a_directory_with_a_cluster_of_its_own_does_not_join_another() {
    let (_temp, dir) = dir();
    assert_eq!(refusal(&dir, None, Some(&invitation([0; 32]))), "");
    std::fs::create_dir_all(dir.store()).unwrap();
    let own = refusal(&dir, Some(&kept(false)), Some(&invitation([0; 32])));
    assert!(own.contains("cluster of its own") && own.contains("--data-dir"), "{own}");
    assert_eq!(refusal(&dir, Some(&kept(false)), None), "", "it goes on with its own");
}

#[test]
fn a_host_that_joined_needs_no_flags_and_is_not_moved_to_another_cluster() {
    let (_temp, dir) = dir();
    std::fs::create_dir_all(dir.store()).unwrap();
    assert_eq!(refusal(&dir, Some(&kept(true)), None), "");
    let other = refusal(&dir, Some(&kept(true)), Some(&invitation([1; 32])));
    assert!(other.contains("another cluster than the token"), "{other}");
}

#[test]
fn a_joining_that_was_cut_short_goes_on_only_by_joining() {
    let (_temp, dir) = dir();
    std::fs::create_dir_all(dir.store()).unwrap();
    std::fs::write(dir.joining(), "192.0.2.1:6443").unwrap();
    let alone = refusal(&dir, None, None);
    assert!(alone.contains("cut short") && alone.contains("--join"), "{alone}");
    assert_eq!(refusal(&dir, None, Some(&invitation([0; 32]))), "");
    assert_eq!(refusal(&dir, Some(&kept(true)), Some(&invitation([0; 32]))), "");
}
