//! Objectives whose modules' type is not known: what callers hold.

use std::fmt;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Device, DispatchTensor, Gradients, Tensor};
use vjepa_weights::LoadError;

use super::{Batch, Declaration, Losses, Objective, Start};
use crate::error::{ConfigError, ShapeError};
use crate::params::{NamedTensors, ParameterVisitor, gradients, load_parameters, visit_parameters};

/// An objective that cannot compute its losses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectiveError {
    /// An input does not fit the modules.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// It computes other scalars than it declares, which is a bug of the objective.
    #[error("the objective declares the scalars {declared:?} but computes {computed:?}")]
    Terms {
        /// [`Declaration::terms`].
        declared: Vec<&'static str>,
        /// Names in [`Losses::terms`].
        computed: Vec<&'static str>,
    },
}

/// Any objective.
#[derive(Clone)]
pub struct AnyObjective {
    declaration: Arc<Declaration>,
    objective: Arc<dyn Erased>,
}

/// An [`Objective`] without the type of its model.
trait Erased: fmt::Debug + Send + Sync {
    fn model(&self, device: &Device) -> Result<Box<dyn ErasedModel>, ConfigError>;
    fn initial(&self, start: Start) -> NamedTensors;
    fn decays(&self, name: &str, rank: usize) -> bool;
    fn rate(&self, name: &str) -> f64;
}

/// An objective's modules without their type.
trait ErasedModel: Send {
    fn visit(&self, wanted: &dyn Fn(&str) -> bool, visitor: &mut dyn FnMut(&str, DispatchTensor));
    fn load(&mut self, tensors: NamedTensors) -> Result<(), LoadError>;
    fn losses(&self, batch: &Batch) -> Result<Losses, ShapeError>;
    fn monitored(&self, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError>;
    fn gradients(&self, tape: &Gradients) -> NamedTensors;
}

impl<O: Objective> From<O> for AnyObjective {
    fn from(objective: O) -> Self {
        Self { declaration: Arc::new(objective.declaration()), objective: Arc::new(objective) }
    }
}

impl fmt::Debug for AnyObjective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.objective, f)
    }
}

impl AnyObjective {
    /// Graph inputs, parameter sets, reported scalars.
    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// The modules on a device, without values.
    ///
    /// # Errors
    /// [`ConfigError`] for sizes that do not fit together.
    pub fn build(&self, device: &Device) -> Result<Built, ConfigError> {
        Ok(Built { model: self.objective.model(device)?, terms: self.declaration.terms.clone() })
    }

    /// First values of every parameter by its full name, moving averages included.
    pub fn initial(&self, start: Start) -> NamedTensors {
        let mut tensors = self.objective.initial(start);
        self.declaration.start_averages(&mut tensors);
        tensors
    }

    /// Whether weight decay applies to a trained parameter, by its full name and rank.
    pub fn decays(&self, name: &str, rank: usize) -> bool {
        self.objective.decays(name, rank)
    }

    /// Factor on the learning rate of a trained parameter, by its full name.
    pub fn rate(&self, name: &str) -> f64 {
        self.objective.rate(name)
    }
}

/// An objective's modules on a device.
pub struct Built {
    model: Box<dyn ErasedModel>,
    terms: Vec<&'static str>,
}

impl Built {
    /// Shows every parameter whose full name is `wanted`, in the order of the fields. The others are not touched, so a
    /// capture device records nothing of them.
    pub fn visit(&self, wanted: impl Fn(&str) -> bool, mut visitor: impl FnMut(&str, DispatchTensor)) {
        self.model.visit(&wanted, &mut visitor);
    }

    /// Replaces every parameter by the tensor of its full name.
    ///
    /// # Errors
    /// As [`load_parameters`]; the modules then keep the values they had.
    pub fn load(&mut self, tensors: NamedTensors) -> Result<(), LoadError> {
        self.model.load(tensors)
    }

    /// The losses of a batch.
    ///
    /// # Errors
    /// [`ObjectiveError`].
    pub fn losses(&self, batch: &Batch) -> Result<Losses, ObjectiveError> {
        let losses = self.model.losses(batch)?;
        let computed: Vec<&'static str> = losses.terms.iter().map(|(name, _)| *name).collect();
        if computed != self.terms {
            return Err(ObjectiveError::Terms { declared: self.terms.clone(), computed });
        }
        Ok(losses)
    }

    /// The features watched for collapse: clips `f32[B, C, T, H, W]` to tokens `f32[B, N, D]`.
    ///
    /// # Errors
    /// [`ShapeError`] for clips of another shape.
    pub fn monitored(&self, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
        self.model.monitored(clips)
    }

    /// Gradients of all parameters that have one, by full name, copied to the host.
    pub fn gradients(&self, tape: &Gradients) -> NamedTensors {
        self.model.gradients(tape)
    }
}

struct ModelOf<O: Objective> {
    objective: O,
    model: O::Model,
}

impl<O: Objective> Erased for O {
    fn model(&self, device: &Device) -> Result<Box<dyn ErasedModel>, ConfigError> {
        Ok(Box::new(ModelOf { model: Objective::model(self, device)?, objective: self.clone() }))
    }

    fn initial(&self, start: Start) -> NamedTensors {
        Objective::initial(self, start)
    }

    fn decays(&self, name: &str, rank: usize) -> bool {
        Objective::decays(self, name, rank)
    }

    fn rate(&self, name: &str) -> f64 {
        Objective::rate(self, name)
    }
}

impl<O: Objective> ErasedModel for ModelOf<O> {
    fn visit(&self, wanted: &dyn Fn(&str) -> bool, visitor: &mut dyn FnMut(&str, DispatchTensor)) {
        visit_parameters(&self.model, &mut Visit { wanted, visitor });
    }

    fn load(&mut self, tensors: NamedTensors) -> Result<(), LoadError> {
        self.model = load_parameters(self.model.clone(), tensors)?;
        Ok(())
    }

    fn losses(&self, batch: &Batch) -> Result<Losses, ShapeError> {
        self.objective.losses(&self.model, batch)
    }

    fn monitored(&self, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
        self.objective.monitored(&self.model, clips)
    }

    fn gradients(&self, tape: &Gradients) -> NamedTensors {
        gradients(&self.model, tape)
    }
}

struct Visit<'a> {
    wanted: &'a dyn Fn(&str) -> bool,
    visitor: &'a mut dyn FnMut(&str, DispatchTensor),
}

impl ParameterVisitor for Visit<'_> {
    fn parameter<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
        if (self.wanted)(name) {
            (self.visitor)(name, parameter.val().into_dispatch());
        }
    }
}
