//! V-JEPA's computations as ordinary Burn modules, numerically the official model.
//!
//! Start at [`Encoder`] (clip to tokens), [`Predictor`] (context tokens to target tokens) and [`PretrainLoss`] (the whole
//! pre-training objective); [`AttentiveClassifier`] and [`LinearProbe`] read frozen features. Parameter names and layouts
//! are those of the official state dict, so [`parameters`] and [`load_parameters`] speak with checkpoints directly.
//!
//! The same forwards run eagerly, under Burn's autodiff (the oracle of the tests), and on `Device::capture()`, where the
//! compiler records them. So a forward reads no tensor value, draws no random number and makes no constant from data.
//!
//! The rules follow facebookresearch/jepa; each is written from its description, none copied.

pub mod config;
mod encoder;
mod error;
pub mod init;
pub mod layers;
mod losses;
mod params;
pub mod position;
mod predictor;
mod probe;
mod shapes;

pub use config::{EncoderConfig, PredictorConfig, ProbeConfig};
pub use encoder::{Encoder, PatchEmbed};
pub use error::{ConfigError, ShapeError};
pub use losses::{MaskPair, PretrainLoss, PretrainOutput, cross_entropy, normalised_targets, one_hot};
pub use params::{
    NamedTensors, ParameterVisitor, gradients, is_frozen, load_parameters, parameter_names, parameters,
    visit_parameters,
};
pub use predictor::Predictor;
pub use probe::{
    AttentiveClassifier, AttentivePooler, CrossAttentionBlock, LinearProbe, Probe, averaged_views, joined_segments,
    mean_probabilities, segment_features,
};
pub use vjepa_weights::{LoadError, Misshapen};
