//! V-JEPA's computations as ordinary Burn modules, numerically the official model.
//!
//! Start at [`Encoder`] (clip to tokens), [`Predictor`] (context tokens to target tokens) and [`objectives`] (what
//! pre-training minimises); [`AttentiveClassifier`] and [`LinearProbe`] read frozen features, [`TunedClassifier`] those of an
//! encoder trained with it. Parameter names and layouts
//! are those of the official state dict, so [`parameters`] and [`load_parameters`] exchange weights with checkpoints directly.
//!
//! The same forward passes run eagerly, under Burn's autodiff (the oracle of the tests), and on `Device::capture()`, where the
//! compiler records them. So a forward pass reads no tensor value, draws no random number and makes no constant from data.
//!
//! The numerics follow facebookresearch/jepa; everything is written from a description of it, nothing is copied.

mod action;
pub mod config;
mod encoder;
mod error;
pub mod init;
pub mod layers;
mod losses;
pub mod objectives;
mod params;
pub mod position;
mod predictor;
mod probe;
pub mod rotary;
mod shapes;
mod tuned;

pub use action::{ACTION_WIDTH, ActionPredictor, ActionPredictorConfig, EXTRINSICS_WIDTH, frame_tokens};
pub use config::{BlocksOn, EncoderConfig, PredictorConfig, ProbeConfig};
pub use encoder::{Embedded, Encoder, PatchEmbed};
pub use error::{ConfigError, ShapeError};
pub use losses::{cross_entropy, focal_loss, one_hot};
pub use objectives::{
    AnyObjective, Declaration, Finetune, Jepa, JepaLoss, MaskPair, Models, Objective, ObjectiveError,
    normalised_targets,
};
pub use params::{
    NamedTensors, ParameterVisitor, gradients, is_frozen, load_parameters, parameter_names, parameters,
    visit_parameters,
};
pub use predictor::{Modality, Predictions, Predictor};
pub use probe::{
    ActionClassifier, AttentiveClassifier, AttentivePooler, CrossAttentionBlock, LinearProbe, Probe, averaged_views,
    joined_segments, mean_probabilities, segment_features,
};
pub use tuned::{TunedClassifier, TunedHead};
pub use vjepa_weights::{LoadError, Misshapen};
