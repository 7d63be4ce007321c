//! The `data` and `data_aug` sections: where clips come from, their shape, and how they are augmented.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
pub use vjepa_runtime::{Framing, Normalization, Preprocessing, Sampling};

use crate::masks::{Geometry, MaskType};

/// Where clips come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DatasetType {
    /// Video files, listed in CSVs or found in folders.
    #[serde(rename = "VideoDataset")]
    Video,
    /// An endless labelled stream of drifting textures, generated on the fly (ours).
    DriftingTextures,
}

/// What folders among the data sets contain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FoldersHold {
    /// Video files, at any depth.
    #[default]
    Videos,
    /// Videos as folders of numbered JPEG or PNG files, at any depth.
    Frames,
    /// JPEG or PNG files at any depth, each a clip of equal frames.
    Images,
}

impl FoldersHold {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Videos, Self::Frames, Self::Images];

    /// Its name in files and at the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Videos => "videos",
            Self::Frames => "frames",
            Self::Images => "images",
        }
    }

    /// What it means, for the help.
    pub fn about(self) -> &'static str {
        match self {
            Self::Videos => "Video files, at any depth",
            Self::Frames => "Videos as folders of numbered JPEG or PNG files, at any depth",
            Self::Images => "JPEG or PNG files at any depth, each a clip of equal frames",
        }
    }
}

