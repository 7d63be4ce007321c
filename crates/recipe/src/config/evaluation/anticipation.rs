//! V-JEPA 2's evaluation of action anticipation, `eval_name: action_anticipation_frozen`: the second layout with keys of its own.
//!
//! Keys are those of facebookresearch/vjepa2 `evals/action_anticipation_frozen/eval.py` and of the module that
//! `model_kwargs.module_name` names.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::error::ConfigError;
use super::super::{ConfigSource, Skipped, defaults_of, read_text};
use super::encoder::{ENCODER_UNREAD, IN_FILE, ModelKwargs};
use super::second::{Classifier, Rates};
use super::{CheckpointKey, EncoderSource, HeadTraining, ignored, launcher};
use crate::yaml::{self, Node};

mod training;

pub use training::AnticipationTraining;

/// What such files are called.
const NAME: &str = "action_anticipation_frozen";
/// The data set that is known.
const DATASET: &str = "EK100";

/// An evaluation of action anticipation, all values resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Anticipation {
    /// The encoder; its checkpoint is that of the predictor, too.
    pub encoder: EncoderSource,
    /// Folder of the videos.
    pub videos: PathBuf,
    /// Actions to train on.
    pub train: PathBuf,
    /// Actions to evaluate on.
    pub val: PathBuf,
    /// Frames of a clip.
    pub frames: usize,
    /// Clip frames a second.
    pub fps: f64,
    /// Seconds from the clip's end to the anchor.
    pub seconds: f64,
    /// Whether the anchor is an action's first frame, rather than its last.
    pub from_start: bool,
    /// Height and width of a clip in pixels.
    pub resolution: usize,
    /// Blocks and attention heads of the probe.
    pub sizes: [usize; 2],
    /// Passes over the actions.
    pub epochs: u64,
    /// Actions of a step, of each process of the official launcher.
    pub batch_size: usize,
    /// The rates of each probe; at least one.
    pub heads: Vec<HeadTraining>,
    /// How training clips are drawn and augmented; none where the file says nothing of it.
    pub training: Option<AnticipationTraining>,
    /// Whether a trained probe is evaluated only.
    pub val_only: bool,
    /// Keys that were accepted and change nothing, each with the reason.
    pub ignored: Vec<(&'static str, &'static str)>,
}

impl Anticipation {
    /// Whether a text is such a configuration.
    pub fn recognises(text: &str) -> bool {
        let name = |root: &Node| root.at("eval_name").and_then(|node| yaml::read::<String>(node).ok());
        yaml::parse(text).is_ok_and(|root| name(&root).as_deref() == Some(NAME))
    }

    /// Reads and checks a file, with `--set` arguments applied in order.
    ///
    /// # Errors
    /// A [`ConfigError`] of one sentence that names the file, the line and the key.
    pub fn from_file(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::from_yaml(&read_text(path)?, &path.display().to_string(), overrides)
    }

