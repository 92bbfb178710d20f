//! The three JSON documents of an image: index, manifest, config. Only the fields that kactor honours.
//!
//! Field reference: OCI image-spec v1.1 and Docker's schema 2, which differ in media types alone.

use std::collections::BTreeMap;

use kactor_drivers::ImageConfig;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;

pub const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
pub const LAYERS_MAX: usize = 127;
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    pub manifests: Vec<Descriptor>,
}

/// The image's config blob.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub config: Option<RunConfig>,
    pub rootfs: RootFs,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

/// Docker writes `null` where a list is empty, so every field is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

impl Config {
    pub fn run(&self) -> ImageConfig {
        let it = self.config.clone().unwrap_or_default();
        ImageConfig {
            entrypoint: it.entrypoint.unwrap_or_default(),
            cmd: it.cmd.unwrap_or_default(),
            env: it.env.unwrap_or_default(),
            user: it.user.unwrap_or_default(),
            working_dir: it.working_dir.unwrap_or_default(),
            stop_signal: it.stop_signal.filter(|it| !it.is_empty()),
            labels: it.labels.unwrap_or_default(),
        }
    }

    pub fn from_run(run: &ImageConfig, diff_ids: Vec<Digest>) -> Self {
        let list = |it: &Vec<String>| (!it.is_empty()).then(|| it.clone());
        let text = |it: &String| (!it.is_empty()).then(|| it.clone());
        Self {
            architecture: architecture().to_owned(),
            os: "linux".to_owned(),
            config: Some(RunConfig {
                user: text(&run.user),
                env: list(&run.env),
                entrypoint: list(&run.entrypoint),
                cmd: list(&run.cmd),
                working_dir: text(&run.working_dir),
                stop_signal: run.stop_signal.clone(),
                labels: (!run.labels.is_empty()).then(|| run.labels.clone()),
            }),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        }
    }

    /// Refuses an image for another system; empty fields (very old images) pass.
    pub fn check_platform(&self) -> Result<(), ImageError> {
        let fits = |found: &str, wanted: &str| found.is_empty() || found == wanted;
        if fits(&self.os, "linux") && fits(&self.architecture, architecture()) {
            return Ok(());
        }
        Err(ImageError::Platform {
            found: format!("{}/{}", self.os, self.architecture),
            wanted: format!("linux/{}", architecture()),
        })
    }
}

/// This machine's name in the words of Go, which images use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        other => other,
    }
}

/// Parses and checks that config and layers belong together.
pub fn check_together(manifest: &Manifest, config: &Config) -> Result<(), ImageError> {
    let (n_layers, n_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if n_layers > LAYERS_MAX {
        return Err(ImageError::TooMany { name: "the manifest".to_owned(), n_max: LAYERS_MAX });
    }
    if n_layers != n_ids {
        return Err(ImageError::NotAnImage {
            why: format!("its manifest has {n_layers} layers, its config {n_ids}"),
        });
    }
    for layer in &manifest.layers {
        check_layer_type(&layer.media_type)?;
    }
    config.check_platform()
}

fn check_layer_type(media_type: &str) -> Result<(), ImageError> {
    let known = [
        LAYER_TYPE,
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    match known.contains(&media_type) {
        true => Ok(()),
        false => Err(ImageError::MediaType { media_type: media_type.to_owned() }),
    }
}

pub fn parse<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|why| ImageError::malformed(name, why))
}

/// Bytes of a document of ours: fields in the order of the struct, maps sorted.
pub fn print<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents hold only strings, numbers and lists")
}
