//! `vjepa data`: the lists and shards that training and evaluation read, and what is wrong with the files.

mod index;
mod list;
mod overlap;
mod pack;
mod scan;
mod split;
mod subset;

use std::path::Path;

pub(super) use scan::with_ending;

use super::CliError;
pub(super) use subset::{Draws, share};
use vjepa_data::{Reading, VideoList};

/// Make, check, split and pack the data that training and evaluation read
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    List(list::Args),
    Scan(scan::Args),
    Split(split::Args),
    Subset(subset::Args),
    Overlap(overlap::Args),
    Pack(pack::Args),
    Index(index::Args),
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    match &args.command {
        Command::List(args) => list::run(args),
        Command::Scan(args) => scan::run(args),
        Command::Split(args) => split::run(args),
        Command::Subset(args) => subset::run(args),
        Command::Overlap(args) => overlap::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Index(args) => index::run(args),
    }
}

/// Reads a data set, and says how a list was read where it is not written as the official code's.
fn read(data: &Path) -> Result<VideoList, CliError> {
    read_with(data, Reading::default())
}

/// As [`read`], in another way.
fn read_with(data: &Path, reading: Reading<'_>) -> Result<VideoList, CliError> {
    let list = reading.read(data)?;
    list.remarks().iter().for_each(|note| eprintln!("note: {}: {note}", data.display()));
    Ok(list)
}
