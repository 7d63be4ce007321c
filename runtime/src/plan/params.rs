//! The parameters of a run: named tensors that outlive it.

use super::{HostTensor, Operand, RunError};
use burn_backend::tensor::Device;
use burn_backend::{Backend, FloatDType, TensorData, TensorMetadata};
use std::collections::BTreeMap;
use vjepa_lower::read_floats;

/// A tensor's shape and values.
pub type Shaped = (Vec<usize>, Vec<f32>);

/// Named tensors on a device: weights, target weights and optimiser moments under their official names.
pub struct Params<B: Backend> {
    device: Device<B>,
    tensors: BTreeMap<String, Operand<B>>,
    /// How often something was set, taken or given back.
    changes: u64,
}

impl<B: Backend> Params<B> {
    /// An empty store on `device`.
    pub fn new(device: Device<B>) -> Self {
        Self { device, tensors: BTreeMap::new(), changes: 0 }
    }

    /// The device the tensors live on.
    pub fn device(&self) -> &Device<B> {
        &self.device
    }

    /// Sets a tensor, replacing one of that name.
    pub fn set(&mut self, name: &str, tensor: HostTensor) {
        let operand = upload::<B>(tensor, &self.device);
        self.put(name, operand);
    }

    /// Sets a tensor of zeros, made on the device; one of that name is given back first.
    pub fn zeros(&mut self, name: &str, shape: &[usize]) {
        self.take(name);
        // Burn has no rank 0.
        let shape = if shape.is_empty() { vec![1] } else { shape.to_vec() };
        let zeros = B::float_zeros(shape.into(), &self.device, FloatDType::F32);
        self.put(name, Operand::Float(zeros));
    }

    /// Gives a tensor back; false when there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        self.take(name).is_some()
    }

    /// A copy of the floats of a tensor on the host, with its shape (scalars as `[1]`); `None` for a tensor that is not
    /// there, or that the device lost.
    pub fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.read(name).ok().flatten()
    }

    /// [`Params::get`], with why the device cannot return the tensor.
    pub(super) fn read(&self, name: &str) -> Result<Option<Shaped>, RunError> {
        let Some(Operand::Float(tensor)) = self.tensors.get(name) else { return Ok(None) };
        let lost = |why| RunError::Lost { name: name.to_owned(), why };
        Ok(Some((tensor.shape().to_vec(), read_floats::<B>(tensor.clone()).map_err(lost)?)))
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Makes `to` another name of the tensor called `from` (no copy is made until one of them changes).
    pub fn alias(&mut self, from: &str, to: &str) -> bool {
        match self.tensors.get(from).cloned() {
            Some(tensor) => {
                self.put(to, tensor);
                true
            }
            None => false,
        }
    }

    pub(super) fn operand(&self, name: &str) -> Option<&Operand<B>> {
        self.tensors.get(name)
    }

    /// A number that another one follows when any tensor may have changed its memory.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Operand<B>> {
        self.changes += 1;
        self.tensors.remove(name)
    }

    pub(super) fn put(&mut self, name: &str, operand: Operand<B>) {
        self.changes += 1;
        self.tensors.insert(name.to_owned(), operand);
    }
}

/// Moves a host tensor to the device.
pub(super) fn upload<B: Backend>(tensor: HostTensor, device: &Device<B>) -> Operand<B> {
    // Burn has no rank 0: scalars travel as `[1]`.
    let dims = |shape: Vec<usize>| if shape.is_empty() { vec![1] } else { shape };
    match tensor {
        HostTensor::F32 { shape, data } => {
            Operand::Float(B::float_from_data(TensorData::new(data, dims(shape)), device))
        }
        HostTensor::I32 { shape, data } => Operand::Int(B::int_from_data(TensorData::new(data, dims(shape)), device)),
        HostTensor::Pixels(pixels) => {
            let floats = pixels.scaled(Vec::new());
            Operand::Float(B::float_from_data(TensorData::new(floats, pixels.shape), device))
        }
    }
}
