//! Which model a file holds: its generation, its sizes, and how its parts are laid out.
//!
//! [`Weights::model_file`] tells it from the names and shapes of tensors, from the record that a converted file has of itself
//! ([`MODEL_KEY`]), or from the `config.json` of a Hugging Face folder; what two of these say must agree. [`ModelFile::parameters`]
//! is every name and shape that such a model has, and [`Weights::take_model`] takes exactly those.

mod config;
mod name;
mod parameters;
mod seen;

use serde::{Deserialize, Serialize};
use vjepa_recipe::config::{EncoderSizes, Generation, ModelConfig, Preprocessing};

use super::{LoadError, Tensors, Weights, WeightsError, mismatch, names};

pub use name::size_name;
pub(crate) use seen::{ENTRIES, known_key};

/// Metadata key under which a converted file describes its model.
pub const MODEL_KEY: &str = "vjepa_model";

/// LayerNorm's epsilon in official encoders and predictors.
const OFFICIAL_EPS: f64 = 1e-6;
/// LayerNorm's epsilon in official probes.
const OFFICIAL_PROBE_EPS: f64 = 1e-5;
/// Attention heads of every probe that was released with V-JEPA 2 and 2.1, whatever its encoder.
const RELEASED_PROBE_HEADS: usize = 16;

/// Which model a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// V-JEPA 1, 2 or 2.1.
    pub generation: Generation,
    /// The encoder; none in a file of probes.
    pub encoder: Option<EncoderLayout>,
    /// The predictor, where there is one.
    pub predictor: Option<PredictorLayout>,
    /// The classifier, where there is one.
    pub probe: Option<ProbeLayout>,
    /// How clips are prepared, where the file says it.
    pub preprocessing: Option<Preprocessing>,
    /// Where the encoder's tensors are: `target_encoder`, `ema_encoder` or `encoder`.
    #[serde(skip)]
    pub entry: &'static str,
    /// What else the file holds, in words or by key: all of it is known, and none is needed.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

/// The encoder of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderLayout {
    /// Token width D.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads; none where neither the file nor the released sizes say it.
    pub num_heads: Option<usize>,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// Colours.
    pub channels: usize,
    /// Frames of a token.
    pub tubelet: usize,
    /// Side of a token in pixels.
    pub patch: usize,
    /// LayerNorm's epsilon.
    pub layer_norm_eps: f64,
    /// Levels with norms of their own: 4 in V-JEPA 2.1, else 1.
    pub levels: usize,
    /// Rows of V-JEPA 1's position table; none with rotary positions.
    pub positions: Option<usize>,
}

/// The predictor of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictorLayout {
    /// Token width P.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads; none where neither the file nor the released sizes say it.
    pub num_heads: Option<usize>,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// Mask tokens.
    pub mask_tokens: usize,
    /// LayerNorm's epsilon.
    pub layer_norm_eps: f64,
    /// Levels of the encoder that it reads: 4 through an MLP in V-JEPA 2.1's large models, else 1.
    pub levels: usize,
    /// Width of a level, the encoder's D.
    pub input_dim: usize,
    /// Width of a prediction: L·D, or the teacher's where it was distilled.
    pub outputs: usize,
    /// Whether it also predicts context tokens (`predictor_proj_context`).
    pub context: bool,
    /// Whether it has vectors for images and videos.
    pub modalities: bool,
    /// Rows of V-JEPA 1's position table; none with rotary positions.
    pub positions: Option<usize>,
    /// Whether it is V-JEPA 2-AC's, which reads actions and states between frames.
    pub action_conditioned: bool,
}

/// The classifier of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeLayout {
    /// Width of the features it reads.
    pub embed_dim: usize,
    /// Self-attention blocks before the cross-attention; 0 for V-JEPA 1's and none for a linear probe.
    pub blocks: Option<usize>,
    /// Attention heads; none where neither the file nor the released probes say it.
    pub num_heads: Option<usize>,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// LayerNorm's epsilon: 1e-5 officially, 1e-6 in Hugging Face's classifiers.
    pub layer_norm_eps: f64,
    /// Whether the cross-attention stands in a whole block, with norms and an MLP.
    pub complete: bool,
    /// Whether there is the projection that V-JEPA 1 stores, and its name: `xattn.proj` or `proj`.
    pub projection: Option<String>,
    /// Queries: one, or three for verb, noun and action.
    pub queries: usize,
    /// Its linear layers and their classes: `linear`, or `verb_classifier` and so on.
    pub heads: Vec<(String, usize)>,
    /// Names of the classes; may be empty.
    pub labels: Vec<String>,
}

