//! Gradients from Burn's autodiff, for comparison with the compiled ones (`--eager`).

use super::TrainError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::collections::BTreeMap;
use vjepa_graphs::{Encoder, NamedTensors, Predictor, PretrainLoss, gradients, load_parameters, parameter_names};
use vjepa_programs::Models;
use vjepa_recipe::masks::{IndexBatch, MaskPair};
use vjepa_runtime::plan::{DeviceParams, HostTensor};

/// The eager model; its weights are loaded afresh for every step.
pub(super) struct EagerGradients {
    device: Device,
    encoder: Encoder,
    predictor: Predictor,
    loss: PretrainLoss,
}

/// Tensors by input or output name.
type Named = BTreeMap<String, HostTensor>;

impl EagerGradients {
    pub(super) fn new(models: &Models, loss: PretrainLoss) -> Result<Self, TrainError> {
        let device = Device::flex().autodiff();
        let failed = |error: vjepa_graphs::ConfigError| TrainError::Unsupported(error.to_string());
        Ok(Self {
            encoder: Encoder::empty(&models.encoder, &device).map_err(failed)?,
            predictor: Predictor::empty(&models.predictor, &device).map_err(failed)?,
            device,
            loss,
        })
    }

    /// Gradients as the inputs `grad/<parameter>` of the compiled optimiser, and the losses.
    pub(super) fn run(
        &self,
        params: &DeviceParams,
        clips: Vec<f32>,
        shape: [usize; 5],
        pairs: &[MaskPair],
    ) -> Result<(Named, Named), TrainError> {
        let failed = |error: String| TrainError::Unsupported(format!("the eager step failed: {error}"));
        let encoder = load_parameters(self.encoder.clone(), named(params, "encoder.", &self.encoder))
            .map_err(|error| failed(error.to_string()))?;
        let predictor = load_parameters(self.predictor.clone(), named(params, "predictor.", &self.predictor))
            .map_err(|error| failed(error.to_string()))?;
        let target = load_parameters(self.encoder.clone(), named(params, "target_encoder.", &self.encoder))
            .map_err(|error| failed(error.to_string()))?;
        let clip = Tensor::<5>::from_data(TensorData::new(clips, shape), &self.device);
        let pairs: Vec<vjepa_graphs::MaskPair> = pairs
            .iter()
            .map(|pair| vjepa_graphs::MaskPair { context: self.index(&pair.context), target: self.index(&pair.target) })
            .collect();
        let out = self
            .loss
            .forward(&encoder, &predictor, &target, clip, &pairs)
            .map_err(|error| failed(error.to_string()))?;
        let value = |tensor: &Tensor<1>| HostTensor::scalar(tensor.clone().into_scalar::<f32>());
        let outputs = BTreeMap::from([
            ("loss".to_owned(), value(&out.loss)),
            ("loss_jepa".to_owned(), value(&out.loss_jepa)),
            ("loss_reg".to_owned(), value(&out.loss_reg)),
        ]);
        let tape = out.loss.backward();
        let mut inputs = Named::new();
        for (prefix, found) in [("encoder.", gradients(&encoder, &tape)), ("predictor.", gradients(&predictor, &tape))]
        {
            inputs.extend(
                found
                    .into_iter()
                    .map(|(name, (shape, data))| (format!("grad/{prefix}{name}"), HostTensor::F32 { shape, data })),
            );
        }
        Ok((inputs, outputs))
    }

    fn index(&self, batch: &IndexBatch) -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(batch.indices.clone(), [batch.batch, batch.len]), &self.device)
    }
}

fn named<M: burn::module::Module>(params: &DeviceParams, prefix: &str, module: &M) -> NamedTensors {
    parameter_names(module)
        .into_iter()
        .filter_map(|name| params.get(&format!("{prefix}{name}")).map(|tensor| (name, tensor)))
        .collect()
}
