//! Progress of an evaluation.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vjepa_collective::Collective;
use vjepa_eval::Progress;

/// A progress bar for the stages of an evaluation.
#[derive(Default)]
pub(in crate::cli) struct Bar {
    bar: Option<(String, ProgressBar)>,
    quiet: bool,
}

impl Bar {
    /// Rank 0's; the others show nothing.
    pub(in crate::cli) fn of(ranks: &dyn Collective) -> Self {
        Self { bar: None, quiet: ranks.rank() != 0 }
    }

    /// Shows progress.
    pub(in crate::cli) fn show(&mut self, progress: Progress<'_>) {
        if self.quiet {
            return;
        }
        if self.bar.as_ref().is_none_or(|(what, _)| what != progress.what) {
            self.clear();
            let bar = ProgressBar::new(progress.total as u64);
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar:.cyan/blue} {pos}/{len}  {eta} left") {
                bar.set_style(style);
            }
            bar.set_message(progress.what.to_owned());
            self.bar = Some((progress.what.to_owned(), bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(progress.done as u64);
        }
    }

    /// Removes the bar.
    pub(in crate::cli) fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// A time for people, rounded.
pub fn time_in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{} s", seconds.max(1)),
        seconds @ 120..7200 => format!("{} minutes", (seconds + 30) / 60),
        seconds => format!("{:.1} hours", seconds as f64 / 3600.0),
    }
}
