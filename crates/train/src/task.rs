//! What a run learns from: where its samples come from, what a group of them is made into, which weights it begins with.
//!
//! Most tasks have one kind of samples and compute a group at once. [`Mixture`](super::mixture::Mixture) has several kinds,
//! and groups of several parts.

use std::sync::Arc;

use super::TrainError;
use vjepa_compiler::ops::DropKey;
use vjepa_data::{ClipBatch, ClipSource, ClipValues, DataSets};
use vjepa_graphs::{AnyObjective, NamedTensors};
use vjepa_programs::Fed;
use vjepa_recipe::config::{Config, SampleKind};
use vjepa_recipe::counter::mix;
use vjepa_recipe::masks::{MaskGenerator, MaskPair};

/// What one group of a step is computed on.
#[derive(Clone, Debug)]
pub struct Group {
    /// Of shape `[B, C, T, H, W]`.
    pub clips: ClipValues,
    /// That shape.
    pub shape: [usize; 5],
    /// One pair per mask generator.
    pub pairs: Vec<MaskPair>,
    /// What clips are to be classified as, `[B, classes]`; empty where nobody asks.
    pub targets: Vec<f32>,
    /// What decides which values are dropped.
    pub drops: DropKey,
    /// Which of the step's [variants](vjepa_programs::Variant) computes it; 0 where there is one.
    pub variant: usize,
    /// How much it counts, where it is a part of its group; 1 for a whole one.
    pub weight: f64,
}

impl Group {
    /// Clips with their masks.
    pub fn masked(clips: impl Into<ClipValues>, shape: [usize; 5], pairs: Vec<MaskPair>) -> Self {
        Self {
            clips: clips.into(),
            shape,
            pairs,
            targets: Vec::new(),
            drops: DropKey::new(0, 0),
            variant: 0,
            weight: 1.0,
        }
    }

    /// What inputs besides clips are filled with.
    pub(super) fn fed(&self, context_share: f64) -> Fed<'_> {
        Fed { pairs: &self.pairs, context_share, targets: &self.targets, drops: self.drops }
    }
}

/// The drops of a group: by seed, step and group, whoever computes it.
pub(super) fn drops(seed: u64, step: u64, group: u64) -> DropKey {
    DropKey::new(mix(&[seed, group]), step)
}

/// Samples of one kind, and the groups of a step that are of them.
#[derive(Clone)]
pub struct Supply {
    /// Where they come from.
    pub source: Arc<dyn ClipSource>,
    /// The groups.
    pub kind: SampleKind,
}

/// What a run learns from.
pub trait Task {
    /// Where samples come from; of several kinds those that decide the length of an epoch.
    ///
    /// # Errors
    /// [`TrainError::Data`].
    fn source(&self) -> Result<Arc<dyn ClipSource>, TrainError>;

    /// The kinds of samples, in the order of their groups. By default there is one.
    ///
    /// # Errors
    /// As [`Task::source`]; [`TrainError::Config`] for groups that cannot be shared out.
    fn supplies(&self, config: &Config) -> Result<Vec<Supply>, TrainError> {
        let kinds = config.kinds()?.into_iter().filter(|kind| !kind.images);
        kinds.map(|kind| Ok(Supply { source: self.source()?, kind })).collect()
    }

    /// What a group's samples are made into, a function of the batch alone, which has its step and group: the group at once, or
    /// parts of it whose weights add up to 1. `kind` is the place of its kind among [`Task::supplies`].
    ///
    /// # Errors
    /// [`TrainError`] for samples that cannot be learned from.
    fn parts(&self, kind: usize, batch: ClipBatch) -> Result<Vec<Group>, TrainError>;

    /// The weights that a new run begins with; none for those that the configuration names.
    ///
    /// # Errors
    /// [`TrainError`] for weights that do not fit.
    fn weights(&self, objective: &AnyObjective) -> Result<Option<NamedTensors>, TrainError> {
        let _ = objective;
        Ok(None)
    }
}

/// Pre-training: clips and masks.
pub(super) struct Pretraining<'a> {
    config: &'a Config,
    masks: Box<dyn MaskGenerator>,
    /// The data sets, where they have been read already.
    data: Option<DataSets>,
}

impl<'a> Pretraining<'a> {
    /// That of a configuration.
    ///
    /// # Errors
    /// [`TrainError::Mask`] for masks that leave no context.
    pub(super) fn new(config: &'a Config, data: Option<DataSets>) -> Result<Self, TrainError> {
        Ok(Self { config, masks: config.masks()?, data })
    }
}

impl Task for Pretraining<'_> {
    fn source(&self) -> Result<Arc<dyn ClipSource>, TrainError> {
        let Config { data, data_aug, .. } = self.config;
        let sets = self.data.clone().map_or_else(|| DataSets::read(data), Ok)?;
        Ok(sets.source(data, data_aug)?)
    }

    /// The masks of a group's clips, those of one video alike.
    fn parts(&self, _: usize, batch: ClipBatch) -> Result<Vec<Group>, TrainError> {
        let Config { meta, data, .. } = self.config;
        let pairs = self.masks.pairs(meta.seed, batch.step, batch.group, data.batch_size)?;
        let pairs = match data.num_clips {
            1 => pairs,
            clips => pairs.iter().map(|pair| pair.repeated(clips)).collect(),
        };
        Ok(vec![Group::masked(batch.clips, batch.shape, pairs)])
    }
}