/// A model taken from a file: what it is, and its tensors under `encoder.*`, `predictor.*` and `probe.*` by official names.
#[derive(Clone, Debug)]
pub struct TakenModel {
    /// What it is.
    pub about: ModelFile,
    /// The encoder.
    pub encoder: Tensors,
    /// The predictor; empty where there is none.
    pub predictor: Tensors,
    /// The classifier; empty where there is none.
    pub probe: Tensors,
}

impl Weights {
    /// The model of a later generation that the file holds, in words: `V-JEPA 2 ViT-L (1024 wide, 24 blocks)`.
    pub fn later_generation(&self) -> Option<String> {
        let generation = self.generation_seen().filter(|generation| *generation != Generation::V1)?;
        let format = if self.hugging_face.is_some() { " in Hugging Face's format" } else { "" };
        let Some(entry) = ENTRIES.into_iter().find(|entry| self.has(entry)) else {
            let name = self.seen().ok().flatten().map(|model| model.name());
            return Some(name.unwrap_or_else(|| generation.about().to_owned()));
        };
        // A damaged model has a name, too.
        let (width, depth) = self.size_seen(entry);
        let action = self.shape("predictor.action_encoder.weight").map_or("", |_| "-AC");
        let called = format!("{}{action}", generation.about());
        Some(format!("{}{format}", name::sized(generation, &called, width, depth)))
    }
}

impl EncoderLayout {
    /// Its sizes; none while the number of heads is not known.
    pub fn sizes(&self) -> Option<EncoderSizes> {
        let Self { embed_dim, depth, mlp_dim, .. } = *self;
        let num_heads = self.num_heads?;
        let named = name::RELEASED.iter().map(|released| released.sizes);
        let ratio = named.filter(|sizes| (sizes.embed_dim, sizes.mlp_dim()) == (embed_dim, mlp_dim));
        let plain = mlp_dim as f64 / embed_dim.max(1) as f64;
        let mlp_ratio = ratio.map(|sizes| sizes.mlp_ratio).next().unwrap_or(plain);
        Some(EncoderSizes { embed_dim, depth, num_heads, mlp_ratio })
    }
}

impl Weights {
    /// Which model the file holds, or none where its tensors are not of any.
    ///
    /// `config` names what files of V-JEPA 1, 2 and 2.1 do not say of themselves: the number of attention heads, where the
    /// sizes are not released ones.
    ///
    /// # Errors
    /// [`WeightsError::Model`] where what the file says of itself contradicts its tensors, [`WeightsError::Generation`] and
    /// [`WeightsError::Model`] where `config` does.
    pub fn model_file(&self, config: Option<&ModelConfig>) -> Result<Option<ModelFile>, WeightsError> {
        let Some(mut model) = self.seen()? else { return Ok(None) };
        self.described(&mut model)?;
        if let Some(config) = config {
            self.configured(&mut model, config)?;
        }
        model.assume_released();
        model.check_heads().map_err(|why| self.contradiction(&model, why))?;
        Ok(Some(model))
    }

    /// Refuses a configuration of another generation than the file's encoder; a file without one suits any.
    ///
    /// # Errors
    /// [`WeightsError::Generation`].
    pub fn check_generation(&self, wanted: Generation) -> Result<(), WeightsError> {
        let Some(held) = self.generation_seen().filter(|held| *held != wanted) else { return Ok(()) };
        if !ENTRIES.iter().any(|entry| self.has(entry)) {
            return Ok(());
        }
        let model = self.seen()?.map_or_else(|| held.about().to_owned(), |model| model.name());
        Err(WeightsError::Generation { path: self.path().to_owned(), model, held, wanted })
    }

