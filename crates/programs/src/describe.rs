//! Which model a weights file holds: its sizes and how its clips are prepared.

use vjepa_graphs::{EncoderConfig, PredictorConfig};

use vjepa_recipe::config::{
    Config, ConfigError, Framing, Generation, ModelName, Normalization, ObjectiveName, Positions, Preprocessing,
    Rotary, Sampling,
};
use vjepa_weights::{Weights, WeightsError};

/// Everything needed to build an encoder and to feed it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its sizes.
    pub encoder: EncoderConfig,
    /// How its clips are prepared.
    pub preprocessing: Preprocessing,
    /// The configuration, if there is one.
    pub config: Option<Config>,
    /// Where this description comes from, for messages.
    pub source: &'static str,
}

/// The encoder of a configuration.
///
/// # Errors
/// [`ConfigError::Missing`] for a configuration without sizes.
pub fn encoder_config(config: &Config) -> Result<EncoderConfig, ConfigError> {
    let sizes = config.model.sizes()?;
    Ok(EncoderConfig {
        num_frames: config.data.num_frames,
        height: config.data.crop_size,
        width: config.data.crop_size,
        tubelet: config.data.tubelet_size,
        patch: config.data.patch_size,
        channels: 3,
        embed_dim: sizes.embed_dim,
        depth: sizes.depth,
        num_heads: sizes.num_heads,
        mlp_ratio: sizes.mlp_ratio,
        uniform_power: config.model.uniform_power,
        out_layers: None,
        positions: config.model.positions(),
        levels: config.model.encoder_levels()?,
        image_tubelet: (config.model.generation == Generation::V21).then_some(1),
    })
}

/// Generation and size of an encoder in words: `V-JEPA 2 ViT-L (1024 wide, 24 blocks)`.
pub fn encoder_name(encoder: &EncoderConfig) -> String {
    let generation = match encoder.positions {
        Positions::Table => Generation::V1,
        Positions::Rotary(Rotary { tiled: true, .. }) => Generation::V2,
        Positions::Rotary(_) => Generation::V21,
    };
    vjepa_weights::size_name(generation, encoder.embed_dim, encoder.depth)
}

/// The settings an encoder's sizes come from, as `(key, value)`, however the configuration gives them.
///
/// # Errors
/// [`ConfigError::Missing`] for a configuration without sizes.
pub(super) fn encoder_settings(config: &Config) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let sizes = config.model.sizes()?;
    let mut settings = vec![
        ("model.embed_dim", sizes.embed_dim.to_string()),
        ("model.depth", sizes.depth.to_string()),
        ("model.num_heads", sizes.num_heads.to_string()),
        ("model.mlp_ratio", sizes.mlp_ratio.to_string()),
        ("model.generation", config.model.generation.name().to_owned()),
    ];
    if let Positions::Rotary(Rotary { interpolate, .. }) = config.model.positions() {
        settings.push(("model.interpolate_rope", interpolate.to_string()));
        settings.push(("model.levels", format!("{:?}", config.model.encoder_levels()?)));
    }
    Ok(settings)
}

/// The settings a predictor's sizes come from, as `(key, value)`, however the configuration gives them.
///
/// # Errors
/// [`ConfigError::Missing`] for a configuration without sizes.
pub(super) fn predictor_settings(config: &Config) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let sizes = config.model.predictor_sizes()?;
    let mut settings = vec![
        ("model.pred_embed_dim", sizes.embed_dim.to_string()),
        ("model.pred_depth", sizes.depth.to_string()),
        ("model.pred_num_heads", sizes.num_heads.to_string()),
    ];
    if let Positions::Rotary(Rotary { interpolate, .. }) = config.model.predictor_positions() {
        let predictor = predictor_config(config)?;
        settings.extend([
            ("model.pred_interpolate_rope", interpolate.to_string()),
            ("model.levels_predictor", predictor.levels.to_string()),
            ("model.teacher_embed_dim", predictor.predicted_dim().to_string()),
            ("model.num_mask_tokens", predictor.num_mask_tokens.to_string()),
        ]);
    }
    Ok(settings)
}

/// All settings that make a model what it is, as `(key, value)`, however the configuration gives them.
///
/// # Errors
/// [`ConfigError::Missing`] for a configuration without sizes.
pub fn model_settings(config: &Config) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let mut settings = encoder_settings(config)?;
    if config.finetune.is_none() {
        settings.extend(predictor_settings(config)?);
    }
    settings.extend([
        ("model.uniform_power", config.model.uniform_power.to_string()),
        ("model.use_mask_tokens", config.model.use_mask_tokens.to_string()),
    ]);
    Ok(settings)
}

