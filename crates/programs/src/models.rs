//! The models of a configuration, and the weights a run starts with.

use crate::{encoder_config, predictor_config};
use vjepa_graphs::{EncoderConfig, NamedTensors, PredictorConfig, init};
use vjepa_recipe::config::{Config, ConfigError, ModelConfig};

/// Sizes of everything a run trains.
#[derive(Clone, Debug, PartialEq)]
pub struct Models {
    /// The encoder, and the target encoder.
    pub encoder: EncoderConfig,
    /// The predictor.
    pub predictor: PredictorConfig,
    /// Mask generators, and so mask tokens.
    pub generators: usize,
}

/// The models a configuration describes.
///
/// # Errors
/// [`ConfigError`] for sizes that do not fit together.
pub fn model_configs(config: &Config) -> Result<Models, ConfigError> {
    let encoder = encoder_config(config)?;
    let predictor = predictor_config(config)?;
    let rule = |error: vjepa_graphs::ConfigError| ConfigError::rule("model".to_owned(), error.to_string());
    encoder.validate().map_err(rule)?;
    predictor.validate().map_err(rule)?;
    Ok(Models { encoder, predictor, generators: config.mask.len() })
}

/// Fresh weights under `encoder.` and `predictor.`, position tables included; the target encoder starts as a copy.
pub fn initial_weights(config: &ModelConfig, models: &Models, seed: u64) -> NamedTensors {
    let encoder = init::encoder(&models.encoder, config.init, seed);
    let predictor = init::predictor(&models.predictor, config.init, config.zero_init_mask_tokens, seed.wrapping_add(1));
    let named = |prefix: &str, tensors: NamedTensors| -> NamedTensors {
        tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
    };
    let mut all = named("encoder.", encoder);
    all.extend(named("predictor.", predictor));
    all
}
