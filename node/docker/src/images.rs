//! Images in dockerd's own store: looked up, pulled, imported, removed; and the pause image, made here.
//!
//! The store is the machine's: images that users import or pull stay there when an instance goes. A tarball is read by
//! kactor first (checked, all or none, OCI layouts too, which older Dockers do not know) and given on as `docker save`.

use std::io::Write;
use std::path::{Path, PathBuf};

use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptions, ImportImageOptions, ListContainersOptions, ListImagesOptions,
    RemoveImageOptions,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kactor_drivers::error::PullRetry;
use kactor_drivers::{DriverError, Image, ImageConfig, RegistryAuth};
use kactor_images::build::{image_from_files, program_entries};
use kactor_images::{ImageError, ImageStore, Limits, Reference, archive, export};
use kactor_runtime::env::Lane;
use tokio::sync::{mpsc, oneshot};

use crate::driver::Inner;
use crate::engine::{code, message};
use crate::labels;

const INSPECTS_AT_ONCE: usize = 8;
/// Pieces of a tarball between the one who reads it and the socket.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 256 * 1024;

fn image_error(reference: &str, error: ImageError) -> DriverError {
    let (reference, why) = (reference.to_owned(), error.to_string());
    match error {
        ImageError::BadReference { .. } | ImageError::BadDigest { .. } => {
            DriverError::BadReference { reference, why }
        }
        ImageError::NotFound { .. } => DriverError::NoImage { reference },
        ImageError::DiskFull { .. } => {
            DriverError::DiskFull { doing: format!("{reference}: {why}") }
        }
        ImageError::Io { doing, source } => {
            DriverError::io(format!("{reference}: {doing}"), source)
        }
        _ => DriverError::BadImage { reference, why },
    }
}

fn parse(reference: &str) -> Result<Reference, DriverError> {
    reference.parse().map_err(|it| image_error(reference, it))
}

/// `sha256:…` is an id and no name.
fn is_id(reference: &str) -> bool {
    reference.starts_with("sha256:")
}

/// dockerd's short names as Kubernetes knows them.
fn full_names(names: Option<Vec<String>>) -> Vec<String> {
    let known = names.into_iter().flatten().filter(|it| !it.contains("<none>"));
    let mut full: Vec<String> =
        known.map(|it| it.parse::<Reference>().map_or(it, |parsed| parsed.to_string())).collect();
    full.sort();
    full
}

fn described(it: ImageInspect) -> Image {
    let config = it.config.unwrap_or_default();
    Image {
        id: it.id.unwrap_or_default(),
        tags: full_names(it.repo_tags),
        digests: full_names(it.repo_digests),
        size_bytes: it.size.and_then(|it| u64::try_from(it).ok()).unwrap_or_default(),
        config: ImageConfig {
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            stop_signal: config.stop_signal.filter(|it| !it.is_empty()),
            labels: config.labels.into_iter().flatten().collect(),
        },
    }
}

/// What a registry said decides whether it is asked again soon.
fn pull_error(reference: &str, why: String) -> DriverError {
    let refused = ["denied", "unauthorized", "not found", "manifest unknown", "does not exist"];
    let lower = why.to_lowercase();
    let retry = match refused.iter().any(|it| lower.contains(it)) {
        true => PullRetry::Refused,
        false => PullRetry::Later,
    };
    DriverError::Pull { reference: reference.to_owned(), why, retry }
}

impl Inner {
    pub async fn image(&self, reference: &str) -> Result<Option<Image>, DriverError> {
        if !is_id(reference) {
            parse(reference)?;
        }
        match self.engine.docker.inspect_image(reference).await {
            Ok(it) => Ok(Some(described(it))),
            Err(error) if code(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.engine.error(format!("looking for image {reference}"), error)),
        }
    }

    pub async fn images(&self) -> Result<Vec<Image>, DriverError> {
        let listed = self.engine.docker.list_images(None::<ListImagesOptions>).await;
        let listed = listed.map_err(|it| self.engine.error("listing images", it))?;
        let inspected = stream::iter(listed)
            .map(|it| async move { self.image(&it.id).await })
            .buffered(INSPECTS_AT_ONCE);
        let mut images: Vec<Image> =
            inspected.try_filter_map(|it| async { Ok(it) }).try_collect().await?;
        images.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(images)
    }

