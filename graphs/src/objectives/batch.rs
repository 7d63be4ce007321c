//! What an objective is computed on: the tensors of one step, and what it gives back.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor};

use super::declaration::{ClipUse, Gate, Indices, Input, MaskPair, Source};
use crate::error::ShapeError;

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
    /// How much the prediction of context tokens counts, `[1, 1]`, where an objective asks for it.
    pub context_share: Option<Tensor<2>>,
    /// What clips are to be classified as, `[B, classes]`, where an objective asks for it.
    pub targets: Option<Tensor<2>>,
    /// Factors on values that may be dropped, by [place](Gate::place).
    pub gates: BTreeMap<usize, Tensor<3>>,
    /// Further streams.
    pub others: Vec<Batch>,
}

/// Who makes the tensors of [`Batch::gather`], from an input.
pub trait Inputs {
    /// Why one cannot be made.
    type Error: From<ShapeError>;

    /// Clips `[B, C, T, H, W]`.
    ///
    /// # Errors
    /// For an input that cannot be made.
    fn clips(&mut self, input: &Input, used: ClipUse) -> Result<Tensor<5>, Self::Error>;

    /// Token indices `[B, K]`.
    ///
    /// # Errors
    /// For an input that cannot be made.
    fn indices(&mut self, input: &Input, which: Indices) -> Result<Tensor<2, Int>, Self::Error>;

    /// Numbers: the weights of the context tokens of a mask generator, `[B, K]`, or, without one, the context's share, `[1, 1]`.
    ///
    /// # Errors
    /// For an input that cannot be made.
    fn numbers(&mut self, input: &Input, weights_of: Option<usize>) -> Result<Tensor<2>, Self::Error>;

    /// What clips are to be classified as, `[B, classes]`. By default there are none.
    ///
    /// # Errors
    /// For an input that cannot be made.
    fn targets(&mut self, input: &Input, classes: usize) -> Result<Tensor<2>, Self::Error> {
        let _ = classes;
        Err(not_made(input).into())
    }

    /// A gate, `[B, 1, width]` or `[B, 1, 1]`. By default there are none.
    ///
    /// # Errors
    /// For an input that cannot be made.
    fn gate(&mut self, input: &Input, gate: Gate) -> Result<Tensor<3>, Self::Error> {
        let _ = gate;
        Err(not_made(input).into())
    }
}

fn not_made(input: &Input) -> ShapeError {
    let expected = format!("inputs other than `{}`", input.name);
    ShapeError { input: "the objective's inputs", expected, got: Vec::new() }
}

/// Two functions of an input's name: what makes clips and what makes indices. There are no numbers.
impl<E, C, I> Inputs for (C, I)
where
    E: From<ShapeError>,
    C: FnMut(&str, ClipUse) -> Result<Tensor<5>, E>,
    I: FnMut(&str, Indices) -> Result<Tensor<2, Int>, E>,
{
    type Error = E;

    fn clips(&mut self, input: &Input, used: ClipUse) -> Result<Tensor<5>, E> {
        (self.0)(&input.name, used)
    }

    fn indices(&mut self, input: &Input, which: Indices) -> Result<Tensor<2, Int>, E> {
        (self.1)(&input.name, which)
    }

    fn numbers(&mut self, _: &Input, _: Option<usize>) -> Result<Tensor<2>, E> {
        let expected = "clips and indices only".to_owned();
        Err(ShapeError { input: "the objective's inputs", expected, got: Vec::new() }.into())
    }
}

/// What is known of a stream while inputs are gathered.
#[derive(Default)]
struct Gathered {
    context: Option<Tensor<5>>,
    target: Option<Tensor<5>>,
    contexts: BTreeMap<usize, Tensor<2, Int>>,
    targets: BTreeMap<usize, Tensor<2, Int>>,
    weights: BTreeMap<usize, Tensor<2>>,
}

impl Batch {
    /// Makes each input's tensor from its name and source, and puts them together.
    ///
    /// # Errors
    /// Whatever `from` fails with, and a [`ShapeError`] when the inputs lack clips or half a mask pair.
    pub fn gather<I: Inputs>(inputs: &[Input], from: &mut I) -> Result<Self, I::Error> {
        let mut streams: BTreeMap<usize, Gathered> = BTreeMap::new();
        let (mut context_share, mut targets, mut gates) = (None, None, BTreeMap::new());
        for input in inputs {
            let stream = streams.entry(input.stream).or_default();
            match input.source {
                Source::Clips(used) => {
                    let tensor = from.clips(input, used)?;
                    if used != ClipUse::Target {
                        stream.context = Some(tensor.clone());
                    }
                    if used != ClipUse::Context {
                        stream.target = Some(tensor);
                    }
                }
                Source::Indices(which) => {
                    let tensor = from.indices(input, which)?;
                    match which {
                        Indices::Context(generator) => stream.contexts.insert(generator, tensor),
                        Indices::Target(generator) => stream.targets.insert(generator, tensor),
                    };
                }
                Source::ContextWeights { generator, .. } => {
                    stream.weights.insert(generator, from.numbers(input, Some(generator))?);
                }
                Source::ContextShare => context_share = Some(from.numbers(input, None)?),
                Source::Targets { classes } => targets = Some(from.targets(input, classes)?),
                Source::Gate(gate) => {
                    gates.insert(gate.place, from.gate(input, gate)?);
                }
            }
        }
        let mut batches = streams.into_values().map(Gathered::batch).collect::<Result<Vec<_>, _>>()?.into_iter();
        let Some(first) = batches.next() else { return Err(no_clips().into()) };
        Ok(Self { context_share, targets, gates, others: batches.collect(), ..first })
    }

    /// Clips alone, for context and targets alike.
    pub fn of_clips(clips: Tensor<5>) -> Self {
        Self {
            context: clips.clone(),
            target: clips,
            pairs: Vec::new(),
            context_share: None,
            targets: None,
            gates: BTreeMap::new(),
            others: Vec::new(),
        }
    }
}

fn no_clips() -> ShapeError {
    let expected = "clips for the context and for the targets".to_owned();
    ShapeError { input: "the objective's inputs", expected, got: Vec::new() }
}

impl Gathered {
    fn batch(self) -> Result<Batch, ShapeError> {
        let Self { context: Some(context), target: Some(target), contexts, targets, mut weights } = self else {
            return Err(no_clips());
        };
        let halves: Vec<usize> = contexts.keys().chain(targets.keys()).copied().collect();
        ShapeError::require(contexts.keys().eq(targets.keys()), "the objective's masks", &halves, || {
            "a context and a target of each mask generator".to_owned()
        })?;
        let pairs = contexts.into_iter().zip(targets.into_values());
        let pairs = pairs.map(|((generator, context), target)| MaskPair {
            context,
            target,
            weights: weights.remove(&generator),
        });
        Ok(Batch { target, pairs: pairs.collect(), ..Batch::of_clips(context) })
    }
}

/// The scalars an objective computes, each `f32[1]`.
#[derive(Debug, Clone)]
pub struct Losses {
    /// What is minimised.
    pub loss: Tensor<1>,
    /// What is reported besides, by name, in the order of [`Declaration::terms`](super::Declaration::terms).
    pub terms: Vec<(&'static str, Tensor<1>)>,
}
