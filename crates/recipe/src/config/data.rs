//! The `data` and `data_aug` sections: where clips come from, their shape, and what is done to them.

use serde::Serialize;
use serde_norway::Value;
pub use vjepa_runtime::{Framing, Normalization, Preprocessing, Sampling};

use super::error::ConfigError;
use super::reader::{Field, Section, words};

/// Where clips come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatasetType {
    /// Video files listed in CSVs or lying in folders.
    Video,
    /// The endless labelled stream of drifting textures, made on the fly.
    DriftingTextures,
}

words!(DatasetType { Video = "VideoDataset", DriftingTextures = "DriftingTextures" });

impl Field for Sampling {
    fn expected() -> String {
        "one of `vjepa`, `exact`".into()
    }
    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "vjepa" => Some(Self::Vjepa),
            "exact" => Some(Self::Exact),
            _ => None,
        }
    }
}

/// How the masks are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaskType {
    /// Spatio-temporal blocks (`src/masks/multiblock3d.py`).
    #[default]
    MultiBlock3d,
    /// One random spatial pattern repeated over time (`src/masks/random_tube.py`).
    RandomTube,
}

words!(MaskType { MultiBlock3d = "multiblock3d", RandomTube = "random_tube" });

impl Field for Normalization {
    fn expected() -> String {
        "`imagenet`, `per_clip`, or a mapping of `mean` and `std`, three numbers each".into()
    }
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(word) if word == "imagenet" => Some(Self::Imagenet),
            Value::String(word) if word == "per_clip" => Some(Self::PerClip),
            Value::Mapping(lists) if lists.len() == 2 => {
                let list = |key| lists.get(key).and_then(<[f64; 3]>::read).map(|l| l.map(|x| x as f32));
                Some(Self::Custom { mean: list("mean")?, std: list("std")? })
            }
            _ => None,
        }
    }
}

/// The `data` section.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataConfig {
    /// Where clips come from.
    pub dataset_type: DatasetType,
    /// How masks are drawn (official, although the recipes leave it out).
    pub mask_type: MaskType,
    /// CSV files ("path label") or folders of videos.
    pub datasets: Vec<String>,
    /// Share of samples from each data set; none: every video is as likely as any other.
    pub datasets_weights: Option<Vec<f64>>,
    /// Read by the official code and used nowhere in it.
    pub decode_one_clip: bool,
    /// Clips a process takes in a step.
    pub batch_size: usize,
    /// Clips from one video.
    pub num_clips: usize,
    /// Frames of a clip.
    pub num_frames: usize,
    /// Frames of a token.
    pub tubelet_size: usize,
    /// Video frames from one clip frame to the next.
    pub sampling_rate: usize,
    /// Side of a clip, in pixels.
    pub crop_size: usize,
    /// Side of a token, in pixels.
    pub patch_size: usize,
    /// A property of PyTorch's loader; no meaning here.
    pub pin_mem: bool,
    /// Threads that decode; 0 decodes on the training thread.
    pub num_workers: usize,
    /// Skip videos shorter than a clip (otherwise their last frame repeats).
    pub filter_short_videos: bool,
    /// Seconds a clip spans; in training it sets the frame spacing from the video's rate instead of `sampling_rate`.
    /// Evaluation and deployment know only `sampling_rate` ([`Preprocessing`]).
    pub clip_duration: Option<f64>,
    /// How frames are chosen (ours).
    pub sampling: Sampling,
    /// How values are scaled (ours).
    pub normalization: Normalization,
    /// Replace colours by their luma, in all three channels (ours).
    pub grayscale: bool,
    /// Training stops when more than this share of tries finds an unreadable video (ours).
    pub max_bad_fraction: f64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset_type: DatasetType::Video,
            mask_type: MaskType::MultiBlock3d,
            datasets: Vec::new(),
            datasets_weights: None,
            decode_one_clip: true,
            batch_size: 24,
            num_clips: 1,
            num_frames: 16,
            tubelet_size: 2,
            sampling_rate: 4,
            crop_size: 224,
            patch_size: 16,
            pin_mem: true,
            num_workers: 12,
            filter_short_videos: false,
            clip_duration: None,
            sampling: Sampling::Vjepa,
            normalization: Normalization::Imagenet,
            grayscale: false,
            max_bad_fraction: 0.5,
        }
    }
}

