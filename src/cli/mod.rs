//! The command line: one file per command, each with its arguments (`Args`) and `run`.
//!
//! Every command prints for people, or with `--json` for machines: one JSON document, or one per line, on standard output.
//! Progress and warnings go to standard error. An error is one sentence with the remedy, exit code 1; invalid arguments exit
//! with 2, as clap does. docs/adding-a-command.md walks through a real command.

mod ablate;
mod anticipate;
mod bench;
mod compile;
mod completions;
mod config;
mod convert;
mod cost;
mod data;
mod detect;
mod device;
mod doctor;
mod dry_run;
mod encoder;
mod eval;
mod features;
mod finetune;
mod fit;
mod frames;
mod frozen;
mod given;
mod graph;
mod inspect;
mod man;
mod memory;
mod named;
mod named_model;
mod neighbours;
mod probe;
mod probe_number;
mod quickstart;
mod report;
mod run;
mod runner;
mod runtime;
mod serve;
mod spawn;
mod tips;
mod train;
mod verify;
mod visualize;
mod watch;
mod whole;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// Why a command failed: one sentence that says what to do.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(
    name = "vjepa",
    version,
    about = "Pretrain, probe, evaluate and deploy V-JEPA video models",
    after_help = "New here? `vjepa quickstart` runs the whole pipeline in minutes.",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// In the order in which they are needed, which `--help` keeps.
#[derive(Subcommand)]
enum Command {
    Quickstart(quickstart::Args),
    Data(data::Args),
    Train(train::Args),
    Watch(watch::Args),
    Report(report::Args),
    Visualize(visualize::Args),
    Probe(probe::Args),
    Finetune(finetune::Args),
    Eval(eval::Args),
    Detect(detect::Args),
    Anticipate(anticipate::Args),
    Ablate(ablate::Args),
    Features(features::Args),
    Neighbours(neighbours::Args),
    #[command(alias = "export")]
    Compile(compile::Args),
    #[command(aliases = ["infer", "predict"])]
    Run(run::Args),
    Serve(serve::Args),
    Bench(bench::Args),
    /// Check this program against data recorded from the official code, or a bundle against its stored results
    Verify(verify::Args),
    Inspect(inspect::Args),
    Convert(convert::Args),
    Config(config::Args),
    Frames(frames::Args),
    Graph(graph::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The command line with all its commands, as the parser and the generators of completions and manual pages see it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments, runs the command, and turns its error into a sentence and an exit code.
pub fn main() -> ExitCode {
    quit_when_nobody_reads();
    let (words, note) = graph::respelled(std::env::args_os().collect());
    if let Some(note) = note {
        eprintln!("{note}");
    }
    let cli = Cli::try_parse_from(&words).unwrap_or_else(|error| tips::with_tip(error, &command(), &words).exit());
    // An instruction set that the processor lacks is reported before anything is read or run.
    let outcome = vjepa_runtime::plan::InstructionSet::chosen().map_err(CliError::from).and_then(|_| run(cli.command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<train::Stopped>() => {
            eprintln!("{error}");
            ExitCode::from(train::Stopped::CODE)
        }
        Err(error) => {
            eprintln!("error: {error}");
            if error.is::<train::Collapsed>() { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Visualize(args) => visualize::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Finetune(args) => finetune::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Detect(args) => detect::run(&args),
        Command::Anticipate(args) => anticipate::run(&args),
        Command::Ablate(args) => ablate::run(&args),
        Command::Features(args) => features::run(&args),
        Command::Neighbours(args) => neighbours::run(&args),
        Command::Compile(args) => compile::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Frames(args) => frames::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// Reports where training samples clips differently from the other commands.
fn note_sampling(config: Option<&vjepa_recipe::config::Config>) {
    if let Some(what) = config.and_then(|config| config.sampled_apart()) {
        eprintln!("note: {what}");
    }
}

/// Whether a closed pipe ends the program.
static QUITS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// `vjepa ... | head`: a closed pipe ends the program silently, as it does others, instead of failing a print.
fn quit_when_nobody_reads() {
    #[cfg(unix)]
    {
        // Without the handler a closed pipe is reported less politely, which is no reason not to run.
        let _ = signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, Arc::clone(&QUITS));
    }
}

/// For commands that talk to processes of their own: one that has ended is an error to report, not the program's end.
fn stay_when_a_worker_ends() {
    QUITS.store(false, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn commands_answer_to_the_names_of_other_programs_too() {
        for (other, own) in [("export", "compile"), ("infer", "run"), ("predict", "run")] {
            let command = super::command();
            assert_eq!(command.find_subcommand(other).map(clap::Command::get_name), Some(own));
            assert!(!super::command().render_long_help().to_string().contains(&format!("  {other}")));
        }
    }
}
