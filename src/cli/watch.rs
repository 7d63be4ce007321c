//! `vjepa watch`: a run that goes on elsewhere, in this terminal.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::CliError;
use super::whole::whole;
use vjepa_report::run::Run;
use vjepa_report::watch::{snapshot, summary, watch};

/// Watch a run in progress: curves, diagnostics, speed, and whether it stalls; `q` quits
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the run (`logging.folder`)
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Print the current state and exit; needs no terminal
    #[arg(long)]
    once: bool,
    /// Seconds between two looks at the folder
    #[arg(long, value_name = "SECONDS", default_value_t = 2, conflicts_with = "once", value_parser = whole::<u64>(1..=3600))]
    every: u64,
    /// Print JSON
    #[arg(long, requires = "once")]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    if !args.once {
        let last = watch(&args.run, Duration::from_secs(args.every))?;
        println!("{}  {}", last.folder.display(), last.state(SystemTime::now()).in_words());
        return Ok(());
    }
    let run = Run::read(&args.run)?;
    let now = SystemTime::now();
    if args.json {
        println!("{}", summary(&run, now));
    } else {
        print!("{}", snapshot(&run, now));
    }
    Ok(())
}
