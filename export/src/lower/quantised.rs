//! Linear layers of token streams: `Gemm`, or 8-bit products.
//!
//! Dynamic: `DynamicQuantizeLinear`, `MatMulInteger`, and the scales afterwards: standard operators, which ONNX Runtime
//! fuses. Static: `QuantizeLinear`/`DequantizeLinear` pairs around a `Gemm`, which TensorRT and ONNX Runtime fuse.

use super::Lowering;
use crate::emit::{Attr, View};
use crate::names;
use crate::options::Precision;
use crate::proto::tensor_proto::DataType;
use crate::weights::{Content, data_type, in_8_bits, row_scales};
use crate::{ExportError, Target};
use std::collections::BTreeMap;
use vjepa_compiler::ir::{DType, Def, Dim, NodeId, ValueId};
use vjepa_compiler::ops::{Binary, Op};

/// Products over fewer rows a clip stay in 32 bits: a probe's on one token cost nothing.
const FEWEST_ROWS: i64 = 8;

/// A constant operand of a linear layer that is not written yet.
pub(super) struct Matrix {
    /// What the constant is called.
    pub name: String,
    /// Whether the name is the parameter's own.
    pub whole: bool,
    pub content: Content,
    pub dims: Vec<usize>,
    pub dtype: DType,
    /// The parameter it comes from.
    pub parameter: String,
}

/// Tensors that quantised layers share.
#[derive(Default)]
pub(super) struct Shared {
    /// Quantised activations by tensor: values, scale, zero point; static: one tensor.
    activations: BTreeMap<String, [String; 3]>,
}

impl Lowering<'_, '_> {
    /// A weight or bias as it stands in the graph.
    pub(super) fn matrix(&self, id: ValueId) -> Result<Matrix, ExportError> {
        let (dims, dtype) = (self.constant_shape(id)?, self.ty(id).dtype);
        let (name, content, whole) = match &self.graph.value(id).def {
            Def::Param(name) => {
                self.check_weight(name, self.ty(id))?;
                (name.clone(), Content::Weight(name.clone()), true)
            }
            Def::Node { node, .. } if let Some((weight, columns)) = self.scaled_columns(*node) => {
                let rows = (0..dims.first().copied().unwrap_or(0)).collect();
                let content = Content::Rows { weight, rows, scale: 1.0, columns: Some(columns) };
                (self.constants.label(id), content, false)
            }
            _ => {
                let name = self.constants.label(id);
                let values = self.constants.values(id, self.weights, &name)?;
                (name, Content::Floats(values), false)
            }
        };
        Ok(Matrix { parameter: name.clone(), name, whole, content, dims, dtype })
    }

    /// The names of a matrix and of what its columns are multiplied by: what folding a norm makes. Such weights are
    /// computed while they are written.
    fn scaled_columns(&self, node: NodeId) -> Option<(String, String)> {
        let node = self.graph.nodes.get(node.0)?;
        let (Op::Binary(Binary::Mul), &[matrix, columns]) = (&node.op, node.inputs.as_slice()) else { return None };
        let fits = self.ty(matrix).rank() == 2 && self.ty(columns).shape.as_slice() == &self.ty(matrix).shape[1..];
        let name = |id| match &self.graph.value(id).def {
            Def::Param(name) if fits && self.check_weight(name, self.ty(id)).is_ok() => Some(name.clone()),
            _ => None,
        };
        Some((name(matrix)?, name(columns)?))
    }

    /// `x · weightᵀ + bias` over rows.
    pub(super) fn product(
        &mut self,
        name: &str,
        x: &View,
        weight: Matrix,
        bias: Option<Matrix>,
        shape: Vec<Dim>,
    ) -> Result<View, ExportError> {
        let rows = x.shape.first().map_or(0, |rows| rows.terms().map(|(_, count)| count).sum());
        let wide = weight.dtype == DType::F32 && rows >= FEWEST_ROWS;
        if self.options.is_int8() && wide && !self.options.int8.keep.contains(&weight.parameter) {
            let bias = bias.map(|bias| self.corrected(&weight, bias)).transpose()?;
            let tensor = match self.options.precision {
                Precision::Int8Static => self.static_int8(name, x, weight, bias)?,
                _ => self.dynamic_int8(name, x, weight, bias)?,
            };
            return Ok(View { scope: names::parent(name).to_owned(), tensor, shape });
        }
        let mut inputs = vec![x.tensor.clone()];
        for operand in std::iter::once(weight).chain(bias) {
            inputs.push(self.written(operand));
        }
        Ok(self.gemm(name, &inputs, shape))
    }

