//! `vjepa data overlap`: a training list without the videos of an evaluation.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use vjepa_data::VideoList;
use vjepa_data::annotations::Listing;
use vjepa_data::checks::{Fingerprint, Journal, fingerprints, overlap};
use vjepa_data::media::Opener;
use vjepa_runtime::files;

use super::scan::with_ending;
use crate::cli::CliError;

/// Find the videos of one list that are in another, by name and by what their frames look like
///
/// Frames are compared by hashes that scaling and encoding hardly change; a part of a video, a mirrored or a cropped one is not
/// found. Hashes are kept in OUT.jsonl: run the same command again to continue.
#[derive(clap::Args)]
pub struct Args {
    /// List, folder or shards, such as a training set
    first: PathBuf,
    /// The other, such as an evaluation's videos
    second: PathBuf,
    /// The list to write: the first without the videos that are in the second
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print one JSON object per video that is in both
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let journal = with_ending(&args.out, "jsonl");
    files::spare("--out", &args.out, &[&args.out, &journal], [args.first.as_path(), &args.second])?;
    let (first, second) = (super::read(&args.first)?, super::read(&args.second)?);
    let journal: Journal<Fingerprint> = Journal::open(Some(&journal))?;
    let (first_prints, second_prints) = (hashes(&first, &journal)?, hashes(&second, &journal)?);
    let found = overlap(&first_prints, &second_prints);
    for one in &found {
        match args.json {
            true => println!("{}", serde_json::to_string(one)?),
            false => println!("{} is {} (by {})", one.path.display(), one.other.display(), one.by.name()),
        }
    }
    unread(&args.first, &first_prints);
    unread(&args.second, &second_prints);
    let gone: HashSet<usize> = found.iter().map(|one| one.index).collect();
    let rest = Listing::part(&first, (0..first.entries.len()).filter(|index| !gone.contains(index)));
    if rest.entries.is_empty() {
        return Err(format!("all videos of {} are in {}", args.first.display(), args.second.display()).into());
    }
    rest.write_list(&args.out)?;
    eprintln!(
        "{} of {} videos are in {}: wrote {} with the other {}",
        gone.len(),
        first.entries.len(),
        args.second.display(),
        args.out.display(),
        rest.entries.len()
    );
    Ok(())
}

fn hashes(list: &VideoList, journal: &Journal<Fingerprint>) -> Result<Vec<Fingerprint>, CliError> {
    let bar = ProgressBar::new(list.entries.len() as u64);
    let made = fingerprints(list, journal, Opener::shared(), &|_| bar.inc(1))?;
    bar.finish_and_clear();
    Ok(made)
}

/// Says how many videos could be compared by their names alone.
fn unread(path: &Path, prints: &[Fingerprint]) {
    let faults = || prints.iter().filter_map(|print| Some((print, print.fault.as_ref()?)));
    if let Some((first, why)) = faults().next() {
        let count = faults().count();
        let first = first.path.display();
        eprintln!(
            "warning: {}: {count} videos cannot be decoded and were compared by name alone; {first}: {why}",
            path.display()
        );
    }
}
