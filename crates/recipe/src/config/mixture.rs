//! What a step is made of: groups of clips, of one length or of several, and groups of images beside them.
//!
//! Officially a process is for images or for videos. Here a *group* is: the first `floor(groups * rank_ratio)` groups of a step
//! are of images, the others share the videos of all groups among them, as the official processes do. Clips of several
//! lengths are *length buckets* within a group of videos ([`LengthBuckets`](crate::masks::LengthBuckets)).

use std::fmt;
use std::ops::Range;

use super::{Config, ConfigError, DataConfig, DatasetType, FoldersHold, Generation, ImageDataConfig};

/// The groups of a step whose samples come from the same data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleKind {
    /// Whether they are images.
    pub images: bool,
    /// Which of the step's groups, from 0.
    pub groups: Range<u64>,
    /// Samples of each.
    pub batch: usize,
    /// Frames of its clips, in the order of the length buckets; 1 of images.
    pub lengths: Vec<usize>,
    /// Height and width in pixels.
    pub side: usize,
}

impl SampleKind {
    /// Groups of a step.
    pub fn count(&self) -> u64 {
        self.groups.end.saturating_sub(self.groups.start)
    }

    /// Samples of a step.
    pub fn samples(&self) -> u64 {
        self.count().saturating_mul(self.batch as u64)
    }

    /// What its samples are called.
    pub fn name(&self) -> &'static str {
        if self.images { "images" } else { "clips" }
    }
}

impl fmt::Display for SampleKind {
    /// `2 groups of 48 clips (16 or 64 frames of 256 x 256)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, side) = (self.count(), self.side);
        let groups = if count == 1 { "group" } else { "groups" };
        write!(f, "{count} {groups} of {} {} (", self.batch, self.name())?;
        if !self.images {
            let lengths: Vec<String> = self.lengths.iter().map(ToString::to_string).collect();
            write!(f, "{} frames of ", lengths.join(" or "))?;
        }
        write!(f, "{side} x {side})")
    }
}

impl ImageDataConfig {
    /// Of `groups` groups of a step, those of images.
    pub fn groups_of(&self, groups: u64) -> u64 {
        (groups as f64 * self.rank_ratio) as u64
    }

    /// The images as data sets are read: clips of one frame, with what `data` says of all clips.
    pub fn as_data(&self, data: &DataConfig) -> DataConfig {
        DataConfig {
            dataset_type: self.dataset_type,
            datasets: self.datasets.clone(),
            folders_hold: FoldersHold::Images,
            datasets_weights: self.datasets_weights.clone(),
            // Drawn as V-JEPA 2 draws, with replacement where there are weights.
            dataset_fpcs: Some(vec![1; self.datasets.len()]),
            batch_size: self.batch_size,
            num_clips: 1,
            num_frames: 1,
            tubelet_size: 1,
            crop_size: self.crop_size,
            num_workers: Some(self.num_workers),
            clip_duration: None,
            fps: None,
            ..data.clone()
        }
    }
}

impl Config {
    /// The kinds of samples that a step is made of, in the order of their groups: videos alone, or images and videos.
    ///
    /// # Errors
    /// [`ConfigError::Rule`] for groups that cannot be shared out between images and videos.
    pub fn kinds(&self) -> Result<Vec<SampleKind>, ConfigError> {
        let (groups, batch) = (self.optimization.groups(), self.data.batch_size);
        let lengths = if self.finetune.is_some() { vec![self.data.num_frames] } else { self.data.lengths() };
        let videos = SampleKind { images: false, groups: 0..groups, batch, lengths, side: self.data.crop_size };
        let Some(images) = &self.img_data else { return Ok(vec![videos]) };
        let own = images.groups_of(groups);
        let rule = |key: &str, rule: String| Err(ConfigError::rule(key, rule));
        if own == 0 || own >= groups {
            let (ratio, is) = (images.rank_ratio, if groups == 1 { "is" } else { "are" });
            return rule(
                "img_data.rank_ratio",
                format!(
                    "is {ratio}, but of {groups} groups a step floor({groups} * {ratio}) = {own} {is} of images: raise \
                     optimization.groups, which is at least 2 with images"
                ),
            );
        }
        let (all, left) = ((batch as u64).saturating_mul(groups), groups - own);
        let Some(batch) = usize::try_from(all / left).ok().filter(|_| all.is_multiple_of(left)) else {
            return rule(
                "data.batch_size",
                format!(
                    "is {batch}, and {groups} groups of it cannot be shared by the {left} groups of videos beside those of \
                     images: give a multiple of {left}, or another optimization.groups or img_data.rank_ratio"
                ),
            );
        };
        let of_images = SampleKind {
            images: true,
            groups: 0..own,
            batch: images.batch_size,
            lengths: vec![1],
            side: images.crop_size,
        };
        Ok(vec![of_images, SampleKind { groups: own..groups, batch, ..videos }])
    }

    /// Whether a step is of more than clips of one length.
    pub fn is_mixed(&self) -> bool {
        self.finetune.is_none() && (self.img_data.is_some() || self.data.lengths().len() > 1)
    }

    /// Whether gradients are added up before anything is updated: over groups, over what a step is made of, or to leave a step
    /// out by its loss.
    pub fn adds_up(&self) -> bool {
        self.optimization.adds_up() || self.is_mixed()
    }

    /// Where images come from; none for a run without them.
    pub fn image_data(&self) -> Option<DataConfig> {
        Some(self.img_data.as_ref()?.as_data(&self.data))
    }

    /// What only a step of several kinds or lengths needs.
    pub(super) fn check_mixture(&self) -> Result<(), ConfigError> {
        if self.finetune.is_some() {
            return Ok(());
        }
        let lengths = self.data.lengths();
        if lengths.len() > 1 {
            self.check_lengths(lengths.len())?;
        }
        let Some(images) = &self.img_data else { return Ok(()) };
        if images.dataset_type != DatasetType::Video {
            return Err(ConfigError::rule("img_data.dataset_type", "must be VideoDataset, which reads images too"));
        }
        if images.datasets.is_empty() {
            return Err(ConfigError::missing("img_data.datasets", "list CSV files of images, or folders of them"));
        }
        self.kinds().map(|_| ())
    }

    /// Clips of several lengths.
    fn check_lengths(&self, lengths: usize) -> Result<(), ConfigError> {
        let key = "data.dataset_fpcs";
        let rule = |why: String| Err(ConfigError::rule(key, why));
        if self.model.generation == Generation::V1 {
            return rule(format!(
                "has {lengths} lengths, but the position table of model.generation: vjepa fits one: give one length, or \
                 model.generation: vjepa2"
            ));
        }
        if self.data.num_clips > 1 {
            return rule(format!("has {lengths} lengths, which need one clip of a video: write data.num_clips: 1"));
        }
        let tokens = self.mask_tokens();
        if tokens < lengths {
            return rule(format!(
                "has {lengths} lengths, and each needs a mask token of its own: model.num_mask_tokens is {tokens}"
            ));
        }
        Ok(())
    }

    /// Mask tokens of the predictor: one a mask generator, and from V-JEPA 2 on, as officially, one for each generator of each
    /// data set that `data.dataset_fpcs` lists, of which the first few are used.
    pub fn mask_tokens(&self) -> usize {
        let sets = match self.model.generation {
            Generation::V1 => 1,
            Generation::V2 | Generation::V21 => self.data.dataset_fpcs.as_ref().map_or(1, |sets| sets.len().max(1)),
        };
        self.model.num_mask_tokens.unwrap_or(self.mask.len() * sets)
    }
}
