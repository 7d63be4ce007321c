//! `patch_embed`, `tubelets` and `gather_tokens`.

use super::{Lowering, number};
use crate::emit::{Attr, View};
use crate::names;
use crate::proto::tensor_proto::DataType;
use crate::{ExportError, PatchEmbedForm};
use vjepa_compiler::ir::{Dim, Node, ValueId};

impl Lowering<'_, '_> {
    pub(super) fn patch_embed(&mut self, node: &Node, tubelet: usize, patch: usize) -> Result<View, ExportError> {
        let name = self.named_after(node.inputs[1], node, "patch_embed");
        if self.options.patch_embed == PatchEmbedForm::Gemm {
            let tubelets =
                self.rearranged(node.inputs[0], tubelet, patch, &names::join(names::parent(&name), "tubelets"))?;
            let weight = self.constant_shape(node.inputs[1])?;
            let flat = [weight.first().copied().unwrap_or(1), weight.iter().skip(1).product()];
            let mut inputs = vec![tubelets.tensor, self.constant(node.inputs[1], &flat)?];
            if let Some(bias) = node.inputs.get(2) {
                inputs.push(self.natural(*bias)?.tensor);
            }
            let rows = tubelets.shape.first().cloned().unwrap_or_default();
            return Ok(self.gemm(&name, &inputs, vec![rows, Dim::from(flat[0])]));
        }
        let mut inputs = Vec::new();
        for operand in &node.inputs {
            inputs.push(self.natural(*operand)?.tensor);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let strides = [tubelet, patch, patch].map(|size| size as i64);
        let tensor = self.emit.node("Conv", &name, &inputs, &[("strides", Attr::Ints(&strides))]);
        let [batch, tokens, width] = self.ty(node.outputs[0]).shape.as_slice() else {
            return Err(self.unsupported(node, "its result is no [B, N, D]"));
        };
        let channels_first = [batch.clone(), width.clone(), tokens.clone()];
        // The tensor is [B, D, T', H', W'], which is never the shape that is asked for.
        let conv = View { tensor, shape: vec![], scope: names::parent(&name).to_owned() };
        let flat = self.reshaped(&conv, &channels_first, Some(&format!("{name}/flatten")))?;
        Ok(self.emit.transpose(&flat, &[0, 2, 1], &format!("{name}/transpose")))
    }

    pub(super) fn tubelets(&mut self, node: &Node, tubelet: usize, patch: usize) -> Result<View, ExportError> {
        let name = names::join(&self.scope(node), "tubelets");
        self.rearranged(node.inputs[0], tubelet, patch, &name)
    }

    /// The clip as `[tokens, C·tubelet·patch²]`.
    fn rearranged(&mut self, clip: ValueId, tubelet: usize, patch: usize, name: &str) -> Result<View, ExportError> {
        let view = self.natural(clip)?;
        let [batch, channels, frames, height, width] = self.ty(clip).shape.as_slice() else {
            return Err(ExportError::Graph(format!("`{}` is not a clip [B, C, T, H, W]", view.tensor)));
        };
        let mut split = vec![batch.clone(), channels.clone()];
        let (mut tokens, mut features) = (batch.clone(), channels.clone());
        for (size, step) in [(frames, tubelet), (height, patch), (width, patch)] {
            let (count, step) = (Dim::from(number(size)? / step.max(1)), Dim::from(step));
            tokens = &tokens * &count;
            features = &features * &step;
            split.extend([count, step]);
        }
        let split = self.reshaped(&view, &split, Some(&format!("{name}/split")))?;
        let turned = self.emit.transpose(&split, &[0, 2, 4, 6, 1, 3, 5, 7], &format!("{name}/transpose"));
        self.reshaped(&turned, &[tokens, features], Some(name))
    }

    pub(super) fn gather(&mut self, node: &Node) -> Result<View, ExportError> {
        let (tokens, index) = (node.inputs[0], node.inputs[1]);
        let index_view = self.natural(index)?;
        let shape = self.ty(node.outputs[0]).shape.clone();
        let scope = self.scope(node);
        let name = names::join(&scope, "gather");
        let ty = self.ty(tokens);
        let tensor = if ty.shape[0].is_one() {
            let table = [ty.shape[1].clone(), ty.shape[2].clone()];
            let table = match self.constants.contains(tokens) {
                true => self.constant(tokens, &[number(&table[0])?, number(&table[1])?])?,
                false => self.in_shape(tokens, &table)?.tensor,
            };
            self.emit.node("Gather", &name, &[&table, &index_view.tensor], &[("axis", Attr::Int(0))])
        } else {
            let x = self.natural(tokens)?;
            let cast = [("to", Attr::Int(DataType::Int64 as i64))];
            let wide = self.emit.node("Cast", &format!("{name}/index"), &[&index_view.tensor], &cast);
            let wide = View { tensor: wide, ..index_view };
            let mut pointed = wide.shape.clone();
            pointed.push(Dim::from(1usize));
            let wide = self.reshaped(&wide, &pointed, None)?;
            self.emit.node("GatherND", &name, &[&x.tensor, &wide.tensor], &[("batch_dims", Attr::Int(1))])
        };
        Ok(View { tensor, shape, scope })
    }
}
