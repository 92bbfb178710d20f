//! Pulling from an OCI registry: manifest by manifest, layers streamed into the store as they come.
//!
//! oci-client speaks the protocol (tokens, redirects); what it fetches is hashed here while it is written, and
//! layers that are here already are not fetched. Plain HTTP only to registries on this very machine.

use std::str::FromStr;
use std::sync::Once;

use futures::StreamExt;
use kactor_drivers::{Image, RegistryAuth};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth as OciAuth;
use oci_client::{Client, Reference as OciReference};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{self, Config, DOCUMENT_BYTES_MAX, Index, Manifest, check_together};
use crate::reference::Reference;
use crate::store::ImageStore;

const ACCEPTED: &[&str] = &[
    manifest::MANIFEST_TYPE,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Fetches an image and names it. Content that is here already is not fetched again.
pub async fn pull(
    store: &ImageStore,
    reference: &Reference,
    auth: &RegistryAuth,
) -> Result<Image, ImageError> {
    let pulling = Pulling::new(store, reference, auth)?;
    let (top, bytes) = pulling.top_manifest().await?;
    let (digest, manifest) = pulling.for_this_machine(top.clone(), bytes).await?;
    let config_bytes = pulling.document(&manifest.config).await?;
    let config: Config = manifest::parse("the image's config", &config_bytes)?;
    check_together(&manifest, &config)?; // Before gigabytes are fetched for nothing.
    for layer in &manifest.layers {
        pulling.blob(layer).await?;
    }
    let mut by_digest = reference.clone();
    by_digest.digest = Some(top);
    let mut images = store.register(&[(digest, vec![by_digest])])?;
    Ok(images.pop().expect("register answers one image for each"))
}

struct Pulling<'a> {
    store: &'a ImageStore,
    shown: String,
    reference: OciReference,
    auth: OciAuth,
    client: Client,
    wanted: Option<Digest>,
}

impl<'a> Pulling<'a> {
    fn new(
        store: &'a ImageStore,
        reference: &Reference,
        auth: &RegistryAuth,
    ) -> Result<Self, ImageError> {
        install_tls();
        let protocol = match reference.is_loopback() {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        };
        let config = ClientConfig { protocol, user_agent: "kactor", ..ClientConfig::default() };
        let shown = reference.to_string();
        let fetch = |why: String| ImageError::Fetch { reference: shown.clone(), why };
        let client = Client::try_from(config).map_err(|it| fetch(it.to_string()))?;
        // A digest says it all: a tag beside it is not asked for.
        let by = match &reference.digest {
            Some(digest) => format!("{}@{digest}", reference.name()),
            None => shown.clone(),
        };
        let oci = OciReference::from_str(&by).map_err(|it| fetch(it.to_string()))?;
        let auth = match auth {
            RegistryAuth::Anonymous => OciAuth::Anonymous,
            RegistryAuth::Basic { username, password } => {
                OciAuth::Basic(username.clone(), password.clone())
            }
            RegistryAuth::Bearer { token } => OciAuth::Bearer(token.clone()),
        };
        let wanted = reference.digest.clone();
        Ok(Self { store, shown, reference: oci, auth, client, wanted })
    }

    async fn top_manifest(&self) -> Result<(Digest, Vec<u8>), ImageError> {
        let pulled = self.client.pull_manifest_raw(&self.reference, &self.auth, ACCEPTED).await;
        let (bytes, _) = pulled.map_err(|it| self.error(it))?;
        let found = Digest::of(&bytes);
        if let Some(wanted) = self.wanted.as_ref().filter(|it| **it != found) {
            let name = self.shown.clone();
            return Err(ImageError::WrongDigest { name, wanted: wanted.clone(), found });
        }
        self.keep(&bytes).map(|digest| (digest, bytes.to_vec()))
    }

