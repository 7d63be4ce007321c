//! `permute`, `broadcast`, `slice`, `pad` and `concat`.

use super::{Lowering, number};
use crate::ExportError;
use crate::emit::{Attr, View};
use crate::names;
use crate::weights::data_type;
use vjepa_compiler::ir::Node;
use vjepa_compiler::ops::Op;

impl Lowering<'_, '_> {
    pub(super) fn permute(&mut self, node: &Node, axes: &[usize]) -> Result<View, ExportError> {
        if let (Some(tokens), [0, 2, 1, 3]) = (self.by_token.get(&node.inputs[0]), axes) {
            // Heads lie beside each other already.
            return Ok(tokens.clone());
        }
        let ty = self.ty(node.inputs[0]);
        let moved: Vec<usize> = axes.iter().copied().filter(|axis| !ty.shape[*axis].is_one()).collect();
        if moved.is_sorted() {
            return self.view(node.inputs[0]);
        }
        let x = self.natural(node.inputs[0])?;
        let name = names::join(&x.scope, "transpose");
        Ok(self.emit.transpose(&x, axes, &name))
    }

    /// Most consumers broadcast by themselves and never ask for this.
    pub(super) fn broadcast(&mut self, node: &Node) -> Result<View, ExportError> {
        let x = self.natural(node.inputs[0])?;
        let result = &self.ty(node.outputs[0]).shape;
        if x.shape == *result {
            return Ok(x);
        }
        let mut sizes = Vec::with_capacity(result.len());
        for (from, to) in x.shape.iter().zip(result) {
            // In `Expand` a 1 keeps the operand's size.
            sizes.push(match to.as_const() {
                Some(size) => size,
                None if from == to => 1,
                None => return Err(self.unsupported(node, format!("the size {to} is not known when exporting"))),
            });
        }
        let sizes = self.emit.ints(&sizes);
        let tensor = self.emit.node("Expand", &names::join(&x.scope, "expand"), &[&x.tensor, &sizes], &[]);
        Ok(View { tensor, shape: result.clone(), scope: x.scope })
    }

    pub(super) fn slice(&mut self, node: &Node) -> Result<View, ExportError> {
        let Op::Slice { axis, start, end } = &node.op else { return self.view(node.inputs[0]) };
        let (input, result) = (self.ty(node.inputs[0]), self.ty(node.outputs[0]));
        if input == result {
            return self.view(node.inputs[0]);
        }
        let x = self.natural(node.inputs[0])?;
        let (start, end) = (number(start)? as i64, number(end)? as i64);
        let ints = [start, end, *axis as i64].map(|value| self.emit.ints(&[value]));
        let name = names::join(&x.scope, "slice");
        let tensor = self.emit.node("Slice", &name, &[&x.tensor, &ints[0], &ints[1], &ints[2]], &[]);
        Ok(View { tensor, shape: result.shape.clone(), scope: x.scope })
    }

    pub(super) fn pad(&mut self, node: &Node) -> Result<View, ExportError> {
        let Op::Pad { axis, before, after } = &node.op else { return self.view(node.inputs[0]) };
        let (input, result) = (self.ty(node.inputs[0]), self.ty(node.outputs[0]));
        if input == result {
            return self.view(node.inputs[0]);
        }
        let x = self.natural(node.inputs[0])?;
        let rank = input.rank();
        let mut pads = vec![0; 2 * rank];
        pads[*axis] = number(before)? as i64;
        pads[rank + axis] = number(after)? as i64;
        let pads = self.emit.ints(&pads);
        let zero = self.emit.scalar(0.0, data_type(input.dtype));
        let tensor = self.emit.node("Pad", &names::join(&x.scope, "pad"), &[&x.tensor, &pads, &zero], &[]);
        Ok(View { tensor, shape: result.shape.clone(), scope: x.scope })
    }

    pub(super) fn concat(&mut self, node: &Node, axis: usize) -> Result<View, ExportError> {
        if node.inputs.len() == 1 {
            return self.view(node.inputs[0]);
        }
        let mut parts = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            let view = self.natural(*input)?;
            if view.shape != self.ty(*input).shape {
                return Err(self.unsupported(node, format!("the constant `{}` would have to grow", view.tensor)));
            }
            parts.push(view.tensor);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let scope = self.scope(node);
        let name = names::join(&scope, "concat");
        let tensor = self.emit.node("Concat", &name, &parts, &[("axis", Attr::Int(axis as i64))]);
        Ok(View { tensor, shape: self.ty(node.outputs[0]).shape.clone(), scope })
    }
}
