//! From V-JEPA's modules to compiled graphs: what is traced, what is trained, what everything is called.
//!
//! Here the compiler meets the model: the compiler knows no parameter by name, the modules know no compiler.

mod action;
mod anticipation;
mod artifact;
mod buckets;
mod describe;
mod detector;
mod detector_file;
mod digest;
mod drops;
mod feed;
mod forward;
pub mod frozen;
mod models;
mod passes;
mod precision;
mod probe_file;
mod sizes;
mod step;
pub mod tuning;
mod variants;

pub use action::{ActionModel, action_model, action_predictor, frames as frame_tokens};
pub use anticipation::{ACTION_HEADS, action_shapes, actions_step, first_action_weights};
pub use artifact::{ArtifactError, TrainGraph, artifact, load_step, save_artifact};
pub use buckets::{Shapes, mask_shapes, padded};
pub use describe::{Model, describe, encoder_config, encoder_name, model_settings, predictor_config};
pub use detector::{box_classifier, box_features, detector, detector_step};
pub use detector_file::{
    DETECTOR_KEY, DetectorFile, DetectorRecord, EXPORTED_DETECTOR_KEY, ExportedDetector, load_detector,
};
pub use digest::digest;
pub use drops::DROP_KEY;
pub use feed::{Fed, drawn, feed, weights as context_weights};
pub use forward::{
    DeployedHead, actions, deployed, deployed_views, diagnose, encoder, encoder_masked, frozen, joined_layers, layers,
    levels, monitored, pixels, pooled, predictions, predictor, pretrain, probe, targets, tuned_logits,
};
pub use models::{first_weights, initial_weights, model_configs, objective, run_metadata};
pub use passes::{Passes, Stage, StopAfter};
pub use precision::Precision;
pub use probe_file::{PROBE_KEY, ProbeChoice, ProbeFile, ProbeRecord, load_probe, load_probe_for, probe_layers};
pub use sizes::{MaskSizes, drawn_sizes, in_buckets, mask_sizes, step_sizes};
pub use step::{
    TrainOptions, WEIGHT, gradients_with, optimizer, probe_step, step, step_with, update, update_of, update_where,
};
pub use variants::{Variant, variants};
pub use vjepa_graphs::{AnyObjective, Models, Probe, TunedHead};

use vjepa_compiler::ir::{Graph, GraphError};
use vjepa_compiler::passes::{PassError, Pipeline};
use vjepa_compiler::trace::TraceError;

/// A traced graph after the passes that run on every graph.
///
/// # Errors
/// [`CompileError::Pass`].
pub fn optimised(traced: &Graph) -> Result<Graph, CompileError> {
    Ok(Pipeline::standard().run(traced)?.graph)
}

/// Compiling failed.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Tracing the modules failed.
    #[error("cannot trace the {graph} graph: {source}")]
    Trace {
        /// Which graph.
        graph: String,
        /// Why.
        source: TraceError,
    },
    /// Masks that cannot be drawn.
    #[error("{0}")]
    Masks(String),
    /// A head that the deployed model cannot have.
    #[error("{0}")]
    Head(&'static str),
    /// The model's configuration is not valid.
    #[error(transparent)]
    Config(#[from] vjepa_graphs::ConfigError),
    /// The graph could not be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Differentiating failed.
    #[error(transparent)]
    Grad(#[from] vjepa_compiler::grad::GradError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] vjepa_compiler::plan::PlanError),
    /// A step in f16.
    #[error("a training step in f16 needs its gradients scaled, which is not implemented: use bf16 or f32")]
    Unscaled,
    /// A step that exceeds the memory budget however much is recomputed.
    #[error(
        "the step needs {} MB even with everything recomputed, more than the memory budget of {}",
        least.div_ceil(1_000_000), too_small(*budget)
    )]
    Memory {
        /// The budget in bytes.
        budget: u64,
        /// The least that is needed, in bytes.
        least: u64,
    },
}

/// A memory budget, and what to do about it.
fn too_small(budget: u64) -> String {
    let remedy = "lower `data.batch_size` or raise --memory-budget";
    match budget {
        // Without its unit.
        1 => "1 byte; did you mean 1GiB?".to_owned(),
        0 | 2..=1024 => format!("{budget} bytes; did you mean {budget}GiB?"),
        1025..1_000_000 => format!("{budget} bytes: {remedy}"),
        1_000_000.. => format!("{} MB: {remedy}", budget / 1_000_000),
    }
}

#[cfg(test)]
mod tests;