impl DataConfig {
    pub(super) fn read(mut section: Section) -> Result<Self, ConfigError> {
        let d = Self::default();
        let config = Self {
            dataset_type: section.or("dataset_type", d.dataset_type)?,
            mask_type: section.or("mask_type", d.mask_type)?,
            datasets: section.or("datasets", d.datasets)?,
            datasets_weights: section.opt("datasets_weights", d.datasets_weights)?,
            decode_one_clip: section.or("decode_one_clip", d.decode_one_clip)?,
            batch_size: section.or("batch_size", d.batch_size)?,
            num_clips: section.or("num_clips", d.num_clips)?,
            num_frames: section.or("num_frames", d.num_frames)?,
            tubelet_size: section.or("tubelet_size", d.tubelet_size)?,
            sampling_rate: section.or("sampling_rate", d.sampling_rate)?,
            crop_size: section.or("crop_size", d.crop_size)?,
            patch_size: section.or("patch_size", d.patch_size)?,
            pin_mem: section.or("pin_mem", d.pin_mem)?,
            num_workers: section.or("num_workers", d.num_workers)?,
            filter_short_videos: section.or("filter_short_videos", d.filter_short_videos)?,
            clip_duration: section.opt("clip_duration", d.clip_duration)?,
            sampling: section.or("sampling", d.sampling)?,
            normalization: section.or("normalization", d.normalization)?,
            grayscale: section.or("grayscale", d.grayscale)?,
            max_bad_fraction: section.or("max_bad_fraction", d.max_bad_fraction)?,
        };
        section.finish()?;
        Ok(config)
    }

    /// The token grid `[time, height, width]`.
    pub fn grid(&self) -> [usize; 3] {
        // Validation has refused zeros and sizes that do not divide.
        let side = self.crop_size / self.patch_size.max(1);
        [self.num_frames / self.tubelet_size.max(1), side, side]
    }

    /// Values of one clip, `[3, T, H, W]`.
    pub fn clip_len(&self) -> usize {
        3 * self.num_frames * self.crop_size * self.crop_size
    }
}

/// The `data_aug` section. It applies to videos; drifting textures are made at their final size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AugmentConfig {
    /// RandAugment; not supported.
    pub auto_augment: bool,
    /// A crop that moves over the clip; not supported.
    pub motion_shift: bool,
    /// Width over height of the crop, drawn log-uniformly.
    pub random_resize_aspect_ratio: [f64; 2],
    /// Share of the frame's area in the crop.
    pub random_resize_scale: [f64; 2],
    /// Probability of random erasing; not supported.
    pub reprob: f64,
    /// Flip a clip left to right half of the time (ours; always on in the official code).
    pub horizontal_flip: bool,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            auto_augment: false,
            motion_shift: false,
            random_resize_aspect_ratio: [0.75, 1.35],
            random_resize_scale: [0.3, 1.0],
            reprob: 0.0,
            horizontal_flip: true,
        }
    }
}

impl AugmentConfig {
    pub(super) fn read(mut section: Section) -> Result<Self, ConfigError> {
        let d = Self::default();
        let config = Self {
            auto_augment: section.or("auto_augment", d.auto_augment)?,
            motion_shift: section.or("motion_shift", d.motion_shift)?,
            random_resize_aspect_ratio: section.or("random_resize_aspect_ratio", d.random_resize_aspect_ratio)?,
            random_resize_scale: section.or("random_resize_scale", d.random_resize_scale)?,
            reprob: section.or("reprob", d.reprob)?,
            horizontal_flip: section.or("horizontal_flip", d.horizontal_flip)?,
        };
        section.finish()?;
        Ok(config)
    }
}

impl DataConfig {
    /// How clips are prepared, as checkpoints and exported models record it.
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            num_frames: self.num_frames,
            sampling_rate: self.sampling_rate,
            sampling: self.sampling,
            crop_size: self.crop_size,
            patch_size: self.patch_size,
            tubelet_size: self.tubelet_size,
            normalization: self.normalization,
            grayscale: self.grayscale,
            framing: match self.dataset_type {
                DatasetType::Video => Framing::Centre,
                DatasetType::DriftingTextures => Framing::Whole,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preprocessing_survives_json() {
        let custom = Normalization::Custom { mean: [0.5; 3], std: [0.25, 0.5, 1.0] };
        for normalization in [Normalization::Imagenet, Normalization::PerClip, custom] {
            let record = DataConfig { normalization, ..DataConfig::default() }.preprocessing();
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Preprocessing>(&json).unwrap(), record, "{json}");
        }
    }
}
