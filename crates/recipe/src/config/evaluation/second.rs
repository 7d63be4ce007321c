//! The layout of V-JEPA 2's and 2.1's evaluations: `experiment` and `model_kwargs`, with several probes side by side.
//!
//! Keys are those of facebookresearch/vjepa2 `evals/{video,image}_classification_frozen/eval.py` and of the modules that
//! `model_kwargs.module_name` names. Which generation a checkpoint is, its file says.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Skipped;
use super::super::error::ConfigError;
use super::encoder::{ENCODER_UNREAD, IN_FILE, ModelKwargs, PretrainKwargs};
use super::sections::EvalName;
use super::{Evaluation, HeadTraining, ProbeTraining, Samples, ignored};
use crate::yaml::Node;

/// A file of such an evaluation.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SecondSections {
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    num_workers: Skipped,
    /// Name of the run.
    pub tag: Option<String>,
    /// Which program.
    pub eval_name: EvalName,
    /// Continue an earlier run.
    pub resume_checkpoint: bool,
    /// Evaluate only.
    pub val_only: bool,
    /// The file of trained probes.
    pub probe_checkpoint: Option<String>,
    pub experiment: Experiment,
    pub model_kwargs: ModelKwargs<WrapperKwargs>,
}

/// The `experiment` section.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Experiment {
    classifier: Classifier,
    data: Data,
    optimization: Optimization,
}

/// The probe's sizes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Classifier {
    /// Blocks: one of cross-attention, and self-attention before it.
    pub(super) num_probe_blocks: usize,
    /// Attention heads.
    pub(super) num_heads: usize,
}

impl Default for Classifier {
    fn default() -> Self {
        Self { num_probe_blocks: 1, num_heads: 16 }
    }
}

/// Videos, or images; the program decides which keys count.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Data {
    dataset_train: String,
    dataset_val: String,
    dataset_type: Option<String>,
    num_classes: usize,
    num_segments: usize,
    num_views_per_segment: usize,
    frame_step: usize,
    frames_per_clip: usize,
    clip_duration: Option<f64>,
    resolution: usize,
    root_path: String,
    image_folder: String,
    dataset_name: Option<String>,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            dataset_train: String::new(),
            dataset_val: String::new(),
            dataset_type: None,
            num_classes: 0,
            num_segments: 1,
            num_views_per_segment: 1,
            frame_step: 4,
            frames_per_clip: 16,
            clip_duration: None,
            resolution: 224,
            root_path: String::new(),
            image_folder: String::new(),
            dataset_name: None,
        }
    }
}

impl Data {
    /// What is classified: images, each repeated to so many frames, or clips of so many frames.
    fn samples(self, images: bool, frames: usize) -> Samples {
        match images {
            true => Samples::Images {
                folder: Path::new(&self.root_path).join(&self.image_folder),
                name: self.dataset_name,
                frames,
            },
            false => Samples::Videos {
                train: self.dataset_train,
                val: self.dataset_val,
                frames,
                step: self.frame_step,
                seconds: self.clip_duration,
                segments: self.num_segments,
                views: self.num_views_per_segment,
                // Tokens of the clips are joined in time.
                attend_across_segments: true,
            },
        }
    }
}

/// Training of the probes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Optimization {
    batch_size: usize,
    num_epochs: u64,
    /// One entry a probe.
    multihead_kwargs: Vec<Rates>,
    use_bfloat16: bool,
    use_pos_embed: bool,
    use_focal_loss: bool,
}

impl Default for Optimization {
    fn default() -> Self {
        Self {
            batch_size: 4,
            num_epochs: 20,
            multihead_kwargs: Vec::new(),
            use_bfloat16: true,
            use_pos_embed: false,
            use_focal_loss: false,
        }
    }
}

/// Rates of one probe.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rates {
    lr: f64,
    start_lr: f64,
    final_lr: f64,
    warmup: f64,
    weight_decay: f64,
    final_weight_decay: f64,
}

impl Rates {
    /// Whether a rate, a decay or the warm-up is below 0.
    pub(super) fn is_negative(&self) -> bool {
        let Self { lr, start_lr, final_lr, warmup, weight_decay, final_weight_decay } = *self;
        [lr, start_lr, final_lr, warmup, weight_decay, final_weight_decay].iter().any(|value| *value < 0.0)
    }
}

/// What wraps the encoder.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrapperKwargs {
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    max_frames: Skipped,
    use_pos_embed: bool,
    /// Blocks, from 0, whose tokens are joined.
    out_layers: Option<Vec<usize>>,
    /// Frames that an image is repeated to.
    img_as_video_nframes: Option<usize>,
}

