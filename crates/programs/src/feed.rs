//! Clips and masks of a batch as inputs of an objective's graph.

use vjepa_graphs::objectives::{Clips, Indices, Input, Source};
use vjepa_recipe::masks::{IndexBatch, MaskPair};
use vjepa_runtime::plan::HostTensor;

/// Fills the inputs that an objective declares: indices from `pairs`, one pair per mask generator, clips by `clips`. Indices
/// of a generator that `pairs` lacks are left out, and running the graph then names the missing input.
pub fn feed<'a>(
    inputs: &'a [Input],
    pairs: &[MaskPair],
    mut clips: impl FnMut(Clips) -> HostTensor,
) -> Vec<(&'a str, HostTensor)> {
    let filled = inputs.iter().filter_map(|input| {
        let tensor = match input.source {
            Source::Clips(used) => clips(used),
            Source::Indices(which) => {
                let IndexBatch { batch, len, indices } = drawn(pairs, which)?;
                HostTensor::I32 { shape: vec![*batch, *len], data: indices.clone() }
            }
        };
        Some((input.name.as_str(), tensor))
    });
    filled.collect()
}

/// The indices of a mask generator in a batch's pairs; none where it has no pair.
pub fn drawn(pairs: &[MaskPair], which: Indices) -> Option<&IndexBatch> {
    match which {
        Indices::Context(generator) => pairs.get(generator).map(|pair| &pair.context),
        Indices::Target(generator) => pairs.get(generator).map(|pair| &pair.target),
    }
}
