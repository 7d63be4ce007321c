//! The text form: what a person reads and writes, and what parses back to the same graph.
//!
//! ```text
//! graph probe[B]
//!   input x: f32[B, 4]
//!   param w: f32[2, 4]
//!   %scores: f32[B, 2] = linear(x, w)
//!   %0: f32[B, 2] = softmax(%scores)
//!   output y = %0
//! ```
//!
//! Inputs and parameters come first and are used by name. Results of nodes have a name (`%scores`, see
//! [`Graph::name_value`]) or a number; numbers count the results without a name, in order of appearance. `;` starts a
//! comment. Names that are not dotted identifiers are quoted. [`parse`] checks declared types against inferred ones, so the
//! graph it returns is well formed.

mod lexer;
mod parse;
mod print;

pub use parse::{ParseError, parse};
pub use print::print;
pub(crate) use print::{Names, is_bare};

use crate::ir::{Def, Graph, Node, NodeId, Value, ValueId};

impl Graph {
    /// The same graph with values numbered as the text form numbers them: inputs, parameters, results of nodes. Two
    /// graphs print alike when they are equal in this form.
    ///
    /// The graph must [verify](crate::verify::verify); ids that do not exist are kept as they are.
    pub fn canonical(&self) -> Graph {
        let mut new_ids: Vec<Option<usize>> = vec![None; self.values.len()];
        let mut values = Vec::with_capacity(self.values.len());
        let mut number = |id: &ValueId, def: Def| {
            let (Some(value), Some(new @ None)) = (self.values.get(id.0), new_ids.get_mut(id.0)) else { return };
            *new = Some(values.len());
            values.push(Value { ty: value.ty.clone(), def, name: value.name.clone() });
        };
        for id in self.inputs.iter().chain(&self.params) {
            if let Some(value) = self.values.get(id.0) {
                number(id, value.def.clone());
            }
        }
        for (position, node) in self.nodes.iter().enumerate() {
            for (output, id) in node.outputs.iter().enumerate() {
                number(id, Def::Node { node: NodeId(position), output });
            }
        }
        let new = |id: &ValueId| ValueId(new_ids.get(id.0).copied().flatten().unwrap_or(id.0));
        let all = |ids: &[ValueId]| ids.iter().map(new).collect::<Vec<_>>();
        let node = |n: &Node| Node { op: n.op.clone(), inputs: all(&n.inputs), outputs: all(&n.outputs) };
        Graph {
            name: self.name.clone(),
            symbols: self.symbols.clone(),
            nodes: self.nodes.iter().map(node).collect(),
            inputs: all(&self.inputs),
            params: all(&self.params),
            outputs: self.outputs.iter().map(|(name, id)| (name.clone(), new(id))).collect(),
            updates: self.updates.iter().map(|(param, id)| (new(param), new(id))).collect(),
            values,
        }
    }
}

#[cfg(test)]
mod tests;
