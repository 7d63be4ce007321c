//! `vjepa data scan`: every file decoded once.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use vjepa_data::annotations::Listing;
use vjepa_data::checks::{Journal, Scanned, scan, table};
use vjepa_data::media::Opener;
use vjepa_runtime::{files, write_atomically};

use crate::cli::CliError;
use crate::table::aligned;

/// Decode every video once: codec, size, rate, length, and the first thing that is wrong with each
///
/// Results are appended to PREFIX.jsonl as they come: run the same command again to continue. At the end PREFIX.good.csv lists
/// the videos without fault, with their labels, and PREFIX.bad.csv the others with the reason.
#[derive(clap::Args)]
pub struct Args {
    /// List, folder or shards
    data: PathBuf,
    /// Prefix of the output files (PREFIX.jsonl, PREFIX.good.csv, PREFIX.bad.csv)
    #[arg(long, value_name = "PREFIX")]
    out: PathBuf,
    /// Print one JSON object per video instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let [journal, good_list, bad_list] = ["jsonl", "good.csv", "bad.csv"].map(|ending| with_ending(&args.out, ending));
    files::spare("--out", &args.out, &[&journal, &good_list, &bad_list], [args.data.as_path()])?;
    let list = super::read(&args.data)?;
    let journal: Journal<Scanned> = Journal::open(Some(&journal))?;
    let bar = ProgressBar::new(list.entries.len() as u64);
    let scanned = scan(&list, &journal, Opener::shared(), &|_| bar.inc(1))?;
    bar.finish_and_clear();
    if args.json {
        for one in &scanned {
            println!("{}", serde_json::to_string(one)?);
        }
    } else {
        print!("{}", aligned(&[], table(&scanned).into_iter().map(Vec::from).collect()));
    }
    let good = scanned.iter().enumerate().filter(|(_, one)| one.fault.is_none()).map(|(index, _)| index);
    let good = Listing::part(&list, good);
    let bad: Vec<&Scanned> = scanned.iter().filter(|one| one.fault.is_some()).collect();
    if !good.entries.is_empty() {
        good.write_list(&good_list)?;
        eprintln!("wrote {}: {} videos", good_list.display(), good.entries.len());
    }
    if !bad.is_empty() {
        write_bad(&bad_list, &bad)?;
        eprintln!("wrote {}: {} videos", bad_list.display(), bad.len());
    }
    if !good.entries.is_empty() {
        return Ok(());
    }
    // Where not one path leads to a file, how the list was read says more.
    list.check_found()?;
    Err(format!("none of the {} videos of {} can be used", scanned.len(), args.data.display()).into())
}

fn write_bad(path: &Path, bad: &[&Scanned]) -> Result<(), CliError> {
    let written = write_atomically(path, |file| {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(["path", "frame", "fault"])?;
        for one in bad {
            let frame = one.bad_frame.map_or_else(String::new, |frame| frame.to_string());
            let (path, fault) = (one.path.display().to_string(), one.fault.as_deref().unwrap_or_default());
            writer.write_record([path.as_str(), frame.as_str(), fault])?;
        }
        writer.flush()
    });
    written.map_err(|error| format!("{}: cannot be written: {error}", path.display()).into())
}

/// `OUT.jsonl` for OUT, whatever dots OUT has.
pub(in crate::cli) fn with_ending(out: &Path, ending: &str) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
