//! What an objective declares: data that whoever traces, trains, saves or reports iterates over.

use burn::tensor::{Int, Tensor};

use vjepa_recipe::schedules::ContextWeight;

use crate::params::NamedTensors;

/// What an objective is made of. Names are those of graphs, checkpoints and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Shape of one clip, `[C, T, H, W]`, of the first stream.
    pub clip: [usize; 4],
    /// The same of further streams of a step: clips of other lengths, or images beside videos. Most objectives have none.
    pub others: Vec<[usize; 4]>,
    /// Inputs of the forward graph, in order.
    pub inputs: Vec<Input>,
    /// Parameter sets, in the order of the model's fields.
    pub sets: Vec<ParameterSet>,
    /// Scalars reported besides `loss`, by name: outputs of the step and columns of the metrics.
    pub terms: Vec<&'static str>,
    /// How much the prediction of context tokens counts, for the input [`Source::ContextShare`].
    pub context_share: Option<ContextWeight>,
    /// What is watched for collapse.
    pub monitor: Monitor,
    /// What of the configuration is compiled into the step, as `(key, value)`. A compiled step with other values is refused.
    pub settings: Vec<(&'static str, String)>,
}

/// One input of the forward graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name in the graph.
    pub name: String,
    /// What it holds.
    pub source: Source,
    /// The stream of clips it belongs to, from 0.
    pub stream: usize,
}

/// What an input is filled with at every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// The batch of clips, `f32[B, C, T, H, W]`.
    Clips(ClipUse),
    /// Token indices drawn by a mask generator, `i32[B, K]`.
    Indices(Indices),
    /// How much each context token of a mask generator counts, `f32[B, K]`; see [`context_weights`].
    ContextWeights {
        /// The mask generator.
        generator: usize,
        /// Height and width of the token grid.
        grid: [usize; 2],
    },
    /// How much the prediction of context tokens counts at this step, `f32[1, 1]`.
    ContextShare,
    /// What each clip is to be classified as, `f32[B, classes]`: shares that sum to 1.
    Targets {
        /// Classes.
        classes: usize,
    },
    /// What a value is multiplied by that may be dropped. Compiled steps draw these themselves, by seed, step and place.
    Gate(Gate),
}

/// A factor on values that may be dropped: 0, or `1 / (1 - rate)` where they are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Tells it from the others of the objective, in the generator too.
    pub place: usize,
    /// Probability of dropping.
    pub rate: f64,
    /// One factor for each of so many values, `f32[B, 1, width]`; none: one for a whole sample, `f32[B, 1, 1]`.
    pub width: Option<usize>,
}

impl Gate {
    /// The input's name.
    pub fn name(&self) -> String {
        format!("gate.{}", self.place)
    }

    /// Leading axes of the gated values that draw, the remaining ones sharing a draw.
    pub fn axes(&self) -> usize {
        if self.width.is_some() { 3 } else { 1 }
    }
}

/// What clips are used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClipUse {
    /// Context and targets alike.
    Both,
    /// The context only.
    Context,
    /// The targets only.
    Target,
}

/// Which indices, by the number of the mask generator, counted through all streams.
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
        let input = |name: String, source: Source| Input { name, source, stream: 0 };
        let masks = (0..generators).flat_map(|i| {
            [
                input(format!("mask_enc.{i}"), Source::Indices(Indices::Context(i))),
                input(format!("mask_pred.{i}"), Source::Indices(Indices::Target(i))),
            ]
        });
        std::iter::once(input("clip".to_owned(), Source::Clips(ClipUse::Both))).chain(masks).collect()
    }

    /// The inputs with context and targets of different clips: `<name>_context` and `<name>_target` instead of each batch of
    /// clips that is used for both.
    pub fn inputs_apart(&self) -> Vec<Input> {
        let only = |input: &Input, what: &str, clips: ClipUse| Input {
            name: format!("{}_{what}", input.name),
            source: Source::Clips(clips),
            stream: input.stream,
        };
        let apart = |input: &Input| match input.source {
            Source::Clips(ClipUse::Both) => {
                vec![only(input, "context", ClipUse::Context), only(input, "target", ClipUse::Target)]
            }
            Source::Clips(ClipUse::Context | ClipUse::Target)
            | Source::Indices(_)
            | Source::ContextWeights { .. }
            | Source::ContextShare
            | Source::Targets { .. }
            | Source::Gate(_) => vec![input.clone()],
        };
        self.inputs.iter().flat_map(apart).collect()
    }

    /// Shape of one clip of a stream, `[C, T, H, W]`.
    pub fn clip_of(&self, stream: usize) -> [usize; 4] {
        match stream.checked_sub(1) {
            Some(other) => self.others.get(other).copied().unwrap_or(self.clip),
            None => self.clip,
        }
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
    /// How much each context token counts, `[B, Kc]`, where an objective asks for it.
    pub weights: Option<Tensor<2>>,
}

/// The symbol for the number of clips of a stream: `B`, `B1`, ...
pub fn batch_symbol(stream: usize) -> String {
    if stream == 0 { "B".to_owned() } else { format!("B{stream}") }
}

/// How much each context token counts in V-JEPA 2.1's dense loss: the inverse of the root of its distance to the nearest
/// token that is predicted, in patches over time, height and width, at least 1. `rows` are the token indices of one sample,
/// of its context and of its targets; `[height, width]` is the grid's.
pub fn context_weights([context, target]: [&[i32]; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    let place = |id: i32| {
        let (h, w) = (height.max(1) as i32, width.max(1) as i32);
        [id / (h * w), id / w % h, id % w]
    };
    let targets: Vec<[i32; 3]> = target.iter().map(|id| place(*id)).collect();
    let weight = |id: &i32| {
        let at = place(*id);
        let squared = |to: &[i32; 3]| (0..3).map(|axis| (at[axis] - to[axis]).pow(2)).sum::<i32>();
        let nearest = targets.iter().map(squared).min().unwrap_or(1).max(1);
        1.0 / (nearest as f32).sqrt().sqrt()
    };
    context.iter().map(weight).collect()
}
