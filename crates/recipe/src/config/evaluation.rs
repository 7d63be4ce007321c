//! The configuration of a frozen evaluation: the official YAML of `configs/evals`, read strictly.
//!
//! Two programs share the format, video classification and image classification; `eval_name` says which. V-JEPA 2 has a layout
//! of its own (`second.rs`). Keys and defaults are those of facebookresearch/jepa
//! `evals/{video,image}_classification_frozen/eval.py`. What is read twice there or not at all is named by
//! [`Evaluation::ignored`].

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::ConfigError;
use super::named::ModelName;
use super::{ConfigSource, defaults_of, read_text};
use crate::yaml::{self, Node, Value};

mod anticipation;
mod encoder;
mod launcher;
mod second;
mod sections;

pub use anticipation::{Anticipation, AnticipationTraining};
use second::SecondSections;
pub use sections::{
    CheckpointKey, EvalName, ImageData, ImageOptimization, PretrainSection, VideoData, VideoOptimization,
};
use sections::{ImageSections, VideoSections};

/// What the encoder is, and where.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EncoderSource {
    /// The checkpoint: `pretrain.checkpoint` in `pretrain.folder`.
    pub checkpoint: PathBuf,
    /// Which of its encoders.
    pub key: CheckpointKey,
    /// Its size; files of V-JEPA 2's evaluations may leave it to the checkpoint.
    pub model: Option<ModelName>,
    /// Frames of the clips that it was trained on; in files of V-JEPA 2's evaluations those of the clips that it gets.
    pub frames: usize,
    /// Frames per token.
    pub tubelet: usize,
    /// Height and width of a token in pixels.
    pub patch: usize,
    /// Position table with equal shares of the width.
    pub uniform_power: bool,
    /// Whether the checkpoint itself says what it is, V-JEPA 2 or 2.1, rather than the sizes above.
    pub from_file: bool,
    /// Blocks, from 0, whose tokens the probe reads, those of one after those of the other; none: of the last.
    pub layers: Option<Vec<usize>>,
}

/// What is classified.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Samples {
    /// Videos from two lists.
    Videos {
        /// List to train on.
        train: String,
        /// List to evaluate on.
        val: String,
        /// Frames per clip.
        frames: usize,
        /// Video frames from one clip frame to the next; official files give it in `pretrain`.
        step: usize,
        /// Seconds of a clip instead of a step.
        seconds: Option<f64>,
        /// Clips of a video, in training and evaluation.
        segments: usize,
        /// Views of a clip, in evaluation.
        views: usize,
        /// Whether one call of the probe reads the tokens of all segments.
        attend_across_segments: bool,
    },
    /// Images in a folder per class, repeated to a clip.
    Images {
        /// The folder that holds `train` and `val`.
        folder: PathBuf,
        /// Name of the data set.
        name: Option<String>,
        /// Frames that an image is repeated to.
        frames: usize,
    },
}

impl Samples {
    /// Whether they are still images.
    pub fn are_images(&self) -> bool {
        matches!(self, Self::Images { .. })
    }
}

/// How the probe is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ProbeTraining {
    /// Passes over the training set.
    pub epochs: u64,
    /// Samples of a step, of each process of the official launcher.
    pub batch_size: usize,
    /// Learning rates: start of the warm-up, peak, end.
    pub lr: [f64; 3],
    /// Epochs of warm-up.
    pub warmup: f64,
    /// Weight decay at the start; it falls to 1e-6 along a cosine, which the official code does unasked.
    pub weight_decay: f64,
    /// Largest gradient norm.
    pub clip_grad: f64,
    /// Half-precision products, which the official code takes in f16 whatever the key is called.
    pub half: bool,
}

/// How one of several probes is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeadTraining {
    /// Learning rates: start of the warm-up, peak, end.
    pub lr: [f64; 3],
    /// Epochs of warm-up.
    pub warmup: f64,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Weight decay at the end of its cosine.
    pub final_weight_decay: f64,
}

/// A frozen evaluation, all values resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Name of the run.
    pub tag: Option<String>,
    /// Whether an earlier run is continued.
    pub resume: bool,
    /// The encoder.
    pub encoder: EncoderSource,
    /// The data.
    pub samples: Samples,
    /// Classes.
    pub classes: usize,
    /// Height and width of a clip in pixels.
    pub resolution: usize,
    /// The probe's training; of several, what they share and the first one's rates.
    pub probe: ProbeTraining,
    /// The rates of each of several probes; empty for the one of V-JEPA's evaluations.
    pub heads: Vec<HeadTraining>,
    /// Blocks and attention heads of the probe, where the file gives them.
    pub sizes: Option<[usize; 2]>,
    /// Whether a trained probe is evaluated only.
    pub val_only: bool,
    /// The file of trained probes.
    pub probe_file: Option<String>,
    /// Keys that were accepted and change nothing, each with the reason.
    #[serde(skip)]
    pub ignored: Vec<(&'static str, &'static str)>,
}

/// Final weight decay of every official evaluation.
pub const FINAL_WEIGHT_DECAY: f64 = 1e-6;
/// Gradient norm that every official evaluation clips to.
const CLIP_GRAD: f64 = 1.0;

