//! `vjepa data subset`: class-balanced shares of a list.

use std::path::PathBuf;

use vjepa_data::annotations::{Listing, Share, subset};
use vjepa_runtime::files;

use crate::cli::CliError;
use crate::cli::whole::whole;
use vjepa_recipe::draws::draws;

/// Take a class-balanced share of a list, as the low-shot evaluations do
#[derive(clap::Args)]
pub struct Args {
    /// List with labels
    list: PathBuf,
    /// Share of each class, e.g. 5%; at least one sample of each stays
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    share: Share,
    /// Number of the random draw; the protocol takes the mean over 0, 1 and 2
    #[arg(long, default_value_t = 0, value_name = "N")]
    split: u64,
    /// The list to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Which draws of a share are trained on.
#[derive(clap::Args)]
pub(in crate::cli) struct Draws {
    /// Train on the random draw of --subset with this seed alone
    #[arg(long, value_name = "N", requires = "subset")]
    split_seed: Option<u64>,
    /// Draws of --subset, with the seeds from 0; results are averaged [default: 3]
    #[arg(long, requires = "subset", conflicts_with = "split_seed", value_parser = whole::<u32>(1..))]
    splits: Option<u32>,
}

impl Draws {
    /// Their seeds; none where no share is taken.
    pub(in crate::cli) fn seeds(&self, share: Option<Share>) -> Vec<u64> {
        share.map(|_| draws(self.split_seed, self.splits)).unwrap_or_default()
    }
}

pub(in crate::cli) fn share(word: &str) -> Result<Share, String> {
    word.parse()
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    files::spare("--out", &args.out, &[&args.out], [args.list.as_path()])?;
    let list = super::read(&args.list)?;
    let chosen = subset(&list, args.share, args.split)?;
    chosen.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let listing = Listing { path: args.list.clone(), entries: chosen.of(&list).entries, ..Listing::default() };
    listing.write_list(&args.out)?;
    println!("{} of {} samples: wrote {}", listing.entries.len(), list.entries.len(), args.out.display());
    Ok(())
}
