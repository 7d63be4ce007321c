//! The `data` and `data_aug` sections: where clips come from, their shape, and what is done to them.

use serde::{Deserialize, Serialize};
use serde_norway::Value;
pub use vjepa_runtime::Framing;

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

/// How the frames of a clip are chosen from a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// The official `linspace` over `num_frames * sampling_rate` frames: a real spacing of 64/15 where 4 was asked.
    #[default]
    Vjepa,
    /// Exactly every `sampling_rate`-th frame.
    Exact,
}

words!(Sampling { Vjepa = "vjepa", Exact = "exact" });

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

/// How pixel values are centred and scaled. Means and deviations are for pixels in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Normalization {
    /// The ImageNet statistics, as in all official recipes.
    #[default]
    Imagenet,
    /// Each clip to mean 0 and deviation 1 over all its values.
    PerClip,
    /// Statistics of one's own.
    Custom {
        /// Mean of each channel.
        mean: [f32; 3],
        /// Deviation of each channel, above 0.
        std: [f32; 3],
    },
}

impl Normalization {
    /// The ImageNet mean of each channel.
    pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    /// The ImageNet deviation of each channel.
    pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

    /// Mean and deviation of each channel for pixels in `[0, 1]`; none where they are the clip's own.
    pub fn statistics(&self) -> Option<([f32; 3], [f32; 3])> {
        match *self {
            Self::Imagenet => Some((Self::IMAGENET_MEAN, Self::IMAGENET_STD)),
            Self::PerClip => None,
            Self::Custom { mean, std } => Some((mean, std)),
        }
    }
}

/// The written form: a word or the two lists.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NormalizationText {
    Word(String),
    Lists { mean: [f32; 3], std: [f32; 3] },
}

impl Serialize for Normalization {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Imagenet => NormalizationText::Word("imagenet".into()),
            Self::PerClip => NormalizationText::Word("per_clip".into()),
            Self::Custom { mean, std } => NormalizationText::Lists { mean, std },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Normalization {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NormalizationText::deserialize(deserializer)? {
            NormalizationText::Word(word) if word == "imagenet" => Ok(Self::Imagenet),
            NormalizationText::Word(word) if word == "per_clip" => Ok(Self::PerClip),
            NormalizationText::Word(word) => {
                Err(serde::de::Error::unknown_variant(&word, &["imagenet", "per_clip", "{mean, std}"]))
            }
            NormalizationText::Lists { mean, std } => Ok(Self::Custom { mean, std }),
        }
    }
}

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

/// How a clip was prepared: what an encoder must be fed the same way again. Goes into checkpoints and ONNX metadata as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Frames of a clip.
    pub num_frames: usize,
    /// Video frames from one clip frame to the next.
    pub sampling_rate: usize,
    /// How frames are chosen.
    pub sampling: Sampling,
    /// Side of a clip, in pixels.
    pub crop_size: usize,
    /// Side of a token, in pixels.
    pub patch_size: usize,
    /// Frames of a token.
    pub tubelet_size: usize,
    /// How values are scaled.
    pub normalization: Normalization,
    /// Colours replaced by their luma.
    pub grayscale: bool,
    /// Which part of a frame is seen.
    #[serde(default)]
    pub framing: Framing,
}

impl From<&DataConfig> for Preprocessing {
    fn from(data: &DataConfig) -> Self {
        Self {
            num_frames: data.num_frames,
            sampling_rate: data.sampling_rate,
            sampling: data.sampling,
            crop_size: data.crop_size,
            patch_size: data.patch_size,
            tubelet_size: data.tubelet_size,
            normalization: data.normalization,
            grayscale: data.grayscale,
            framing: match data.dataset_type {
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
            let record = Preprocessing::from(&DataConfig { normalization, ..DataConfig::default() });
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Preprocessing>(&json).unwrap(), record, "{json}");
        }
    }
}