    pub async fn pull(&self, reference: &str, auth: &RegistryAuth) -> Result<Image, DriverError> {
        let parsed = parse(reference)?;
        if parsed.digest.is_some()
            && let Some(image) = self.image(reference).await?
        {
            return Ok(image);
        }
        let version = parsed.digest.as_ref().map(ToString::to_string).or(parsed.tag.clone());
        let options = CreateImageOptions {
            from_image: Some(parsed.name()),
            tag: version,
            ..Default::default()
        };
        let credentials = credentials(&parsed, auth);
        let mut progress = self.engine.docker.create_image(Some(options), None, credentials);
        while let Some(step) = progress.next().await {
            step.map_err(|it| match it {
                Error::DockerResponseServerError { .. } | Error::DockerStreamError { .. } => {
                    pull_error(reference, message(&it))
                }
                other => self.engine.error(format!("pulling {reference}"), other),
            })?;
        }
        let image = self.image(reference).await?;
        image.ok_or_else(|| pull_error(reference, "dockerd pulled it but has it not".to_owned()))
    }

    pub async fn import(&self, tarball: &Path) -> Result<Vec<Image>, DriverError> {
        let (name, tarball) = (tarball.display().to_string(), tarball.to_owned());
        let images = self.load(name, move |store| {
            let images = archive::import(store, &tarball)?;
            Ok(images.into_iter().map(|it| (it.id, it.tags)).collect())
        });
        let mut loaded = Vec::new();
        for (id, _) in images.await? {
            loaded.extend(self.image(&id).await?);
        }
        Ok(loaded)
    }

    /// Makes images in a store of their own, then gives them to dockerd; ids with their names.
    async fn load(
        &self,
        name: String,
        make: impl FnOnce(&ImageStore) -> Result<Vec<(String, Vec<String>)>, ImageError>
        + Send
        + 'static,
    ) -> Result<Vec<(String, Vec<String>)>, DriverError> {
        let dir = self.state_dir.join(format!("load-{:016x}", self.env.random_u64()));
        let (pieces, mut received) = mpsc::channel(PIECES_MAX);
        let (made, images) = oneshot::channel();
        let work = {
            let dir = dir.clone();
            move || {
                let store = ImageStore::open(&dir, Limits::default())?;
                let images = make(&store)?;
                export::docker_archive(&store, &images, Pieces::new(pieces))?;
                Ok(images)
            }
        };
        self.env.spawn(Lane::Blocking, async move {
            let done: Result<_, ImageError> = work();
            let _ = std::fs::remove_dir_all(&dir); // What stays is removed at the next start.
            let _ = made.send(done); // Who asked may have gone.
        });
        // Nothing of it goes to dockerd before all of it has been checked.
        let first = received.recv().await;
        if first.is_some() {
            let body = stream::once(async move { first })
                .filter_map(|it| async { it })
                .chain(stream::poll_fn(move |context| received.poll_recv(context)));
            let body = bollard::body_stream(body);
            let options = ImportImageOptions { quiet: true, ..Default::default() };
            let mut steps = self.engine.docker.import_image(options, body, None);
            while let Some(step) = steps.next().await {
                step.map_err(|it| self.engine.error(format!("loading {name}"), it))?;
            }
        }
        match images.await {
            Ok(done) => done.map_err(|it| image_error(&name, it)),
            Err(_) => Err(DriverError::Runtime {
                doing: format!("loading {name}"),
                why: "the lane for blocking work has stopped".to_owned(),
            }),
        }
    }

    /// Untags a name; an id goes with all its names.
    pub async fn remove(&self, reference: &str) -> Result<(), DriverError> {
        let image = self.image(reference).await?;
        let image =
            image.ok_or_else(|| DriverError::NoImage { reference: reference.to_owned() })?;
        let names = match is_id(reference) {
            true if !image.tags.is_empty() => image.tags.clone(),
            _ => vec![reference.to_owned()],
        };
        if is_id(reference) || image.tags.len() <= 1 {
            let n_users = self.users(&image.id).await?;
            if n_users > 0 {
                return Err(DriverError::ImageInUse { reference: reference.to_owned(), n_users });
            }
        }
        for name in names {
            let removed =
                self.engine.docker.remove_image(&name, None::<RemoveImageOptions>, None).await;
            match removed {
                Ok(_) => {}
                Err(error) if code(&error) == Some(404) => {}
                // A container came meanwhile.
                Err(error) if code(&error) == Some(409) => {
                    let n_users = self.users(&image.id).await?.max(1);
                    let reference = reference.to_owned();
                    return Err(DriverError::ImageInUse { reference, n_users });
                }
                Err(error) => {
                    return Err(self.engine.error(format!("removing image {name}"), error));
                }
            }
        }
        Ok(())
    }

    /// Containers of anybody that were made from it.
    async fn users(&self, image_id: &str) -> Result<usize, DriverError> {
        let options = ListContainersOptions { all: true, ..Default::default() };
        let listed = self.engine.docker.list_containers(Some(options)).await;
        let listed = listed.map_err(|it| self.engine.error("listing containers", it))?;
        Ok(listed.iter().filter(|it| it.image_id.as_deref() == Some(image_id)).count())
    }

