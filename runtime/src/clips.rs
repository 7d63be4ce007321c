//! Clips as they are fed to a model, and what it returns.

use crate::error::SessionError;

/// A batch of clips, `[B, 3, T, H, W]` row-major, prepared as the model's preprocessing record says.
#[derive(Clone, Copy, Debug)]
pub struct ClipBatch<'a> {
    shape: [usize; 5],
    data: &'a [f32],
}

impl<'a> ClipBatch<'a> {
    /// A view of `data` as clips of `shape`.
    ///
    /// # Errors
    /// [`SessionError::Values`] when the shape needs another number of values, or none.
    pub fn new(shape: [usize; 5], data: &'a [f32]) -> Result<Self, SessionError> {
        let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        if elements != Some(data.len()) || data.is_empty() {
            return Err(SessionError::Values { shape: shape.to_vec(), values: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// Its shape.
    pub fn shape(&self) -> [usize; 5] {
        self.shape
    }

    /// Its values.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// A result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedOutput {
    /// Name of the output.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub data: Vec<f32>,
}

/// The clips of a run in the shape of the model's input.
#[derive(Clone, Copy)]
pub(crate) struct Feed<'a> {
    pub shape: &'a [usize],
    pub data: &'a [f32],
}
