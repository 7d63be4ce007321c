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
use serde::{Deserialize, Serialize};

mod data;
mod error;
pub mod evaluation;
mod finetuning;
mod generations;
mod keys;
mod loss;
mod mask;
mod mixture;
mod model;
mod named;
mod official;
mod overrides;
mod positions;
mod sizes;
mod skipped;
mod source;
mod training;
mod validate;

pub use data::{
    AugmentConfig, DataConfig, DatasetType, FoldersHold, Framing, ImageDataConfig, Normalization, Preprocessing,
    Sampling,
};
pub use error::ConfigError;
pub use evaluation::Evaluation;
pub use finetuning::{FinetuneConfig, Pooling, TestSampling};
pub use keys::{Key, SectionKeys, explain, key_called, markdown, sections};
pub use loss::{LossConfig, ObjectiveName, PixelTarget};
pub use mask::MaskConfig;
pub use mixture::SampleKind;
pub use model::{Init, InitType, ModelConfig};
pub use named::{Generation, ModelName};
pub use positions::{Positions, Rotary};
pub use sizes::{EncoderSizes, PredictorSizes, mlp_dim};
pub use training::{Dtype, LoggingConfig, MetaConfig, OptimizationConfig, StepPlan};

use crate::finetune::{FinetuneSchedule, scaled_lr};
pub use crate::masks::MaskType;
use crate::masks::{Geometry, LengthBuckets, MaskError, MaskGenerator};
use crate::schedules::{ContextWeight, LearningRate, Schedule};
use crate::yaml;
use skipped::Skipped;
pub(crate) use source::{ConfigSource, read_text};
use source::{defaults, defaults_of};

/// A whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Config {
    /// Keys that were given and mean nothing here: the official launcher's (`app`, `cpus_per_task`, ...), `data.pin_mem` and
    /// others.
    #[serde(skip)]
    pub unread: Vec<&'static str>,
    /// Seed, arithmetic, checkpoint to start from.
    pub meta: MetaConfig,
    /// Mask generators.
    pub mask: MaskConfig,
    /// Encoder and predictor.
    pub model: ModelConfig,
    /// Clips and where they come from.
    pub data: DataConfig,
    /// Images beside them (V-JEPA 2.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub img_data: Option<ImageDataConfig>,
    /// Mask generators of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub img_mask: Option<MaskConfig>,
    /// Augmentations.
    pub data_aug: AugmentConfig,
    /// Loss.
    pub loss: LossConfig,
    /// Steps, learning rates, momentum.
    pub optimization: OptimizationConfig,
    /// Output.
    pub logging: LoggingConfig,
    /// Fine-tuning, of a run that is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finetune: Option<FinetuneConfig>,
}

/// The official launcher's keys.
const LAUNCHER: [&str; 6] = ["app", "nodes", "tasks_per_node", "cpus_per_task", "mem_per_gpu", "folder"];

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
    img_data: ImageDataConfig,
    /// The `img_mask` section: the mask generators of images, as in `mask`. The default is that of V-JEPA 2.1's recipes, ten
    /// blocks.
    #[schemars(extend("x-expected" = "a list of mask generators"))]
    #[allow(dead_code)]
    img_mask: Vec<Skipped>,
    data_aug: AugmentConfig,
    loss: LossConfig,
    optimization: OptimizationConfig,
    logging: LoggingConfig,
    finetune: FinetuneConfig,
    /// Which program to run.
    #[schemars(extend("x-expected" = "anything", "x-unread" = "only `vjepa_2_1` has an effect: it sets `model.generation`"))]
    app: Skipped,
    /// Machines of the official run; together with `tasks_per_node`, the default of `optimization.groups`.
    nodes: Option<u64>,
    /// GPUs per machine of the official run; together with `nodes`, the default of `optimization.groups`.
    tasks_per_node: Option<u64>,
    /// Processor cores per process.
    #[schemars(extend("x-expected" = "anything", "x-unread" = "the launcher decides what a process gets"))]
    cpus_per_task: Skipped,
    /// Memory per process.
    #[schemars(extend("x-expected" = "anything", "x-unread" = "the launcher decides what a process gets"))]
    mem_per_gpu: Skipped,
    /// Folder for checkpoints and metrics: V-JEPA 2's name for `logging.folder`, which it sets where that is not given.
    #[schemars(extend("x-expected" = "a string", "x-unread" = "`logging.folder` is given"))]
    folder: Skipped,
}

