//! `sum`, `mean` and `reduce_max`, and constants made up here.

use super::{Lowering, number};
use crate::ExportError;
use crate::emit::{Attr, View};
use crate::names;
use crate::weights::{Content, data_type};
use vjepa_compiler::ir::{Dim, Node, ValueId};
use vjepa_compiler::ops::Op;

impl Lowering<'_, '_> {
    /// The reduced axes are dropped: whoever wants them back (to broadcast) reshapes.
    pub(super) fn reduce(&mut self, node: &Node) -> Result<View, ExportError> {
        let (op, axes) = match &node.op {
            Op::Sum { axes } => ("ReduceSum", axes),
            Op::Mean { axes } => ("ReduceMean", axes),
            Op::ReduceMax { axes } => ("ReduceMax", axes),
            _ => return Err(self.unsupported(node, "it is not a reduction")),
        };
        let x = self.natural(node.inputs[0])?;
        let result = &self.ty(node.outputs[0]).shape;
        let consumers = self.graph.nodes.iter().filter(|other| other.inputs.contains(&node.outputs[0]));
        let broadcast = consumers.into_iter().any(|other| matches!(other.op, Op::Binary(_)));
        let kept: Vec<Dim> =
            (0..result.len()).filter(|a| broadcast || !axes.contains(a)).map(|a| result[a].clone()).collect();
        let list: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
        let list = self.emit.ints(&list);
        let scope = self.scope(node);
        let attributes = [("keepdims", Attr::Int(i64::from(broadcast)))];
        let tensor = self.emit.node(op, &names::join(&scope, node.op.name()), &[&x.tensor, &list], &attributes);
        Ok(View { tensor, shape: kept, scope })
    }

    /// A weight of ones for the last axis of `x`.
    pub(super) fn ones(&mut self, x: ValueId) -> Result<String, ExportError> {
        let ty = self.ty(x);
        let size = ty.shape.last().map_or(Ok(1), number)?;
        let content = Content::Floats(vec![1.0; size]);
        Ok(self.emit.constant(&format!("ones/{size}"), data_type(ty.dtype), vec![size], content))
    }
}
