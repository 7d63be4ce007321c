//! The checks: tensors are no larger than their bytes, external data is a regular file inside the model's folder.

use super::message::{Attribute, EXTERNAL, Graph, SparseTensor, Tensor};
use crate::files::Tree;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Largest magnitude of an integer attribute: runtimes count up to an axis and allocate a padding.
fn limit(attribute: &str) -> u64 {
    match attribute {
        "axis" | "axes" | "perm" | "batch_dims" | "batch_axis" | "time_axis" => 64,
        "kernel_shape" | "strides" | "pads" | "dilations" | "output_shape" | "output_padding" | "group"
        | "blocksize" => 1 << 20,
        _ => 1 << 31,
    }
}

/// Fails when a tensor declares more elements than it has bytes for, or an attribute an absurd size.
pub(super) fn tensors(graph: &Graph, file_size: u64) -> Result<(), String> {
    each_attribute(graph, &mut |node, attribute| {
        if attribute.name == "perm" {
            let mut axes = attribute.ints.clone();
            axes.sort_unstable();
            if !axes.into_iter().eq(0..attribute.ints.len() as i64) {
                return Err(format!("the `perm` of `{node}` is {:?}", attribute.ints));
            }
        }
        // `Slice` and its like use the ends of the range for "to the end".
        let sentinel = |value: i64| matches!(value, i64::MIN | i64::MAX) || value == -i64::MAX;
        let limit = limit(&attribute.name);
        let mut values = attribute.ints.iter().chain([&attribute.int]);
        match values.find(|value| value.unsigned_abs() > limit && (limit < 1 << 31 || !sentinel(**value))) {
            Some(value) => Err(format!("the attribute `{}` of `{node}` is {value}", attribute.name)),
            None => Ok(()),
        }
    })?;
    each_sparse(graph, &mut |sparse| match elements(&sparse.dims) {
        // Runtimes make them dense.
        Some(elements) if elements / 8 <= file_size => Ok(()),
        _ => Err(format!("a sparse tensor {:?} is larger than the file", sparse.dims)),
    })?;
    each_tensor(graph, &mut |tensor| {
        let elements = elements(&tensor.dims);
        let elements = elements.ok_or_else(|| format!("`{}` has the shape {:?}", tensor.name, tensor.dims))?;
        let empty = tensor.dims.contains(&0);
        match (&tensor.raw_data, element_bytes(tensor.data_type)) {
            (Some(raw), Some(size)) if !raw.is_empty() || tensor.data_location != EXTERNAL => {
                let wanted = if empty { 0 } else { elements.saturating_mul(size) };
                if wanted != raw.len() as u64 {
                    return Err(format!("`{}` {:?} has {} bytes of data", tensor.name, tensor.dims, raw.len()));
                }
            }
            // Values in typed fields take at least a byte (or a bit for packed types) each.
            _ if tensor.data_location != EXTERNAL && elements / 8 > file_size => {
                return Err(format!("`{}` {:?} is larger than the file", tensor.name, tensor.dims));
            }
            _ => {}
        }
        Ok(())
    })
}

/// Product of the dimensions; none where one is negative or it is no number. An empty axis does not excuse an absurd one
/// beside it.
fn elements(dims: &[i64]) -> Option<u64> {
    dims.iter().try_fold(1u64, |product, dim| u64::try_from(*dim).ok()?.max(1).checked_mul(product))
}