    fn written(&mut self, matrix: Matrix) -> String {
        let Matrix { name, whole, content, dims, dtype, .. } = matrix;
        let key = (name.clone(), dims.clone());
        if let Some(known) = self.matrices.get(&key) {
            return known.clone();
        }
        let tensor = match whole {
            true => self.emit.reserved_constant(&name, data_type(dtype), dims, content),
            false => self.emit.constant(&name, data_type(dtype), dims, content),
        };
        self.matrices.insert(key, tensor.clone());
        tensor
    }

    fn dynamic_int8(
        &mut self,
        name: &str,
        x: &View,
        weight: Matrix,
        bias: Option<Matrix>,
    ) -> Result<String, ExportError> {
        let known = self.shared.activations.get(&x.tensor).cloned();
        let [values, scale, zero] = match known {
            Some(known) => known,
            None => {
                let quantised = format!("{}/quantised", x.tensor);
                let values = self.emit.node("DynamicQuantizeLinear", &quantised, &[&x.tensor], &[]);
                let more = self.emit.more_results(&values, &["scale", "zero"]);
                let all = [values, more[0].clone(), more[1].clone()];
                self.shared.activations.insert(x.tensor.clone(), all.clone());
                all
            }
        };
        let (matrix, scales) = self.int8_weight(&weight, true)?;
        let zeros = self.zeros(scales.len(), DataType::Int8);
        let count = scales.len();
        let scales = self.emit.constant(
            &format!("{}.scale", weight.name),
            DataType::Float,
            vec![count],
            Content::Floats(scales),
        );
        let both = self.emit.node("Mul", &format!("{name}/scale"), &[&scale, &scales], &[]);
        let sums = self.emit.node("MatMulInteger", &format!("{name}/product"), &[&values, &matrix, &zero, &zeros], &[]);
        let to = [("to", Attr::Int(DataType::Float as i64))];
        let sums = self.emit.node("Cast", &format!("{name}/cast"), &[&sums], &to);
        let Some(bias) = bias else { return Ok(self.emit.node("Mul", name, &[&sums, &both], &[])) };
        let scaled = self.emit.node("Mul", &format!("{name}/scaled"), &[&sums, &both], &[]);
        let bias = self.written(bias);
        Ok(self.emit.node("Add", name, &[&scaled, &bias], &[]))
    }

