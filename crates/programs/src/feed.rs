//! Clips and masks of a batch as inputs of an objective's graph.

use vjepa_graphs::objectives::{Clips, Indices, Input, Source, context_weights};
use vjepa_recipe::masks::{IndexBatch, MaskPair};
use vjepa_runtime::plan::HostTensor;

/// Fills the inputs that an objective declares: indices from `pairs`, one pair per mask generator, and what follows from
/// them; `context_share` where it is asked for; clips by `clips`. Indices of a generator that `pairs` lacks are left out, and
/// running the graph then names the missing input.
pub fn feed<'a>(
    inputs: &'a [Input],
    pairs: &[MaskPair],
    context_share: f64,
    mut clips: impl FnMut(Clips) -> HostTensor,
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
        };
        Some((input.name.as_str(), tensor))
    });
    filled.collect()
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