/// Fails unless all external data lies in regular files of the model's [`Tree`] and reaches no further than their end.
pub(super) fn external_data(graph: &Graph, model: &Path) -> Result<Vec<String>, String> {
    let tree = LazyCell::new(|| Tree::of(model));
    let mut files = BTreeMap::new();
    each_tensor(graph, &mut |tensor| {
        let get = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        if tensor.data_location != EXTERNAL && tensor.external_data.is_empty() {
            return Ok(());
        }
        let name = &tensor.name;
        let mut keys = BTreeSet::new();
        // Runtimes differ in which of two they take.
        if let Some(twice) = tensor.external_data.iter().find(|entry| !keys.insert(entry.key.as_str())) {
            return Err(format!("`{name}` names its {} twice", twice.key));
        }
        let location = get("location").ok_or_else(|| format!("`{name}` names no file"))?;
        let whole = match files.get(location.as_str()) {
            Some(length) => *length,
            None => {
                let found = tree.as_ref().map_err(|error| format!("cannot be read ({error})"));
                let found = found.and_then(|tree| tree.file(location));
                let (_, about) = found.map_err(|why| format!("`{name}` is in `{location}`, which {why}"))?;
                files.insert(location.as_str(), about.len());
                about.len()
            }
        };
        let number = |key: &str| match get(key) {
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("`{name}` has the {key} `{text}`")),
            None => Ok(None),
        };
        let size = tensor.dims.iter().try_fold(element_bytes(tensor.data_type).unwrap_or(1), |product, dim| {
            u64::try_from(*dim).ok().and_then(|dim| product.checked_mul(dim))
        });
        let size = size.ok_or_else(|| format!("`{name}` has the shape {:?}", tensor.dims))?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let known = element_bytes(tensor.data_type).is_some();
        if let Some(length) = length.filter(|length| known && *length != size) {
            return Err(format!("`{name}` {:?} has {length} bytes of data", tensor.dims));
        }
        match offset.checked_add(length.unwrap_or(size)) {
            Some(end) if end <= whole => Ok(()),
            _ => Err(format!("`{name}` reaches past the end of `{location}`; copy or export it again")),
        }
    })?;
    Ok(files.into_keys().map(str::to_owned).collect())
}

/// Bytes of an element of this `TensorProto.DataType`; `None` for strings, packed and unknown types.
fn element_bytes(data_type: i32) -> Option<u64> {
    match data_type {
        2 | 3 | 9 | 17..=20 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 | 14 => Some(8),
        15 => Some(16),
        _ => None,
    }
}

fn each_sparse(graph: &Graph, f: &mut impl FnMut(&SparseTensor) -> Result<(), String>) -> Result<(), String> {
    each_graph(graph, &mut |graph| graph.sparse.iter().try_for_each(&mut *f))?;
    each_attribute(graph, &mut |_, attribute| attribute.sparse.iter().chain(&attribute.sparses).try_for_each(&mut *f))
}

fn each_tensor<'g>(graph: &'g Graph, f: &mut impl FnMut(&'g Tensor) -> Result<(), String>) -> Result<(), String> {
    each_graph(graph, &mut |graph| {
        let attributes = || graph.nodes.iter().flat_map(|node| &node.attributes);
        let sparse = graph.sparse.iter().chain(attributes().flat_map(|a| a.sparse.iter().chain(&a.sparses)));
        let dense = graph.initializers.iter().chain(attributes().flat_map(|a| a.tensor.iter().chain(&a.tensors)));
        dense.chain(sparse.flat_map(|sparse| sparse.values.iter().chain(&sparse.indices))).try_for_each(&mut *f)
    })
}

fn each_attribute(graph: &Graph, f: &mut impl FnMut(&str, &Attribute) -> Result<(), String>) -> Result<(), String> {
    each_graph(graph, &mut |graph| {
        let attributes = graph.nodes.iter().flat_map(|node| node.attributes.iter().map(|of| (&node.name, of)));
        attributes.into_iter().try_for_each(|(node, attribute)| f(node, attribute))
    })
}

/// The graph, and those in the attributes of its nodes, as deep as the decoder allows, which is a hundred levels.
pub(super) fn each_graph<'g>(
    graph: &'g Graph,
    f: &mut impl FnMut(&'g Graph) -> Result<(), String>,
) -> Result<(), String> {
    f(graph)?;
    let attributes = graph.nodes.iter().flat_map(|node| &node.attributes);
    attributes.flat_map(|a| a.graph.iter().chain(&a.graphs)).try_for_each(|inner| each_graph(inner, f))
}
