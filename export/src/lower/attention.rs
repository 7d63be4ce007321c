//! `attention`: three `Gemm`s where the operands are projections of tokens, then `MatMul`, `Softmax`, `MatMul`, or ONNX
//! Runtime's `MultiHeadAttention`.

use super::quantised::Matrix;
use super::{Lowering, Operand, number};
use crate::emit::{Attr, View};
use crate::heads::Projection;
use crate::names;
use crate::weights::{Content, data_type};
use crate::{ExportError, Target};
use vjepa_compiler::ir::{DType, Def, Dim, Node, NodeId, ValueId};
use vjepa_compiler::ops::Op;

/// More blocks only make more nodes.
const MOST_BLOCKS: usize = 8;

/// Parts of an attention that are computed one after the other.
struct Blocks {
    /// Of `[B, H, N, d]`: 1 for groups of heads (tract, which packs keys and values anew for every product), 2 for blocks
    /// of queries.
    axis: i64,
    /// Heads or queries of each.
    sizes: Vec<i64>,
}

impl Lowering<'_, '_> {
    pub(super) fn attention(&mut self, id: NodeId, node: &Node, scale: f64) -> Result<View, ExportError> {
        let operands = self.operands.get(&id).cloned().unwrap_or_default();
        let [query, key, value] = operands.as_slice() else {
            return Err(self.unsupported(node, "it needs a query, keys and values"));
        };
        if self.options.target == Target::OrtCpu
            && let [Operand::Projection(q), Operand::Projection(k), Operand::Projection(v)] = operands.as_slice()
            && self.is_read_by_token(node)
        {
            return self.multi_head(node, [q, k, v], scale);
        }
        let scope = operands.iter().find_map(|operand| self.operand_scope(operand)).unwrap_or_else(|| self.scope(node));
        // Queries and values are [B, H, N, d]; keys are turned at once, [B, H, d, N].
        let q = self.operand(query, node.inputs[0], "q", &scope, scale, [0, 2, 1, 3])?;
        let k = self.operand(key, node.inputs[1], "k", &scope, 1.0, [0, 2, 3, 1])?;
        let v = self.operand(value, node.inputs[2], "v", &scope, 1.0, [0, 2, 1, 3])?;
        let tensor = match self.blocks(node)? {
            Some(blocks) => self.attend_in_blocks(node, &scope, [&q, &k, &v], &blocks),
            None => self.attend(node, &scope, [&q, &k, &v]),
        };
        Ok(View { tensor, shape: self.ty(node.outputs[0]).shape.clone(), scope })
    }

    /// Scores, their softmax, and the values weighted by it.
    fn attend(&mut self, node: &Node, scope: &str, [q, k, v]: [&str; 3]) -> String {
        let scores = self.emit.node("MatMul", &names::join(scope, "scores"), &[q, k], &[]);
        let dtype = self.ty(node.outputs[0]).dtype;
        let scores = self.converted(scores, dtype, DType::F32, &names::join(scope, "scores/wide"));
        let axis = [("axis", Attr::Int(-1))];
        let weights = self.emit.node("Softmax", &names::join(scope, "softmax"), &[&scores], &axis);
        let weights = self.converted(weights, DType::F32, dtype, &names::join(scope, "softmax/narrow"));
        self.emit.node("MatMul", &names::join(scope, "context"), &[&weights, v], &[])
    }

    /// The blocks an attention is worked through in, when its scores are more than a clip's should be.
    fn blocks(&mut self, node: &Node) -> Result<Option<Blocks>, ExportError> {
        let Some(most) = self.options.largest_scores else { return Ok(None) };
        let [query, key] = [0, 1].map(|operand| &self.ty(node.inputs[operand]).shape);
        let ([_, heads, queries, _], [_, _, keys, _]) = (query.as_slice(), key.as_slice()) else { return Ok(None) };
        let (heads, queries, keys) = (number(heads)?, number(queries)?, number(keys)?);
        let bytes = heads.saturating_mul(queries).saturating_mul(keys).saturating_mul(size_of::<f32>());
        let (axis, size) = if self.options.target == Target::Tract { (1, heads) } else { (2, queries) };
        let blocks = bytes.div_ceil(most.max(1)).min(MOST_BLOCKS).min(size);
        if blocks < 2 {
            return Ok(None);
        }
        let (least, longer) = (size / blocks, size % blocks);
        let sizes = (0..blocks).map(|block| (least + usize::from(block < longer)) as i64).collect();
        Ok(Some(Blocks { axis, sizes }))
    }

    /// Block after block, so that what a softmax reads was written just before.
    fn attend_in_blocks(&mut self, node: &Node, scope: &str, [q, k, v]: [&str; 3], blocks: &Blocks) -> String {
        let queries = self.split(q, &names::join(scope, "q/blocks"), blocks);
        let by_heads = blocks.axis == 1;
        let [keys, values] = [(k, "k/blocks"), (v, "v/blocks")].map(|(tensor, name)| match by_heads {
            true => self.split(tensor, &names::join(scope, name), blocks),
            false => vec![tensor.to_owned(); blocks.sizes.len()],
        });
        let operands = queries.iter().zip(keys.iter().zip(&values));
        let results: Vec<String> = operands
            .enumerate()
            .map(|(block, (q, (k, v)))| self.attend(node, &names::join(scope, &format!("block{block}")), [q, k, v]))
            .collect();
        let results: Vec<&str> = results.iter().map(String::as_str).collect();
        self.emit.node("Concat", &names::join(scope, "context"), &results, &[("axis", Attr::Int(blocks.axis))])
    }

