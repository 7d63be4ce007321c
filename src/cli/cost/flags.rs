//! `--dry-run` of the commands that train and evaluate on labelled samples.

use super::{Assumed, Bill};
use crate::cli::CliError;

/// To say what would be run.
#[derive(clap::Args)]
pub(in crate::cli) struct DryRun {
    /// Say what would be run, with memory, arithmetic and hours, without running it
    #[arg(long)]
    pub dry_run: bool,
    /// Speed assumed for the hours of --dry-run, in TFLOP/s actually reached
    #[arg(long, default_value_t = 100.0, value_name = "TFLOPS", requires = "dry_run", value_parser = positive)]
    pub speed: f64,
    /// Numbers for --dry-run where lists are not on this machine: train=N,val=N,classes=N; lists that are here are counted
    #[arg(long, value_name = "KEY=N,...", value_delimiter = ',', requires = "dry_run")]
    assume: Vec<String>,
}

impl DryRun {
    /// What was given.
    pub fn assumed(&self) -> Result<Assumed, CliError> {
        let mut assumed = Assumed::default();
        self.assume.iter().try_for_each(|word| assumed.take(word)).map_err(|why| format!("--assume {why}"))?;
        Ok(assumed)
    }

    /// Prints what it comes to.
    pub fn print(&self, bill: &Bill, json: bool) {
        if json {
            let mut summary = bill.json(self.speed);
            summary["dry_run"] = true.into();
            println!("{summary}");
            return;
        }
        bill.lines(self.speed).iter().for_each(|line| println!("{line}"));
        println!("in all {}", bill.in_words(self.speed));
        println!("nothing was trained or written (--dry-run)");
    }
}

/// A number of TFLOP/s.
pub(in crate::cli) fn positive(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("must be a number above 0".to_owned()),
    }
}
