//! The command line: one file a command, each with its arguments (`Args`) and `run`.
//!
//! Every command prints for people, or with `--json` one JSON document (or one a line) for machines on standard output;
//! progress and warnings go to standard error. Errors are one sentence with the remedy, exit code 1; wrong arguments exit
//! with 2 as clap does.

mod bench;
mod compile;
mod config;
mod convert;
mod device;
mod doctor;
mod eval;
mod features;
mod frames;
mod inspect;
mod memory;
mod probe;
mod quickstart;
mod run;
mod runner;
mod runtime;
mod serve;
mod train;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A failed command: one sentence that says what to do.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(name = "vjepa", version, about = "V-JEPA: pretrain, probe, evaluate, compile, deploy", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Args),
    Compile(compile::Args),
    Config(config::Args),
    Convert(convert::Args),
    Doctor(doctor::Args),
    Eval(eval::Args),
    Features(features::Args),
    Frames(frames::Args),
    Inspect(inspect::Args),
    Probe(probe::Args),
    Quickstart(quickstart::Args),
    Run(run::Args),
    Serve(serve::Args),
    Train(train::Args),
    /// Compare this program with the official code's numbers, or a bundle with its own record
    Verify(verify::Args),
}

/// Parses the arguments, runs the command, and turns its error into a sentence and an exit code.
pub fn main() -> ExitCode {
    quit_when_nobody_reads();
    let cli = Cli::parse();
    // An instruction set that is not there is said before anything is read or run.
    let outcome = vjepa_runtime::plan::InstructionSet::chosen().map_err(CliError::from).and_then(|_| run(cli.command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if error.is::<train::Collapsed>() { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Bench(args) => bench::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Features(args) => features::run(&args),
        Command::Frames(args) => frames::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Verify(args) => verify::run(args),
    }
}

/// Tells what clips the model was, or will be, trained on that other commands would take otherwise.
fn note_sampling(config: Option<&vjepa_recipe::config::Config>) {
    if let Some(what) = config.and_then(|config| config.sampled_apart()) {
        eprintln!("note: {what}");
    }
}

/// `vjepa ... | head`: a closed pipe ends the program silently, as it does others, instead of failing a print.
fn quit_when_nobody_reads() {
    #[cfg(unix)]
    {
        let always = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        // Without the handler a closed pipe is told less politely; that is no reason not to run.
        let _ = signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always);
    }
}
