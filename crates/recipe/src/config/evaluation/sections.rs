//! The sections of an official evaluation's file, as they are written.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::error::ConfigError;
use super::super::named::ModelName;
use super::{CLIP_GRAD, EncoderSource, ProbeTraining};

/// Which official program a file is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvalName {
    /// Videos.
    #[default]
    #[serde(rename = "video_classification_frozen")]
    Video,
    /// Images.
    #[serde(rename = "image_classification_frozen")]
    Image,
}

impl EvalName {
    pub(super) fn words() -> String {
        "`video_classification_frozen`, `image_classification_frozen`".into()
    }
}

/// Which encoder of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointKey {
    /// The moving average: what the paper evaluates.
    #[default]
    TargetEncoder,
    /// The one that is trained.
    Encoder,
    /// The one that a distilled model was averaged into, of V-JEPA 2.1.
    EmaEncoder,
}

/// A file of a video evaluation.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct VideoSections {
    /// Name of the run.
    pub tag: Option<String>,
    /// Which program.
    pub eval_name: EvalName,
    /// Continue an earlier run.
    pub resume_checkpoint: bool,
    pub data: VideoData,
    pub optimization: VideoOptimization,
    pub pretrain: PretrainSection,
}

/// A file of an image evaluation.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ImageSections {
    /// Name of the run.
    pub tag: Option<String>,
    /// Which program.
    pub eval_name: EvalName,
    /// Continue an earlier run.
    pub resume_checkpoint: bool,
    pub data: ImageData,
    pub optimization: ImageOptimization,
    pub pretrain: PretrainSection,
}

/// The `data` section of a video evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VideoData {
    /// List of labelled videos to train on.
    pub dataset_train: String,
    /// List of labelled videos to evaluate on.
    pub dataset_val: String,
    /// Has no effect.
    pub dataset_type: Option<String>,
    /// Classes.
    pub num_classes: usize,
    /// Frames per clip.
    pub frames_per_clip: usize,
    /// Clips per video.
    pub num_segments: usize,
    /// Views of each clip at test time.
    pub num_views_per_segment: usize,
    /// Has no effect: `pretrain.frame_step` is read.
    pub frame_step: usize,
}

impl Default for VideoData {
    fn default() -> Self {
        Self {
            dataset_train: String::new(),
            dataset_val: String::new(),
            dataset_type: None,
            num_classes: 0,
            frames_per_clip: 16,
            num_segments: 1,
            num_views_per_segment: 1,
            frame_step: 4,
        }
    }
}

/// The `data` section of an image evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageData {
    /// Folder of image sets.
    pub root_path: String,
    /// Folder of this set below it.
    pub image_folder: String,
    /// Classes.
    pub num_classes: usize,
    /// Height and width in pixels.
    pub resolution: usize,
    /// Name of the set.
    pub dataset_name: Option<String>,
}

impl Default for ImageData {
    fn default() -> Self {
        let (root_path, image_folder) = (String::new(), String::new());
        Self { root_path, image_folder, num_classes: 0, resolution: 224, dataset_name: None }
    }
}

/// The `optimization` section of a video evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VideoOptimization {
    /// Whether the probe reads all segments of a video at once.
    pub attend_across_segments: bool,
    /// Passes over the training set.
    pub num_epochs: u64,
    /// Height and width in pixels.
    pub resolution: usize,
    /// Samples per step and process.
    pub batch_size: usize,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Learning rate.
    pub lr: f64,
    /// Learning rate that a warm-up starts from.
    pub start_lr: f64,
    /// Learning rate at the end.
    pub final_lr: f64,
    /// Epochs of warm-up.
    pub warmup: f64,
    /// Products in half precision.
    pub use_bfloat16: bool,
}

impl Default for VideoOptimization {
    fn default() -> Self {
        Self {
            attend_across_segments: false,
            num_epochs: 20,
            resolution: 224,
            batch_size: 4,
            weight_decay: 0.01,
            lr: 1e-3,
            start_lr: 1e-3,
            final_lr: 0.0,
            warmup: 0.0,
            use_bfloat16: true,
        }
    }
}

