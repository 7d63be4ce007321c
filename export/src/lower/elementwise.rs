//! Elementwise functions and softmax.

use super::{Lowering, unary_op};
use crate::ExportError;
use crate::emit::{Attr, View};
use crate::names;
use crate::weights::data_type;
use vjepa_compiler::ir::{DType, Dim, Node, Scalar, ValueId};
use vjepa_compiler::ops::{Binary, Op, Unary};

/// The first opset with `Gelu`.
const GELU_OPSET: i64 = 20;

impl Lowering<'_, '_> {
    /// Functions of one operand work on the tensor in whatever shape it has.
    pub(super) fn unary(&mut self, node: &Node) -> Result<View, ExportError> {
        let x = self.view(node.inputs[0])?;
        let dtype = self.ty(node.inputs[0]).dtype;
        let scope = self.scope(node);
        let name = names::join(&scope, node.op.name());
        let tensor = match &node.op {
            Op::Unary(Unary::Gelu) if self.options.opset < GELU_OPSET => self.gelu(&x.tensor, dtype, &name),
            Op::Unary(f) => match unary_op(*f) {
                Some(op) => self.emit.node(op, &name, &[&x.tensor], &[]),
                None => {
                    let zero = self.emit.scalar(0.0, data_type(dtype));
                    let positive = self.emit.node("Greater", &name, &[&x.tensor, &zero], &[]);
                    self.cast(&positive, dtype, &format!("{name}/cast"))
                }
            },
            Op::AddScalar(c) => self.with_scalar("Add", node, &x.tensor, self.scalar(node, c)?, 0.0, &name),
            Op::MulScalar(c) => self.with_scalar("Mul", node, &x.tensor, self.scalar(node, c)?, 1.0, &name),
            Op::PowScalar(c) => self.with_scalar("Pow", node, &x.tensor, *c, 1.0, &name),
            Op::Cast(to) if *to == dtype => x.tensor.clone(),
            Op::Cast(to) => self.cast(&x.tensor, *to, &name),
            _ => return Err(self.unsupported(node, "it is not a function of one operand")),
        };
        Ok(View { tensor, shape: x.shape, scope })
    }

    /// `x · (1 + erf(x / √2)) / 2`.
    fn gelu(&mut self, x: &str, dtype: DType, name: &str) -> String {
        let [root, one, half] =
            [std::f32::consts::SQRT_2, 1.0, 0.5].map(|number| self.emit.scalar(number, data_type(dtype)));
        let y = self.emit.node("Div", &format!("{name}/divided"), &[x, &root], &[]);
        let y = self.emit.node("Erf", &format!("{name}/erf"), &[&y], &[]);
        let y = self.emit.node("Add", &format!("{name}/shifted"), &[&y, &one], &[]);
        let y = self.emit.node("Mul", &format!("{name}/product"), &[x, &y], &[]);
        self.emit.node("Mul", name, &[&y, &half], &[])
    }

    fn cast(&mut self, tensor: &str, to: DType, name: &str) -> String {
        self.emit.node("Cast", name, &[tensor], &[("to", Attr::Int(data_type(to) as i64))])
    }

    fn scalar(&self, node: &Node, scalar: &Scalar) -> Result<f64, ExportError> {
        match scalar.over.as_const() {
            Some(over) if over != 0 => Ok(scalar.value / over as f64),
            _ => Err(self.unsupported(node, format!("the number {scalar} depends on a symbol"))),
        }
    }

    fn with_scalar(&mut self, op: &str, node: &Node, x: &str, value: f64, idle: f64, name: &str) -> String {
        if value == idle {
            return x.to_owned();
        }
        let scalar = self.emit.scalar(value as f32, data_type(self.ty(node.inputs[0]).dtype));
        self.emit.node(op, name, &[x, &scalar], &[])
    }

    pub(super) fn binary(&mut self, f: Binary, node: &Node) -> Result<View, ExportError> {
        let op = match f {
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Div => "Div",
            Binary::Min => "Min",
            Binary::Max => "Max",
        };
        let (left, right) = (node.inputs[0], node.inputs[1]);
        let (a, b, shape) = self.aligned(left, right, node)?;
        let scope = self.scope(node);
        // A parameter that stands alone names the node: `pos_embed`.
        let module = [left, right].map(|id| self.module(id));
        let name = module.into_iter().find(|m| !m.is_empty()).unwrap_or_else(|| names::join(&scope, node.op.name()));
        let tensor = self.emit.node(op, &name, &[&a, &b], &[]);
        Ok(View { tensor, shape, scope })
    }

    /// Both operands in shapes that broadcast to what the node means, and the shape of the result.
    fn aligned(&mut self, a: ValueId, b: ValueId, node: &Node) -> Result<(String, String, Vec<Dim>), ExportError> {
        let result = &self.ty(node.outputs[0]).shape;
        match (self.constants.contains(a), self.constants.contains(b)) {
            (false, false) if self.ty(a).shape == self.ty(b).shape => {
                let (x, y) = (self.view(a)?, self.view(b)?);
                let shape = if y.shape.len() < x.shape.len() { y.shape.clone() } else { x.shape.clone() };
                let (x, y) = (self.reshaped(&x, &shape, None)?, self.reshaped(&y, &shape, None)?);
                return Ok((x.tensor, y.tensor, shape));
            }
            (true, false) | (false, true) => {
                let (tensor, constant) = if self.constants.contains(a) { (b, a) } else { (a, b) };
                if let Some((x, c, shape)) = self.along_last_axis(tensor, constant, result)? {
                    return Ok(if tensor == a { (x, c, shape) } else { (c, x, shape) });
                }
            }
            _ => {}
        }
        Ok((self.natural(a)?.tensor, self.natural(b)?.tensor, result.clone()))
    }

    /// A constant that varies along the last axis only goes with any view that keeps this axis.
    fn along_last_axis(
        &mut self,
        tensor: ValueId,
        constant: ValueId,
        result: &[Dim],
    ) -> Result<Option<(String, String, Vec<Dim>)>, ExportError> {
        let shape = self.constant_shape(constant)?;
        let (last, leading) = shape.split_last().map_or((1, [].as_slice()), |(last, leading)| (*last, leading));
        if self.ty(tensor).shape != result || leading.iter().any(|size| *size != 1) {
            return Ok(None);
        }
        let view = self.view(tensor)?;
        let keeps_axis = last == 1 || view.shape.last().is_some_and(|dim| *dim == Dim::from(last));
        let view = if keeps_axis { view } else { self.rows(tensor)? };
        let shape = if last == 1 { vec![] } else { vec![last] };
        Ok(Some((view.tensor, self.constant(constant, &shape)?, view.shape)))
    }

    pub(super) fn softmax(&mut self, node: &Node) -> Result<View, ExportError> {
        let x = self.view(node.inputs[0])?;
        let keeps_axis = x.shape.last() == self.ty(node.inputs[0]).shape.last();
        let x = if keeps_axis { x } else { self.natural(node.inputs[0])? };
        let op = if matches!(node.op, Op::Softmax) { "Softmax" } else { "LogSoftmax" };
        let scope = self.scope(node);
        let name = names::join(&scope, node.op.name());
        let tensor = self.emit.node(op, &name, &[&x.tensor], &[("axis", Attr::Int(-1))]);
        Ok(View { tensor, shape: x.shape, scope })
    }
}
