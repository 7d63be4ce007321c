//! The settings of a loader, its batches and its counts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::SampleInfo;
use super::values::ClipValues;
use vjepa_recipe::config::{Config, DatasetType, SampleKind};

/// How a loader works.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Samples of a batch, which is one group's; a batch has that many clips, or several times as many where the source makes
    /// several of a sample.
    pub batch: usize,
    /// Groups of a step that are of this data set.
    pub groups: usize,
    /// Groups of the step before them, of other data sets.
    pub base: usize,
    /// Groups of the step behind them, of other data sets.
    pub after: usize,
    /// Worker threads; 0 computes clips when they are asked for, on the caller's thread. [`default_workers`] is what the
    /// machine has.
    pub workers: usize,
    /// Seed of the sample stream.
    pub seed: u64,
    /// First step; a run that resumes gives the number of steps done.
    pub start_step: u64,
    /// Clips that may be claimed and not yet handed out; 0 means two batches and one for each worker.
    pub window: usize,
    /// This process among `world`.
    pub rank: usize,
    /// Processes that share each step.
    pub world: usize,
    /// Largest share of tries that may be bad.
    pub max_bad_fraction: f64,
    /// Where bad videos are listed (JSON lines); none lists them in memory only.
    pub quarantine: Option<PathBuf>,
}

/// As many workers as the process may use processors: decoding takes all the time that the step leaves.
pub fn default_workers() -> usize {
    vjepa_runtime::cores().unwrap_or(1)
}

impl LoaderConfig {
    /// One process, one worker, from the first step on.
    pub fn new(batch: usize, seed: u64) -> Self {
        Self {
            batch,
            groups: 1,
            base: 0,
            after: 0,
            workers: 1,
            seed,
            start_step: 0,
            window: 0,
            rank: 0,
            world: 1,
            max_bad_fraction: 0.5,
            quarantine: None,
        }
    }

    /// As [`LoaderConfig::from_config`], on process `rank` of `world`, which has a list of bad videos of its own:
    /// `<write_tag>-bad-videos-rank1.jsonl` and so on.
    pub fn of_rank(config: &Config, start_step: u64, rank: usize, world: usize) -> Self {
        let whole = Self::from_config(config, start_step);
        let renamed = |list: PathBuf| match rank {
            0 => list,
            _ => list.with_file_name(format!("{}-bad-videos-rank{rank}.jsonl", config.logging.write_tag)),
        };
        Self { rank, world, quarantine: whole.quarantine.clone().map(renamed), ..whole }
    }

    /// As [`LoaderConfig::of_rank`], for the groups of one kind of samples; images have a list of bad files of their own,
    /// `<write_tag>-bad-images.jsonl`.
    pub fn of_kind(config: &Config, kind: &SampleKind, start_step: u64, rank: usize, world: usize) -> Self {
        let whole = Self::of_rank(config, start_step, rank, world);
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let renamed = |list: PathBuf| {
            let name = list.file_name().unwrap_or_default().to_string_lossy().replace("-bad-videos", "-bad-images");
            list.with_file_name(name)
        };
        let images = config.img_data.as_ref().filter(|_| kind.images);
        Self {
            batch: kind.batch,
            groups: count(kind.count()),
            base: count(kind.groups.start),
            after: whole.groups.saturating_sub(count(kind.groups.end)),
            workers: images.map_or(whole.workers, |images| images.num_workers),
            quarantine: whole.quarantine.clone().map(|list| if kind.images { renamed(list) } else { list }),
            ..whole
        }
    }

    /// The settings of a configuration, on one process, from `start_step` on. Bad videos are listed in
    /// `<logging.folder>/<write_tag>-bad-videos.jsonl`; the folder must exist when the loader starts.
    pub fn from_config(config: &Config, start_step: u64) -> Self {
        let logging = &config.logging;
        let list = |folder: &String| Path::new(folder).join(format!("{}-bad-videos.jsonl", logging.write_tag));
        Self {
            groups: usize::try_from(config.optimization.groups()).unwrap_or(usize::MAX),
            workers: config.data.num_workers.unwrap_or_else(default_workers),
            start_step,
            max_bad_fraction: config.data.max_bad_fraction,
            quarantine: logging.folder.as_ref().filter(|_| config.data.dataset_type == DatasetType::Video).map(list),
            ..Self::new(config.data.batch_size, config.meta.seed)
        }
    }
}

/// The clips of one group of a step.
#[derive(Clone, PartialEq)]
pub struct ClipBatch {
    /// The step, from 0.
    pub step: u64,
    /// The group, from 0.
    pub group: u64,
    /// `[K * B, 3, T, H, W]`, row-major, for `K` clips of each of `B` samples: the first clip of every sample, then the
    /// second of every sample, as the official code puts them.
    pub clips: ClipValues,
    /// That shape.
    pub shape: [usize; 5],
    /// Label, number and file of each sample.
    pub infos: Vec<SampleInfo>,
}

impl fmt::Debug for ClipBatch {
    /// Without the millions of values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClipBatch")
            .field("step", &self.step)
            .field("group", &self.group)
            .field("shape", &self.shape)
            .field("infos", &self.infos)
            .finish_non_exhaustive()
    }
}

/// Counts of a loader so far.
#[derive(Debug, Clone, Default)]
pub struct LoaderStats {
    /// Samples handed out.
    pub good: u64,
    /// Tries that found an unusable video; one video may count several times.
    pub bad: u64,
    /// Time the consumer waited for clips.
    pub waited: Duration,
    /// Time from the first call for a batch to the end of the last.
    pub took: Duration,
}

impl LoaderStats {
    /// Share of the time so far that the consumer waited for clips, 0 to 1; 0 before the first batch. The first batch counts:
    /// nothing could be made ahead of it.
    pub fn wait_share(&self) -> f64 {
        let took = self.took.as_secs_f64();
        if took > 0.0 { (self.waited.as_secs_f64() / took).min(1.0) } else { 0.0 }
    }
}
