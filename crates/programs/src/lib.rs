//! From V-JEPA's modules to compiled graphs: what is traced, what is trained, which names everything has.
//!
//! Here the compiler meets the model: the compiler knows no parameter by name, the modules know no compiler.

mod artifact;
mod describe;
mod forward;
pub mod frozen;
mod models;
mod passes;
mod precision;
mod probe_file;
mod sizes;
mod step;

pub use artifact::{ArtifactError, artifact, load_step, save_artifact};
pub use describe::{Model, describe, encoder_config, predictor_config};
pub use forward::{
    Head, deployed, deployed_views, diagnose, encoder, encoder_masked, frozen, layers, pooled, predictor, pretrain,
    probe, targets,
};
pub use models::{Models, initial_weights, model_configs};
pub use passes::{Passes, Stage, StopAfter};
pub use precision::Precision;
pub use probe_file::{PROBE_KEY, ProbeFile, ProbeRecord, load_probe, load_probe_for};
pub use sizes::{MaskSizes, mask_sizes, step_sizes};
pub use step::{TrainOptions, optimizer, probe_step, step, step_with};
pub use vjepa_graphs::Probe;

use vjepa_compiler::ir::{Graph, GraphError};
use vjepa_compiler::passes::{PassError, Pipeline};
use vjepa_compiler::trace::TraceError;

/// A traced graph after the passes that every graph goes through.
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
    /// A deployed model that cannot give what its head asks for.
    #[error("{0}")]
    Head(&'static str),
    /// The model's configuration does not hold its rules.
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
    /// A step that takes more memory than it may, whatever is computed again.
    #[error(
        "the step needs {} MB even when everything is computed again, more than the memory budget of {} MB: lower \
         `data.batch_size` or raise --memory-budget",
        least.div_ceil(1_000_000), budget / 1_000_000
    )]
    Memory {
        /// The budget in bytes.
        budget: u64,
        /// The least that is needed, in bytes.
        least: u64,
    },
}

#[cfg(test)]
mod tests;
