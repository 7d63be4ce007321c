//! Why a model cannot be exported.

use std::io;

/// An export that failed, or that was refused and its file removed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The checkpoint or the probe cannot be read or does not fit.
    #[error(transparent)]
    Weights(#[from] vjepa_weights::WeightsError),
    /// A file of tensors in a bundle cannot be read.
    #[error(transparent)]
    Tensors(#[from] vjepa_weights::TensorFileError),
    /// The configuration has no sizes.
    #[error(transparent)]
    Config(#[from] vjepa_recipe::config::ConfigError),
    /// Sizes that no model has.
    #[error(transparent)]
    Sizes(#[from] vjepa_graphs::ConfigError),
    /// The graph cannot be compiled.
    #[error(transparent)]
    Compile(#[from] vjepa_programs::CompileError),
    /// The compiled plan cannot be written.
    #[error(transparent)]
    Artifact(#[from] vjepa_programs::ArtifactError),
    /// Encoder and probe do not run together.
    #[error(transparent)]
    Frozen(#[from] vjepa_programs::frozen::FrozenError),
    /// The exporter refuses the graph or the options.
    #[error(transparent)]
    Export(#[from] vjepa_export::ExportError),
    /// The exported model cannot be run.
    #[error(transparent)]
    Session(#[from] vjepa_runtime::SessionError),
    /// ONNX Runtime cannot be loaded.
    #[error(transparent)]
    Library(#[from] vjepa_runtime::library::LibraryError),
    /// The exported file cannot be read back.
    #[error(transparent)]
    Onnx(#[from] vjepa_runtime::OnnxError),
    /// The exported model and the plan disagree.
    #[error(transparent)]
    Compare(#[from] vjepa_runtime::CompareError),
    /// The graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] vjepa_compiler::plan::PlanError),
    /// The plan cannot be run.
    #[error(transparent)]
    Run(#[from] vjepa_runtime::plan::RunError),
    /// Another clip size does not suit the encoder's positions.
    #[error(transparent)]
    Shape(#[from] vjepa_graphs::ShapeError),
    /// Calibration clips cannot be read.
    #[error(transparent)]
    Clips(#[from] vjepa_data::clips::ClipError),
    /// Generated calibration clips cannot be made.
    #[error(transparent)]
    Data(#[from] vjepa_data::DataError),
    /// A file cannot be written or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The model would be written over what it is made from.
    #[error(transparent)]
    Overwrites(#[from] vjepa_runtime::files::Overwrites),
    /// A record of the bundle is not valid JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Anything else that the request or the result rules out, in one sentence.
    #[error("{0}")]
    Refused(String),
}

impl From<String> for DeployError {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<&str> for DeployError {
    fn from(why: &str) -> Self {
        Self::Refused(why.to_owned())
    }
}