/// Keys that are accepted and mean nothing here, with the reasons; the launcher's come first.
fn unread_keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let keys = sections().iter().rev().flat_map(|section| &section.keys);
    keys.filter_map(|key| Some((key.path.as_str(), key.unread.as_deref()?)))
}

impl Config {
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
    /// As [`Config::from_file`].
    pub fn from_yaml(text: &str, name: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let (config, source) = Self::parse(text, name, overrides, None)?;
        config.check().map_err(|error| error.placed(|key| source.place(key)))?;
        Ok(config)
    }

    /// Like [`Config::from_yaml`], without the rules between values: the defaults alone describe no model and still read.
    ///
    /// # Errors
    /// As [`Config::from_yaml`].
    pub fn unchecked(text: &str, name: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::parse(text, name, overrides, None).map(|(config, _)| config)
    }

    /// Reads and checks the file of a fine-tuning run, with or without a `finetune` section. `model` are settings as `--set`
    /// takes them, those of the encoder that is fine-tuned, which hold where neither file nor `overrides` give them.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn finetuning(path: &Path, overrides: &[String], model: &[String]) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let (config, source) = Self::parse(&read_text(path)?, &name, overrides, Some(model))?;
        config.check().map_err(|error| error.placed(|key| source.place(key)))?;
        Ok(config)
    }

    /// `finetuning` makes it a fine-tuning run's, with these settings beneath those of the file.
    fn parse<'a>(
        text: &str,
        name: &'a str,
        overrides: &'a [String],
        finetuning: Option<&[String]>,
    ) -> Result<(Self, ConfigSource<'a>), ConfigError> {
        let at = if name.is_empty() { String::new() } else { format!("{name}: ") };
        let root = yaml::parse(text).map_err(|message| ConfigError::Syntax { at, message })?;
        if let Some(what) = official::recognise(&root) {
            let name = if name.is_empty() { "this" } else { name }.to_owned();
            return Err(ConfigError::Official { name, what });
        }
        let mut source = ConfigSource { name, overrides, root };
        source.underlay(finetuning)?;
        for (number, argument) in overrides.iter().enumerate() {
            let defaults = defaults(&source.root)?;
            overrides::apply(&mut source.root, &defaults, argument, number)?;
        }
        let config = Self::read(&mut source)?;
        Ok((config, source))
    }

    fn read(source: &mut ConfigSource) -> Result<Self, ConfigError> {
        source.drop_empty_sections();
        generations::translate(&mut source.root);
        let sections: Sections = yaml::read(&source.root).map_err(|misfit| keys::helped(source.misfit("", misfit)))?;
        let Sections { meta, model, data, img_data, data_aug, loss, mut optimization, logging, finetune, .. } =
            sections;
        let finetune = source.root.at("finetune").map(|_| finetune);
        let Sections { nodes, tasks_per_node, .. } = sections;
        let unread = unread_keys().map(|(path, _)| path).filter(|path| source.is_given(path)).collect();
        // What the official code's processes share among them is one step's batch here, however many processes run.
        if optimization.groups.is_none() && (nodes.is_some() || tasks_per_node.is_some()) {
            optimization.groups = Some(nodes.unwrap_or(1).saturating_mul(tasks_per_node.unwrap_or(1)));
        }
        let masks = |key: &str| {
            let read = MaskConfig::read(data.mask_type, source.root.at(key));
            read.map_err(|misfit| keys::helped(source.misfit(key, misfit)))
        };
        let mask = masks("mask")?;
        let images = source.root.at("img_data").map(|_| img_data);
        let img_mask = match (source.root.at("img_mask"), &images) {
            (Some(_), _) => Some(masks("img_mask")?),
            (None, Some(_)) => Some(MaskConfig::images()),
            (None, None) => None,
        };
        optimization.ends_in_warmup = model.generation != Generation::V1;
        Ok(Self {
            unread,
            meta,
            mask,
            model,
            data,
            img_data: images,
            img_mask,
            data_aug,
            loss,
            optimization,
            logging,
            finetune,
        })
    }

    /// The schedules of the run: the official ones, or fine-tuning's.
    pub fn schedule(&self, plan: &StepPlan) -> Schedule {
        let official = self.optimization.schedule(plan);
        let Some(finetune) = &self.finetune else { return official };
        let clips =
            self.data.batch_size.saturating_mul(usize::try_from(self.optimization.groups()).unwrap_or(usize::MAX));
        let scaled = |lr: f64| if finetune.scale_lr { scaled_lr(lr, clips) } else { lr };
        let lr = LearningRate::Finetune(FinetuneSchedule {
            base: scaled(self.optimization.lr),
            min: scaled(self.optimization.final_lr),
            warmup_steps: plan.warmup_steps,
            total_steps: plan.schedule_steps,
        });
        Schedule { lr, ..official }
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
        self.check_mixture()?;
        if self.finetune.is_none() {
            self.model.predictor_sizes()?;
        }
        if self.data.dataset_type == DatasetType::Video && self.data.datasets.is_empty() {
            return Err(ConfigError::missing(
                "data.datasets",
                "name lists (.csv, .txt), folders, tar shards or video files (docs/data.md)",
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

    /// Keys that were given although they change nothing here, be it to their defaults, each with the reason, for one notice at
    /// the start.
    pub fn ignored(&self) -> Vec<(&'static str, &'static str)> {
        let official = Self::default();
        let [own, defaults] = [self, &official].map(|config| serde_json::to_value(config).unwrap_or_default());
        let changed = |path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            self.unread.contains(&path) || own.pointer(&pointer) != defaults.pointer(&pointer)
        };
        let mut list: Vec<_> = unread_keys().filter(|(path, _)| changed(path)).collect();
        if self.data.dataset_type == DatasetType::DriftingTextures {
            if self.data_aug != official.data_aug {
                list.push(("data_aug", "drifting textures are made at their final size, without crop or flip"));
            }
            // `data.sampling_rate` is how exported models read files.
            if self.data.clip_duration.is_some() {
                list.push(("data.clip_duration", "drifting textures have no frames in between"));
            }
        }
        list
    }

    /// How evaluation and deployment sample clips differently from training, for a notice by whoever does either.
    pub fn sampled_apart(&self) -> Option<String> {
        if self.data.dataset_type != DatasetType::Video {
            return None;
        }
        let spacing = match (self.data.fps, self.data.clip_duration) {
            (Some(fps), _) => format!("`data.fps` ({fps})"),
            (None, Some(seconds)) => format!("`data.clip_duration` ({seconds} s)"),
            (None, None) => return None,
        };
        Some(format!(
            "{spacing} spaces the frames of training only; evaluation and deployment space them by \
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

    /// What draws the masks of clips of each length: one generator set a length bucket.
    ///
    /// # Errors
    /// As [`Config::masks`].
    pub fn length_buckets(&self) -> Result<LengthBuckets, MaskError> {
        let lengths = self.data.lengths().into_iter();
        let built = lengths.map(|frames| Ok((frames, self.mask.build(self.data.geometry_of(frames))?)));
        Ok(LengthBuckets::new(built.collect::<Result<Vec<_>, MaskError>>()?))
    }

    /// An image as the mask generators see it; none for a run without images.
    pub fn image_geometry(&self) -> Option<Geometry> {
        let images = self.img_data.as_ref()?;
        let (height, width, patch) = (images.crop_size, images.crop_size, self.data.patch_size);
        Some(Geometry { frames: 1, height, width, tubelet: 1, patch })
    }

    /// What draws the masks of images; none for a run without them.
    ///
    /// # Errors
    /// As [`Config::masks`].
    pub fn image_masks(&self) -> Result<Option<Box<dyn MaskGenerator>>, MaskError> {
        let (Some(image), Some(mask)) = (self.image_geometry(), &self.img_mask) else { return Ok(None) };
        mask.build(image).map(Some)
    }

    /// Weight of the loss on context tokens of videos or of images; none where they are not predicted.
    pub fn context_weight(&self, images: bool) -> Option<ContextWeight> {
        let predicted = self.loss.predict_all.unwrap_or(self.model.generation == Generation::V21);
        let value = if images { self.model.lambda_value_img } else { self.model.lambda_value_vid };
        predicted.then_some(ContextWeight { value, progressive: self.model.lambda_progressive })
    }

    /// What draws the masks of this run.
    ///
    /// # Errors
    /// [`MaskError`] for masks that leave no context.
    pub fn masks(&self) -> Result<Box<dyn MaskGenerator>, MaskError> {
        self.mask.build(self.data.geometry())
    }
}
