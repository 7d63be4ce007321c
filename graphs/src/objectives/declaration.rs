//! What an objective declares: data that whoever traces, trains, saves or reports iterates over.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor};

use crate::error::ShapeError;
use crate::params::NamedTensors;

/// What an objective is made of. Names are those of graphs, checkpoints and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Shape of one clip, `[C, T, H, W]`.
    pub clip: [usize; 4],
    /// Inputs of the forward graph, in order.
    pub inputs: Vec<Input>,
    /// Parameter sets, in the order of the model's fields.
    pub sets: Vec<ParameterSet>,
    /// Scalars reported besides `loss`, by name: outputs of the step and columns of the metrics.
    pub terms: Vec<&'static str>,
    /// What is watched for collapse.
    pub monitor: Monitor,
    /// What of the configuration is compiled into the step, as `(key, value)`. A compiled step with other values is refused.
    pub settings: Vec<(&'static str, String)>,
}

/// One input of the forward graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its name in the graph.
    pub name: String,
    /// What it holds.
    pub source: Source,
}

/// What an input is filled with at every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The batch of clips, `f32[B, C, T, H, W]`.
    Clips(Clips),
    /// Token indices drawn by a mask generator, `i32[B, K]`.
    Indices(Indices),
}

/// What clips are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clips {
    /// Context and targets alike.
    Both,
    /// The context only.
    Context,
    /// The targets only.
    Target,
}

/// Which indices, by the number of the mask generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indices {
    /// Of the context.
    Context(usize),
    /// Of the targets.
    Target(usize),
}

impl Indices {
    /// The symbol for their number K, which varies from step to step: `N_ctx<i>` or `N_pred<i>`.
    pub fn symbol(self) -> String {
        match self {
            Self::Context(generator) => format!("N_ctx{generator}"),
            Self::Target(generator) => format!("N_pred{generator}"),
        }
    }
}

impl Source {
    /// Whether it is a batch of clips.
    pub fn is_clips(self) -> bool {
        matches!(self, Self::Clips(_))
    }
}

/// A named set of parameters: one field of the objective's model.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSet {
    /// The field's name. Parameters are `<name>.<parameter>` in graphs and checkpoints.
    pub name: &'static str,
    /// Names (without the set's) and shapes of all its parameters.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// How its values change.
    pub role: Role,
}

/// How the values of a parameter set change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// By AdamW. Gradients are clipped by the norm over the set, which is reported as `grad_norm.<set>`.
    Trained,
    /// By an exponential moving average of this trained set, of which it starts as a copy.
    Average {
        /// Name of the trained set, whose parameters have the same names and shapes.
        of: &'static str,
    },
    /// Not at all.
    Fixed,
}

/// What tells a collapsed run from one that learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// The trained set whose gradient vanishes when the run collapses.
    pub gradient: &'static str,
    /// The set that computes the watched features; see [`Objective::monitored`](super::Objective::monitored).
    pub features: &'static str,
}

impl Declaration {
    /// The usual inputs: `clip`, then `mask_enc.<i>` and `mask_pred.<i>` of each mask generator.
    pub fn masked_clips(generators: usize) -> Vec<Input> {
        let input = |name: String, source: Source| Input { name, source };
        let masks = (0..generators).flat_map(|i| {
            [
                input(format!("mask_enc.{i}"), Source::Indices(Indices::Context(i))),
                input(format!("mask_pred.{i}"), Source::Indices(Indices::Target(i))),
            ]
        });
        std::iter::once(input("clip".to_owned(), Source::Clips(Clips::Both))).chain(masks).collect()
    }

    /// The inputs with context and targets of different clips: `<name>_context` and `<name>_target` instead of each batch of
    /// clips that is used for both.
    pub fn inputs_apart(&self) -> Vec<Input> {
        let only = |input: &Input, what: &str, clips: Clips| Input {
            name: format!("{}_{what}", input.name),
            source: Source::Clips(clips),
        };
        let apart = |input: &Input| match input.source {
            Source::Clips(Clips::Both) => {
                vec![only(input, "context", Clips::Context), only(input, "target", Clips::Target)]
            }
            Source::Clips(Clips::Context | Clips::Target) | Source::Indices(_) => vec![input.clone()],
        };
        self.inputs.iter().flat_map(apart).collect()
    }

