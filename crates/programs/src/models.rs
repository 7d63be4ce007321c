//! The models and the objective of a configuration, and the weights a run starts with.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{PROBE_KEY, Probe, ProbeRecord, encoder_config, predictor_config};
use vjepa_graphs::objectives::{Finetune, Role, Start, open};
use vjepa_graphs::{AnyObjective, Models, NamedTensors};
use vjepa_recipe::config::{Config, ConfigError, FinetuneConfig, ModelConfig};
use vjepa_weights::WeightsError;

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
    Ok(Models {
        encoder,
        predictor,
        generators: config.mask.len(),
        context_weight: config.context_weight(false),
        normalization: config.data.normalization,
        bucket: 0,
    })
}

/// What a run of this configuration minimises: `loss.objective` over [`model_configs`], or where there is a `finetune` section,
/// that.
///
/// # Errors
/// [`ConfigError`] for sizes that do not fit together.
pub fn objective(config: &Config) -> Result<AnyObjective, ConfigError> {
    match &config.finetune {
        Some(finetune) => Ok(tuned(config, finetune)?.into()),
        None => Ok(open(&config.loss, &model_configs(config)?)),
    }
}

/// What a fine-tuning run minimises.
fn tuned(config: &Config, finetune: &FinetuneConfig) -> Result<Finetune, ConfigError> {
    let encoder = encoder_config(config)?;
    encoder.validate().map_err(|error| ConfigError::rule("model".to_owned(), error.to_string()))?;
    let classes = finetune.class_names.len();
    if classes < 2 {
        let rule = format!("names {classes} classes; a classifier needs at least two");
        return Err(ConfigError::rule("finetune.class_names", rule));
    }
    Ok(Finetune::new(encoder, finetune, classes))
}

/// What a file with a run's tensors says of them besides the run's record: of fine-tuning, the description of its classifier,
/// as [`load_probe`](crate::load_probe) reads it.
///
/// # Errors
/// [`ConfigError`] for sizes that do not fit together.
pub fn run_metadata(config: &Config) -> Result<BTreeMap<String, String>, ConfigError> {
    let Some(finetune) = &config.finetune else { return Ok(BTreeMap::new()) };
    let head = tuned(config, finetune)?.head;
    let record = ProbeRecord::of(&Probe::Tuned(head), &finetune.class_names);
    let json = serde_json::to_string(&record)
        .map_err(|error| ConfigError::rule("finetune.class_names", format!("cannot be recorded: {error}")))?;
    Ok(BTreeMap::from([(PROBE_KEY.to_owned(), json)]))
}

/// Fresh weights of an objective's parameter sets, position tables and moving averages included, by full name.
pub fn initial_weights(config: &ModelConfig, objective: &AnyObjective, seed: u64) -> NamedTensors {
    objective.initial(Start { init: config.init, zero_mask_tokens: config.zero_init_mask_tokens, seed })
}

/// The weights of a new run: drawn ones, and those of the teacher that the configuration names.
///
/// # Errors
/// [`WeightsError`] for a teacher that cannot be read, or is of other sizes or another generation.
pub fn first_weights(config: &Config, objective: &AnyObjective) -> Result<NamedTensors, WeightsError> {
    let mut tensors = initial_weights(&config.model, objective, config.meta.seed);
    let sets = &objective.declaration().sets;
    let teacher = sets.iter().find(|set| set.name == "teacher" && set.role == Role::Fixed);
    if let (Some(path), Some(teacher)) = (&config.loss.teacher, teacher) {
        let file = vjepa_weights::load(Path::new(path))?;
        file.check_generation(config.model.generation)?;
        let taken = file.take_encoder(teacher.shapes.clone())?.into_iter();
        tensors.extend(
            taken.filter_map(|(name, tensor)| Some((format!("teacher.{}", name.strip_prefix("encoder.")?), tensor))),
        );
    }
    Ok(tensors)
}
