//! Layers and activations that Burn records whole.

use super::{Importer, Three};
use crate::ops::{Op, Unary};
use crate::trace::TraceError;
use burn_ir::{ActivationOperationIr as Activation, ModuleOperationIr as Module};

impl Importer {
    pub(super) fn module(&mut self, ops: Three<'_, Module>) -> Result<(), TraceError> {
        match ops {
            [Module::LayerNorm(a), Module::LayerNorm(b), Module::LayerNorm(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                let weight = self.value([&a.gamma, &b.gamma, &c.gamma])?;
                let [Some(beta_a), Some(beta_b), Some(beta_c)] = [a, b, c].map(|op| op.beta.as_ref()) else {
                    return Err(self.unsupported("a layer norm without bias"));
                };
                let bias = self.value([beta_a, beta_b, beta_c])?;
                let eps = a.epsilon.elem();
                self.emit(Op::LayerNorm { eps }, &[x, weight, bias], [&a.out, &b.out, &c.out])
            }
            [Module::Attention(a), Module::Attention(b), Module::Attention(c)] => {
                if a.mask.is_some() || a.attn_bias.is_some() || a.options.is_causal || a.options.softcap.is_some() {
                    return Err(self.unsupported("attention with a mask, bias or soft cap"));
                }
                let q = self.value([&a.query, &b.query, &c.query])?;
                let k = self.value([&a.key, &b.key, &c.key])?;
                let v = self.value([&a.value, &b.value, &c.value])?;
                let width = a.query.shape.last().copied().unwrap_or(1);
                let scale = a.options.scale.map_or(1.0 / (width as f64).sqrt(), |scale| scale.elem());
                self.emit(Op::Attention { scale }, &[q, k, v], [&a.out, &b.out, &c.out])
            }
            [Module::Linear(a), Module::Linear(b), Module::Linear(c)] => {
                let x = self.value([&a.x, &b.x, &c.x])?;
                let weight = self.value([&a.weight, &b.weight, &c.weight])?;
                let weight = self.graph.push1(Op::Permute { axes: vec![1, 0] }, &[weight])?;
                let mut inputs = vec![x, weight];
                if let [Some(bias_a), Some(bias_b), Some(bias_c)] = [a, b, c].map(|op| op.bias.as_ref()) {
                    inputs.push(self.value([bias_a, bias_b, bias_c])?);
                }
                self.emit(Op::Linear, &inputs, [&a.out, &b.out, &c.out])
            }
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    pub(super) fn activation(&mut self, ops: Three<'_, Activation>) -> Result<(), TraceError> {
        match ops {
            [Activation::Gelu(a), Activation::Gelu(b), Activation::Gelu(c)] => self.unary(Unary::Gelu, [a, b, c]),
            [Activation::Relu(a), Activation::Relu(b), Activation::Relu(c)] => self.unary(Unary::Relu, [a, b, c]),
            [Activation::Softmax(a), Activation::Softmax(b), Activation::Softmax(c)] => {
                self.last_axis(Op::Softmax, [a, b, c])
            }
            [Activation::LogSoftmax(a), Activation::LogSoftmax(b), Activation::LogSoftmax(c)] => {
                self.last_axis(Op::LogSoftmax, [a, b, c])
            }
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    fn last_axis(&mut self, op: Op, [a, b, c]: Three<'_, burn_ir::DimOpIr>) -> Result<(), TraceError> {
        if a.axis + 1 != a.input.shape.len() {
            return Err(self.unsupported("a softmax that is not over the last axis"));
        }
        let x = self.value([&a.input, &b.input, &c.input])?;
        self.emit(op, &[x], [&a.out, &b.out, &c.out])
    }
}