    /// The name of this instance's pause image; a later version of kactor makes another.
    pub fn pause_image(&self) -> String {
        format!("docker.io/kactor/pause:{}-{}", env!("CARGO_PKG_VERSION"), self.instance)
    }

    /// Made from kactor's own program when it is not there.
    pub async fn need_pause_image(&self) -> Result<String, DriverError> {
        let name = self.pause_image();
        let _making = self.making_pause_image.lock().await;
        if self.image(&name).await?.is_some() {
            return Ok(name);
        }
        let mut entrypoint = vec!["/bin/kactor".to_owned()];
        entrypoint.extend(self.pause.args.iter().cloned());
        let owned =
            [(labels::INSTANCE, self.instance.as_str()), (labels::KIND, labels::PAUSE_IMAGE)];
        let config = ImageConfig {
            entrypoint,
            labels: owned.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..ImageConfig::default()
        };
        let (program, named): (PathBuf, String) = (self.pause.program.clone(), name.clone());
        self.load("the pause image".to_owned(), move |store| {
            let entries = program_entries(&program, "kactor")?;
            let image = image_from_files(store, &named, &entries, &config)?;
            Ok(vec![(image.id, image.tags)])
        })
        .await?;
        Ok(name)
    }
}

fn credentials(reference: &Reference, auth: &RegistryAuth) -> Option<DockerCredentials> {
    let serveraddress = Some(reference.registry.clone());
    match auth {
        RegistryAuth::Anonymous => None,
        RegistryAuth::Basic { username, password } => Some(DockerCredentials {
            username: Some(username.clone()),
            password: Some(password.clone()),
            serveraddress,
            ..Default::default()
        }),
        RegistryAuth::Bearer { token } => Some(DockerCredentials {
            registrytoken: Some(token.clone()),
            serveraddress,
            ..Default::default()
        }),
    }
}

/// A writer whose bytes go into a bounded queue; it blocks while that is full.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    bytes: Vec<u8>,
}

impl Pieces {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, bytes: Vec::with_capacity(PIECE_BYTES) }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.bytes));
        // Unconstrained: tokio lets a task yield after so many sends, and this one blocks where it cannot.
        let sending = tokio::task::unconstrained(self.sender.send(piece));
        let sent = futures::executor::block_on(sending);
        sent.map_err(|_| std::io::Error::other("dockerd takes no more of it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tarball_of_many_pieces_goes_through_the_small_queue() {
        const PIECES: usize = 300;
        let machine = kactor_runtime::env::Machine::start();
        let (sender, mut received) = mpsc::channel(PIECES_MAX);
        machine.env().spawn(Lane::Blocking, async move {
            let mut pieces = Pieces::new(sender);
            let piece = vec![0; PIECE_BYTES];
            (0..PIECES).for_each(|_| pieces.write_all(&piece).unwrap());
        });
        let count = async {
            let mut n_bytes = 0;
            while let Some(piece) = received.recv().await {
                n_bytes += piece.len();
            }
            n_bytes
        };
        assert_eq!(machine.block_on(count).unwrap(), PIECES * PIECE_BYTES);
    }

    #[test]
    fn dockers_short_names_become_whole_ones() {
        let names = ["busybox:latest", "kactor/x:1", "r.io:5000/a:2", "<none>:<none>"];
        let full = full_names(Some(names.map(str::to_owned).to_vec()));
        assert_eq!(
            full,
            ["docker.io/kactor/x:1", "docker.io/library/busybox:latest", "r.io:5000/a:2"]
        );
        assert!(full_names(None).is_empty());
    }

    #[test]
    fn a_refusal_of_a_registry_is_told_from_its_absence() {
        let retry = |why: &str| match pull_error("x", why.to_owned()) {
            DriverError::Pull { retry, .. } => retry,
            other => panic!("{other}"),
        };
        for why in ["pull access denied for x", "manifest unknown", "unauthorized: log in"] {
            assert_eq!(retry(why), PullRetry::Refused, "{why}");
        }
        assert_eq!(retry("dial tcp: lookup r.io: no such host"), PullRetry::Later);
    }

    #[test]
    fn credentials_go_to_the_registry_of_the_reference() {
        let reference = parse("r.io:5000/a/b:1").unwrap();
        let auth = RegistryAuth::Basic { username: "u".to_owned(), password: "p".to_owned() };
        let made = credentials(&reference, &auth).unwrap();
        assert_eq!(made.serveraddress.as_deref(), Some("r.io:5000"));
        assert_eq!((made.username.as_deref(), made.password.as_deref()), (Some("u"), Some("p")));
        assert!(credentials(&reference, &RegistryAuth::Anonymous).is_none());
    }
}