    fn split(&mut self, tensor: &str, name: &str, Blocks { axis, sizes }: &Blocks) -> Vec<String> {
        let sizes_name = self.emit.ints(sizes);
        let first = self.emit.node("Split", name, &[tensor, &sizes_name], &[("axis", Attr::Int(*axis))]);
        let suffixes: Vec<String> = (1..sizes.len()).map(|block| block.to_string()).collect();
        let suffixes: Vec<&str> = suffixes.iter().map(String::as_str).collect();
        std::iter::once(first).chain(self.emit.more_results(name, &suffixes)).collect()
    }

    /// A tensor in another element type.
    fn converted(&mut self, tensor: String, from: DType, to: DType, name: &str) -> String {
        let to_type = [("to", Attr::Int(data_type(to) as i64))];
        if from == to { tensor } else { self.emit.node("Cast", name, &[&tensor], &to_type) }
    }

    /// True when all that is done with the result is to put heads beside each other again.
    fn is_read_by_token(&self, node: &Node) -> bool {
        let result = node.outputs[0];
        let graph = self.graph;
        let turned = |reader: &Node| matches!(&reader.op, Op::Permute { axes } if axes.as_slice() == [0, 2, 1, 3]);
        self.ty(result).dtype == DType::F32
            && !graph.outputs.iter().any(|(_, id)| *id == result)
            && graph.nodes.iter().filter(|reader| reader.inputs.contains(&result)).all(turned)
    }

    /// ONNX Runtime's attention over tokens `[B, N, H·d]`: it works through blocks of scores and never holds all of them.
    fn multi_head(&mut self, node: &Node, parts: [&Projection; 3], scale: f64) -> Result<View, ExportError> {
        let scope = names::parent(&self.owner(parts[0].weight)).to_owned();
        let mut inputs = Vec::with_capacity(3);
        for ((projection, id), role) in parts.into_iter().zip(&node.inputs).zip(["q", "k", "v"]) {
            let [batch, heads, tokens, features] = self.ty(*id).shape.as_slice() else {
                return Err(ExportError::Graph(format!("%{} is no [B, H, N, d]", id.0)));
            };
            let channels = Dim::from(number(heads)? * number(features)?);
            let name = names::join(&scope, role);
            let gemm = self.project(projection, &name, role, 1.0, vec![batch * tokens, channels.clone()])?;
            let shape = [batch.clone(), tokens.clone(), channels];
            inputs.push(self.reshaped(&gemm, &shape, Some(&format!("{name}/tokens")))?.tensor);
        }
        let [batch, heads, tokens, features] = self.ty(node.outputs[0]).shape.as_slice() else {
            return Err(self.unsupported(node, "its result is no [B, H, N, d]"));
        };
        let shape = vec![batch.clone(), tokens.clone(), heads * features];
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes = [("num_heads", Attr::Int(number(heads)? as i64)), ("scale", Attr::Float(scale as f32))];
        let tensor = self.emit.contrib("MultiHeadAttention", &names::join(&scope, "context"), &inputs, &attributes);
        let view = View { tensor, shape, scope };
        self.by_token.insert(node.outputs[0], view.clone());
        Ok(view)
    }

    fn operand_scope(&self, operand: &Operand) -> Option<String> {
        let Operand::Projection(projection) = operand else { return None };
        Some(names::parent(&self.owner(projection.weight)).to_owned())
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
        let weight = self.rows_of_parameter(projection.weight, projection, role, scale)?;
        let bias = projection.bias.map(|bias| self.rows_of_parameter(bias, projection, role, scale)).transpose()?;
        self.product(name, &x, weight, bias, shape)
    }

    /// Some rows of a parameter; the parameter itself when that is all of it.
    fn rows_of_parameter(
        &mut self,
        parameter: ValueId,
        projection: &Projection,
        role: &str,
        scale: f64,
    ) -> Result<Matrix, ExportError> {
        let mut matrix = self.matrix(parameter)?;
        let all = matrix.dims.first().copied().unwrap_or(0);
        let scale = scale as f32;
        if scale == 1.0 && projection.rows.iter().copied().eq(0..all) {
            return Ok(matrix);
        }
        matrix.name = names::part_of(&matrix.name, if projection.rows.len() == all { "scaled" } else { role });
        matrix.whole = false;
        matrix.content = match matrix.content {
            Content::Weight(weight) => Content::Rows { weight, rows: projection.rows.clone(), scale, columns: None },
            Content::Rows { weight, columns, .. } => {
                Content::Rows { weight, rows: projection.rows.clone(), scale, columns }
            }
            Content::Floats(values) => {
                let width: usize = matrix.dims.iter().skip(1).product();
                let rows = projection.rows.iter().filter_map(|row| values.get(row * width..(row + 1) * width));
                Content::Floats(rows.flatten().map(|value| value * scale).collect())
            }
            other => other,
        };
        if let Some(first) = matrix.dims.first_mut() {
            *first = projection.rows.len();
        }
        Ok(matrix)
    }
}
