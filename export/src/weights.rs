//! Where weights come from, and the tensors of the written model made from them.

use crate::proto::tensor_proto::DataType;
use crate::{ExportError, WeightRange};
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use vjepa_compiler::ir::DType;

/// The weights of a graph, by official parameter name.
pub trait WeightSource {
    /// Element type and shape of the tensor `name`; `None` when there is none.
    fn describe(&self, name: &str) -> Option<(DType, Vec<usize>)>;

    /// Its values as `f32`, row-major.
    ///
    /// # Errors
    /// When it cannot be read, or does not exist.
    fn read(&self, name: &str) -> io::Result<Cow<'_, [f32]>>;
}

/// Weights in memory: name to shape and values.
pub type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

impl WeightSource for Weights {
    fn describe(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        self.get(name).map(|(shape, _)| (DType::F32, shape.clone()))
    }

    fn read(&self, name: &str) -> io::Result<Cow<'_, [f32]>> {
        self.get(name).map(|(_, data)| Cow::Borrowed(data.as_slice())).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Values of an [`Initializer`], produced when it is written.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A weight as it is.
    Weight(String),
    /// Rows of a weight, multiplied by a number, and each column by its value of another weight.
    Rows { weight: String, rows: Vec<usize>, scale: f32, columns: Option<String> },
    /// Computed numbers.
    Floats(Vec<f32>),
    /// Shapes, axes and indices; also 32-bit biases and 8-bit zero points.
    Ints(Vec<i64>),
    /// A matrix `[out, in]` in 8 bits, each row divided by its scale; turned to `[in, out]` for `MatMulInteger`.
    Int8 { of: Box<Content>, scales: Vec<f32>, turned: bool, range: WeightRange },
}

impl Content {
    /// The numbers, all at once.
    pub fn floats<'w>(
        &'w self,
        name: &str,
        elements: usize,
        weights: &'w dyn WeightSource,
    ) -> Result<Cow<'w, [f32]>, ExportError> {
        match self {
            Content::Weight(name) => read(weights, name, elements),
            Content::Floats(values) => Ok(Cow::Borrowed(values)),
            Content::Rows { weight, rows, scale, columns } => {
                let (_, shape) = weights.describe(weight).ok_or_else(|| ExportError::MissingWeight(weight.clone()))?;
                let width: usize = shape.iter().skip(1).product();
                let columns = columns.as_ref().map(|columns| read(weights, columns, width)).transpose()?;
                let data = read(weights, weight, shape.iter().product())?;
                let mut values = Vec::with_capacity(elements);
                for row in rows {
                    let row = row_of(&data, *row, width, name, weight)?;
                    match &columns {
                        Some(columns) => {
                            values.extend(row.iter().zip(columns.iter()).map(|(value, by)| value * by * scale))
                        }
                        None => values.extend(row.iter().map(|value| value * scale)),
                    }
                }
                Ok(Cow::Owned(values))
            }
            Content::Ints(_) | Content::Int8 { .. } => Err(ExportError::Graph(format!("`{name}` holds no floats"))),
        }
    }
}

/// A row of a weight.
fn row_of<'d>(data: &'d [f32], row: usize, width: usize, name: &str, weight: &str) -> Result<&'d [f32], ExportError> {
    data.get(row * width..(row + 1) * width)
        .ok_or_else(|| ExportError::Graph(format!("`{name}` needs row {row} of `{weight}`, which is too small")))
}

/// For each row of a matrix the number that its 8-bit values are multiples of.
pub(crate) fn row_scales(values: &[f32], rows: usize, range: WeightRange) -> Vec<f32> {
    let largest = |row: &[f32]| row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = |row: &[f32]| if largest(row) > 0.0 { largest(row) / f32::from(range.limit()) } else { 1.0 };
    values.chunks((values.len() / rows.max(1)).max(1)).map(scale).collect()
}

/// A weight in 8 bits, as a multiple of its row's scale.
pub(crate) fn in_8_bits(value: f32, scale: f32, range: WeightRange) -> f32 {
    let limit = f32::from(range.limit());
    (value / scale).round().clamp(-limit, limit)
}

/// A constant tensor of the written model.
#[derive(Clone, Debug)]
pub(crate) struct Initializer {
    pub name: String,
    pub data_type: DataType,
    pub dims: Vec<usize>,
    pub content: Content,
}

