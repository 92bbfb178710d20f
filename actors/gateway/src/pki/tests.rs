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

#[test]
fn a_host_keeps_its_key_and_is_certified_for_the_name_that_it_was_admitted_under() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::machine();
    let pki = opened(&env, &dir.path().join("pki")).unwrap();
    let open = || futures::executor::block_on(HostKey::open(&env, dir.path(), "host.key")).unwrap();
    let (first, second) = (open(), open());
    assert_eq!((first.pem(), first.hash()), (second.pem(), second.hash()), "it is kept");
    let mode = std::fs::metadata(dir.path().join("host.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The request names another host and its sender would like more rights: only its key counts.
    let request = first.request("n1-or-so").unwrap();
    assert_eq!(request_key_hash(&request), Some(first.hash()));
    let hour = Duration::from_secs(3600);
    let issued = pki.issue_host(&env, "n2", &request, hour).unwrap();
    assert_eq!((issued.key_hash, key_hash(&issued.pem)), (first.hash(), Some(first.hash())));
    let (from, until) = validity(&issued.pem).unwrap();
    let now = env.wall();
    assert!(from < now && now < until && until <= now.plus(hour));
    assert_eq!(until, issued.not_after);
    let (pem, _) =
        x509_parser::pem::Pem::read(std::io::Cursor::new(issued.pem.as_bytes())).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert_eq!(
        certificate.subject().to_string(),
        "CN=system:node:n2, O=system:nodes",
        "the request's own subject is not taken over"
    );
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
}

#[test]
fn a_request_that_is_none_or_whose_signature_is_wrong_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::machine();
    let pki = opened(&env, &dir.path().join("pki")).unwrap();
    let key = futures::executor::block_on(HostKey::open(&env, dir.path(), "host.key")).unwrap();
    let good = key.request("n1").unwrap();
    let (pem, _) = x509_parser::pem::Pem::read(std::io::Cursor::new(good.as_bytes())).unwrap();
    let mut bytes = pem.contents;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(bytes);
    let forged =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    for request in ["", "no request", &forged, &"x".repeat(1 << 20)] {
        let refused = pki.issue_host(&env, "n1", request, HOST_LIFETIME).unwrap_err();
        assert!(matches!(refused, PkiError::Request { .. }), "{refused}");
    }
    assert!(pki.issue_host(&env, "n1", &good, HOST_LIFETIME).is_ok());
}
