//! The authority on a real disk.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::tls;

fn opened(env: &Env, folder: &Path) -> Result<Pki, PkiError> {
    futures::executor::block_on(Pki::open(env, folder))
}

#[test]
fn a_second_start_finds_the_same_authority_and_its_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("pki");
    let env = Env::machine();
    let first = opened(&env, &folder).unwrap();
    let second = opened(&env, &folder).unwrap();
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(first.token_key_pkcs8(), second.token_key_pkcs8());
    let mode = |it: &Path| std::fs::metadata(it).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in [CA_KEY, CA_CERT, TOKEN_KEY] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3, "nothing half-written is left");
    // What the second start issues, the first one's clients trust.
    let names = ServingNames {
        host: "Not_A DNS name".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        addresses: vec![IpAddr::from([10, 96, 0, 1])],
    };
    let serving = second.issue_serving(&env, &names).unwrap();
    tls::server(&serving, first.ca_pem()).unwrap();
}

#[test]
fn a_lost_key_is_reported_and_a_first_start_that_was_killed_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::machine();
    opened(&env, dir.path()).unwrap();
    let keys = || [CA_KEY, TOKEN_KEY].map(|it| std::fs::read(dir.path().join(it)).unwrap());
    let before = keys();
    std::fs::remove_file(dir.path().join(CA_CERT)).unwrap(); // It is renamed last.
    opened(&env, dir.path()).unwrap();
    assert_eq!(keys(), before);
    std::fs::remove_file(dir.path().join(CA_KEY)).unwrap();
    let error = opened(&env, dir.path()).err().unwrap();
    assert!(matches!(error, PkiError::Incomplete { missing: CA_KEY, .. }), "{error}");
    assert!(dir.path().join(CA_CERT).exists());
    std::fs::write(dir.path().join(CA_KEY), "no key").unwrap();
    assert!(matches!(opened(&env, dir.path()).err().unwrap(), PkiError::Unreadable { .. }));
}