impl SecondSections {
    /// The evaluation that the file describes; `root` says which keys it gives.
    pub(super) fn evaluation(self, root: &Node) -> Result<Evaluation, ConfigError> {
        let Experiment { classifier, data, optimization } = self.experiment;
        let ModelKwargs { checkpoint, pretrain_kwargs: PretrainKwargs { encoder, .. }, wrapper_kwargs, .. } =
            self.model_kwargs;
        refuse_unsupported(encoder.use_silu, &optimization, &wrapper_kwargs)?;
        if checkpoint.trim().is_empty() {
            return Err(ConfigError::missing("model_kwargs.checkpoint", "name the encoder's checkpoint"));
        }
        let images = self.eval_name == EvalName::Image;
        let frames = match images {
            true => wrapper_kwargs.img_as_video_nframes.unwrap_or(16),
            false => data.frames_per_clip,
        };
        let encoder = encoder.source(checkpoint, frames, wrapper_kwargs.out_layers);
        let (classes, resolution) = (data.num_classes, data.resolution);
        let samples = data.samples(images, frames);
        let of_images = if images { &IMAGE_UNREAD[..] } else { &[] };
        let heads: Vec<HeadTraining> = optimization.multihead_kwargs.iter().map(HeadTraining::from).collect();
        let Some(HeadTraining { lr, warmup, weight_decay, .. }) = heads.first().copied() else {
            let rule = "list the probes that are trained, each with lr, start_lr, final_lr, warmup and weight_decay";
            return Err(ConfigError::missing("experiment.optimization.multihead_kwargs", rule));
        };
        let probe = ProbeTraining {
            epochs: optimization.num_epochs,
            batch_size: optimization.batch_size,
            lr,
            warmup,
            weight_decay,
            // V-JEPA 2's probes are not clipped.
            clip_grad: f64::INFINITY,
            half: optimization.use_bfloat16,
        };
        Ok(Evaluation {
            tag: self.tag,
            resume: self.resume_checkpoint,
            encoder,
            samples,
            classes,
            resolution,
            probe,
            heads,
            sizes: Some([classifier.num_probe_blocks, classifier.num_heads]),
            val_only: self.val_only,
            probe_file: self.probe_checkpoint.filter(|file| !file.is_empty()),
            ignored: ignored(root, &[&VIDEO_UNREAD[..], &ENCODER_UNREAD, of_images].concat()),
        })
    }
}

/// Refuses what no released model or probe has.
fn refuse_unsupported(use_silu: bool, optimization: &Optimization, wrapper: &WrapperKwargs) -> Result<(), ConfigError> {
    let refused = [
        ("model_kwargs.pretrain_kwargs.encoder.use_silu", use_silu, "released encoders have plain MLPs with GELU"),
        ("experiment.optimization.use_pos_embed", optimization.use_pos_embed, "no released probe has position tables"),
        ("model_kwargs.wrapper_kwargs.use_pos_embed", wrapper.use_pos_embed, "no released probe has position tables"),
        ("experiment.optimization.use_focal_loss", optimization.use_focal_loss, "probes of classes have cross entropy"),
    ];
    match refused.into_iter().find(|(_, asked, _)| *asked) {
        Some((key, _, why)) => Err(ConfigError::unsupported(key, format!("{why}; set it to false"))),
        None => Ok(()),
    }
}

impl From<&Rates> for HeadTraining {
    fn from(rates: &Rates) -> Self {
        Self {
            lr: [rates.start_lr, rates.lr, rates.final_lr],
            warmup: rates.warmup,
            weight_decay: rates.weight_decay,
            final_weight_decay: rates.final_weight_decay,
        }
    }
}

/// Keys that do nothing here, beside those of the encoder.
const VIDEO_UNREAD: [(&str, &str); 5] = [
    ("num_workers", "as many threads decode as the machine has processors"),
    ("experiment.data.dataset_type", "lists are recognised by what they hold"),
    ("model_kwargs.module_name", "this program has the modules itself"),
    ("model_kwargs.pretrain_kwargs.use_v2_1", IN_FILE),
    ("model_kwargs.wrapper_kwargs.max_frames", "it is the length of a position table that no released probe has"),
];
const IMAGE_UNREAD: [(&str, &str); 1] =
    [("experiment.data.frames_per_clip", "an image is repeated to img_as_video_nframes frames")];
