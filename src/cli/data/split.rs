//! `vjepa data split`: training and validation parts of a list.

use std::path::PathBuf;

use vjepa_data::annotations::{Listing, Share};
use vjepa_data::checks::split;
use vjepa_runtime::files;

use super::subset::share;
use crate::cli::CliError;

/// Split a list in two, with the same share of each class on both sides
///
/// A video that is listed twice is on one side.
#[derive(clap::Args)]
pub struct Args {
    /// List, folder or shards
    list: PathBuf,
    /// Share of each class for the second part, e.g. 10%
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    share: Share,
    /// Seed of the random draw
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// The list of the larger part
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// The list of the share
    #[arg(long, value_name = "FILE")]
    val: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    for (flag, out) in [("--train", &args.train), ("--val", &args.val)] {
        files::spare(flag, out, &[out], [args.list.as_path()])?;
    }
    if files::same(&args.train, &args.val) {
        return Err("--train and --val name the same file: give two".into());
    }
    let list = super::read(&args.list)?;
    let parts = split(&list, args.share, args.seed)?;
    parts.notes.iter().for_each(|note| eprintln!("note: {note}"));
    for (path, part) in [(&args.train, parts.train), (&args.val, parts.val)] {
        let part = Listing::part(&list, part);
        part.write_list(path)?;
        println!("{} of {} samples: wrote {}", part.entries.len(), list.entries.len(), path.display());
    }
    Ok(())
}
