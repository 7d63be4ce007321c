//! `vjepa bench loader`: the whole path from files to batches beside decoding and resizing alone.

use super::super::CliError;
use crate::cli::whole::whole;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use vjepa_data::bench::{LoaderReport, LoaderSettings, loader};
use vjepa_data::default_workers;
use vjepa_recipe::config::{AugmentConfig, Config, DataConfig};
use vjepa_runtime::files;

#[derive(clap::Args)]
pub(super) struct LoaderArgs {
    /// Lists, folders or shards of videos, with the default clips of 16 frames at 224 pixels
    #[arg(value_name = "LIST", required_unless_present = "config", conflicts_with = "config")]
    lists: Vec<String>,
    /// Configuration of a pre-training run, whose `data` and `data_aug` are measured
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Number of measured rounds; in each, both sides make the same clips
    #[arg(long, default_value_t = 8, value_parser = whole::<usize>(1..))]
    rounds: usize,
    /// Batches per round
    #[arg(long, default_value_t = 4, value_parser = whole::<usize>(1..))]
    batches: usize,
    /// Number of loader threads [default: what training would take]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=1024))]
    workers: Option<usize>,
    /// Seed of the order, the frames and the crops
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the results to a JSON file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &LoaderArgs) -> Result<(), CliError> {
    let (data, augment) = match &args.config {
        Some(path) => {
            let config = Config::from_file(path, &args.sets)?;
            (config.data, config.data_aug)
        }
        None => {
            let data = DataConfig { datasets: args.lists.clone(), batch_size: 4, ..DataConfig::default() };
            (data, AugmentConfig::default())
        }
    };
    if let Some(out) = &args.out {
        files::spare("--out", out, &[out], data.datasets.iter().map(Path::new).chain(args.config.as_deref()))?;
    }
    let workers = args.workers.unwrap_or_else(default_workers);
    let settings = LoaderSettings { rounds: args.rounds, batches: args.batches, workers, seed: args.seed };
    let bar = ProgressBar::new(args.rounds as u64 + 1);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} rounds, {eta} left")?);
    let report = loader(&data, &augment, settings, |_| bar.inc(1))?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    super::save(args.out.as_deref(), &report)
}

fn print(report: &LoaderReport) {
    let LoaderSettings { rounds, batches, workers, .. } = report.settings;
    println!(
        "{rounds} rounds of {batches} batches of {}, {workers} threads; ms of processor time per clip",
        report.batch
    );
    println!("{:>10} {:>10} {:>7} {:>10}", "alone", "loader", "ratio", "clips/s");
    for round in &report.rounds {
        let ratio = round.loader_ms / round.alone_ms;
        println!("{:10.2} {:10.2} {ratio:7.3} {:10.1}", round.alone_ms, round.loader_ms, round.clips_per_second);
    }
    let [median, low, high] = report.ratio;
    println!("the loader's time over that of decoding and resizing alone: {median:.3} ({low:.3} - {high:.3})");
}
