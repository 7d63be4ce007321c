//! Sizes of a step's graph, from the masks of a recipe.

use vjepa_compiler::ir::Sizes;
use vjepa_recipe::config::Config;
use vjepa_recipe::masks::{MaskError, MaskGenerator};

/// Number of steps whose masks are drawn to find their lengths.
const DRAWN: u64 = 32;

/// The batch `B` and the mask lengths `N_ctx<i>`, `N_pred<i>` of the first few steps, as sizes of a step's graph.
///
/// # Errors
/// [`MaskError`].
pub fn mask_sizes(masks: &dyn MaskGenerator, seed: u64, batch: usize, which: MaskSizes) -> Result<Sizes, MaskError> {
    let mut lengths: Vec<[Vec<usize>; 2]> = Vec::new();
    for step in 0..DRAWN {
        let pairs = masks.pairs(seed, step, 0, batch)?;
        lengths.resize_with(pairs.len(), Default::default);
        for ([contexts, targets], pair) in lengths.iter_mut().zip(pairs) {
            contexts.push(pair.context.len);
            targets.push(pair.target.len);
        }
    }
    let one = |all: &[usize]| match which {
        MaskSizes::Mean => (all.iter().sum::<usize>() / all.len().max(1)).max(1),
        MaskSizes::Largest => all.iter().copied().max().unwrap_or(1),
    };
    Ok(step_sizes(batch, lengths.iter().map(|[contexts, targets]| [one(contexts), one(targets)])))
}

/// [`mask_sizes`] of a configuration; `B` counts every clip of a video.
///
/// # Errors
/// [`MaskError`].
pub fn drawn_sizes(config: &Config, which: MaskSizes) -> Result<Sizes, MaskError> {
    let batch = config.data.batch_size;
    let mut sizes = mask_sizes(config.masks()?.as_ref(), config.meta.seed, batch, which)?;
    sizes.insert("B".to_owned(), batch * config.data.num_clips);
    Ok(sizes)
}

/// Sizes of a step's graph: `B`, and `N_ctx<i>` and `N_pred<i>` from each generator's context and target length.
pub fn step_sizes(batch: usize, lengths: impl IntoIterator<Item = [usize; 2]>) -> Sizes {
    let named = lengths
        .into_iter()
        .enumerate()
        .flat_map(|(i, [context, target])| [(format!("N_ctx{i}"), context), (format!("N_pred{i}"), target)]);
    std::iter::once(("B".to_owned(), batch)).chain(named).collect()
}

/// Which of the drawn lengths to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskSizes {
    /// Their mean, for the cost of a step.
    Mean,
    /// The largest of each, for its memory.
    Largest,
}
