//! The configuration of a run: the official YAML, read strictly.
//!
//! Sections and keys are those of the official V-JEPA recipes (`configs/pretrain/*.yaml`), with a few of our own beside
//! them; `configs/` holds the recipes. Defaults are the released ViT-L values, so a file may hold only what it changes:
//! `model` and `data` are enough to describe an encoder and its input. What is read is checked as a whole: unknown keys,
//! wrong types, impossible shapes and values that this program cannot honour are errors that name the line and the key.
//!
//! - [`Config::from_file`], [`Config::from_yaml`] read; [`Config::to_yaml`] writes all values, defaults included.
//! - [`Config::check_training`] asks for what only training needs: data sets and a folder.
//! - [`Config::ignored`] lists the keys that were accepted and have no meaning here.
//! - `overrides` applies `--set key.sub=value` before anything is read.

use std::path::Path;

use serde::Serialize;
use serde_norway::Value;

mod data;
mod error;
mod locate;
mod mask;
mod model;
mod official;
mod overrides;
pub(crate) mod reader;
mod training;
mod validate;

pub use data::{AugmentConfig, DataConfig, DatasetType, Framing, MaskType, Normalization, Preprocessing, Sampling};
pub use error::ConfigError;
pub use mask::MaskConfig;
pub use model::{EncoderSizes, Init, ModelConfig, ModelName, PredictorSizes};
pub use training::{Dtype, LoggingConfig, LossConfig, MetaConfig, ObjectiveName, OptimizationConfig, StepPlan};

use crate::text;
use crate::text::TextError;
use reader::{Section, Source};

/// A whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Config {
    /// The official launcher's keys found in the file (`app`, `nodes`, `tasks_per_node`), which have no meaning here.
    #[serde(skip)]
    pub launcher: Vec<&'static str>,
    /// Seed, arithmetic, checkpoint to start from.
    pub meta: MetaConfig,
    /// Mask generators.
    pub mask: MaskConfig,
    /// Encoder and predictor.
    pub model: ModelConfig,
    /// Clips and where they come from.
    pub data: DataConfig,
    /// Augmentations.
    pub data_aug: AugmentConfig,
    /// Loss.
    pub loss: LossConfig,
    /// Steps, learning rates, momentum.
    pub optimization: OptimizationConfig,
    /// Output.
    pub logging: LoggingConfig,
}

impl Config {
    /// Reads and checks a file, with `--set` arguments applied in order.
    ///
    /// # Errors
    /// A [`ConfigError`] of one sentence that names the file, the line and the key.
    pub fn from_file(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = text::read(path).map_err(|error| match error {
            TextError::Io(source) => ConfigError::Read { path: path.into(), source },
            TextError::Encoding(why) => ConfigError::Text { path: path.into(), why },
        })?;
        Self::from_yaml(&text.text, &path.display().to_string(), overrides)
    }

