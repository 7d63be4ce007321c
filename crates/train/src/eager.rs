//! Gradients from Burn's autodiff, for comparison with the compiled ones (`--eager`).

use super::TrainError;
use super::step_executor::Named;
use burn::tensor::{Device, Int, Tensor, TensorData};
use vjepa_graphs::objectives::{Batch, Built, ClipUse, Declaration, Indices, Input, Inputs, Source};
use vjepa_graphs::{AnyObjective, ShapeError};
use vjepa_programs::{context_weights, drawn};
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
        share: f64,
    ) -> Result<(Named, Named), TrainError> {
        let failed = |error: String| TrainError::Unsupported(format!("the eager step failed: {error}"));
        let weights = self.declaration.parameters().filter_map(|(name, _)| Some((params.get(&name)?, name)));
        let weights = weights.map(|(tensor, name)| (name, tensor)).collect();
        self.model.load(weights).map_err(|error| failed(error.to_string()))?;
        let batch = self.batch(clips, shape, pairs, share).map_err(|error| failed(error.to_string()))?;
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

    fn batch(&self, clips: &[f32], shape: [usize; 5], pairs: &[MaskPair], share: f64) -> Result<Batch, ShapeError> {
        Batch::gather(&self.declaration.inputs, &mut Given { of: self, clips, shape, pairs, share })
    }

    fn index(&self, batch: &IndexBatch) -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(batch.indices.clone(), [batch.batch, batch.len]), &self.device)
    }
}

/// A batch's tensors, for the inputs of the objective.
struct Given<'a> {
    of: &'a EagerGradients,
    clips: &'a [f32],
    shape: [usize; 5],
    pairs: &'a [MaskPair],
    share: f64,
}

impl Given<'_> {
    fn missing(&self) -> ShapeError {
        let expected = "one pair per mask generator".to_owned();
        ShapeError { input: "the masks", expected, got: vec![self.pairs.len()] }
    }
}

impl Inputs for Given<'_> {
    type Error = ShapeError;

    fn clips(&mut self, _: &Input, _: ClipUse) -> Result<Tensor<5>, ShapeError> {
        Ok(Tensor::from_data(TensorData::new(self.clips.to_vec(), self.shape), &self.of.device))
    }

    fn indices(&mut self, _: &Input, which: Indices) -> Result<Tensor<2, Int>, ShapeError> {
        Ok(self.of.index(drawn(self.pairs, which).ok_or_else(|| self.missing())?))
    }

    fn numbers(&mut self, input: &Input, weights_of: Option<usize>) -> Result<Tensor<2>, ShapeError> {
        let (shape, values) = match (weights_of, input.source) {
            (Some(generator), Source::ContextWeights { grid, .. }) => {
                let pair = self.pairs.get(generator).ok_or_else(|| self.missing())?;
                ([pair.context.batch, pair.context.len], context_weights(pair, grid).floats().to_vec())
            }
            _ => ([1, 1], vec![self.share as f32]),
        };
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.of.device))
    }
}
