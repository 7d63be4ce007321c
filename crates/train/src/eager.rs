//! Gradients from Burn's autodiff, for comparison with the compiled ones (`--eager`).

use super::TrainError;
use super::engine::Named;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vjepa_graphs::objectives::{Batch, Built, Declaration};
use vjepa_graphs::{AnyObjective, ShapeError};
use vjepa_programs::drawn;
use vjepa_recipe::masks::{IndexBatch, MaskPair};
use vjepa_runtime::plan::{DeviceParams, HostTensor};

/// The eager model. Its weights are loaded afresh for every step.
pub(super) struct EagerGradients {
    device: Device,
    declaration: Declaration,
    model: Built,
}

impl EagerGradients {
    pub(super) fn new(objective: &AnyObjective) -> Result<Self, TrainError> {
        let device = Device::flex().autodiff();
        let model = objective.build(&device).map_err(|error| TrainError::Unsupported(error.to_string()))?;
        Ok(Self { device, declaration: objective.declaration().clone(), model })
    }

    /// Gradients as the inputs `grad/<parameter>` of the compiled optimiser, and the losses by output name.
    pub(super) fn run(
        &mut self,
        params: &DeviceParams,
        clips: &[f32],
        shape: [usize; 5],
        pairs: &[MaskPair],
    ) -> Result<(Named, Named), TrainError> {
        let failed = |error: String| TrainError::Unsupported(format!("the eager step failed: {error}"));
        let weights = self.declaration.parameters().filter_map(|(name, _)| Some((params.get(&name)?, name)));
        let weights = weights.map(|(tensor, name)| (name, tensor)).collect();
        self.model.load(weights).map_err(|error| failed(error.to_string()))?;
        let batch = self.batch(clips, shape, pairs).map_err(|error| failed(error.to_string()))?;
        let out = self.model.losses(&batch).map_err(|error| failed(error.to_string()))?;
        let value = |tensor: &Tensor<1>| HostTensor::scalar(tensor.clone().into_scalar::<f32>());
        let terms = out.terms.iter().map(|(name, term)| ((*name).to_owned(), value(term)));
        let outputs = terms.chain([("loss".to_owned(), value(&out.loss))]).collect();
        let gradients = self.model.gradients(&out.loss.backward()).into_iter();
        let trained = |name: &str| {
            let set = name.split_once('.').map_or(name, |(set, _)| set);
            self.declaration.trained().any(|trained| trained.name == set)
        };
        let inputs = gradients
            .filter(|(name, _)| trained(name))
            .map(|(name, (shape, data))| (format!("grad/{name}"), HostTensor::F32 { shape, data }))
            .collect();
        Ok((inputs, outputs))
    }

    fn batch(&self, clips: &[f32], shape: [usize; 5], pairs: &[MaskPair]) -> Result<Batch, ShapeError> {
        let missing = || ShapeError {
            input: "the masks",
            expected: "one pair per mask generator".to_owned(),
            got: vec![pairs.len()],
        };
        Batch::gather(
            &self.declaration.inputs,
            |_, _| Ok(Tensor::from_data(TensorData::new(clips.to_vec(), shape), &self.device)),
            |_, which| Ok(self.index(drawn(pairs, which).ok_or_else(missing)?)),
        )
    }

    fn index(&self, batch: &IndexBatch) -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(batch.indices.clone(), [batch.batch, batch.len]), &self.device)
    }
}