    /// What the file says of itself beside its tensors.
    fn described(&self, model: &mut ModelFile) -> Result<(), WeightsError> {
        if let Some(text) = self.metadata().get(MODEL_KEY) {
            let told: ModelFile = serde_json::from_str(text).map_err(|error| WeightsError::Record {
                path: self.path().to_owned(),
                what: "model",
                why: names::shortened(&error.to_string()),
            })?;
            model.agree(&told).map_err(|why| self.contradiction(model, format!("its record (`{MODEL_KEY}`) {why}")))?;
        }
        if let Some(folder) = &self.hugging_face {
            folder.describe(model).map_err(|why| self.contradiction(model, format!("its config.json {why}")))?;
            model.preprocessing = folder.preprocessing()?;
        }
        Ok(())
    }

    /// What a configuration says of the model.
    fn configured(&self, model: &mut ModelFile, config: &ModelConfig) -> Result<(), WeightsError> {
        self.check_generation(config.generation)?;
        let unusable = |error: vjepa_recipe::config::ConfigError| WeightsError::Sizes {
            path: self.path().to_owned(),
            why: error.to_string(),
        };
        if let Some(encoder) = &mut model.encoder {
            encoder.num_heads = Some(config.sizes().map_err(unusable)?.num_heads);
        }
        if let Some(predictor) = &mut model.predictor
            && let Ok(sizes) = config.predictor_sizes()
        {
            predictor.num_heads = Some(sizes.num_heads);
        }
        Ok(())
    }

    /// All parameters of the model, strictly: every name and shape of [`ModelFile::parameters`] and no other.
    ///
    /// # Errors
    /// [`WeightsError::NoModel`], [`WeightsError::Mismatch`] with every name at fault, or a file that cannot be read; those of
    /// [`Weights::model_file`].
    pub fn take_model(&self, config: Option<&ModelConfig>) -> Result<TakenModel, WeightsError> {
        let about = self.model_file(config)?.ok_or_else(|| self.no_model("model of V-JEPA"))?;
        self.check_model(&about)?;
        let take = |from: &str, to: &str| -> Result<Tensors, WeightsError> {
            let names: Vec<String> = self.under(from).map(|(name, _)| name.to_owned()).collect();
            let renamed = |name: &str| format!("{to}{}", name.strip_prefix(from).unwrap_or(name));
            names.iter().map(|name| Ok((renamed(name), self.get(name)?))).collect()
        };
        let encoder = about.encoder.as_ref().map(|_| take(about.entry, "encoder")).transpose()?.unwrap_or_default();
        Ok(TakenModel { encoder, predictor: take("predictor", "predictor")?, probe: take("probe", "probe")?, about })
    }

    /// Compares every name and shape with those of the model.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`].
    pub fn check_model(&self, about: &ModelFile) -> Result<(), WeightsError> {
        let parameters = about.parameters();
        let wanted: Vec<_> = parameters
            .into_iter()
            .map(|(model, shapes)| (if model == "encoder" { about.entry } else { model }, shapes))
            .collect();
        self.check(&wanted)?;
        // A training state may stand beside a model of the hub; nothing else may.
        let strange: Vec<String> =
            self.keys_of_no_model().filter(|key| known_key(key).is_none()).map(str::to_owned).collect();
        if strange.is_empty() || about.generation == Generation::V1 {
            return Ok(());
        }
        let error = LoadError { unexpected: strange, ..LoadError::default() };
        let remedy = mismatch::remedy(&error);
        Err(WeightsError::Mismatch { path: self.path().to_owned(), error, remedy })
    }

    /// Refuses the file's probe, which reads features `reads` wide, for those of `model` where they are `width` wide, another
    /// number.
    ///
    /// # Errors
    /// [`WeightsError::ProbeWidth`].
    pub fn refuse_probe_for(&self, reads: usize, model: &str, width: usize) -> Result<(), WeightsError> {
        if reads == width {
            return Ok(());
        }
        // A probe of this program need not be one of the official evaluations.
        let own = self.model_file(None).ok().flatten();
        let named = own.as_ref().and_then(|own| Some(own.probe_name(own.probe.as_ref()?)));
        let probe = named.unwrap_or_else(|| format!("a probe for features {reads} wide"));
        let (path, model) = (self.path().to_owned(), model.to_owned());
        Err(WeightsError::ProbeWidth { path, probe, model, width })
    }

    fn contradiction(&self, model: &ModelFile, why: String) -> WeightsError {
        WeightsError::Model { path: self.path().to_owned(), model: model.name(), why }
    }
}