/// The `data` section: clips and where they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Where clips come from.
    pub dataset_type: DatasetType,
    /// How masks are drawn; this determines which keys the entries of `mask` have. An official key, although the recipes leave
    /// it out.
    pub mask_type: MaskType,
    /// Lists of videos (`.csv` or `.txt`, one `path label` per line), folders (see `folders_hold`), tar shards with their index
    /// (a file, a folder of them, or a pattern such as `train-{000000..000127}.tar`), or video files; with the feature `cloud`
    /// also at `s3://`, `gs://`, `az://` and `https://`.
    pub datasets: Vec<String>,
    /// What the folders among `datasets` contain. Lists and shards may mix videos, frame folders and images; there, each path
    /// shows what it is.
    #[schemars(extend("x-ours" = true))]
    pub folders_hold: FoldersHold,
    /// Frames per second of frame folders, used with `clip_duration`.
    #[schemars(extend("x-ours" = true))]
    pub frame_rate: f64,
    /// Folder that keeps what was read from object stores; null: everything is read again in each epoch.
    #[schemars(extend("x-ours" = true))]
    pub cache_folder: Option<String>,
    /// Size limit of `cache_folder` in GiB; the least recently used data is removed first.
    #[schemars(extend("x-ours" = true))]
    pub cache_gib: f64,
    /// Sampling weight of each data set; null: every video is equally likely.
    pub datasets_weights: Option<Vec<f64>>,
    /// Has no effect.
    #[schemars(extend("x-unread" = "only the frames of the clip are ever decoded"))]
    pub decode_one_clip: bool,
    /// Clips per step.
    pub batch_size: usize,
    /// Clips per video, each from its own equal part of the video; a step then has `num_clips` times `batch_size` clips.
    pub num_clips: usize,
    /// Frames per clip; a multiple of `tubelet_size`.
    pub num_frames: usize,
    /// Frames per token.
    pub tubelet_size: usize,
    /// Video frames from one clip frame to the next.
    pub sampling_rate: usize,
    /// Height and width of a clip in pixels; a multiple of `patch_size`.
    pub crop_size: usize,
    /// Height and width of a token in pixels.
    pub patch_size: usize,
    /// Has no effect.
    #[schemars(extend("x-unread" = "it is a setting of PyTorch's loader"))]
    pub pin_mem: bool,
    /// Decoding threads; 0: decode on the training thread; null: one per processor.
    pub num_workers: Option<usize>,
    /// Skip videos shorter than a clip; otherwise their last frame repeats.
    pub filter_short_videos: bool,
    /// Skip files of more than this many *bytes* (name and value are the official code's); null: skip none.
    pub filter_long_videos: Option<u64>,
    /// Duration of a training clip in seconds: the spacing of its frames then follows the video's frame rate instead of
    /// `sampling_rate`. Evaluation and deployment use `sampling_rate` only.
    pub clip_duration: Option<f64>,
    /// How frames are chosen: `vjepa` as in the official code (16 frames over 64 are 4.27 apart), `exact` at exact steps of
    /// `sampling_rate`.
    #[schemars(schema_with = "sampling", extend("x-ours" = true))]
    pub sampling: Sampling,
    /// How pixel values are scaled: `imagenet`, `per_clip` (mean 0, standard deviation 1), or `{mean: [..], std: [..]}`, per
    /// channel.
    #[schemars(schema_with = "normalization", extend("x-ours" = true))]
    pub normalization: Normalization,
    /// Replace colours by their luma, in all three channels.
    #[schemars(extend("x-ours" = true))]
    pub grayscale: bool,
    /// Pass clips to the step as bytes, which the step scales: a quarter of the loader's memory and of the traffic to a GPU.
    /// Values are then rounded to whole pixels, which the official code does not do.
    #[schemars(extend("x-ours" = true))]
    pub clip_bytes: bool,
    /// Drifting textures change their direction once, by a right angle, in the middle part of the clip. The motion label is
    /// then the first of four directions together with the side they turn to.
    #[schemars(extend("x-ours" = true))]
    pub texture_turns: bool,
    /// Number of grey rectangles that move in front of drifting textures, each with its own velocity.
    #[schemars(extend("x-ours" = true))]
    pub texture_occluders: u32,
    /// Standard deviation of the noise on every pixel of drifting textures, whose pixels lie in 0 to 1.
    #[schemars(extend("x-ours" = true))]
    pub texture_noise: f64,
    /// Training stops when more than this fraction of the drawn videos cannot be read.
    #[schemars(extend("x-ours" = true))]
    pub max_bad_fraction: f64,
    /// Frames per clip of each data set: V-JEPA 2's name for `num_frames`, which becomes the largest of them. Data sets are
    /// then drawn as in V-JEPA 2, with replacement.
    pub dataset_fpcs: Option<Vec<usize>>,
    /// Clip frames per second: the spacing of frames is then the video's frame rate, rounded up, divided by this number,
    /// instead of `sampling_rate`. Evaluation and deployment use `sampling_rate` only.
    pub fps: Option<f64>,
    /// Has no effect.
    #[schemars(extend("x-unread" = "it is a setting of PyTorch's loader"))]
    pub persistent_workers: bool,
}

/// The `img_data` section: images alongside the videos of V-JEPA 2.1. In the official code, some processes get only images. Here
/// the first `floor(optimization.groups * rank_ratio)` groups of a step do, and the other groups share the videos of all groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageDataConfig {
    /// Where images come from: lists, as for videos.
    pub dataset_type: DatasetType,
    /// Lists of images (`.csv` or `.txt`, one `path label` per line), folders of images, or image files.
    pub datasets: Vec<String>,
    /// Sampling weight of each data set; null: every image is equally likely.
    pub datasets_weights: Option<Vec<f64>>,
    /// Frames per image of each data set: 1.
    pub dataset_fpcs: Option<Vec<usize>>,
    /// Images per group of images.
    pub batch_size: usize,
    /// Height and width in pixels; a multiple of `data.patch_size`.
    pub crop_size: usize,
    /// Share of a step's groups, and so of its gradient, that consist of images; in the official code, the share of processes.
    pub rank_ratio: f64,
    /// Decoding threads for images.
    pub num_workers: usize,
}

impl Default for ImageDataConfig {
    fn default() -> Self {
        Self {
            dataset_type: DatasetType::Video,
            datasets: Vec::new(),
            datasets_weights: None,
            dataset_fpcs: None,
            batch_size: 72,
            crop_size: 256,
            rank_ratio: 0.5,
            num_workers: 12,
        }
    }
}

