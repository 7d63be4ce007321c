//! `vjepa man`: manual pages, one per command.

use std::path::PathBuf;

use super::{CliError, command};

/// Write manual pages, one per command
#[derive(clap::Args)]
pub struct Args {
    /// Folder to write to, e.g. ~/.local/share/man/man1; created if missing
    dir: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let written = std::fs::create_dir_all(&args.dir).and_then(|()| clap_mangen::generate_to(command(), &args.dir));
    Ok(written.map_err(|error| format!("cannot write manual pages to {}: {error}", args.dir.display()))?)
}