/// The predictor of a configuration, with one mask token per mask generator.
///
/// # Errors
/// [`ConfigError::Missing`] for a configuration without sizes.
pub fn predictor_config(config: &Config) -> Result<PredictorConfig, ConfigError> {
    let encoder = encoder_config(config)?;
    let sizes = config.model.predictor_sizes()?;
    Ok(PredictorConfig {
        grid: encoder.grid(),
        encoder_dim: encoder.embed_dim,
        embed_dim: sizes.embed_dim,
        depth: sizes.depth,
        num_heads: sizes.num_heads,
        mlp_ratio: sizes.mlp_ratio,
        num_mask_tokens: config.mask_tokens(),
        positions: config.model.predictor_positions(),
        levels: config.model.levels_predictor.unwrap_or(encoder.num_levels()),
        output_dim: match config.loss.objective {
            ObjectiveName::Pixels => Some(encoder.patch_values()),
            ObjectiveName::Jepa | ObjectiveName::Teacher => config.model.teacher_embed_dim,
        },
        predicts_context: config.context_weight(false).is_some(),
        modalities: encoder.image_tubelet.is_some(),
        patch: encoder.patch,
        uniform_power: encoder.uniform_power,
    })
}

/// Describes the encoder of `weights`: from `config` if given, else from the training record, else from the shapes. All
/// encoders in the file must fit the description, and so must the predictor where a configuration gives its sizes.
///
/// # Errors
/// [`WeightsError::NoModel`], [`WeightsError::Model`], [`WeightsError::Mismatch`] with the names at fault,
/// [`WeightsError::Sizes`] when the shapes are ambiguous.
pub fn describe(weights: &Weights, config: Option<&Config>) -> Result<Model, WeightsError> {
    let entry = weights.encoder()?;
    let path = || weights.path().to_owned();
    let stored = weights.record();
    // What other programs write of V-JEPA 2 and 2.1 says itself what it is.
    let released = match stored {
        None if weights.later_generation().is_some() => weights.model_file(config.map(|config| &config.model))?,
        _ => None,
    };
    if let Some(file) = &released {
        weights.check_model(file)?;
    }
    let unusable = |error: ConfigError| WeightsError::Sizes { path: path(), why: error.to_string() };
    if let Some(config) = config {
        weights.check_generation(config.model.generation)?;
    }
    let model = match (config, stored, &released) {
        (Some(config), ..) => Model {
            encoder: encoder_config(config).map_err(unusable)?,
            preprocessing: config.preprocessing(),
            config: Some(config.clone()),
            source: "the configuration given",
        },
        (None, Some(record), _) => Model {
            encoder: encoder_config(&record.config).map_err(unusable)?,
            preprocessing: record.preprocessing.clone(),
            config: Some(record.config.clone()),
            source: "the checkpoint's record",
        },
        (None, None, Some(file)) => {
            let config = file.config().map_err(|why| WeightsError::Sizes { path: path(), why })?;
            Model {
                encoder: encoder_config(&config).map_err(unusable)?,
                preprocessing: config.preprocessing(),
                config: Some(config),
                source: "the layout of the weights",
            }
        }
        (None, None, None) => {
            let encoder = from_shapes(weights)?;
            let preprocessing = official_preprocessing(&encoder);
            Model { encoder, preprocessing, config: None, source: "the shapes of the weights" }
        }
    };
    model.encoder.validate().map_err(|error| WeightsError::Config { path: path(), error: error.to_string() })?;
    if released.is_some() {
        weights.check(&[(entry, model.encoder.parameter_shapes())])?;
        return Ok(model);
    }
    let present = |name: &&&str| weights.has(name);
    let mut expected: Vec<_> = ["encoder", "target_encoder"]
        .iter()
        .filter(present)
        .map(|name| (*name, model.encoder.parameter_shapes()))
        .collect();
    // Models that nobody asked for are checked as well, so that a damaged checkpoint is reported at once.
    if let Some(config) = model.config.as_ref().filter(|_| weights.has("predictor"))
        && let Ok(predictor) = predictor_config(config)
    {
        let tokens = weights.tensors().filter(|(name, ..)| name.starts_with("predictor.mask_tokens.")).count();
        let predictor = PredictorConfig { num_mask_tokens: tokens.max(1), ..predictor };
        expected.push(("predictor", predictor.parameter_shapes()));
    }
    weights.check(&expected)?;
    Ok(model)
}

