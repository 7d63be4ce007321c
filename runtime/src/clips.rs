//! Clips and other tensors as they are fed to a model, and what it returns.

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
        if !fills(&shape, data) {
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

/// A tensor for one input of a model, under the input's name; `f32`, row-major.
#[derive(Clone, Copy, Debug)]
pub struct NamedInput<'a> {
    name: &'a str,
    shape: &'a [usize],
    data: &'a [f32],
}

impl<'a> NamedInput<'a> {
    /// A view of `data` as a tensor of `shape` for the input `name`.
    ///
    /// # Errors
    /// [`SessionError::InputValues`] when the shape needs another number of values, or none.
    pub fn new(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> Result<Self, SessionError> {
        if !fills(shape, data) {
            return Err(SessionError::InputValues { name: name.to_owned(), shape: shape.to_vec(), values: data.len() });
        }
        Ok(Self { name, shape, data })
    }

    /// The input.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its shape.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Its values.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// Whether there are as many values as the shape has places, and any.
fn fills(shape: &[usize], data: &[f32]) -> bool {
    let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    elements == Some(data.len()) && !data.is_empty()
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

/// What one input of the model gets in a run, in its shape.
#[derive(Clone, Copy)]
pub(crate) struct Feed<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub data: &'a [f32],
}
