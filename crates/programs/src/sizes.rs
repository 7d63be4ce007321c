//! Sizes of a step's graph, from the masks of a recipe.

use vjepa_compiler::ir::Sizes;
use vjepa_recipe::config::Config;
use vjepa_recipe::masks::{MaskError, Masks};

/// Number of steps whose masks are drawn to find their lengths.
const DRAWN: u64 = 32;

/// The configured batch `B` and the lengths `N_ctx<i>`, `N_pred<i>` of a few steps' masks, as sizes of a step's graph.
///
/// # Errors
/// [`MaskError`].
pub fn mask_sizes(masks: &Masks, config: &Config, which: MaskSizes) -> Result<Sizes, MaskError> {
    let batch = config.data.batch_size;
    let mut lengths = vec![[Vec::new(), Vec::new()]; config.mask.len()];
    for step in 0..DRAWN {
        for ([contexts, targets], pair) in lengths.iter_mut().zip(masks.at(config.meta.seed, step, batch)?) {
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