    fn keep(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let name = format!("the manifest of {}", self.shown);
            return Err(ImageError::TooLarge { name, bytes_max: DOCUMENT_BYTES_MAX });
        }
        Ok(self.store.write_blob("the manifest", bytes, None)?.0)
    }

    /// Through an index to the one manifest that runs here.
    async fn for_this_machine(
        &self,
        digest: Digest,
        bytes: Vec<u8>,
    ) -> Result<(Digest, Manifest), ImageError> {
        let Ok(index) = manifest::parse::<Index>("the index", &bytes) else {
            return Ok((digest, manifest::parse("the manifest", &bytes)?));
        };
        let fits = |it: &&manifest::Descriptor| {
            it.platform
                .as_ref()
                .is_some_and(|it| it.os == "linux" && it.architecture == manifest::architecture())
        };
        let Some(entry) = index.manifests.iter().find(fits) else {
            let wanted = format!("linux/{}", manifest::architecture());
            return Err(ImageError::Platform { found: "other machines only".to_owned(), wanted });
        };
        let name = format!("{}/{}", self.reference.registry(), self.reference.repository());
        let by_digest = OciReference::from_str(&format!("{name}@{}", entry.digest))
            .map_err(|why| ImageError::malformed("the index", why))?;
        let pulled = self.client.pull_manifest_raw(&by_digest, &self.auth, ACCEPTED).await;
        let (bytes, _) = pulled.map_err(|it| self.error(it))?;
        let found = Digest::of(&bytes);
        if found != entry.digest {
            let (name, wanted) = (self.shown.clone(), entry.digest.clone());
            return Err(ImageError::WrongDigest { name, wanted, found });
        }
        let digest = self.keep(&bytes)?;
        Ok((digest, manifest::parse("the manifest", &bytes)?))
    }

    async fn document(&self, descriptor: &manifest::Descriptor) -> Result<Vec<u8>, ImageError> {
        if descriptor.size > DOCUMENT_BYTES_MAX {
            let name = format!("the config of {}", self.shown);
            return Err(ImageError::TooLarge { name, bytes_max: DOCUMENT_BYTES_MAX });
        }
        self.blob(descriptor).await?;
        self.store.read_document(&descriptor.digest)
    }

    /// Streams a blob into the store; the size that the manifest says is its bound.
    async fn blob(&self, descriptor: &manifest::Descriptor) -> Result<(), ImageError> {
        if self.store.has_blob(&descriptor.digest) {
            return Ok(());
        }
        let layer = OciDescriptor {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest.to_string(),
            size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let pulled = self.client.pull_blob_stream(&self.reference, &layer).await;
        let mut stream = pulled.map_err(|it| self.error(it))?.stream;
        let name = format!("{} of {}", descriptor.digest, self.shown);
        let mut blob = self.store.begin_blob(&name)?;
        let mut n_bytes = 0_u64;
        while let Some(piece) = stream.next().await {
            let fetch = |why: String| ImageError::Fetch { reference: self.shown.clone(), why };
            let piece = piece.map_err(|it| fetch(it.to_string()))?;
            n_bytes += piece.len() as u64;
            if n_bytes > descriptor.size {
                return Err(ImageError::TooLarge { name, bytes_max: descriptor.size });
            }
            blob.write(&piece)?;
        }
        blob.finish(Some(&descriptor.digest)).map(|_| ())
    }

    /// Refusals are told apart from what may work later.
    fn error(&self, error: OciDistributionError) -> ImageError {
        use OciDistributionError as E;
        let refused = match &error {
            E::AuthenticationFailure(_) | E::UnauthorizedError { .. } => true,
            E::ImageManifestNotFoundError(_) => true,
            E::RegistryError { envelope, .. } => envelope.errors.iter().any(|it| {
                matches!(
                    it.code,
                    OciErrorCode::ManifestUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                        | OciErrorCode::Denied
                        | OciErrorCode::Unauthorized
                        | OciErrorCode::BlobUnknown
                )
            }),
            E::ServerError { code, .. } => (400..500).contains(code) && *code != 429,
            _ => false,
        };
        let (reference, why) = (self.shown.clone(), chain(&error));
        match refused {
            true => ImageError::Refused { reference, why },
            false => ImageError::Fetch { reference, why },
        }
    }
}

/// reqwest says the useful part ("connection refused") only in its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(it) = source {
        let more = it.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = it.source();
    }
    text
}

/// oci-client is built without a crypto provider; the process's default is ring, once.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Somebody else installed one first: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests;
