//! The configuration of a run: the official YAML, read strictly.
//!
//! Sections and keys are those of the official V-JEPA recipes (`configs/pretrain/*.yaml`), plus a few of our own; `configs/`
//! holds the recipes. Defaults are the released ViT-L values, so a file only needs what it changes: `model` and `data` are
//! enough to describe an encoder and its input. The file is checked as a whole: unknown keys, wrong types, impossible shapes
//! and values that this program cannot honour are errors that name the line and the key.
//!
//! A key is written once, as a field of its section's struct: serde reads it, its `Default` is the default, its doc comment
//! is what [`explain`] and `docs/configuration.md` say.
//!
//! - [`Config::from_file`], [`Config::from_yaml`] read; [`Config::to_yaml`] writes all values, defaults included.
//! - [`Config::check_training`] checks what only training needs: data sets and a folder.
//! - [`Config::ignored`] lists the keys that were accepted and change nothing here.
//! - `overrides` applies `--set key.sub=value` before anything is read.

use std::path::Path;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

mod data;
mod error;
mod keys;
mod mask;
mod model;
mod official;
mod overrides;
mod training;
mod validate;

pub use data::{AugmentConfig, DataConfig, DatasetType, Framing, Normalization, Preprocessing, Sampling};
pub use error::ConfigError;
pub use keys::{Key, SectionKeys, explain, markdown, sections};
pub use mask::MaskConfig;
pub use model::{EncoderSizes, Init, ModelConfig, ModelName, PredictorSizes};
pub use training::{Dtype, LoggingConfig, LossConfig, MetaConfig, ObjectiveName, OptimizationConfig, StepPlan};

pub use crate::masks::MaskType;
use crate::masks::{MaskError, MaskGenerator};
use crate::text;
use crate::text::TextError;
use crate::yaml::{self, Misfit, Node, Origin, Wrong};

/// A whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Config {
    /// The official launcher's keys found in the file (`app`, `nodes`, `tasks_per_node`).
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

/// The official launcher's keys.
const LAUNCHER: [&str; 3] = ["app", "nodes", "tasks_per_node"];

/// A configuration as it is written: the entries of `mask` are read when `data.mask_type` is known.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Sections {
    meta: MetaConfig,
    /// The `mask` section: a list of mask generators, each of which yields one (context, target) pair per step. Their keys
    /// depend on `data.mask_type`. The default is that of the released recipes, eight short-range blocks and two long-range
    /// ones.
    #[schemars(extend("x-expected" = "a list of mask generators"))]
    #[allow(dead_code)]
    mask: Vec<Skipped>,
    model: ModelConfig,
    data: DataConfig,
    data_aug: AugmentConfig,
    loss: LossConfig,
    optimization: OptimizationConfig,
    logging: LoggingConfig,
    /// Which program to run.
    #[schemars(extend("x-expected" = "anything", "x-unread" = "this program is the app"))]
    app: Skipped,
    /// Machines of the official run: with `tasks_per_node` the default of `optimization.groups`.
    nodes: Option<u64>,
    /// GPUs of each machine of the official run: with `nodes` the default of `optimization.groups`.
    tasks_per_node: Option<u64>,
}

/// Whether there was a value, whatever it is.
#[derive(Default, JsonSchema)]
struct Skipped(bool);

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// What a configuration was read from, to say where a key was written.
struct Source<'a> {
    /// Its name in messages; empty for none.
    name: &'a str,
    overrides: &'a [String],
    root: Node,
}

