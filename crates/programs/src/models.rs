//! The models and the objective of a configuration, and the weights a run starts with.

use crate::{encoder_config, predictor_config};
use vjepa_graphs::objectives::{Start, open};
use vjepa_graphs::{AnyObjective, Models, NamedTensors};
use vjepa_recipe::config::{Config, ConfigError, ModelConfig};

/// Sizes of the models a configuration describes.
///
/// # Errors
/// [`ConfigError`] for sizes that do not fit together.
pub fn model_configs(config: &Config) -> Result<Models, ConfigError> {
    let encoder = encoder_config(config)?;
    let predictor = predictor_config(config)?;
    let rule = |error: vjepa_graphs::ConfigError| ConfigError::rule("model".to_owned(), error.to_string());
    encoder.validate().map_err(rule)?;
    predictor.validate().map_err(rule)?;
    Ok(Models { encoder, predictor, generators: config.mask.len(), context_weight: config.context_weight(false) })
}

/// What a run of this configuration minimises: `loss.objective` over [`model_configs`].
///
/// # Errors
/// [`ConfigError`] for sizes that do not fit together.
pub fn objective(config: &Config) -> Result<AnyObjective, ConfigError> {
    Ok(open(&config.loss, &model_configs(config)?))
}

/// Fresh weights of an objective's parameter sets, position tables and moving averages included, by full name.
pub fn initial_weights(config: &ModelConfig, objective: &AnyObjective, seed: u64) -> NamedTensors {
    objective.initial(Start { init: config.init, zero_mask_tokens: config.zero_init_mask_tokens, seed })
}