    /// The trained sets.
    pub fn trained(&self) -> impl Iterator<Item = &ParameterSet> {
        self.sets.iter().filter(|set| set.role == Role::Trained)
    }

    /// The moving averages: each with the name of the set it follows.
    pub fn averages(&self) -> impl Iterator<Item = (&ParameterSet, &'static str)> {
        self.sets.iter().filter_map(|set| match set.role {
            Role::Average { of } => Some((set, of)),
            Role::Trained | Role::Fixed => None,
        })
    }

    /// Full names and shapes of all parameters.
    pub fn parameters(&self) -> impl Iterator<Item = (String, &[usize])> {
        self.sets
            .iter()
            .flat_map(|set| set.shapes.iter().map(|(name, shape)| (format!("{}.{name}", set.name), shape.as_slice())))
    }

    /// Adds what moving averages start with, a copy of the set they follow, where `tensors` has nothing of an average.
    pub fn start_averages(&self, tensors: &mut NamedTensors) {
        for (average, of) in self.averages() {
            let (under, source) = (format!("{}.", average.name), format!("{of}."));
            if tensors.keys().any(|name| name.starts_with(&under)) {
                continue;
            }
            let copies: Vec<_> = tensors
                .iter()
                .filter_map(|(name, tensor)| Some((format!("{under}{}", name.strip_prefix(&source)?), tensor.clone())))
                .collect();
            tensors.extend(copies);
        }
    }
}

/// What one mask generator gives for a batch: token indices.
#[derive(Debug, Clone)]
pub struct MaskPair {
    /// Tokens the encoder sees, `[B, Kc]`.
    pub context: Tensor<2, Int>,
    /// Tokens to be predicted, `[B, Kt]`.
    pub target: Tensor<2, Int>,
}

/// The inputs of one step as tensors.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Clips the context is taken from, `[B, C, T, H, W]`.
    pub context: Tensor<5>,
    /// Clips the targets are taken from, `[B, C, T, H, W]`: the same tensor but for diagnostics, which ask how much a wrong
    /// context costs.
    pub target: Tensor<5>,
    /// One pair per mask generator, in their order.
    pub pairs: Vec<MaskPair>,
}

impl Batch {
    /// Makes each input's tensor from its name and source, and puts them together.
    ///
    /// # Errors
    /// Whatever `clips` and `indices` fail with, and a [`ShapeError`] when the inputs lack clips or half a mask pair.
    pub fn gather<E: From<ShapeError>>(
        inputs: &[Input],
        mut clips: impl FnMut(&str, Clips) -> Result<Tensor<5>, E>,
        mut indices: impl FnMut(&str, Indices) -> Result<Tensor<2, Int>, E>,
    ) -> Result<Self, E> {
        let (mut context, mut target) = (None, None);
        let (mut contexts, mut targets) = (BTreeMap::new(), BTreeMap::new());
        for Input { name, source } in inputs {
            match *source {
                Source::Clips(used) => {
                    let tensor = clips(name, used)?;
                    if used != Clips::Target {
                        context = Some(tensor.clone());
                    }
                    if used != Clips::Context {
                        target = Some(tensor);
                    }
                }
                Source::Indices(which) => {
                    let tensor = indices(name, which)?;
                    match which {
                        Indices::Context(generator) => contexts.insert(generator, tensor),
                        Indices::Target(generator) => targets.insert(generator, tensor),
                    };
                }
            }
        }
        let (Some(context), Some(target)) = (context, target) else {
            let expected = "clips for the context and for the targets".to_owned();
            return Err(ShapeError { input: "the objective's inputs", expected, got: Vec::new() }.into());
        };
        let halves: Vec<usize> = contexts.keys().chain(targets.keys()).copied().collect();
        ShapeError::require(contexts.keys().eq(targets.keys()), "the objective's masks", &halves, || {
            "a context and a target of each mask generator".to_owned()
        })?;
        let pairs = contexts.into_values().zip(targets.into_values());
        Ok(Self { context, target, pairs: pairs.map(|(context, target)| MaskPair { context, target }).collect() })
    }
}

/// The scalars an objective computes, each `f32[1]`.
#[derive(Debug, Clone)]
pub struct Losses {
    /// What is minimised.
    pub loss: Tensor<1>,
    /// What is reported besides, by name, in the order of [`Declaration::terms`].
    pub terms: Vec<(&'static str, Tensor<1>)>,
}