impl ModelFile {
    /// The entries under which official loaders look for this model's encoder: those of V-JEPA 2 differ in it by version.
    pub(crate) fn hub_entries(&self) -> &'static [&'static str] {
        let distilled = match (&self.predictor, &self.encoder) {
            (Some(predictor), _) => predictor.levels == 1,
            // The small sizes were distilled from the largest.
            (None, Some(encoder)) => encoder.embed_dim <= 1024,
            (None, None) => false,
        };
        match (self.generation, distilled) {
            (Generation::V21, true) => &["ema_encoder"],
            (Generation::V21, false) => &["target_encoder"],
            (Generation::V1 | Generation::V2, _) => &["encoder", "target_encoder"],
        }
    }

    /// Takes over what `told` says that tensors do not show.
    ///
    /// # Errors
    /// Which of the things that tensors show `told` says otherwise.
    fn agree(&mut self, told: &Self) -> Result<(), String> {
        let says = |what: &str, told: &dyn std::fmt::Debug, seen: &dyn std::fmt::Debug| {
            Err(format!("says {what} {told:?}, its tensors say {seen:?}"))
        };
        if told.generation != self.generation {
            return says("generation", &told.generation, &self.generation);
        }
        if let (Some(encoder), Some(told)) = (&mut self.encoder, &told.encoder) {
            let (num_heads, layer_norm_eps) = (told.num_heads, told.layer_norm_eps);
            *encoder = EncoderLayout { num_heads, layer_norm_eps, ..encoder.clone() };
            if encoder != told {
                return says("encoder", told, encoder);
            }
        }
        if let (Some(predictor), Some(told)) = (&mut self.predictor, &told.predictor) {
            let (num_heads, layer_norm_eps) = (told.num_heads, told.layer_norm_eps);
            *predictor = PredictorLayout { num_heads, layer_norm_eps, ..predictor.clone() };
            if predictor != told {
                return says("predictor", told, predictor);
            }
        }
        if let (Some(probe), Some(told)) = (&mut self.probe, &told.probe) {
            let (num_heads, layer_norm_eps, labels) = (told.num_heads, told.layer_norm_eps, told.labels.clone());
            *probe = ProbeLayout { num_heads, layer_norm_eps, labels, ..probe.clone() };
            if probe != told {
                return says("probe", told, probe);
            }
        }
        self.preprocessing = told.preprocessing.clone();
        Ok(())
    }

    /// Fills in the heads of released sizes.
    fn assume_released(&mut self) {
        let generation = self.generation;
        if let Some(encoder) = &mut self.encoder {
            let known = name::released(generation, encoder.embed_dim).map(|released| released.sizes.num_heads);
            encoder.num_heads = encoder.num_heads.or(known);
        }
        let encoder_heads = self.encoder.as_ref().and_then(|encoder| encoder.num_heads);
        if let Some(predictor) = &mut self.predictor {
            let known = match (generation, predictor.action_conditioned, predictor.embed_dim) {
                (Generation::V1, ..) => encoder_heads,
                (_, true, 1024) => Some(16),
                (_, false, 384) => Some(12),
                _ => None,
            };
            predictor.num_heads = predictor.num_heads.or(known);
        }
        if let Some(probe) = &mut self.probe {
            let known = match generation {
                Generation::V1 => encoder_heads,
                _ => probe.embed_dim.is_multiple_of(RELEASED_PROBE_HEADS).then_some(RELEASED_PROBE_HEADS),
            };
            probe.num_heads = probe.num_heads.or(known);
        }
    }

    /// Heads that do not divide a width.
    fn check_heads(&self) -> Result<(), String> {
        let encoder = self.encoder.as_ref().map(|encoder| ("encoder", encoder.embed_dim, encoder.num_heads));
        let predictor =
            self.predictor.as_ref().map(|predictor| ("predictor", predictor.embed_dim, predictor.num_heads));
        let probe = self.probe.as_ref().map(|probe| ("probe", probe.embed_dim, probe.num_heads));
        for (what, width, heads) in [encoder, predictor, probe].into_iter().flatten() {
            if let Some(heads) = heads.filter(|heads| *heads == 0 || width % heads != 0) {
                return Err(format!("its {what} is {width} wide, which {heads} attention heads do not divide"));
            }
        }
        Ok(())
    }
}
