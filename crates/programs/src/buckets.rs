//! Lists of masks rounded up to few lengths, so that the shapes of a step repeat: what is planned, measured or captured for a
//! shape serves again. What a list gains changes no result ([`PadTokens`]).

use crate::{CompileError, Passes, TrainOptions, step_sizes, step_with};
use std::collections::{BTreeMap, BTreeSet};
use vjepa_compiler::ir::{Dim, Graph, Sizes, ValueId};
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

/// The inputs of a graph, with lists padded as it asks for, and what of them counts; other inputs with a value for each token of
/// a list are padded like it. Without buckets they are what they were.
pub fn padded(graph: &Graph, inputs: Vec<(&str, HostTensor)>) -> Vec<(String, HostTensor)> {
    let lists: Vec<List<'_>> = graph.inputs.iter().filter_map(|id| List::of(graph, *id)).collect();
    let mut all = Vec::with_capacity(inputs.len() + lists.len());
    for (name, tensor) in inputs {
        let shape = graph.find(name).map_or(&[][..], |id| &graph.ty(id).shape);
        let along = |list: &List<'_>| Some((shape.iter().position(|dim| dim == list.length)?, list.multiple));
        let Some((axis, multiple)) = lists.iter().find_map(along) else {
            all.push((name.to_owned(), tensor));
            continue;
        };
        let length = tensor.shape().get(axis).copied().unwrap_or(0);
        let full = length.next_multiple_of(multiple);
        all.push((name.to_owned(), lengthened(tensor, axis, full)));
        if let Some(List { real, .. }) = lists.iter().find(|list| list.name == name) {
            let counts = (0..full).map(|i| if i < length { 1.0 } else { 0.0 }).collect();
            all.push(((*real).to_owned(), HostTensor::F32 { shape: vec![full], data: counts }));
        }
    }
    all
}

/// A list that may have padding.
struct List<'a> {
    /// The input that says what of it counts.
    real: &'a str,
    name: &'a str,
    multiple: usize,
    /// How long it is.
    length: &'a Dim,
}

impl<'a> List<'a> {
    /// That of an input that says what of it counts.
    fn of(graph: &'a Graph, input: ValueId) -> Option<Self> {
        let real = graph.source_name(input)?;
        let (multiple, name) = real.strip_prefix(REAL)?.split_once('/')?;
        let multiple = multiple.parse::<usize>().ok()?.max(1);
        Some(Self { real, name, multiple, length: graph.ty(input).shape.first()? })
    }
}

/// A tensor with its last values along an axis repeated until it has `full` of them; any would do.
fn lengthened(tensor: HostTensor, axis: usize, full: usize) -> HostTensor {
    fn longer<T: Copy>(data: &[T], shape: &mut [usize], axis: usize, full: usize) -> Vec<T> {
        let inner: usize = shape.iter().skip(axis + 1).product();
        let Some(length) = shape.get_mut(axis) else { return data.to_vec() };
        let (row, more) = (*length * inner, full.saturating_sub(*length));
        *length = full;
        let rows = data.chunks(row.max(1));
        rows.flat_map(|row| {
            let last = &row[row.len().saturating_sub(inner)..];
            row.iter().copied().chain(std::iter::repeat_n(last, more).flatten().copied())
        })
        .collect()
    }
    match tensor {
        HostTensor::I32 { mut shape, data } => {
            let data = longer(&data, &mut shape, axis, full);
            HostTensor::I32 { shape, data }
        }
        HostTensor::F32 { mut shape, data } => {
            let data = longer(&data, &mut shape, axis, full);
            HostTensor::F32 { shape, data }
        }
        pixels @ HostTensor::Pixels(_) => pixels,
    }
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
    use vjepa_compiler::ir::{DType, TensorType};

    #[test]
    fn lists_are_padded_to_what_the_graph_names() {
        let mut graph = Graph::new("g", &["B", "N", "K"]);
        let shape = ["B", "N"].map(Dim::symbol);
        graph.input("mask", TensorType::new(DType::I32, shape)).unwrap();
        graph.input("real/4/mask", TensorType::f32([Dim::symbol("N")])).unwrap();
        // Of as many values as the list, and as many as there happen to be.
        for (name, symbol) in [("weights", "N"), ("share", "K")] {
            graph.input(name, TensorType::f32(["B", symbol].map(Dim::symbol))).unwrap();
        }
        let list = HostTensor::i32([2, 3], vec![5, 1, 2, 7, 8, 9]).unwrap();
        let floats = HostTensor::f32([2, 3], vec![0.5, 0.1, 0.2, 0.7, 0.8, 0.9]).unwrap();
        let inputs = ["weights", "share"].map(|name| (name, floats.clone()));
        let padded = padded(&graph, [vec![("mask", list.clone()), ("other", list.clone())], inputs.to_vec()].concat());
        let wanted = [
            ("mask", HostTensor::i32([2, 4], vec![5, 1, 2, 2, 7, 8, 9, 9]).unwrap()),
            ("real/4/mask", HostTensor::f32([4], vec![1.0, 1.0, 1.0, 0.0]).unwrap()),
            ("other", list),
            ("weights", HostTensor::f32([2, 4], vec![0.5, 0.1, 0.2, 0.2, 0.7, 0.8, 0.9, 0.9]).unwrap()),
            ("share", floats),
        ];
        assert_eq!(padded, wanted.map(|(name, tensor)| (name.to_owned(), tensor)));
    }
}
