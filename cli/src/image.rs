//! `kactor image`: what the node can run without a registry.
//!
//! The running kactor owns its images, so every order goes to it; a tarball is named by its path and read there.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use kactor_drivers::Image;
use kactor_gateway::ImageOrder;
use kactor_runtime::env::Env;

use crate::args::{ImageCommand, Output};
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::print::table;
use crate::progress::Progress;

/// A tarball of gigabytes is hashed and written to a disk that may be slow.
const IMPORT_MAX: Duration = Duration::from_secs(3600);

pub fn run(command: &ImageCommand) -> anyhow::Result<ExitCode> {
    let images = ask(command)?;
    match command {
        ImageCommand::Import { output: Output::Json, .. }
        | ImageCommand::List { output: Output::Json, .. } => {
            println!("{}", serde_json::to_string_pretty(&images)?);
        }
        ImageCommand::Import { .. } => {
            images.iter().for_each(|it| println!("imported {} ({})", it.tags.join(", "), it.id));
        }
        ImageCommand::List { .. } => {
            let row = |it: &Image| {
                let id: String = it.id.chars().take(19).collect();
                vec![it.tags.join(" "), id, megabytes(it.size_bytes)]
            };
            let rows: Vec<_> = images.iter().map(row).collect();
            print!("{}", table(&["NAMES", "ID", "SIZE"], &rows));
        }
        ImageCommand::Rm { reference, .. } => println!("removed {reference}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives the order to the running kactor; answers the images that it is about.
fn ask(command: &ImageCommand) -> anyhow::Result<Vec<Image>> {
    let (named, order, doing) = match command {
        ImageCommand::Import { file, data_dir, .. } => {
            let path = std::fs::canonicalize(file)
                .with_context(|| format!("the tarball {}", file.display()))?;
            let size = path.metadata().map_or(0, |it| it.len());
            let doing = format!("importing {}, {}", file.display(), megabytes(size));
            (data_dir, ImageOrder::Import { path }, doing)
        }
        ImageCommand::List { data_dir, .. } => (data_dir, ImageOrder::List, "asking".to_owned()),
        ImageCommand::Rm { reference, data_dir } => {
            let order = ImageOrder::Remove { reference: reference.clone() };
            (data_dir, order, format!("removing {reference}"))
        }
    };
    let dir = DataDir::find(named.as_deref())?;
    block_on(async {
        let client = Client::of(&dir)?.patient(IMPORT_MAX);
        let order = serde_json::to_value(&order)?;
        let answer = client.post("/kactor/v1/images", &order);
        let answer = Progress::new(&Env::machine()).during(&doing, answer).await?;
        serde_json::from_value(answer.json()?).context("the answer is of another version of kactor")
    })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
