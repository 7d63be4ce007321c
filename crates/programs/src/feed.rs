//! Clips and masks of a batch as inputs of an objective's graph.

use crate::drops::DROP_KEY;
use vjepa_compiler::ops::DropKey;
use vjepa_graphs::objectives::{ClipUse, Indices, Input, Source, context_weights};
use vjepa_recipe::masks::{IndexBatch, MaskPair};
use vjepa_runtime::plan::HostTensor;

/// What a group's inputs are filled with, besides its clips.
#[derive(Clone, Copy, Debug)]
pub struct Fed<'a> {
    /// One pair per mask generator.
    pub pairs: &'a [MaskPair],
    /// How much the prediction of context tokens counts.
    pub context_share: f64,
    /// What clips are to be classified as, `[B, classes]` row-major; empty where nobody asks.
    pub targets: &'a [f32],
    /// What decides which values are dropped.
    pub drops: DropKey,
}

impl<'a> Fed<'a> {
    /// Masks and what follows from them.
    pub fn masks(pairs: &'a [MaskPair], context_share: f64) -> Self {
        Self { pairs, context_share, targets: &[], drops: DropKey::new(0, 0) }
    }
}

/// Fills the inputs that an objective declares: indices from the mask pairs, and what follows from them; `context_share` and
/// targets where they are asked for; clips by `clips`; for an objective with gates the key that draws them. Indices of a
/// generator that has no pair are left out, and running the graph then names the missing input.
pub fn feed<'a>(
    inputs: &'a [Input],
    Fed { pairs, context_share, targets, drops }: Fed<'_>,
    mut clips: impl FnMut(ClipUse) -> HostTensor,
) -> Vec<(&'a str, HostTensor)> {
    let filled = inputs.iter().filter_map(|input| {
        let tensor = match input.source {
            Source::Clips(used) => clips(used),
            Source::Indices(which) => {
                let IndexBatch { batch, len, indices } = drawn(pairs, which)?;
                HostTensor::I32 { shape: vec![*batch, *len], data: indices.clone() }
            }
            Source::ContextWeights { generator, grid } => weights(pairs.get(generator)?, grid),
            Source::ContextShare => HostTensor::F32 { shape: vec![1, 1], data: vec![context_share as f32] },
            Source::Targets { classes } => {
                HostTensor::f32(vec![targets.len() / classes.max(1), classes], targets.to_vec())?
            }
            Source::Gate(_) => return None,
        };
        Some((input.name.as_str(), tensor))
    });
    let gated = inputs.iter().any(|input| matches!(input.source, Source::Gate(_)));
    let key =
        gated.then(|| (DROP_KEY, HostTensor::I32 { shape: vec![DropKey::LEN], data: drops.to_tensor().to_vec() }));
    filled.chain(key).collect()
}

/// How much each context token of a batch counts.
pub fn weights(MaskPair { context, target }: &MaskPair, grid: [usize; 2]) -> HostTensor {
    let rows = context.indices.chunks(context.len.max(1)).zip(target.indices.chunks(target.len.max(1)));
    let data = rows.flat_map(|(context, target)| context_weights([context, target], grid)).collect();
    HostTensor::F32 { shape: vec![context.batch, context.len], data }
}

/// The indices of a mask generator in a batch's pairs; none where it has no pair.
pub fn drawn(pairs: &[MaskPair], which: Indices) -> Option<&IndexBatch> {
    match which {
        Indices::Context(generator) => pairs.get(generator).map(|pair| &pair.context),
        Indices::Target(generator) => pairs.get(generator).map(|pair| &pair.target),
    }
}
