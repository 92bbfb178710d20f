//! `kactor image`: what the node can run without a registry.
//!
//! The running kactor owns its images, so every order goes to it; a tarball is named by its path and read there.

use std::process::ExitCode;

use anyhow::Context;
use kactor_drivers::Image;
use kactor_gateway::ImageOrder;

use crate::args::{ImageCommand, Output};
use crate::client::{Client, block_on};
use crate::data_dir::DataDir;
use crate::print::table;

pub fn run(command: &ImageCommand) -> anyhow::Result<ExitCode> {
    let (named, order) = match command {
        ImageCommand::Import { file, data_dir } => {
            let path = std::fs::canonicalize(file)
                .with_context(|| format!("the tarball {}", file.display()))?;
            (data_dir, ImageOrder::Import { path })
        }
        ImageCommand::List { data_dir, .. } => (data_dir, ImageOrder::List),
        ImageCommand::Rm { reference, data_dir } => {
            (data_dir, ImageOrder::Remove { reference: reference.clone() })
        }
    };
    let dir = DataDir::find(named.as_deref())?;
    let images: Vec<Image> = block_on(async {
        let answer =
            Client::of(&dir)?.post("/kactor/v1/images", &serde_json::to_value(&order)?).await?;
        serde_json::from_value(answer.json()?).context("the answer is of another version of kactor")
    })?;
    match command {
        ImageCommand::Import { .. } => {
            images.iter().for_each(|it| println!("imported {} ({})", it.tags.join(", "), it.id));
        }
        ImageCommand::List { output: Output::Json, .. } => {
            println!("{}", serde_json::to_string_pretty(&images)?)
        }
        ImageCommand::List { .. } => {
            let row = |it: &Image| {
                let id: String = it.id.chars().take(19).collect();
                vec![it.tags.join(" "), id, format!("{:.1} MB", it.size_bytes as f64 / 1e6)]
            };
            print!(
                "{}",
                table(&["NAMES", "ID", "SIZE"], &images.iter().map(row).collect::<Vec<_>>())
            );
        }
        ImageCommand::Rm { reference, .. } => println!("removed {reference}"),
    }
    Ok(ExitCode::SUCCESS)
}
