//! `vjepa bench decode`: our decoders beside those of other libraries, on the user's own videos.

use super::super::CliError;
use super::super::named::named;
use super::show;
use crate::cli::whole::whole;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::Command;
use vjepa_data::bench::{self, Contender, FrameTask, PYTHON, PYTHON_DECODERS, Report, Settings, Started};
use vjepa_runtime::files;
use vjepa_video::Decoder;

#[derive(clap::Args)]
pub(super) struct DecodeArgs {
    /// Videos of constant frame rate, without rotation
    #[arg(value_name = "VIDEO", required = true)]
    files: Vec<PathBuf>,
    /// Python interpreter with PyTorch and any of decord, torchcodec and PyAV, to compare with them
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// What is done with a clip
    #[arg(long, default_value = "clip", value_parser = named(&FrameTask::MEASURED, FrameTask::name, FrameTask::about))]
    task: FrameTask,
    /// Number of measured rounds; in each, all decoders get the same starts and crops
    #[arg(long, default_value_t = 7, value_parser = whole::<usize>(1..))]
    rounds: usize,
    /// Clips per round
    #[arg(long, default_value_t = 8, value_parser = whole::<usize>(1..))]
    clips: usize,
    /// Seed of starts and crops
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the results to a JSON file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct DecoderArgs {
    #[arg(value_parser = ["pure", "ffmpeg"])]
    decoder: String,
}

/// Our decoders that this build has.
const OURS: &[&str] = if cfg!(feature = "ffmpeg") { &["ffmpeg", "pure"] } else { &["pure"] };

pub(super) fn run(args: &DecodeArgs) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        files::spare("--out", out, &[out], args.files.iter().map(PathBuf::as_path))?;
    }
    let mut contenders = Vec::new();
    let mut start = |name: &str, command: &mut Command| -> Result<(), CliError> {
        match Contender::start(name, command)? {
            Started::Ready(contender) => contenders.push(*contender),
            Started::Missing(why) => eprintln!("{name} is left out: {why}"),
        }
        Ok(())
    };
    for name in OURS {
        start(
            name,
            Command::new(std::env::current_exe()?).args(["bench", "decoder", name]).env(Decoder::VARIABLE, name),
        )?;
    }
    if let Some(python) = &args.python {
        for name in PYTHON_DECODERS {
            start(name, Command::new(python).args(["-c", PYTHON, name]))?;
        }
    }
    let settings = Settings { task: args.task, rounds: args.rounds, clips: args.clips, seed: args.seed };
    let bar = ProgressBar::new((args.files.len() * (args.rounds + 1)) as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} rounds, {eta} left  {msg}")?);
    let report = bench::compare(&mut contenders, &args.files, settings, |file, _| {
        bar.set_message(file.display().to_string());
        bar.inc(1);
    })?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    super::save(args.out.as_deref(), &report)
}

fn print(report: &Report) {
    let Settings { task, rounds, clips, .. } = report.settings;
    println!("{}; {rounds} rounds of {clips} clips, one thread each", task.about());
    for file in &report.files {
        let (width, height) = file.size;
        println!("\n{}: {}, {width}x{height}, {} frames", file.path.display(), file.codec, file.frames);
        print!("{}", show::decoders(file, OURS));
        for figures in &file.contenders {
            match &figures.error {
                Some(error) => println!("{} ({}) does not read it: {error}", figures.name, figures.about),
                None => println!("{}: {}", figures.name, figures.about),
            }
        }
    }
}

/// Decodes on request until standard input ends.
pub(super) fn serve(args: &DecoderArgs) -> Result<(), CliError> {
    let decoder = if args.decoder == "pure" { Decoder::Pure } else { Decoder::Ffmpeg };
    Ok(bench::serve(decoder, std::io::stdin().lock(), std::io::stdout().lock())?)
}
