//! `vjepa quickstart`.

use super::CliError;
use crate::quickstart::{Quickstart, run as quickstart};
use std::path::PathBuf;

/// The whole job in minutes: pretrain, evaluate, probe, export, run on video files.
#[derive(clap::Args)]
pub struct Args {
    /// Train on the videos of this folder instead of drifting textures.
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    /// Where everything goes.
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,
    /// Seed of weights, data and masks.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training steps instead of the recipe's, at least 2, of which one warms up (fewer are quicker and learn less).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..))]
    steps: Option<u64>,
    /// One JSON document instead of the table.
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
        json: args.json,
    })?)
}
