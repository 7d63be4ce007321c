//! `vjepa completions`: a completion script for a shell.

use std::io::Write;

use clap_complete::Shell;

use super::{CliError, command};

/// Print a completion script for your shell
#[derive(clap::Args)]
pub struct Args {
    /// Shell to complete in
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    // To memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "vjepa", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
