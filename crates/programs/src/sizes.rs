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

/// [`mask_sizes`] of a configuration, padded as `optimization.mask_buckets` says; `B` counts every clip of a video. Fine-tuning
/// has no masks.
///
/// # Errors
/// [`MaskError`].
pub fn drawn_sizes(config: &Config, which: MaskSizes) -> Result<Sizes, MaskError> {
    let batch = config.data.batch_size;
    if let Some(finetune) = &config.finetune {
        // No masks, and every clip as often as it is augmented.
        return Ok(step_sizes(batch * finetune.num_sample as usize, []));
    }
    let sizes = mask_sizes(config.masks()?.as_ref(), config.meta.seed, batch, which)?;
    let mut sizes = in_buckets(sizes, config.optimization.mask_buckets);
    sizes.insert("B".to_owned(), batch * config.data.num_clips);
    Ok(sizes)
}

/// Sizes of a step whose mask lists are padded to a multiple of so many tokens.
pub fn in_buckets(mut sizes: Sizes, multiple: Option<usize>) -> Sizes {
    if let Some(multiple) = multiple.filter(|multiple| *multiple > 0) {
        let lists = sizes.iter_mut().filter(|(symbol, _)| symbol.starts_with("N_"));
        lists.for_each(|(_, length)| *length = length.next_multiple_of(multiple));
    }
    sizes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_long_as_they_are_computed_with() {
        let config = |more: &str| {
            let text = format!(
                "data: {{crop_size: 64, num_frames: 8, batch_size: 4}}\nmodel: {{model_name: vit_tiny}}\n{more}"
            );
            Config::from_yaml(&text, "the test's", &[]).unwrap()
        };
        let (drawn, buckets) = (config(""), config("optimization: {mask_buckets: 16}\n"));
        for which in [MaskSizes::Mean, MaskSizes::Largest] {
            let (drawn, padded) = (drawn_sizes(&drawn, which).unwrap(), drawn_sizes(&buckets, which).unwrap());
            assert_eq!((drawn["B"], padded["B"]), (4, 4));
            for (symbol, length) in drawn.iter().filter(|(symbol, _)| *symbol != "B") {
                assert_eq!(padded[symbol], length.next_multiple_of(16), "{symbol}");
            }
        }
    }
}
