//! Objectives: what a run minimises, one file each.
//!
//! An [`Objective`] declares its graph inputs, its parameter sets (which are trained, which follow others as moving
//! averages) and the scalars it reports, and computes its losses with ordinary Burn modules. The compiled step, the eager
//! step, the training loop, checkpoints, metrics and diagnostics iterate over the [`Declaration`] and know no module by name.
//!
//! [`open`] is the table of all pre-training objectives; [`Finetune`] is that of fine-tuning. To add one, see `docs/adding-an-objective.md`.

mod any;
mod batch;
mod declaration;
mod dense;
mod finetune;
mod jepa;
mod pixels;
mod teacher;

use std::fmt;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use vjepa_recipe::config::{LossConfig, Normalization, ObjectiveName};
use vjepa_recipe::schedules::ContextWeight;

pub use any::{AnyObjective, Built, ObjectiveError};
pub use batch::{Batch, Inputs, Losses};
pub use declaration::{
    ClipUse, Declaration, Gate, Indices, Input, MaskPair, Monitor, ParameterSet, Role, Source, batch_symbol,
    context_weights,
};
pub use dense::Dense;
pub use finetune::{Finetune, FinetuneModel};
pub use jepa::{ClipStream, Jepa, JepaLoss, JepaLosses, JepaModel, normalised_targets};
pub use pixels::{PixelModel, PixelTargets, Pixels};
pub use teacher::{Teacher, TeacherModel};

use crate::config::{EncoderConfig, PredictorConfig};
use crate::error::{ConfigError, ShapeError};
use crate::init::Init;
use crate::params::NamedTensors;

/// Sizes of the modules a configuration describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Models {
    /// The encoder, and whatever has its shape, such as a target encoder.
    pub encoder: EncoderConfig,
    /// The predictor.
    pub predictor: PredictorConfig,
    /// Mask generators.
    pub generators: usize,
    /// Weight of the loss on context tokens, of objectives that predict them too.
    pub context_weight: Option<ContextWeight>,
    /// How pixels were made values of clips, of objectives whose targets are pixels.
    pub normalization: Normalization,
    /// Which length bucket of its group the clips are, from 0; 0 of groups whose clips have one length.
    pub bucket: usize,
}

/// How fresh weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The distribution.
    pub init: Init,
    /// Whether mask tokens start at zero.
    pub zero_mask_tokens: bool,
    /// The seed.
    pub seed: u64,
}

/// Something to minimise.
pub trait Objective: Clone + fmt::Debug + Send + Sync + 'static {
    /// All its modules. Every field is one [`ParameterSet`], in the order of the fields.
    type Model: Module;

    /// Graph inputs, parameter sets, reported scalars.
    fn declaration(&self) -> Declaration;

    /// The modules on a device, without values; see [`Encoder::empty`](crate::Encoder::empty).
    ///
    /// # Errors
    /// [`ConfigError`] for sizes that do not fit together.
    fn model(&self, device: &Device) -> Result<Self::Model, ConfigError>;

    /// First values of every parameter by its full name. Moving averages may be left out: they start as copies.
    fn initial(&self, start: Start) -> NamedTensors;

    /// The losses of a batch. Runs eagerly, under autodiff and on the capture device, so it reads no tensor value, draws no
    /// random number and makes no constant from data.
    ///
    /// # Errors
    /// [`ShapeError`] for inputs that do not fit the modules.
    fn losses(&self, model: &Self::Model, batch: &Batch) -> Result<Losses, ShapeError>;

    /// The features watched for collapse: clips `f32[B, C, T, H, W]` to tokens `f32[B, N, D]`, by the parameter set
    /// [`Monitor::features`] alone.
    ///
    /// # Errors
    /// [`ShapeError`] for clips of another shape.
    fn monitored(&self, model: &Self::Model, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError>;

    /// Whether weight decay applies to a trained parameter, by its full name and rank. By default the official rule: matrices
    /// and mask tokens decay; vectors, and whatever has `bias` in its name, do not.
    fn decays(&self, name: &str, rank: usize) -> bool {
        decays_officially(name, rank)
    }

    /// Factor on the learning rate of a trained parameter, by its full name. By default all learn at the same rate.
    fn rate(&self, name: &str) -> f64 {
        let _ = name;
        1.0
    }
}

/// The official rule for weight decay; see [`Objective::decays`].
pub fn decays_officially(name: &str, rank: usize) -> bool {
    rank > 1 && !name.contains("bias")
}

/// The objective that a `loss` section names, over modules of these sizes.
pub fn open(loss: &LossConfig, models: &Models) -> AnyObjective {
    match loss.objective {
        ObjectiveName::Jepa => Jepa::new(loss, models).into(),
        ObjectiveName::Pixels => Pixels::new(loss, models).into(),
        ObjectiveName::Teacher => Teacher::new(loss, models).into(),
    }
}

/// The tensors of parameter sets by their full names.
fn named<const N: usize>(sets: [(&str, NamedTensors); N]) -> NamedTensors {
    let full = |set: &str, tensors: NamedTensors| -> Vec<_> {
        tensors.into_iter().map(|(name, tensor)| (format!("{set}.{name}"), tensor)).collect()
    };
    sets.into_iter().flat_map(|(set, tensors)| full(set, tensors)).collect()
}

#[cfg(test)]
mod tests;
