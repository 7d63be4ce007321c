//! Why a quickstart fails.

/// A quickstart that failed.
#[derive(Debug, thiserror::Error)]
pub enum QuickstartError {
    /// Recipe and arguments contradict each other.
    #[error(transparent)]
    Config(#[from] vjepa_recipe::config::ConfigError),
    /// Clips or videos cannot be read.
    #[error(transparent)]
    Data(#[from] vjepa_data::DataError),
    /// A video cannot be prepared for the exported model.
    #[error(transparent)]
    Clips(#[from] vjepa_data::clips::ClipError),
    /// Pre-training failed.
    #[error(transparent)]
    Train(Box<vjepa_train::TrainError>),
    /// Masks that cannot be drawn.
    #[error(transparent)]
    Masks(#[from] vjepa_recipe::masks::MaskError),
    /// The evaluation failed.
    #[error(transparent)]
    Eval(#[from] vjepa_eval::EvalError),
    /// A graph cannot be compiled.
    #[error(transparent)]
    Compile(#[from] vjepa_programs::CompileError),
    /// Weights cannot be read.
    #[error(transparent)]
    Weights(#[from] vjepa_weights::WeightsError),
    /// The export failed or was refused.
    #[error(transparent)]
    Deploy(Box<vjepa_deploy::DeployError>),
    /// The exported model cannot be run.
    #[error(transparent)]
    Session(#[from] vjepa_runtime::SessionError),
    /// The exported model has no preprocessing record.
    #[error(transparent)]
    Preprocess(#[from] vjepa_runtime::PreprocessError),
    /// A picture cannot be written.
    #[error(transparent)]
    Picture(#[from] vjepa_view::ViewError),
    /// A file cannot be written or read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A result cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Anything else that stops it, in one sentence.
    #[error("{0}")]
    Refused(String),
}

// Boxed, since they are several times the size of the rest.
impl From<vjepa_deploy::DeployError> for QuickstartError {
    fn from(error: vjepa_deploy::DeployError) -> Self {
        Self::Deploy(Box::new(error))
    }
}

impl From<vjepa_train::TrainError> for QuickstartError {
    fn from(error: vjepa_train::TrainError) -> Self {
        Self::Train(Box::new(error))
    }
}

impl From<String> for QuickstartError {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<&str> for QuickstartError {
    fn from(why: &str) -> Self {
        Self::Refused(why.to_owned())
    }
}
