//! `attention`: three `Gemm`s where the operands are projections of tokens, then `MatMul`, `Softmax`, `MatMul`.

use super::{Lowering, Operand, number};
use crate::ExportError;
use crate::emit::View;
use crate::heads::Projection;
use crate::names;
use crate::weights::{Content, data_type};
use vjepa_compiler::ir::{Def, Dim, Node, NodeId, ValueId};

impl Lowering<'_, '_> {
    pub(super) fn attention(&mut self, id: NodeId, node: &Node, scale: f64) -> Result<View, ExportError> {
        let operands = self.operands.get(&id).cloned().unwrap_or_default();
        let [query, key, value] = operands.as_slice() else {
            return Err(self.unsupported(node, "it needs a query, keys and values"));
        };
        let scope = operands.iter().find_map(|operand| self.operand_scope(operand)).unwrap_or_else(|| self.scope(node));
        // Queries and values are [B, H, N, d]; keys are turned at once, [B, H, d, N].
        let q = self.operand(query, node.inputs[0], "q", &scope, scale, [0, 2, 1, 3])?;
        let k = self.operand(key, node.inputs[1], "k", &scope, 1.0, [0, 2, 3, 1])?;
        let v = self.operand(value, node.inputs[2], "v", &scope, 1.0, [0, 2, 1, 3])?;
        let scores = self.emit.node("MatMul", &names::join(&scope, "scores"), &[&q, &k], &[]);
        let axis = [("axis", crate::emit::Attr::Int(-1))];
        let weights = self.emit.node("Softmax", &names::join(&scope, "softmax"), &[&scores], &axis);
        let tensor = self.emit.node("MatMul", &names::join(&scope, "context"), &[&weights, &v], &[]);
        Ok(View { tensor, shape: self.ty(node.outputs[0]).shape.clone(), scope })
    }

    fn operand_scope(&self, operand: &Operand) -> Option<String> {
        let Operand::Projection(projection) = operand else { return None };
        Some(names::parent(&self.module(projection.weight)).to_owned())
    }

    /// An operand, from `[B, N, H, d]` turned by `axes`.
    fn operand(
        &mut self,
        operand: &Operand,
        id: ValueId,
        role: &str,
        scope: &str,
        scale: f64,
        axes: [usize; 4],
    ) -> Result<String, ExportError> {
        let name = names::join(scope, role);
        let [batch, heads, tokens, features] = self.ty(id).shape.as_slice() else {
            return Err(ExportError::Graph(format!("%{} is no [B, H, N, d]", id.0)));
        };
        let by_token = [batch.clone(), tokens.clone(), heads.clone(), features.clone()];
        let (view, axes) = match operand {
            Operand::Projection(projection) => {
                let channels = number(heads)? * number(features)?;
                let rows = &Dim::product(&self.ty(projection.x).shape[..self.ty(projection.x).rank() - 1]);
                let shape = vec![rows.clone(), Dim::from(channels)];
                let gemm = self.project(projection, &name, role, scale, shape)?;
                (self.reshaped(&gemm, &by_token, Some(&format!("{name}/heads")))?, axes)
            }
            Operand::Value(value) => {
                let constant = self.scaled_constant(*value, scale)?;
                let folded = constant.is_some();
                let mut view = constant.map_or_else(|| self.natural(*value), Ok)?;
                if scale != 1.0 && !folded {
                    let scale = self.emit.scalar(scale as f32, data_type(self.ty(*value).dtype));
                    view.tensor = self.emit.node("Mul", &format!("{name}/scale"), &[&view.tensor, &scale], &[]);
                }
                // [B, H, N, d] seen as [B, N, H, d] with the first two of the inner axes exchanged.
                (view, axes.map(|axis| [0, 2, 1, 3][axis]))
            }
        };
        let shape: Vec<Dim> = axes.iter().map(|axis| view.shape[*axis].clone()).collect();
        let turned = self.emit.transpose(&view, &axes, &format!("{name}/transpose"));
        Ok(self.reshaped(&turned, &shape, None)?.tensor)
    }

    /// A constant operand (a probe's query) times `scale`, as a constant; `None` when it is not constant.
    fn scaled_constant(&mut self, id: ValueId, scale: f64) -> Result<Option<View>, ExportError> {
        if !self.constants.contains(id) || matches!(self.graph.value(id).def, Def::Param(_)) {
            return Ok(None);
        }
        let (label, shape) = (self.constants.label(id), self.constant_shape(id)?);
        let mut values = self.constants.values(id, self.weights, &label)?;
        values.iter_mut().for_each(|value| *value *= scale as f32);
        let dtype = data_type(self.ty(id).dtype);
        let tensor = self.emit.constant(&label, dtype, shape.clone(), Content::Floats(values));
        Ok(Some(View { tensor, shape: shape.into_iter().map(Dim::from).collect(), scope: String::new() }))
    }

    /// The `Gemm` of a projection's own rows, times `scale`.
    fn project(
        &mut self,
        projection: &Projection,
        name: &str,
        role: &str,
        scale: f64,
        shape: Vec<Dim>,
    ) -> Result<View, ExportError> {
        let x = self.rows(projection.x)?;
        let mut inputs = vec![x.tensor];
        for parameter in [Some(projection.weight), projection.bias].into_iter().flatten() {
            inputs.push(self.rows_of_parameter(parameter, projection, role, scale)?);
        }
        Ok(self.gemm(name, &inputs, shape))
    }

    /// Some rows of a parameter as an initialiser; the parameter itself when that is all of it.
    fn rows_of_parameter(
        &mut self,
        parameter: ValueId,
        projection: &Projection,
        role: &str,
        scale: f64,
    ) -> Result<String, ExportError> {
        let ty = self.ty(parameter);
        let all = number(&ty.shape[0])?;
        let scale = scale as f32;
        if scale == 1.0 && projection.rows.iter().copied().eq(0..all) {
            return Ok(self.natural(parameter)?.tensor);
        }
        let official = self.graph.source_name(parameter).unwrap_or_default().to_owned();
        self.check_weight(&official, ty)?;
        let whole = projection.rows.len() == all;
        let name = names::part_of(&official, if whole { "scaled" } else { role });
        let mut dims = vec![projection.rows.len()];
        for dim in &ty.shape[1..] {
            dims.push(number(dim)?);
        }
        let content = Content::Rows { weight: official, rows: projection.rows.clone(), scale };
        Ok(self.emit.constant(&name, data_type(ty.dtype), dims, content))
    }
}
