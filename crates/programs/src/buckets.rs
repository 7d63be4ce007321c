//! Lists of masks rounded up to few lengths, so that the shapes of a step repeat: what is planned, measured or captured for a
//! shape serves again. What a list gains changes no result ([`PadTokens`]).

use crate::{CompileError, Passes, TrainOptions, step_sizes, step_with};
use std::collections::{BTreeMap, BTreeSet};
use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::passes::{DeadCode, PadTokens, Pass, PassError, REAL};
use vjepa_compiler::plan::OpTotals;
use vjepa_graphs::AnyObjective;
use vjepa_graphs::objectives::{Declaration, Source};
use vjepa_recipe::masks::{MaskError, MaskGenerator};
use vjepa_runtime::plan::HostTensor;

/// A forward graph whose lists of masks may have padding up to a multiple of `multiple`; the inputs that say what of them counts
/// carry it in their names.
///
/// # Errors
/// [`CompileError::Pass`] for an objective that does something else with its lists than attention, means and sums.
pub(super) fn with_buckets(graph: &Graph, declaration: &Declaration, multiple: usize) -> Result<Graph, CompileError> {
    let lists = declaration.inputs.iter().filter(|input| matches!(input.source, Source::Indices(_)));
    let indices: Vec<String> =
        lists.map(|input| input.name.clone()).filter(|name| graph.find(name).is_some()).collect();
    if indices.is_empty() {
        return Ok(graph.clone());
    }
    let failed = |pass: &dyn Pass| {
        let pass = pass.name();
        move |source| CompileError::from(PassError::Failed { pass, source })
    };
    let alive = DeadCode.run(graph).map_err(failed(&DeadCode))?;
    let graph = alive.map_or_else(|| graph.clone(), |changed| changed.graph);
    let pad = PadTokens { indices, multiple: multiple.max(1) };
    Ok(pad.run(&graph).map_err(failed(&pad))?.map_or(graph, |changed| changed.graph))
}

/// The inputs of a graph, with lists padded as it asks for, and what of them counts. Without buckets they are what they were.
pub fn padded(graph: &Graph, inputs: Vec<(&str, HostTensor)>) -> Vec<(String, HostTensor)> {
    let buckets: BTreeMap<&str, (&str, usize)> = graph
        .inputs
        .iter()
        .filter_map(|id| {
            let name = graph.source_name(*id)?;
            let (multiple, list) = name.strip_prefix(REAL)?.split_once('/')?;
            Some((list, (name, multiple.parse().ok()?)))
        })
        .collect();
    let mut all = Vec::with_capacity(inputs.len() + buckets.len());
    for (name, tensor) in inputs {
        match (buckets.get(name), tensor) {
            (Some((real, multiple)), HostTensor::I32 { shape, data }) if shape.len() == 2 => {
                let (rows, length) = (shape[0], shape[1]);
                let full = length.next_multiple_of((*multiple).max(1));
                // Any token would do.
                let list = data.chunks(length.max(1)).flat_map(|row| {
                    let more = std::iter::repeat_n(row.last().copied().unwrap_or(0), full - length);
                    row.iter().copied().chain(more)
                });
                let counts = (0..full).map(|i| if i < length { 1.0 } else { 0.0 }).collect();
                all.push((name.to_owned(), HostTensor::I32 { shape: vec![rows, full], data: list.collect() }));
                all.push(((*real).to_owned(), HostTensor::F32 { shape: vec![full], data: counts }));
            }
            (_, tensor) => all.push((name.to_owned(), tensor)),
        }
    }
    all
}

/// How often shapes repeat over a number of steps, and what padding costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shapes {
    /// Steps.
    pub steps: u64,
    /// Different shapes as the masks are drawn.
    pub drawn: usize,
    /// Different shapes with padding.
    pub padded: usize,
    /// Arithmetic of a mean step, in FLOPs, as drawn.
    pub flops: f64,
    /// With padding, and with the channels that hide it.
    pub padded_flops: f64,
}

/// Draws the masks of `steps` steps and counts their shapes; `batch` clips each.
///
/// # Errors
/// [`CompileError`]; a mask that cannot be drawn is [`CompileError::Masks`].
pub fn mask_shapes(
    masks: &dyn MaskGenerator,
    (seed, batch, steps): (u64, usize, u64),
    objective: &AnyObjective,
    (options, multiple): (TrainOptions, usize),
) -> Result<Shapes, CompileError> {
    let plain = step_with(objective, TrainOptions { mask_buckets: None, ..options }, &mut Passes::default())?;
    let whole = step_with(objective, TrainOptions { mask_buckets: Some(multiple), ..options }, &mut Passes::default())?;
    let mut drawn: BTreeMap<Vec<[usize; 2]>, u64> = BTreeMap::new();
    for step in 0..steps {
        let pairs =
            masks.pairs(seed, step, 0, batch).map_err(|error: MaskError| CompileError::Masks(error.to_string()))?;
        *drawn.entry(pairs.iter().map(|pair| [pair.context.len, pair.target.len]).collect()).or_default() += 1;
    }
    let full = |lengths: &Vec<[usize; 2]>| -> Vec<[usize; 2]> {
        lengths.iter().map(|pair| pair.map(|length| length.next_multiple_of(multiple.max(1)))).collect()
    };
    let different: BTreeSet<Vec<[usize; 2]>> = drawn.keys().map(full).collect();
    let flops = |graph: &Graph, lengths: Vec<[usize; 2]>| -> Result<f64, CompileError> {
        let sizes: Sizes = step_sizes(batch, lengths);
        Ok(OpTotals::of(graph, &sizes)?.flops as f64)
    };
    let mut costs = [0.0; 2];
    let mut known: BTreeMap<Vec<[usize; 2]>, f64> = BTreeMap::new();
    for (lengths, count) in &drawn {
        let rounded = full(lengths);
        let padded = match known.get(&rounded) {
            Some(padded) => *padded,
            None => *known.entry(rounded.clone()).or_insert(flops(&whole, rounded)?),
        };
        costs[0] += *count as f64 * flops(&plain, lengths.clone())?;
        costs[1] += *count as f64 * padded;
    }
    let [flops, padded_flops] = costs.map(|cost| cost / steps.max(1) as f64);
    Ok(Shapes { steps, drawn: drawn.len(), padded: different.len(), flops, padded_flops })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_compiler::ir::{DType, Dim, TensorType};

    #[test]
    fn lists_are_padded_to_what_the_graph_names() {
        let mut graph = Graph::new("g", &["B", "N"]);
        let shape = ["B", "N"].map(Dim::symbol);
        graph.input("mask", TensorType::new(DType::I32, shape)).unwrap();
        graph.input("real/4/mask", TensorType::f32([Dim::symbol("N")])).unwrap();
        let list = HostTensor::i32([2, 3], vec![5, 1, 2, 7, 8, 9]).unwrap();
        let padded = padded(&graph, vec![("mask", list.clone()), ("other", list.clone())]);
        let wanted = [
            ("mask", HostTensor::i32([2, 4], vec![5, 1, 2, 2, 7, 8, 9, 9]).unwrap()),
            ("real/4/mask", HostTensor::f32([4], vec![1.0, 1.0, 1.0, 0.0]).unwrap()),
            ("other", list),
        ];
        assert_eq!(padded, wanted.map(|(name, tensor)| (name.to_owned(), tensor)));
    }
}