// The two records of `vjepa_runtime` are read by serde; it has no use for schemas of its own.
fn sampling(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["vjepa", "exact"]})
}

fn normalization(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-expected": "`imagenet`, `per_clip`, or a mapping of `mean` and `std`, three finite numbers each, deviations above 0"
    })
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset_type: DatasetType::Video,
            mask_type: MaskType::default(),
            datasets: Vec::new(),
            folders_hold: FoldersHold::Videos,
            frame_rate: 30.0,
            cache_folder: None,
            cache_gib: 16.0,
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
            num_workers: None,
            filter_short_videos: false,
            filter_long_videos: Some(1_000_000_000),
            clip_duration: None,
            sampling: Sampling::Vjepa,
            normalization: Normalization::Imagenet,
            grayscale: false,
            clip_bytes: false,
            texture_turns: false,
            texture_occluders: 0,
            texture_noise: 0.1,
            max_bad_fraction: 0.5,
            dataset_fpcs: None,
            fps: None,
            persistent_workers: false,
        }
    }
}

impl DataConfig {
    /// The token grid `[time, height, width]`.
    pub fn grid(&self) -> [usize; 3] {
        // Validation has refused zeros and sizes that do not divide.
        let side = self.crop_size / self.patch_size.max(1);
        [self.num_frames / self.tubelet_size.max(1), side, side]
    }

    /// The lengths of clips in frames, in the order in which they first appear among the data sets.
    pub fn lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = Vec::new();
        for frames in self.dataset_fpcs.as_deref().unwrap_or(&[self.num_frames]) {
            if !lengths.contains(frames) {
                lengths.push(*frames);
            }
        }
        lengths
    }

    /// The clip as the mask generators see it.
    pub fn geometry(&self) -> Geometry {
        self.geometry_of(self.num_frames)
    }

    /// The same of a clip of another length.
    pub fn geometry_of(&self, frames: usize) -> Geometry {
        Geometry {
            frames,
            height: self.crop_size,
            width: self.crop_size,
            tubelet: self.tubelet_size,
            patch: self.patch_size,
        }
    }

    /// Values of one clip, `[3, T, H, W]`.
    pub fn clip_len(&self) -> usize {
        3 * self.num_frames * self.crop_size * self.crop_size
    }
}

/// The `data_aug` section: augmentations of videos. Drifting textures are made at their final size, without crop or flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// RandAugment `rand-m7-n4-mstd0.5-inc1` on every clip, the same operations for all its frames.
    pub auto_augment: bool,
    /// The crop moves through the clip from one random box to another.
    pub motion_shift: bool,
    /// Range of the crop's width over its height, drawn log-uniformly.
    pub random_resize_aspect_ratio: [f64; 2],
    /// Range of the crop's share of the frame's area.
    pub random_resize_scale: [f64; 2],
    /// Probability of random erasing: one box for all frames of a clip is filled with noise.
    pub reprob: f64,
    /// Flip half of the clips left to right; always on in the official code.
    #[schemars(extend("x-ours" = true))]
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

impl DataConfig {
    /// How clips are prepared, as checkpoints and exported models record it.
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            num_frames: self.num_frames,
            sampling_rate: self.sampling_rate,
            sampling: self.sampling,
            crop_size: self.crop_size,
            crop_width: None,
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
    fn the_words_of_sampling_are_those_that_serde_reads() {
        let schema = sampling(&mut SchemaGenerator::default()).to_value();
        assert_eq!(crate::yaml::expected(&schema), "one of `vjepa`, `exact`");
        let unknown = serde_json::from_value::<Sampling>("x".into()).unwrap_err().to_string();
        assert!(unknown.contains("expected `vjepa` or `exact`"), "{unknown}");
    }

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