impl Source<'_> {
    /// `"FILE, line N: "`, `"--set ...: "`, `"FILE: "` or empty.
    fn place(&self, key: &str) -> String {
        let set = |number: usize| self.overrides.get(number);
        match (self.name, self.root.origin_of(key)) {
            (_, Some(Origin::Set(number))) => {
                set(number).map_or(String::new(), |set| format!("--set {}: ", text::short(set, 200)))
            }
            ("", Some(Origin::Line(line))) => format!("line {line}: "),
            ("", None) => String::new(),
            (name, Some(Origin::Line(line))) => format!("{name}, line {line}: "),
            (name, None) => format!("{name}: "),
        }
    }

    /// The error for a misfit below the key `above`.
    fn misfit(&self, above: &str, misfit: Misfit) -> ConfigError {
        let key = misfit.key(above);
        let at = self.place(&key);
        let key = text::short(&key, 200);
        match misfit.wrong {
            Wrong::Unknown { nearest } => ConfigError::Unknown { at, key, nearest },
            Wrong::Type { expected, found } => {
                let key = if key.is_empty() { "the configuration".into() } else { key };
                ConfigError::Type { at, key, expected, found }
            }
        }
    }
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
        let (config, source) = Self::parse(text, name, overrides)?;
        config.check().map_err(|error| error.placed(|key| source.place(key)))?;
        Ok(config)
    }

    /// Like [`Config::from_yaml`], without the rules between values: the defaults alone describe no model and still read.
    ///
    /// # Errors
    /// As [`Config::from_yaml`].
    pub fn unchecked(text: &str, name: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::parse(text, name, overrides).map(|(config, _)| config)
    }

    fn parse<'a>(text: &str, name: &'a str, overrides: &'a [String]) -> Result<(Self, Source<'a>), ConfigError> {
        let at = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let root = yaml::parse(text).map_err(|message| ConfigError::Syntax { at, message })?;
        if let Some(what) = official::recognise(&root) {
            let name = if name.is_empty() { "this" } else { name }.to_owned();
            return Err(ConfigError::Official { name, what });
        }
        let mut source = Source { name, overrides, root };
        for (number, argument) in overrides.iter().enumerate() {
            let defaults = defaults(&source.root)?;
            overrides::apply(&mut source.root, &defaults, argument, number)?;
        }
        let config = Self::read(&mut source)?;
        Ok((config, source))
    }

    fn read(source: &mut Source) -> Result<Self, ConfigError> {
        // A section without keys (`loss:`) is null to YAML.
        match &mut source.root.value {
            yaml::Value::Null => source.root.value = yaml::Value::Map(Vec::new()),
            yaml::Value::Map(sections) => sections.retain(|(_, node)| node.value != yaml::Value::Null),
            _ => {}
        }
        let Sections {
            meta,
            mask: _,
            model,
            data,
            data_aug,
            loss,
            mut optimization,
            logging,
            app,
            nodes,
            tasks_per_node,
        } = yaml::read(&source.root).map_err(|misfit| source.misfit("", misfit))?;
        let found = LAUNCHER.into_iter().zip([app.0, nodes.is_some(), tasks_per_node.is_some()]);
        let launcher = found.filter(|(_, there)| *there).map(|(key, _)| key).collect();
        // What the official code's processes share among them is one step's batch here, however many processes run.
        if optimization.groups.is_none() && (nodes.is_some() || tasks_per_node.is_some()) {
            optimization.groups = Some(nodes.unwrap_or(1).saturating_mul(tasks_per_node.unwrap_or(1)));
        }
        let mask =
            MaskConfig::read(data.mask_type, source.root.at("mask")).map_err(|misfit| source.misfit("mask", misfit))?;
        Ok(Self { launcher, meta, mask, model, data, data_aug, loss, optimization, logging })
    }

    /// The rules between values. [`Config::from_yaml`] has applied them; call it again after changing fields.
    ///
    /// # Errors
    /// [`ConfigError::Rule`], [`ConfigError::Unsupported`] or [`ConfigError::Missing`].
    pub fn check(&self) -> Result<(), ConfigError> {
        validate::check(self)
    }

    /// Checks what only training needs: a predictor, weights to start from, videos to learn from, and a folder to write to.
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
        let official = Self::default();
        let [own, defaults] = [self, &official].map(|config| serde_json::to_value(config).unwrap_or_default());
        let changed = |path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            self.launcher.contains(&path) || own.pointer(&pointer) != defaults.pointer(&pointer)
        };
        let keys = sections().iter().rev().flat_map(|section| &section.keys);
        let unread = keys.filter_map(|key| Some((key.path.as_str(), key.unread.as_deref()?)));
        let mut list: Vec<_> = unread.filter(|(path, _)| changed(path)).collect();
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

    /// How evaluation and deployment sample clips differently from training, for a notice by whoever does either.
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
        serde_saphyr::to_string(self)
            .map_err(|error| ConfigError::Syntax { at: String::new(), message: error.to_string() })
    }

    /// How clips are prepared, for checkpoints and exported models.
    pub fn preprocessing(&self) -> Preprocessing {
        self.data.preprocessing()
    }

    /// What draws the masks of this run.
    ///
    /// # Errors
    /// [`MaskError`] for masks that leave no context.
    pub fn masks(&self) -> Result<Box<dyn MaskGenerator>, MaskError> {
        self.mask.build(self.data.geometry())
    }
}

/// The defaults as a tree; those of `mask` belong to the strategy that `root` names.
fn defaults(root: &Node) -> Result<Node, ConfigError> {
    let named = root.at("data.mask_type").and_then(|node| yaml::read::<MaskType>(node).ok());
    let config = Config { mask: MaskConfig::of(named.unwrap_or_default()), ..Config::default() };
    let json = serde_json::to_value(config)
        .map_err(|error| ConfigError::Syntax { at: String::new(), message: error.to_string() })?;
    Ok(Node::from_json(&json, Origin::Line(0)))
}