impl VideoOptimization {
    pub(super) fn probe(&self) -> ProbeTraining {
        ProbeTraining {
            epochs: self.num_epochs,
            batch_size: self.batch_size,
            lr: [self.start_lr, self.lr, self.final_lr],
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            clip_grad: CLIP_GRAD,
            half: self.use_bfloat16,
        }
    }
}

/// The `optimization` section of an image evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageOptimization {
    /// Passes over the training set.
    pub num_epochs: u64,
    /// Samples per step and process.
    pub batch_size: usize,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Learning rate.
    pub lr: f64,
    /// Learning rate that a warm-up starts from.
    pub start_lr: f64,
    /// Learning rate at the end.
    pub final_lr: f64,
    /// Epochs of warm-up.
    pub warmup: f64,
    /// Products in half precision.
    pub use_bfloat16: bool,
}

impl Default for ImageOptimization {
    fn default() -> Self {
        Self {
            num_epochs: 20,
            batch_size: 16,
            weight_decay: 1e-3,
            lr: 1e-3,
            start_lr: 1e-3,
            final_lr: 0.0,
            warmup: 0.0,
            use_bfloat16: true,
        }
    }
}

impl ImageOptimization {
    pub(super) fn probe(&self) -> ProbeTraining {
        ProbeTraining {
            epochs: self.num_epochs,
            batch_size: self.batch_size,
            lr: [self.start_lr, self.lr, self.final_lr],
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            clip_grad: CLIP_GRAD,
            half: self.use_bfloat16,
        }
    }
}

/// The `pretrain` section: the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainSection {
    /// Its size.
    pub model_name: Option<ModelName>,
    /// Which encoder of the checkpoint.
    pub checkpoint_key: CheckpointKey,
    /// Seconds of a clip instead of a step.
    pub clip_duration: Option<f64>,
    /// Frames of a pre-training clip.
    pub frames_per_clip: usize,
    /// Video frames from one clip frame to the next; released files leave it out.
    pub frame_step: usize,
    /// Frames per token.
    pub tubelet_size: usize,
    /// Position table with equal shares of the width; the checkpoint's own table is what is used.
    pub uniform_power: bool,
    /// Gated MLPs; not supported.
    pub use_silu: bool,
    /// Width of gated MLPs; not supported.
    pub tight_silu: bool,
    /// Has no effect.
    pub use_sdpa: bool,
    /// Height and width of a token in pixels.
    pub patch_size: usize,
    /// Folder of the checkpoint.
    pub folder: String,
    /// The checkpoint.
    pub checkpoint: Option<String>,
    /// Has no effect.
    pub write_tag: Option<String>,
}

impl Default for PretrainSection {
    fn default() -> Self {
        Self {
            model_name: None,
            checkpoint_key: CheckpointKey::default(),
            clip_duration: None,
            frames_per_clip: 1,
            frame_step: 4,
            tubelet_size: 2,
            uniform_power: false,
            use_silu: false,
            tight_silu: false,
            use_sdpa: true,
            patch_size: 16,
            folder: String::new(),
            checkpoint: None,
            write_tag: None,
        }
    }
}

impl PretrainSection {
    pub(super) fn encoder(&self) -> Result<EncoderSource, ConfigError> {
        for (key, on) in [("pretrain.use_silu", self.use_silu), ("pretrain.tight_silu", self.tight_silu)] {
            if on {
                let why = "released encoders have plain MLPs with GELU; set it to false";
                return Err(ConfigError::unsupported(key, why));
            }
        }
        let model = self
            .model_name
            .ok_or_else(|| ConfigError::missing("pretrain.model_name", "name the encoder's size, such as vit_large"))?;
        let file = self.checkpoint.as_deref().filter(|file| !file.trim().is_empty()).ok_or_else(|| {
            ConfigError::missing("pretrain.checkpoint", "name the checkpoint's file in `pretrain.folder`")
        })?;
        Ok(EncoderSource {
            checkpoint: Path::new(&self.folder).join(file),
            key: self.checkpoint_key,
            model: Some(model),
            frames: self.frames_per_clip,
            tubelet: self.tubelet_size,
            patch: self.patch_size,
            uniform_power: self.uniform_power,
            from_file: false,
            layers: None,
        })
    }
}
