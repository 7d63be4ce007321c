//! The check of nodes that make a large tensor out of a few constant numbers: runtimes compute them while they load a
//! model, so a file of some bytes would take any amount of memory.
//!
//! Sizes that are themselves computed are not followed: what a graph computes is not bounded by its file.

use super::check::each_graph;
use super::message::{Graph, Node, Tensor};
use std::collections::BTreeMap;

/// Most elements that such a node may make: more than any tensor of a model for clips has.
const MOST_ELEMENTS: u64 = 1 << 28;
/// Longest list of sizes that is looked at.
const LONGEST: usize = 64;
/// `TensorProto.DataType.INT64`.
const INT64: i32 = 7;

type Constants<'g> = BTreeMap<&'g str, Vec<i64>>;
/// Elements of tensors that are in the file.
type Counts<'g> = BTreeMap<&'g str, u64>;

/// Fails when a node makes more elements than [`MOST_ELEMENTS`] of constant operands.
pub(super) fn constants(graph: &Graph) -> Result<(), String> {
    let (mut constants, mut counts) = (Constants::new(), Counts::new());
    each_graph(graph, &mut |graph| {
        collect(graph, &mut constants);
        count(graph, &mut counts);
        Ok(())
    })?;
    each_graph(graph, &mut |graph| graph.nodes.iter().try_for_each(|node| check(node, &constants, &counts)))
}

fn check(node: &Node, constants: &Constants<'_>, counts: &Counts<'_>) -> Result<(), String> {
    let name = |index: usize| node.inputs.get(index).map(String::as_str);
    let elements = |index| name(index).and_then(|name| counts.get(name)).copied();
    let operand = |index| name(index).and_then(|name| constants.get(name)).map(Vec::as_slice);
    let made = match node.op.as_str() {
        "ConstantOfShape" => operand(0).map(product),
        "Tile" => operand(1).map(|repeats| product(repeats).saturating_mul(elements(0).unwrap_or(1))),
        "Expand" | "OneHot" => operand(1).map(product),
        "Resize" => operand(3).map(product),
        "Pad" => operand(1).map(padding),
        "Range" => range(operand(0), operand(1), operand(2)),
        _ => None,
    };
    match made {
        Some(made) if made > MOST_ELEMENTS => {
            Err(format!("the {} `{}` makes a tensor of {made} values out of constants", node.op, node.name))
        }
        _ => Ok(()),
    }
}

fn product(sizes: &[i64]) -> u64 {
    sizes.iter().map(|size| u64::try_from(*size).unwrap_or(0).max(1)).fold(1, u64::saturating_mul)
}

/// Elements that pads, first before each axis and then behind each, make of one.
fn padding(pads: &[i64]) -> u64 {
    let (before, after) = pads.split_at(pads.len() / 2);
    let axes = before.iter().zip(after).map(|(a, b)| a.unsigned_abs().saturating_add(b.unsigned_abs()));
    axes.fold(1, |product, pads| product.saturating_mul(pads.saturating_add(1)))
}

/// Elements of a range whose start, when it is not known, is 0, and step 1.
fn range(start: Option<&[i64]>, end: Option<&[i64]>, step: Option<&[i64]>) -> Option<u64> {
    let first = |values: Option<&[i64]>| values.and_then(|values| values.first().copied());
    let length = first(end)?.abs_diff(first(start).unwrap_or(0));
    length.checked_div(first(step).unwrap_or(1).unsigned_abs())
}

/// How many elements each tensor of a graph has; of two with one name (in branches) the larger.
fn count<'g>(graph: &'g Graph, counts: &mut Counts<'g>) {
    let mut put = |name: &'g str, tensor: &Tensor| {
        let known = counts.entry(name).or_default();
        *known = (*known).max(product(&tensor.dims));
    };
    graph.initializers.iter().for_each(|tensor| put(&tensor.name, tensor));
    for node in graph.nodes.iter().filter(|node| node.op == "Constant") {
        let tensors = node.attributes.iter().filter_map(|attribute| attribute.tensor.as_ref());
        node.outputs.first().into_iter().for_each(|name| tensors.clone().for_each(|tensor| put(name, tensor)));
    }
}

/// The short lists of 64-bit integers of a graph.
fn collect<'g>(graph: &'g Graph, constants: &mut Constants<'g>) {
    // Branches may use a name twice: the larger value counts.
    let mut put = |name: &'g str, values: Vec<i64>| match constants.get(name) {
        Some(known) if product(known) >= product(&values) => {}
        _ => drop(constants.insert(name, values)),
    };
    for tensor in &graph.initializers {
        list(tensor).into_iter().for_each(|values| put(&tensor.name, values));
    }
    for node in graph.nodes.iter().filter(|node| node.op == "Constant") {
        let Some(name) = node.outputs.first() else { continue };
        for attribute in &node.attributes {
            let values = match attribute.name.as_str() {
                "value" => attribute.tensor.as_ref().and_then(list),
                "value_int" => Some(vec![attribute.int]),
                "value_ints" => Some(attribute.ints.iter().copied().take(LONGEST).collect()),
                _ => None,
            };
            values.into_iter().for_each(|values| put(name, values));
        }
    }
}

fn list(tensor: &Tensor) -> Option<Vec<i64>> {
    if tensor.data_type != INT64 {
        return None;
    }
    match &tensor.raw_data {
        Some(raw) if raw.len() <= 8 * LONGEST => {
            let (words, _) = raw.as_chunks::<8>();
            Some(words.iter().map(|word| i64::from_le_bytes(*word)).collect())
        }
        Some(_) => None,
        None => (tensor.int64_data.len() <= LONGEST).then(|| tensor.int64_data.clone()),
    }
}
