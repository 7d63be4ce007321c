//! Fine-tuning begins with a checkpoint: the settings that its model implies, and the weights.

use vjepa_graphs::objectives::Start;
use vjepa_graphs::{AnyObjective, EncoderConfig, NamedTensors, position};
use vjepa_recipe::config::{Config, Positions, Preprocessing};
use vjepa_weights::{Weights, WeightsError};

use crate::{Model, describe, encoder_config};

/// A described model as settings of a configuration, as `--set` takes them: its sizes and how its clips are prepared.
pub fn settings_of(model: &Model) -> Vec<String> {
    let EncoderConfig { embed_dim, depth, num_heads, mlp_ratio, uniform_power, .. } = model.encoder;
    let Preprocessing { num_frames, sampling_rate, crop_size, patch_size, tubelet_size, grayscale, .. } =
        model.preprocessing;
    let mut settings = vec![
        format!("model.embed_dim={embed_dim}"),
        format!("model.depth={depth}"),
        format!("model.num_heads={num_heads}"),
        format!("model.mlp_ratio={mlp_ratio:?}"),
        format!("model.uniform_power={uniform_power}"),
        format!("data.num_frames={num_frames}"),
        format!("data.sampling_rate={sampling_rate}"),
        format!("data.crop_size={crop_size}"),
        format!("data.patch_size={patch_size}"),
        format!("data.tubelet_size={tubelet_size}"),
        format!("data.grayscale={grayscale}"),
    ];
    let json = |value: serde_json::Result<String>| value.unwrap_or_else(|_| "null".to_owned());
    settings.push(format!("data.normalization={}", json(serde_json::to_string(&model.preprocessing.normalization))));
    settings.push(format!("data.sampling={}", json(serde_json::to_string(&model.preprocessing.sampling))));
    if let Some(config) = &model.config {
        settings.push(format!("model.generation={}", config.model.generation.name()));
        let interpolated = config.model.interpolate_rope.map(|asked| format!("model.interpolate_rope={asked}"));
        settings.extend(interpolated);
    }
    settings
}

/// The encoder of a file that a configuration fine-tunes: as stored, and as it is wanted, which may be for clips of another size.
///
/// # Errors
/// [`WeightsError`] for a file whose encoder is not that of the configuration.
pub fn sizes(file: &Weights, config: &Config) -> Result<[EncoderConfig; 2], WeightsError> {
    let unusable = |why: String| WeightsError::Sizes { path: file.path().to_owned(), why };
    let wanted = encoder_config(config).map_err(|error| unusable(error.to_string()))?;
    // What the file says of itself; a bare state dict says nothing, and then the configuration has to.
    let stored = describe(file, None).or_else(|_| describe(file, Some(config)))?.encoder;
    let sized = stored.clone().with_clip(wanted.num_frames, wanted.height, wanted.width);
    if sized != wanted {
        let [is, asked] = [&sized, &wanted].map(|sizes| {
            let EncoderConfig { embed_dim, depth, num_heads, patch, tubelet, .. } = sizes;
            format!("{embed_dim} wide, with {depth} blocks, {num_heads} heads and tokens of {tubelet}x{patch}x{patch} pixels")
        });
        return Err(unusable(format!(
            "its encoder is {is}, but the configuration asks for one {asked}; leave out `model`"
        )));
    }
    Ok([stored, wanted])
}

/// First weights of a fine-tuning run: the encoder of a file, its target encoder where there is one, with its table of positions
/// interpolated for clips of another size; what the file lacks is drawn.
///
/// # Errors
/// As [`sizes`].
pub fn start(file: &Weights, config: &Config, objective: &AnyObjective) -> Result<NamedTensors, WeightsError> {
    let unusable = |why: String| WeightsError::Sizes { path: file.path().to_owned(), why };
    let [stored, wanted] = sizes(file, config)?;
    let mut tensors = file.take_encoder(stored.parameter_shapes())?;
    if stored.grid() != wanted.grid() && stored.positions == Positions::Table {
        let table =
            tensors.get_mut("encoder.pos_embed").ok_or_else(|| unusable("it has no position table".to_owned()))?;
        position::resize_table(table, stored.grid(), wanted.grid()).map_err(|error| unusable(error.to_string()))?;
    }
    let drawn = Start { init: config.model.init, zero_mask_tokens: true, seed: config.meta.seed };
    let mut all = objective.initial(drawn);
    all.extend(tensors);
    Ok(all)
}
