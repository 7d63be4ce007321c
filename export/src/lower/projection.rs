//! `linear`, `layer_norm` and `matmul`.

use super::{Lowering, rows_of};
use crate::ExportError;
use crate::emit::{Attr, View};
use crate::names;
use vjepa_compiler::ir::{Dim, Node, ValueId};

impl Lowering<'_, '_> {
    /// `Gemm` of `[rows, in]` with the weight as stored, `[out, in]`.
    pub(super) fn linear(&mut self, node: &Node) -> Result<View, ExportError> {
        let x = self.rows(node.inputs[0])?;
        let name = self.named_after(node.inputs[1], node, "linear");
        let result = rows_of(&self.ty(node.outputs[0]).shape);
        if node.inputs[1..].iter().any(|id| !self.constants.contains(*id)) {
            let mut inputs = vec![x.tensor];
            for operand in &node.inputs[1..] {
                inputs.push(self.natural(*operand)?.tensor);
            }
            return Ok(self.gemm(&name, &inputs, result));
        }
        let weight = self.matrix(node.inputs[1])?;
        let bias = node.inputs.get(2).map(|bias| self.matrix(*bias)).transpose()?;
        self.product(&name, &x, weight, bias, result)
    }

    /// The `Gemm` itself.
    pub(super) fn gemm(&mut self, name: &str, inputs: &[String], shape: Vec<Dim>) -> View {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let tensor = self.emit.node("Gemm", name, &inputs, &[("transB", Attr::Int(1))]);
        View { scope: names::parent(name).to_owned(), tensor, shape }
    }

    pub(super) fn layer_norm(&mut self, node: &Node, eps: f64) -> Result<View, ExportError> {
        let x = self.rows(node.inputs[0])?;
        let mut inputs = vec![x.tensor.clone()];
        let name = match node.inputs.get(1) {
            Some(weight) => {
                for operand in &node.inputs[1..] {
                    inputs.push(self.natural(*operand)?.tensor);
                }
                self.named_after(*weight, node, "norm")
            }
            // The operator needs a weight.
            None => {
                inputs.push(self.ones(node.inputs[0])?);
                names::join(&self.scope(node), "norm")
            }
        };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(eps as f32))];
        let tensor = self.emit.node("LayerNormalization", &name, &inputs, &attributes);
        Ok(View { scope: names::parent(&name).to_owned(), tensor, shape: x.shape })
    }

    pub(super) fn matmul(&mut self, node: &Node, ta: bool, tb: bool) -> Result<View, ExportError> {
        let name = names::join(&self.scope(node), "matmul");
        if let Some(view) = self.flat_matmul(node, ta || tb, &name)? {
            return Ok(view);
        }
        let mut operands = Vec::new();
        for (operand, (transposed, suffix)) in node.inputs.iter().zip([(ta, "a"), (tb, "b")]) {
            let mut view = self.natural(*operand)?;
            if transposed {
                let rank = view.shape.len();
                let mut axes: Vec<usize> = (0..rank).collect();
                axes.swap(rank - 2, rank - 1);
                let shape: Vec<Dim> = axes.iter().map(|axis| view.shape[*axis].clone()).collect();
                let turned = self.emit.transpose(&view, &axes, &format!("{name}/{suffix}"));
                view = self.reshaped(&turned, &shape, None)?;
            }
            operands.push(view.tensor);
        }
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        let tensor = self.emit.node("MatMul", &name, &operands, &[]);
        Ok(View { scope: names::parent(&name).to_owned(), tensor, shape: self.ty(node.outputs[0]).shape.clone() })
    }

    /// A product with one constant matrix for the whole batch is one of all rows.
    fn flat_matmul(&mut self, node: &Node, turned: bool, name: &str) -> Result<Option<View>, ExportError> {
        let (a, b) = (node.inputs[0], node.inputs[1]);
        if turned || self.constants.contains(a) || !self.constants.contains(b) || self.ty(b).rank() != 3 {
            return Ok(None);
        }
        let shape = self.constant_shape(b)?;
        let [1, inner, columns] = *shape.as_slice() else { return Ok(None) };
        let x = self.rows(a)?;
        let matrix = self.constant(b, &[inner, columns])?;
        let tensor = self.emit.node("MatMul", name, &[&x.tensor, &matrix], &[]);
        let rows = x.shape.first().cloned().unwrap_or_default();
        Ok(Some(View { scope: names::parent(name).to_owned(), tensor, shape: vec![rows, Dim::from(columns)] }))
    }

    /// The name of the module that owns `parameter`, else `leaf` where the node stands.
    pub(super) fn named_after(&self, parameter: ValueId, node: &Node, leaf: &str) -> String {
        match self.owner(parameter) {
            module if module.is_empty() => names::join(&self.scope(node), leaf),
            module => module,
        }
    }
}
