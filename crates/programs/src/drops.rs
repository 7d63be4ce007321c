//! Gates become drops: what a traced objective multiplies by a gate, a compiled step drops by seed, step and place.

use std::collections::BTreeMap;

use vjepa_compiler::ir::{DType, Dim, Graph, GraphError, TensorType, ValueId};
use vjepa_compiler::ops::{Binary, DropKey, Op};
use vjepa_graphs::objectives::{Declaration, Gate, Source};

/// The input that decides what is dropped: seed and step, `i32[4]`.
pub const DROP_KEY: &str = "drop_key";

/// The graph of an objective with every product by a gate replaced by a dropout, and the gates by one input, [`DROP_KEY`]; as
/// it is where there is no gate.
///
/// # Errors
/// [`GraphError`] for a gate that does anything but multiply.
pub(crate) fn draw_gates(graph: &Graph, declaration: &Declaration) -> Result<Graph, GraphError> {
    let gates: Vec<Gate> = declaration.inputs.iter().filter_map(|input| gate_of(input.source)).collect();
    if gates.is_empty() {
        return Ok(graph.clone());
    }
    let symbols: Vec<&str> = graph.symbols.iter().map(String::as_str).collect();
    let mut new = Graph::new(&graph.name, &symbols);
    let mut places: BTreeMap<ValueId, Gate> = BTreeMap::new();
    let mut moved: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for id in &graph.inputs {
        let name = graph.source_name(*id).unwrap_or_default();
        match gates.iter().find(|gate| gate.name() == name) {
            Some(gate) => {
                places.insert(*id, *gate);
            }
            None => {
                moved.insert(*id, new.input(name, graph.ty(*id).clone())?);
            }
        }
    }
    let key = new.input(DROP_KEY, TensorType { dtype: DType::I32, shape: vec![Dim::from(DropKey::LEN)] })?;
    for id in &graph.params {
        moved.insert(*id, new.param(graph.source_name(*id).unwrap_or_default(), graph.ty(*id).clone())?);
    }
    for node in &graph.nodes {
        let gated = node.inputs.iter().find_map(|id| places.get(id));
        let results = match gated {
            Some(gate) => {
                let others: Vec<ValueId> = node.inputs.iter().filter(|id| !places.contains_key(id)).copied().collect();
                let (Op::Binary(Binary::Mul), [x]) = (&node.op, others.as_slice()) else {
                    return Err(GraphError::Other(format!("`{}` is not the factor of a product", gate.name())));
                };
                let x = at(&moved, *x)?;
                new.push(Op::Dropout { rate: gate.rate, place: gate.place, axes: gate.axes() }, &[x, key])?
            }
            None => {
                let inputs = node.inputs.iter().map(|id| at(&moved, *id)).collect::<Result<Vec<_>, _>>()?;
                new.push(node.op.clone(), &inputs)?
            }
        };
        moved.extend(node.outputs.iter().copied().zip(results));
    }
    for (name, id) in &graph.outputs {
        new.output(name, at(&moved, *id)?);
    }
    Ok(new)
}

fn gate_of(source: Source) -> Option<Gate> {
    match source {
        Source::Gate(gate) => Some(gate),
        Source::Clips(_)
        | Source::Indices(_)
        | Source::ContextWeights { .. }
        | Source::ContextShare
        | Source::Targets { .. } => None,
    }
}

fn at(moved: &BTreeMap<ValueId, ValueId>, id: ValueId) -> Result<ValueId, GraphError> {
    moved.get(&id).copied().ok_or(GraphError::UnknownValue(id.0))
}
