//! `vjepa quickstart`.

use super::CliError;
use super::named::named;
use crate::quickstart::{Quickstart, run as quickstart};
use std::path::PathBuf;
use vjepa_recipe::config::Generation;

/// Pretrain, evaluate, probe, export and run a small model, in minutes
#[derive(clap::Args)]
pub struct Args {
    /// Train on the videos in this folder instead of generated textures
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    /// Output folder
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,
    /// Seed of weights, data and masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Generation of the model
    #[arg(long, value_name = "GENERATION", default_value = Generation::V1.name())]
    #[arg(value_parser = named(&Generation::ALL, Generation::name, Generation::about))]
    model: Generation,
    /// Number of training steps, at least 2 [default: that of the recipe]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    steps: Option<u64>,
    /// Print JSON instead of the tables
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    Ok(quickstart(&Quickstart {
        folder: args.out.clone(),
        seed: args.seed,
        steps: args.steps,
        videos: args.videos.clone(),
        generation: args.model,
        json: args.json,
    })?)
}
