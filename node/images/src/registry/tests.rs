//! Pulls against a small registry on loopback: it knows one image and may ask for a password.

use super::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::build::{Content, Entry, image_from_files};
use crate::store::Limits;
use kactor_drivers::ImageConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Path to (content type, body); and what was asked for.
#[derive(Default)]
struct Registry {
    pages: BTreeMap<String, (String, Vec<u8>)>,
    password: Option<&'static str>,
    asked: Mutex<Vec<String>>,
}

/// An image made in a store of its own, offered under `app:1`.
fn registry(password: Option<&'static str>) -> (Registry, Image) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), Limits::default()).unwrap();
    let content = Content::Bytes(b"hello".to_vec());
    let entry = Entry { path: "/hello".to_owned(), content, mode: 0o644 };
    let image = image_from_files(&store, "app:1", &[entry], &ImageConfig::default()).unwrap();
    let resolved = store.find("app:1").unwrap().unwrap();
    let bytes = |it: &Digest| std::fs::read(store.blob_path(it)).unwrap();
    let mut pages = BTreeMap::new();
    let manifest = (manifest::MANIFEST_TYPE.to_owned(), bytes(&resolved.manifest_digest));
    for name in ["1", resolved.manifest_digest.as_str()] {
        pages.insert(format!("/v2/app/manifests/{name}"), manifest.clone());
    }
    for blob in resolved.manifest.layers.iter().chain([&resolved.manifest.config]) {
        let page = ("application/octet-stream".to_owned(), bytes(&blob.digest));
        pages.insert(format!("/v2/app/blobs/{}", blob.digest), page);
    }
    (Registry { pages, password, asked: Mutex::default() }, image)
}

impl Registry {
    fn answer(&self, request: &str) -> Vec<u8> {
        let path = request.split(' ').nth(1).unwrap_or_default();
        self.asked.lock().unwrap().push(path.to_owned());
        let allowed =
            self.password.is_none_or(|it| request.to_lowercase().contains(&it.to_lowercase()));
        let page = self.pages.get(path);
        let (status, extra, body) = match (allowed, page) {
            (false, _) => {
                ("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", &b"{}"[..])
            }
            (true, None) if path == "/v2/" => ("200 OK", "", &b"{}"[..]),
            (true, None) => {
                let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#;
                ("404 Not Found", "content-type: application/json\r\n", &body[..])
            }
            (true, Some((_, body))) => ("200 OK", "", body.as_slice()),
        };
        let kind = page.map(|it| format!("content-type: {}\r\n", it.0)).unwrap_or_default();
        let mut out =
            format!("HTTP/1.1 {status}\r\n{kind}{extra}content-length: {}\r\n\r\n", body.len())
                .into_bytes();
        if !request.starts_with("HEAD") {
            out.extend_from_slice(body);
        }
        out
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream) {
        let mut seen = Vec::new();
        let mut buffer = [0_u8; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            seen.extend_from_slice(&buffer[..n]);
            while let Some(end) = seen.windows(4).position(|it| it == b"\r\n\r\n") {
                let request = String::from_utf8_lossy(&seen[..end]).into_owned();
                seen.drain(..end + 4);
                if stream.write_all(&self.answer(&request)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Pulls `name` from a registry that serves until the pull is done.
async fn pull_from(
    registry: Arc<Registry>,
    store: &ImageStore,
    name: &str,
    auth: &RegistryAuth,
) -> Result<Image, ImageError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reference = format!("{}/{name}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = async {
        let mut connections = futures::stream::FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    connections.push(Arc::clone(&registry).connection(accepted.unwrap().0));
                }
                Some(()) = connections.next() => {}
            }
        }
    };
    tokio::select! {
        done = pull(store, &reference, auth) => done,
        () = serving => unreachable!("it serves for ever"),
    }
}

fn empty_store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path(), Limits::default()).unwrap();
    (dir, store)
}

#[tokio::test]
async fn an_image_is_pulled_once_over_plain_http_from_this_machine() {
    let (registry, image) = registry(None);
    let registry = Arc::new(registry);
    let (_dir, store) = empty_store();
    let pulled = pull_from(Arc::clone(&registry), &store, "app:1", &RegistryAuth::Anonymous).await;
    let pulled = pulled.unwrap();
    assert_eq!(pulled.id, image.id);
    assert!(pulled.tags[0].ends_with("/app:1") && pulled.digests[0].contains("/app@sha256:"));
    registry.asked.lock().unwrap().clear();
    pull_from(Arc::clone(&registry), &store, "app:1", &RegistryAuth::Anonymous).await.unwrap();
    let again = registry.asked.lock().unwrap();
    assert!(!again.iter().any(|it| it.contains("/blobs/")), "{again:?}");
}

#[tokio::test]
async fn a_password_is_sent_when_the_registry_asks() {
    // base64 of "me:secret"
    let (registry, _) = registry(Some("Basic bWU6c2VjcmV0"));
    let registry = Arc::new(registry);
    let (_dir, store) = empty_store();
    let denied = pull_from(Arc::clone(&registry), &store, "app:1", &RegistryAuth::Anonymous).await;
    assert!(matches!(denied, Err(ImageError::Refused { .. })), "{denied:?}");
    let auth = RegistryAuth::Basic { username: "me".to_owned(), password: "secret".to_owned() };
    pull_from(registry, &store, "app:1", &auth).await.unwrap();
}

#[tokio::test]
async fn content_that_does_not_match_its_digest_is_not_kept() {
    let (mut registry, _) = registry(None);
    let blob =
        registry.pages.keys().filter(|it| it.contains("/blobs/")).cloned().next_back().unwrap();
    let body = &mut registry.pages.get_mut(&blob).unwrap().1;
    let last = body.len() - 1;
    body[last] ^= 1;
    let (_dir, store) = empty_store();
    let done = pull_from(Arc::new(registry), &store, "app:1", &RegistryAuth::Anonymous).await;
    assert!(done.is_err());
    assert_eq!(store.images().unwrap(), []);
}

#[tokio::test]
async fn unknown_images_are_refused_and_absent_registries_may_come_back() {
    let (registry, _) = registry(None);
    let (_dir, store) = empty_store();
    let unknown = pull_from(Arc::new(registry), &store, "app:9", &RegistryAuth::Anonymous).await;
    assert!(matches!(unknown, Err(ImageError::Refused { .. })), "{unknown:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference = format!("{address}/app:1").parse().unwrap();
    let absent = pull(&store, &reference, &RegistryAuth::Anonymous).await;
    assert!(matches!(absent, Err(ImageError::Fetch { .. })), "{absent:?}");
}