/// The released recipe for clips of the encoder's size.
fn official_preprocessing(encoder: &EncoderConfig) -> Preprocessing {
    Preprocessing {
        num_frames: encoder.num_frames,
        sampling_rate: 4,
        sampling: Sampling::Vjepa,
        crop_size: encoder.height,
        crop_width: (encoder.width != encoder.height).then_some(encoder.width),
        patch_size: encoder.patch,
        tubelet_size: encoder.tubelet,
        normalization: Normalization::Imagenet,
        grayscale: false,
        framing: Framing::Centre,
    }
}

/// The most blocks to look for.
const MOST_BLOCKS: usize = 4096;

/// Sizes from shapes. The number of heads is not visible in them, so only the widths of official models are known; the clip
/// is found by comparing the stored position table with the table of each grid that has as many tokens.
fn from_shapes(weights: &Weights) -> Result<EncoderConfig, WeightsError> {
    let model = weights.encoder()?;
    let unclear = |why: String| WeightsError::Sizes { path: weights.path().to_owned(), why };
    let shape = |name: &str| {
        let name = format!("{model}.{name}");
        weights.shape(&name).ok_or_else(|| unclear(format!("the sizes cannot be determined without `{name}`")))
    };
    let &[embed_dim, channels, tubelet, patch, square] = shape("patch_embed.proj.weight")? else {
        return Err(unclear(format!("`{model}.patch_embed.proj.weight` is not a tubelet embedding")));
    };
    let &[_, tokens, width] = shape("pos_embed")? else {
        return Err(unclear(format!("`{model}.pos_embed` is not a position table")));
    };
    if width != embed_dim {
        return Err(unclear(format!("`{model}.pos_embed` is not a position table of {embed_dim} channels")));
    }
    if square != patch || channels != 3 || [embed_dim, tubelet, patch, tokens].contains(&0) {
        return Err(unclear("its tubelet embedding is not one for square patches of RGB".to_owned()));
    }
    let block = |i: usize| format!("{model}.blocks.{i}.norm1.weight");
    let depth = (0..MOST_BLOCKS).take_while(|i| weights.shape(&block(*i)).is_some()).count();
    let hidden = shape("blocks.0.mlp.fc1.weight")?.first().copied().unwrap_or(0);
    let names =
        [ModelName::Tiny, ModelName::Small, ModelName::Base, ModelName::Large, ModelName::Huge, ModelName::Giant];
    let named =
        names.into_iter().map(ModelName::sizes).find(|sizes| sizes.embed_dim == embed_dim).ok_or_else(|| {
            unclear(format!(
                "the number of attention heads of an encoder {embed_dim} wide cannot be determined from its weights"
            ))
        })?;
    let sized = |[time, height, width]: [usize; 3], uniform_power| EncoderConfig {
        num_frames: time.saturating_mul(tubelet),
        height: height.saturating_mul(patch),
        width: width.saturating_mul(patch),
        tubelet,
        patch,
        channels,
        embed_dim,
        depth,
        num_heads: named.num_heads,
        mlp_ratio: if named.mlp_dim() == hidden { named.mlp_ratio } else { hidden as f64 / embed_dim as f64 },
        uniform_power,
        out_layers: None,
        positions: Positions::Table,
        levels: Vec::new(),
        image_tubelet: None,
    };
    let (_, table) = weights.get(&format!("{model}.pos_embed"))?;
    square_grids(tokens)
        .flat_map(|grid| [sized(grid, true), sized(grid, false)])
        .filter(|config| config.validate().is_ok())
        .find(|config| same(&config.position_table(), &table))
        .ok_or_else(|| {
            unclear(format!("the clip size of its {tokens} tokens cannot be determined from its position table"))
        })
}

/// Grids `[t, s, s]` of `tokens` tokens.
fn square_grids(tokens: usize) -> impl Iterator<Item = [usize; 3]> {
    let sides = (1..).take_while(move |side: &usize| side.checked_mul(*side).is_some_and(|area| area <= tokens));
    sides.filter(move |side| tokens.is_multiple_of(side * side)).map(move |side| [tokens / (side * side), side, side])
}

/// Equal up to the rounding that a moving average leaves.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-2)
}