    fn static_int8(
        &mut self,
        name: &str,
        x: &View,
        weight: Matrix,
        bias: Option<Matrix>,
    ) -> Result<String, ExportError> {
        let range = self.options.int8.ranges.get(&weight.parameter).copied();
        let [low, high] = range.ok_or_else(|| {
            ExportError::Graph(format!(
                "int8-static needs the range of what `{}` reads; calibrate it",
                weight.parameter
            ))
        })?;
        // TensorRT's ranges are symmetric; ONNX Runtime's fast products want unsigned activations.
        let symmetric = self.options.target == Target::TensorRt;
        let (low, high) = (low.min(0.0), high.max(0.0));
        let (step, zero, kind) = match symmetric {
            true => (low.abs().max(high) / 127.0, 0, DataType::Int8),
            false => {
                let step = (high - low) / 255.0;
                (step, if step > 0.0 { (-low / step).round() as i64 } else { 0 }, DataType::Uint8)
            }
        };
        let step = if step > 0.0 { step } else { 1.0 };
        let known = self.shared.activations.get(&x.tensor).cloned();
        let x = match known {
            Some([x, ..]) => x,
            None => {
                let scale = self.emit.scalar(step, DataType::Float);
                let zero = self.emit.small_integer(zero, kind);
                let quantised = format!("{}/quantised", x.tensor);
                let q = self.emit.node("QuantizeLinear", &quantised, &[&x.tensor, &scale, &zero], &[]);
                let widened = format!("{}/widened", x.tensor);
                let wide = self.emit.node("DequantizeLinear", &widened, &[&q, &scale, &zero], &[]);
                self.shared.activations.insert(x.tensor.clone(), [wide.clone(), scale, zero]);
                wide
            }
        };
        let (matrix, scales) = self.int8_weight(&weight, false)?;
        let count = scales.len();
        let axis = [("axis", Attr::Int(0))];
        let of = |suffix: &str| format!("{}.{suffix}", weight.name);
        let steps: Vec<f32> = scales.iter().map(|scale| scale * step).collect();
        let zeros = self.zeros(count, DataType::Int8);
        let scales = self.emit.constant(&of("scale"), DataType::Float, vec![count], Content::Floats(scales));
        let wide = self.emit.node("DequantizeLinear", &format!("{name}/weight"), &[&matrix, &scales, &zeros], &axis);
        let mut inputs = vec![x, wide];
        if let Some(bias) = bias {
            // ONNX Runtime's 8-bit Gemm adds a bias of 32 bits, in steps of both scales.
            let values = bias.content.floats(&bias.name, count, self.weights)?;
            let whole = values.iter().zip(&steps).map(|(value, step)| (f64::from(*value) / f64::from(*step)).round());
            let limit = f64::from(i32::MAX);
            let whole: Vec<i64> = whole.map(|value| value.clamp(-limit, limit) as i64).collect();
            let name_of = |suffix: &str| format!("{}.{suffix}", bias.name);
            let ints = self.emit.constant(&name_of("int32"), DataType::Int32, vec![count], Content::Ints(whole));
            let steps = self.emit.constant(&name_of("scale"), DataType::Float, vec![count], Content::Floats(steps));
            let zeros = self.zeros(count, DataType::Int32);
            inputs.push(self.emit.node("DequantizeLinear", &format!("{name}/bias"), &[&ints, &steps, &zeros], &axis));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.emit.node("Gemm", name, &inputs, &[("transB", Attr::Int(1))]))
    }

    /// A bias with what the rounding of the weight takes from the mean of what the layer reads.
    fn corrected(&self, weight: &Matrix, bias: Matrix) -> Result<Matrix, ExportError> {
        let (Some(means), &[out, width]) = (self.options.int8.means.get(&weight.parameter), weight.dims.as_slice())
        else {
            return Ok(bias);
        };
        if means.len() != width {
            let (name, found) = (&weight.parameter, means.len());
            return Err(ExportError::Graph(format!("`{name}` reads {width} channels but has means of {found}")));
        }
        let range = self.options.int8.range;
        let values = weight.content.floats(&weight.name, out * width, self.weights)?;
        let mut corrected = bias.content.floats(&bias.name, out, self.weights)?.into_owned();
        let rows = values.chunks_exact(width.max(1)).zip(row_scales(&values, out, range));
        for (bias, (row, scale)) in corrected.iter_mut().zip(rows) {
            let lost = row
                .iter()
                .zip(means)
                .map(|(value, mean)| f64::from(value - in_8_bits(*value, scale, range) * scale) * f64::from(*mean));
            *bias += lost.sum::<f64>() as f32;
        }
        let name = format!("{}.corrected", bias.name);
        Ok(Matrix { name, whole: false, content: Content::Floats(corrected), ..bias })
    }

    /// The weight in 8 bits and its scales.
    fn int8_weight(&mut self, weight: &Matrix, turned: bool) -> Result<(String, Vec<f32>), ExportError> {
        let &[out, width] = weight.dims.as_slice() else {
            return Err(ExportError::Graph(format!("`{}` is not a matrix", weight.name)));
        };
        let range = self.options.int8.range;
        let scales = row_scales(&weight.content.floats(&weight.name, out * width, self.weights)?, out, range);
        let content = Content::Int8 { of: Box::new(weight.content.clone()), scales: scales.clone(), turned, range };
        let dims = if turned { vec![width, out] } else { vec![out, width] };
        Ok((self.emit.constant(&format!("{}.int8", weight.name), DataType::Int8, dims, content), scales))
    }

    fn zeros(&mut self, count: usize, kind: DataType) -> String {
        let name = format!("zeros/{count}{}", if kind == DataType::Int32 { "/int32" } else { "" });
        let key = (name.clone(), vec![count]);
        if let Some(known) = self.matrices.get(&key) {
            return known.clone();
        }
        let tensor = self.emit.constant(&name, kind, vec![count], Content::Ints(vec![0; count]));
        self.matrices.insert(key, tensor.clone());
        tensor
    }
}