    /// Reads and checks a text. `name` stands for it in messages and may be empty.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_yaml(text: &str, name: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        // The YAML reader takes a byte order mark for a document of its own.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let syntax = |error: serde_norway::Error| ConfigError::Syntax {
            at: if name.is_empty() { String::new() } else { format!("{name}: ") },
            message: error.to_string(),
        };
        let mut root: Value = serde_norway::from_str(text).map_err(syntax)?;
        root.apply_merge().map_err(syntax)?;
        if let Some(what) = official::recognise(&root) {
            let name = if name.is_empty() { "this" } else { name }.to_owned();
            return Err(ConfigError::Official { name, what });
        }
        let mut source = Source { text, name, overrides: Vec::new() };
        if !overrides.is_empty() {
            let defaults = serde_norway::to_value(Self::default()).map_err(syntax)?;
            for argument in overrides {
                let key = overrides::apply(&mut root, &defaults, argument)?;
                source.overrides.push((key, argument.clone()));
            }
        }
        let config = Self::read(&source, root)?;
        config.check().map_err(|error| error.placed(|key| source.place(key)))?;
        Ok(config)
    }

    fn read(source: &Source, root: Value) -> Result<Self, ConfigError> {
        let mut sections = Section::open(source, "", root)?;
        let mut launcher = Vec::new();
        for key in ["app", "nodes", "tasks_per_node"] {
            if sections.take(key).is_some() {
                launcher.push(key);
            }
        }
        let mut open = |name: &'static str| {
            let value = sections.take(name).unwrap_or(Value::Null);
            Section::open(source, name, value)
        };
        let meta = MetaConfig::read(open("meta")?)?;
        let model = ModelConfig::read(open("model")?)?;
        let data = DataConfig::read(open("data")?)?;
        let data_aug = AugmentConfig::read(open("data_aug")?)?;
        let loss = LossConfig::read(open("loss")?)?;
        let optimization = OptimizationConfig::read(open("optimization")?)?;
        let logging = LoggingConfig::read(open("logging")?)?;
        let mask = MaskConfig::read(source, data.mask_type, sections.take("mask"))?;
        sections.finish()?;
        Ok(Self { launcher, meta, mask, model, data, data_aug, loss, optimization, logging })
    }

    /// The rules between values. [`Config::from_yaml`] has applied them; call it again after changing fields.
    ///
    /// # Errors
    /// [`ConfigError::Rule`], [`ConfigError::Unsupported`] or [`ConfigError::Missing`].
    pub fn check(&self) -> Result<(), ConfigError> {
        validate::check(self)
    }

    /// What only training needs: a predictor, weights to start from, videos to learn from, and a folder to write to.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] or [`ConfigError::Rule`] naming the key.
    pub fn check_training(&self) -> Result<(), ConfigError> {
        validate::beginning(&self.meta)?;
        self.model.predictor_sizes()?;
        if self.data.dataset_type == DatasetType::Video && self.data.datasets.is_empty() {
            return Err(ConfigError::missing(
                "data.datasets",
                "list CSV files of \"path label\" lines, or folders of videos",
            ));
        }
        if self.data.dataset_type == DatasetType::DriftingTextures {
            // An endless stream has no length of its own.
            self.optimization.plan(None)?;
        }
        if self.logging.folder.as_deref().unwrap_or("").is_empty() {
            return Err(ConfigError::missing("logging.folder", "name a folder for checkpoints and metrics"));
        }
        Ok(())
    }

    /// Keys that were accepted although they change nothing here, each with the reason, for one notice at the start.
    pub fn ignored(&self) -> Vec<(&'static str, &'static str)> {
        let mut list: Vec<_> =
            self.launcher.iter().map(|&key| (key, "the launcher decides how many processes run")).collect();
        let official = Self::default();
        if self.meta.eval_freq != official.meta.eval_freq {
            list.push(("meta.eval_freq", "the official training loop does not read it either"));
        }
        if !self.meta.use_sdpa {
            list.push(("meta.use_sdpa", "attention is always the fused one, as in the official model"));
        }
        if !self.data.decode_one_clip {
            list.push(("data.decode_one_clip", "only the frames of the clip are ever decoded"));
        }
        if !self.data.pin_mem {
            list.push(("data.pin_mem", "it is a property of PyTorch's loader"));
        }
        if self.data.dataset_type == DatasetType::DriftingTextures {
            if self.data_aug != official.data_aug {
                list.push(("data_aug", "drifting textures are made at their final size, without crop or flip"));
            }
            if self.data.sampling_rate != official.data.sampling_rate {
                list.push(("data.sampling_rate", "drifting textures have no frames in between"));
            }
            if self.data.clip_duration.is_some() {
                list.push(("data.clip_duration", "drifting textures have no frames in between"));
            }
        }
        list
    }

    /// What is sampled otherwise by evaluation and deployment than by training, for a notice by whoever does either.
    pub fn sampled_apart(&self) -> Option<String> {
        let seconds = self.data.clip_duration.filter(|_| self.data.dataset_type == DatasetType::Video)?;
        Some(format!(
            "`data.clip_duration` ({seconds} s) spaces the frames of training only; evaluation and deployment space them by \
             `data.sampling_rate` ({}), which should come close to it",
            self.data.sampling_rate
        ))
    }

    /// All values as YAML that reads back to the same configuration.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`], which would be a bug.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        serde_norway::to_string(self)
            .map_err(|error| ConfigError::Syntax { at: String::new(), message: error.to_string() })
    }

    /// How clips are prepared, for checkpoints and exported models.
    pub fn preprocessing(&self) -> Preprocessing {
        self.data.preprocessing()
    }

    /// The clip as the mask generators see it.
    pub fn geometry(&self) -> crate::masks::Geometry {
        validate::geometry(&self.data)
    }
}
