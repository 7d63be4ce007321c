//! What a run that has diverged leaves behind: which tensor was the first to go, and on which clips.

use super::feeds::Feeds;
use super::task::Supply;
use super::{Task, TrainError, TrainState};
use std::path::{Path, PathBuf};
use vjepa_data::{LoaderConfig, SampleInfo};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::FirstBad;
use vjepa_runtime::write_atomically;

/// What the search needs to compute the step again.
pub(super) struct Replay<'a> {
    pub(super) config: &'a Config,
    pub(super) supplies: Vec<Supply>,
    pub(super) task: &'a dyn Task,
    pub(super) rank: usize,
    pub(super) world: usize,
    /// Where the findings go.
    pub(super) folder: &'a Path,
}

/// The first bad tensor of a step, and the clips of the group it was computed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Culprit {
    /// In words: the weight, activation or gradient; none where the step is finite when computed again.
    pub tensor: Option<String>,
    /// The group, from 0.
    pub group: u64,
    /// Clips, by file where they have one; none where a weight was bad before any was computed on.
    pub clips: Vec<String>,
    /// The file with all of this.
    pub file: Option<PathBuf>,
}

impl Replay<'_> {
    /// Computes this process's groups of the step again until one has a tensor that is not finite. A divergence is returned with
    /// what was found, any other error as it is.
    pub(super) fn explain(&self, error: TrainError, state: &mut TrainState) -> TrainError {
        let TrainError::Diverged { step, loss, grad_norms, lr, saved, .. } = error else { return error };
        // A search that fails finds nothing; the divergence is what has to be told.
        let mut culprit = self.search(state, step).unwrap_or_default();
        culprit.file = self.write(step, loss, &grad_norms, &culprit);
        TrainError::Diverged { step, loss, grad_norms, lr, saved, culprit: Box::new(culprit) }
    }

    fn search(&self, state: &mut TrainState, step: u64) -> Result<Culprit, TrainError> {
        // The list of bad videos has these clips' already.
        let quietly = |config| LoaderConfig { workers: 0, quarantine: None, ..config };
        let mut feeds = Feeds::open(&self.supplies, self.config, step, (self.rank, self.world), quietly)?;
        let mut last = Culprit::default();
        for _ in 0..feeds.own() {
            let (kind, batch) = feeds.next()?;
            let clips: Vec<String> = batch.infos.iter().map(named).collect();
            let group = batch.group;
            for part in self.task.parts(kind, batch)? {
                let bad = state.first_bad(part)?;
                // The update of a step whose losses were read late has been applied: weights tell of no clips.
                let applied = state.reads_late() && matches!(bad, Some(FirstBad::Weight(_)));
                let clips = if applied { Vec::new() } else { clips.clone() };
                last = Culprit { tensor: bad.map(|bad| bad.to_string()), group, clips, file: None };
                if last.tensor.is_some() {
                    return Ok(last);
                }
            }
        }
        Ok(last)
    }

    /// Writes the findings beside the metrics; none where that fails, since the message has the most of it.
    fn write(&self, step: u64, loss: f64, norms: &[(&'static str, f64)], found: &Culprit) -> Option<PathBuf> {
        let rank = if self.rank == 0 { String::new() } else { format!("-rank{}", self.rank) };
        let path = self.folder.join(format!("{}-diverged{rank}.json", self.config.logging.write_tag));
        let norms: Vec<_> = norms.iter().map(|(set, norm)| (set, norm.to_string())).collect();
        let text = serde_json::json!({
            "step": step, "loss": loss.to_string(), "gradient_norms": norms, "first_bad_tensor": found.tensor,
            "group": found.group, "clips": found.clips,
        });
        let written = write_atomically(&path, |file| std::io::Write::write_all(file, format!("{text:#}\n").as_bytes()));
        written.is_ok().then_some(path)
    }
}

fn named(info: &SampleInfo) -> String {
    match &info.path {
        Some(path) => path.display().to_string(),
        None => format!("clip {}", info.index),
    }
}

/// The most clips that a message names.
const NAMED: usize = 4;

impl Culprit {
    /// To follow what has diverged; empty where nothing was looked for.
    pub(super) fn in_words(&self) -> String {
        let Some(first) = self.clips.first() else {
            let applied = |tensor: &String| {
                format!(
                    "; {tensor} has it already, since losses are read after the update here: --device cpu finds the clips that it \
                     began with"
                )
            };
            return self.tensor.as_ref().map(applied).unwrap_or_default();
        };
        let tensor = self.tensor.as_deref().unwrap_or("not found on computing the step again");
        let more = match self.clips.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let clips = self.clips.get(..NAMED).map_or_else(|| self.clips.join(", "), |clips| clips.join(", "));
        let clips = if self.clips.len() == 1 { first.clone() } else { clips };
        let file = self.file.as_ref().map(|file| format!("; all in {}", file.display())).unwrap_or_default();
        format!("; the first bad tensor is {tensor}, of the batch {clips}{more}{file}")
    }
}