    /// Reads and checks a text. `name` stands for it in messages and may be empty.
    ///
    /// # Errors
    /// As [`Anticipation::from_file`].
    pub fn from_yaml(text: &str, name: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let at = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let root = yaml::parse(text).map_err(|message| ConfigError::Syntax { at, message })?;
        let mut source = ConfigSource { name, overrides, root };
        source.override_with(&defaults_of(&Sections::default())?)?;
        source.drop_empty_sections();
        let sections: Sections =
            yaml::read(&launcher::without(&source.root)).map_err(|misfit| source.misfit("", misfit))?;
        let read = sections.check().and_then(|()| sections.resolved(&source.root));
        read.map_err(|error| error.placed(|key| source.place(key)))
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    tag: Skipped,
    eval_name: String,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    resume_checkpoint: Skipped,
    val_only: bool,
    experiment: Experiment,
    model_kwargs: ModelKwargs<WrapperKwargs>,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Experiment {
    classifier: Classifier,
    data: Data,
    optimization: Optimization,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Data {
    dataset: String,
    base_path: String,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    file_format: Skipped,
    dataset_train: String,
    dataset_val: String,
    frames_per_clip: usize,
    frames_per_second: f64,
    resolution: usize,
    /// Seconds in evaluation: drawn between both, which are the same.
    anticipation_time_sec: [f64; 2],
    /// Where in an action they are counted from in evaluation: 0 at its last frame, 1 at its first.
    val_anticipation_point: [f64; 2],
    /// Seconds in training, drawn between both.
    train_anticipation_time_sec: Option<[f64; 2]>,
    /// Where in an action they are counted from in training, drawn between both.
    train_anticipation_point: Option<[f64; 2]>,
    /// RandAugment of training clips.
    auto_augment: Option<bool>,
    /// Crops that move with time.
    motion_shift: Option<bool>,
    /// Share of training clips in which a rectangle is erased.
    reprob: Option<f64>,
    /// Share of the frame that a training crop has, drawn between both.
    random_resize_scale: Option<[f64; 2]>,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    num_workers: Skipped,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    pin_memory: Skipped,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            dataset: String::new(),
            base_path: String::new(),
            file_format: Skipped,
            dataset_train: String::new(),
            dataset_val: String::new(),
            frames_per_clip: 32,
            frames_per_second: 8.0,
            resolution: 224,
            anticipation_time_sec: [1.0; 2],
            val_anticipation_point: [0.0; 2],
            train_anticipation_time_sec: None,
            train_anticipation_point: None,
            auto_augment: None,
            motion_shift: None,
            reprob: None,
            random_resize_scale: None,
            num_workers: Skipped,
            pin_memory: Skipped,
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Optimization {
    batch_size: usize,
    num_epochs: u64,
    multihead_kwargs: Vec<Rates>,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    use_bfloat16: Skipped,
    use_focal_loss: bool,
}

/// What is rolled out.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WrapperKwargs {
    no_predictor: bool,
    no_encoder: bool,
    num_output_frames: usize,
    num_steps: usize,
}

impl Default for WrapperKwargs {
    fn default() -> Self {
        Self { no_predictor: false, no_encoder: false, num_output_frames: 2, num_steps: 1 }
    }
}

impl Sections {
    /// Refuses what this program does otherwise, and what is missing.
    fn check(&self) -> Result<(), ConfigError> {
        let Experiment { data, optimization, .. } = &self.experiment;
        let ModelKwargs { checkpoint, wrapper_kwargs: wrapper, pretrain_kwargs, .. } = &self.model_kwargs;
        let tubelet = pretrain_kwargs.encoder.tubelet_size;
        for (key, fine, why) in [
            ("eval_name", self.eval_name == NAME, "is not `action_anticipation_frozen`"),
            ("experiment.data.dataset", data.dataset == DATASET, "is not EK100: no other data set is known"),
            (
                "experiment.optimization.use_focal_loss",
                optimization.use_focal_loss,
                "is not true: probes of actions have this loss",
            ),
            (
                "model_kwargs.wrapper_kwargs.no_predictor",
                !wrapper.no_predictor,
                "is true: the predictor's future is always read",
            ),
            (
                "model_kwargs.wrapper_kwargs.no_encoder",
                !wrapper.no_encoder,
                "is true: the encoder's tokens are always read",
            ),
            ("model_kwargs.wrapper_kwargs.num_steps", wrapper.num_steps == 1, "is not 1: one step is rolled out"),
            (
                "model_kwargs.wrapper_kwargs.num_output_frames",
                wrapper.num_output_frames == tubelet,
                "is not the frames of a tubelet: one time step is rolled out",
            ),
            (
                "model_kwargs.pretrain_kwargs.encoder.checkpoint_key",
                pretrain_kwargs.encoder.checkpoint_key != CheckpointKey::Encoder,
                "is `encoder`: the moving average of it is what is read",
            ),
            (
                "model_kwargs.pretrain_kwargs.encoder.use_silu",
                !pretrain_kwargs.encoder.use_silu,
                "is true: released encoders have plain MLPs with GELU",
            ),
        ] {
            if !fine {
                return Err(ConfigError::unsupported(key, why));
            }
        }
        for (key, value, what) in [
            ("model_kwargs.checkpoint", checkpoint, "name the checkpoint of encoder and predictor"),
            ("experiment.data.base_path", &data.base_path, "name the folder of the videos"),
            ("experiment.data.dataset_train", &data.dataset_train, "name EPIC_100_train.csv"),
            ("experiment.data.dataset_val", &data.dataset_val, "name EPIC_100_validation.csv"),
        ] {
            if value.trim().is_empty() {
                return Err(ConfigError::missing(key, what));
            }
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let Experiment { data, optimization, classifier } = &self.experiment;
        let encoder = &self.model_kwargs.pretrain_kwargs.encoder;
        for (key, value) in [
            ("model_kwargs.pretrain_kwargs.encoder.patch_size", encoder.patch_size),
            ("model_kwargs.pretrain_kwargs.encoder.tubelet_size", encoder.tubelet_size),
            ("experiment.data.frames_per_clip", data.frames_per_clip),
            ("experiment.data.resolution", data.resolution),
            ("experiment.optimization.batch_size", optimization.batch_size),
            ("experiment.optimization.num_epochs", usize::try_from(optimization.num_epochs).unwrap_or(usize::MAX)),
            ("experiment.classifier.num_probe_blocks", classifier.num_probe_blocks),
            ("experiment.classifier.num_heads", classifier.num_heads),
        ] {
            if value == 0 {
                return Err(ConfigError::rule(key, "must be at least 1"));
            }
        }
        if data.frames_per_second <= 0.0 {
            return Err(ConfigError::rule("experiment.data.frames_per_second", "must be above 0"));
        }
        let [from, to] = data.anticipation_time_sec;
        if from != to || from < 0.0 {
            let rule = format!("is [{from}, {to}]; an evaluation has one time, [1.0, 1.0]");
            return Err(ConfigError::rule("experiment.data.anticipation_time_sec", rule));
        }
        let point = data.val_anticipation_point;
        if ![[0.0; 2], [1.0; 2]].contains(&point) {
            let rule =
                format!("is {point:?}; [0.0, 0.0] counts from an action's last frame, [1.0, 1.0] from its first");
            return Err(ConfigError::rule("experiment.data.val_anticipation_point", rule));
        }
        data.check_training()?;
        let rates = &optimization.multihead_kwargs;
        if rates.is_empty() {
            let rule = "list the probes that are trained, each with lr, start_lr, final_lr, warmup and weight_decay";
            return Err(ConfigError::missing("experiment.optimization.multihead_kwargs", rule));
        }
        match rates.iter().any(Rates::is_negative) {
            true => Err(ConfigError::rule("experiment.optimization.multihead_kwargs", "has a value below 0")),
            false => Ok(()),
        }
    }

    fn resolved(self, root: &Node) -> Result<Anticipation, ConfigError> {
        let Experiment { data, optimization, classifier } = self.experiment;
        let ModelKwargs { checkpoint, pretrain_kwargs, .. } = self.model_kwargs;
        let [seconds, _] = data.anticipation_time_sec;
        let training = data.training();
        Ok(Anticipation {
            encoder: pretrain_kwargs.encoder.source(checkpoint, data.frames_per_clip, None),
            videos: PathBuf::from(data.base_path),
            train: PathBuf::from(data.dataset_train),
            val: PathBuf::from(data.dataset_val),
            frames: data.frames_per_clip,
            fps: data.frames_per_second,
            seconds,
            from_start: data.val_anticipation_point == [1.0; 2],
            resolution: data.resolution,
            sizes: [classifier.num_probe_blocks, classifier.num_heads],
            epochs: optimization.num_epochs,
            batch_size: optimization.batch_size,
            heads: optimization.multihead_kwargs.iter().map(HeadTraining::from).collect(),
            training,
            val_only: self.val_only,
            ignored: ignored(root, &[&UNREAD[..], &ENCODER_UNREAD].concat()),
        })
    }
}

/// Keys that do nothing here, beside those of the encoder.
const UNREAD: [(&str, &str); 9] = [
    ("tag", "probes are written to --out"),
    ("resume_checkpoint", "probes are trained from first weights"),
    ("experiment.data.file_format", "videos are found by their names"),
    ("experiment.data.num_workers", "as many threads decode as the machine has processors"),
    ("experiment.data.pin_memory", "there is nothing to pin"),
    ("experiment.optimization.use_bfloat16", "probes are trained in f32"),
    ("model_kwargs.module_name", "this program has the modules itself"),
    ("model_kwargs.pretrain_kwargs.predictor", IN_FILE),
    ("model_kwargs.pretrain_kwargs.use_v2_1", IN_FILE),
];

#[cfg(test)]
mod tests;