impl Evaluation {
    /// Whether a text is such a configuration, rather than that of a run.
    pub fn recognises(text: &str) -> bool {
        yaml::parse(text).is_ok_and(|root| is_evaluation(&root))
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
    /// As [`Evaluation::from_file`].
    pub fn from_yaml(text: &str, name: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let at = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let root = yaml::parse(text).map_err(|message| ConfigError::Syntax { at, message })?;
        if !is_evaluation(&root) {
            let rule = format!("official evaluations name one of {}", EvalName::words());
            let at = if name.is_empty() { String::new() } else { format!("{name}: ") };
            return Err(ConfigError::Missing { at, key: "eval_name".into(), rule });
        }
        let mut source = ConfigSource { name, overrides, root };
        let eval_name = match source.root.at("eval_name") {
            None => EvalName::default(),
            Some(node) => yaml::read(node).map_err(|misfit| source.misfit("eval_name", misfit))?,
        };
        let read = match eval_name {
            _ if is_second(&source.root) => Self::second(&mut source)?,
            EvalName::Video => Self::videos(&mut source)?,
            EvalName::Image => Self::images(&mut source)?,
        };
        read.check().map_err(|error| error.placed(|key| source.place(key)))?;
        Ok(read)
    }

    /// A file of V-JEPA 2's.
    fn second(source: &mut ConfigSource) -> Result<Self, ConfigError> {
        source.override_with(&defaults_of(&SecondSections::default())?)?;
        source.drop_empty_sections();
        let sections: SecondSections =
            yaml::read(&launcher::without(&source.root)).map_err(|misfit| source.misfit("", misfit))?;
        sections.evaluation(&source.root).map_err(|error| error.placed(|key| source.place(key)))
    }

    /// A key of the sections that both layouts have, as this file spells it.
    fn key(&self, section: &str, key: &str) -> String {
        match (self.encoder.from_file, section) {
            (true, "data" | "optimization") => format!("experiment.{section}.{key}"),
            (true, _) => format!("model_kwargs.pretrain_kwargs.encoder.{key}"),
            (false, _) => format!("{section}.{key}"),
        }
    }

    fn videos(source: &mut ConfigSource) -> Result<Self, ConfigError> {
        source.override_with(&defaults_of(&VideoSections::default())?)?;
        source.drop_empty_sections();
        let VideoSections { tag, resume_checkpoint, data, optimization, pretrain, .. } =
            yaml::read(&launcher::without(&source.root)).map_err(|misfit| source.misfit("", misfit))?;
        let mut ignored = ignored(&source.root, &VIDEO_UNREAD);
        if data.frame_step != pretrain.frame_step {
            ignored.push((
                "data.frame_step",
                "the official evaluation takes `pretrain.frame_step`, 4 where it is not given",
            ));
        }
        let samples = Samples::Videos {
            train: data.dataset_train,
            val: data.dataset_val,
            frames: data.frames_per_clip,
            step: pretrain.frame_step,
            seconds: pretrain.clip_duration,
            segments: data.num_segments,
            views: data.num_views_per_segment,
            attend_across_segments: optimization.attend_across_segments,
        };
        let probe = optimization.probe();
        let (classes, resolution) = (data.num_classes, optimization.resolution);
        let encoder = pretrain.encoder().map_err(|error| error.placed(|key| source.place(key)))?;
        Ok(Self::first((tag, resume_checkpoint), encoder, samples, (classes, resolution), probe, ignored))
    }

    fn images(source: &mut ConfigSource) -> Result<Self, ConfigError> {
        source.override_with(&defaults_of(&ImageSections::default())?)?;
        source.drop_empty_sections();
        let ImageSections { tag, resume_checkpoint, data, optimization, pretrain, .. } =
            yaml::read(&launcher::without(&source.root)).map_err(|misfit| source.misfit("", misfit))?;
        let ignored = ignored(&source.root, &IMAGE_UNREAD);
        let folder = Path::new(&data.root_path).join(&data.image_folder);
        let samples = Samples::Images { folder, name: data.dataset_name, frames: pretrain.frames_per_clip };
        let probe = optimization.probe();
        let (classes, resolution) = (data.num_classes, data.resolution);
        let encoder = pretrain.encoder().map_err(|error| error.placed(|key| source.place(key)))?;
        Ok(Self::first((tag, resume_checkpoint), encoder, samples, (classes, resolution), probe, ignored))
    }

    /// One of V-JEPA's, with one probe.
    fn first(
        (tag, resume): (Option<String>, bool),
        encoder: EncoderSource,
        samples: Samples,
        (classes, resolution): (usize, usize),
        probe: ProbeTraining,
        ignored: Vec<(&'static str, &'static str)>,
    ) -> Self {
        let (heads, sizes, val_only, probe_file) = (Vec::new(), None, false, None);
        Self { tag, resume, encoder, samples, classes, resolution, probe, heads, sizes, val_only, probe_file, ignored }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let positive = |key: &str, value: usize| match value {
            0 => Err(ConfigError::rule(key, "must be at least 1")),
            _ => Ok(()),
        };
        let data = |key: &str| self.key("data", key);
        positive(&data("num_classes"), self.classes)?;
        let second = self.encoder.from_file;
        let at = match &self.samples {
            Samples::Videos { train, val, frames, step, segments, views, seconds, .. } => {
                for (key, list) in [("dataset_train", train), ("dataset_val", val)] {
                    if list.trim().is_empty() {
                        return Err(ConfigError::missing(data(key), "name a list of \"path label\" lines"));
                    }
                }
                let (step_at, seconds_at) = match second {
                    true => (data("frame_step"), data("clip_duration")),
                    false => ("pretrain.frame_step".to_owned(), "pretrain.clip_duration".to_owned()),
                };
                positive(&data("frames_per_clip"), *frames)?;
                positive(&step_at, *step)?;
                positive(&data("num_segments"), *segments)?;
                positive(&data("num_views_per_segment"), *views)?;
                if seconds.is_some_and(|seconds| seconds <= 0.0) {
                    return Err(ConfigError::rule(seconds_at, "must be above 0, or null"));
                }
                if second { data("resolution") } else { "optimization.resolution".to_owned() }
            }
            Samples::Images { folder, frames, .. } => {
                if folder.as_os_str().is_empty() {
                    return Err(ConfigError::missing(data("root_path"), "name the folder that holds the image sets"));
                }
                let frames_at = if second {
                    "model_kwargs.wrapper_kwargs.img_as_video_nframes"
                } else {
                    "pretrain.frames_per_clip"
                };
                positive(frames_at, *frames)?;
                data("resolution")
            }
        };
        positive(&at, self.resolution)?;
        let EncoderSource { frames, tubelet, patch, .. } = self.encoder;
        positive(&self.key("pretrain", "tubelet_size"), tubelet)?;
        positive(&self.key("pretrain", "patch_size"), patch)?;
        if !self.resolution.is_multiple_of(patch) {
            let rule = format!("is {}, which patches of {patch} pixels do not divide", self.resolution);
            return Err(ConfigError::rule(at, rule));
        }
        if frames > 1 && !frames.is_multiple_of(tubelet) {
            let rule = format!("is {frames}, which tubelets of {tubelet} frames do not divide");
            let key = if second { data("frames_per_clip") } else { "pretrain.frames_per_clip".to_owned() };
            return Err(ConfigError::rule(key, rule));
        }
        if let Some([blocks, heads]) = self.sizes {
            positive("experiment.classifier.num_probe_blocks", blocks)?;
            positive("experiment.classifier.num_heads", heads)?;
        }
        self.check_probe()
    }

    fn check_probe(&self) -> Result<(), ConfigError> {
        let ProbeTraining { epochs, batch_size, lr: [start, peak, end], warmup, weight_decay, .. } = self.probe;
        if epochs == 0 || batch_size == 0 {
            let key = if epochs == 0 { "num_epochs" } else { "batch_size" };
            return Err(ConfigError::rule(self.key("optimization", key), "must be at least 1"));
        }
        let rates =
            [("start_lr", start), ("lr", peak), ("final_lr", end), ("warmup", warmup), ("weight_decay", weight_decay)];
        if let Some((key, _)) = rates.into_iter().find(|(_, value)| self.heads.is_empty() && *value < 0.0) {
            return Err(ConfigError::rule(format!("optimization.{key}"), "must be 0 or more"));
        }
        for (number, head) in self.heads.iter().enumerate() {
            let all = head.lr.into_iter().chain([head.warmup, head.weight_decay, head.final_weight_decay]);
            if all.into_iter().any(|value| value < 0.0) {
                let key = format!("experiment.optimization.multihead_kwargs.{number}");
                return Err(ConfigError::rule(key, "has a rate below 0; each must be 0 or more"));
            }
        }
        Ok(())
    }
}

/// Keys that do nothing here.
const VIDEO_UNREAD: [(&str, &str); 3] = [
    ("data.dataset_type", "lists are recognised by what they hold"),
    ("pretrain.use_sdpa", "attention is always the fused one, as in the official model"),
    ("pretrain.write_tag", "checkpoints of probes are named by --out"),
];
const IMAGE_UNREAD: [(&str, &str); 3] =
    [VIDEO_UNREAD[1], VIDEO_UNREAD[2], ("pretrain.clip_duration", "an image has no duration")];

/// Those of the keys, and of the launcher's, that the text gives.
fn ignored(root: &Node, unread: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    launcher::KEYS.iter().chain(unread).copied().filter(|(key, _)| root.at(key).is_some()).collect()
}

fn is_evaluation(root: &Node) -> bool {
    let keys = ["eval_name", "data.dataset_train", "data.image_folder", "pretrain.checkpoint_key"];
    matches!(root.value, Value::Map(_)) && (is_second(root) || keys.iter().any(|key| root.at(key).is_some()))
}

/// V-JEPA 2's files have the same names and another layout.
fn is_second(root: &Node) -> bool {
    ["experiment", "model_kwargs"].iter().any(|key| root.at(key).is_some())
}

#[cfg(test)]
mod tests;