impl Initializer {
    /// Size of the values in bytes.
    pub fn bytes(&self) -> u64 {
        let size = match self.data_type {
            DataType::Int64 => 8,
            DataType::Float16 | DataType::Bfloat16 => 2,
            DataType::Int8 | DataType::Uint8 => 1,
            _ => 4,
        };
        self.dims.iter().fold(size, |product, dim| product.saturating_mul(*dim as u64))
    }

    /// Writes the values, little-endian: exactly [`Initializer::bytes`].
    pub fn write(&self, weights: &dyn WeightSource, out: &mut dyn Write) -> Result<(), WriteError> {
        let elements: usize = self.dims.iter().product();
        match &self.content {
            Content::Ints(values) => values.iter().try_for_each(|v| {
                let bytes = v.to_le_bytes();
                let size = match self.data_type {
                    DataType::Int8 | DataType::Uint8 => 1,
                    DataType::Int32 => 4,
                    _ => 8,
                };
                Ok(out.write_all(&bytes[..size])?)
            }),
            Content::Int8 { of, scales, turned, range } => self.write_int8(of, scales, *turned, *range, weights, out),
            Content::Floats(values) if values.len() == elements => self.write_floats(values, out),
            Content::Floats(values) => Err(ExportError::WeightShape {
                name: self.name.clone(),
                expected: format!("{elements} values"),
                found: format!("{} values", values.len()),
            }
            .into()),
            Content::Weight(name) => {
                let data = read(weights, name, elements)?;
                self.write_floats(&data, out)
            }
            Content::Rows { .. } => {
                let values = self.content.floats(&self.name, elements, weights)?;
                self.write_floats(&values, out)
            }
        }
    }

    fn write_int8(
        &self,
        of: &Content,
        scales: &[f32],
        turned: bool,
        range: WeightRange,
        weights: &dyn WeightSource,
        out: &mut dyn Write,
    ) -> Result<(), WriteError> {
        let elements: usize = self.dims.iter().product();
        let values = of.floats(&self.name, elements, weights)?;
        let width = (elements / scales.len().max(1)).max(1);
        let mut bytes = vec![0u8; elements];
        for ((row, scale), values) in scales.iter().enumerate().zip(values.chunks(width)) {
            for (column, value) in values.iter().enumerate() {
                let place = if turned { column * scales.len() + row } else { row * width + column };
                bytes[place] = in_8_bits(*value, *scale, range) as i8 as u8;
            }
        }
        Ok(out.write_all(&bytes)?)
    }

    fn write_floats(&self, values: &[f32], out: &mut dyn Write) -> Result<(), WriteError> {
        let mut buffer = Vec::with_capacity(4 * values.len().min(CHUNK));
        for chunk in values.chunks(CHUNK) {
            buffer.clear();
            let values = chunk.iter().copied();
            match self.data_type {
                DataType::Float16 => buffer.extend(values.flat_map(|v| f16::from_f32(v).to_le_bytes())),
                DataType::Bfloat16 => buffer.extend(values.flat_map(|v| bf16::from_f32(v).to_le_bytes())),
                DataType::Int32 => buffer.extend(values.flat_map(|v| (v as i32).to_le_bytes())),
                _ => buffer.extend(values.flat_map(f32::to_le_bytes)),
            }
            out.write_all(&buffer)?;
        }
        Ok(())
    }
}

/// Values converted at once when writing.
const CHUNK: usize = 1 << 16;

/// Reads a weight and checks how many values it has.
pub(crate) fn read<'w>(
    weights: &'w dyn WeightSource,
    name: &str,
    elements: usize,
) -> Result<Cow<'w, [f32]>, ExportError> {
    let data = weights.read(name).map_err(|source| ExportError::ReadWeight { name: name.to_owned(), source })?;
    if data.len() == elements {
        Ok(data)
    } else {
        Err(ExportError::WeightShape {
            name: name.to_owned(),
            expected: format!("{elements} values"),
            found: format!("{} values", data.len()),
        })
    }
}

/// Writing failed, or what was to be written could not be had.
pub(crate) enum WriteError {
    Io(io::Error),
    Export(ExportError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        WriteError::Io(error)
    }
}

impl From<ExportError> for WriteError {
    fn from(error: ExportError) -> Self {
        WriteError::Export(error)
    }
}

/// The ONNX element type.
pub(crate) fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::BF16 => DataType::Bfloat16,
        DType::F16 => DataType::Float16,
        DType::I32 => DataType::Int32,
    }
}
