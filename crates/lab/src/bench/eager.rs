//! Burn without a compiler: its modules, its autodiff, AdamW and the moving average tensor by tensor. What a Burn user
//! would run today.

use super::{BenchError, What};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use std::collections::HashMap;
use vjepa_graphs::{Encoder, JepaLoss, NamedTensors, Predictor, load_parameters};
use vjepa_programs::{Models, model_configs};
use vjepa_recipe::config::Config;
use vjepa_recipe::masks::{IndexBatch, MaskPair};

/// Models and optimiser state.
pub(super) struct EagerStep {
    device: Device,
    what: What,
    encoder: Encoder,
    predictor: Predictor,
    target: Encoder,
    loss: JepaLoss,
    clip: Tensor<5>,
    moments: HashMap<String, [Tensor<1>; 2]>,
    rates: Rates,
    steps: i32,
}

#[derive(Clone, Copy)]
struct Rates {
    lr: f64,
    wd: f64,
    momentum: f64,
    betas: [f64; 2],
    eps: f64,
}

impl EagerStep {
    pub(super) fn new(
        config: &Config,
        mut tensors: NamedTensors,
        (shape, data): (Vec<usize>, Vec<f32>),
        what: What,
    ) -> Result<Self, BenchError> {
        let device = if what == What::Step { Device::flex().autodiff() } else { Device::flex() };
        let failed = |error: String| BenchError::Eager(error);
        let Models { encoder, predictor, .. } = model_configs(config)?;
        let mut part = |prefix: &str| -> NamedTensors {
            let names: Vec<String> = tensors.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
            names
                .into_iter()
                .filter_map(|name| Some((name[prefix.len()..].to_owned(), tensors.remove(&name)?)))
                .collect()
        };
        let load = |tensors: NamedTensors| {
            let empty = Encoder::empty(&encoder, &device).map_err(|error| failed(error.to_string()))?;
            load_parameters(empty, tensors).map_err(|error| failed(error.to_string()))
        };
        let narrow = Predictor::empty(&predictor, &device).map_err(|error| failed(error.to_string()))?;
        let optimization = &config.optimization;
        Ok(Self {
            target: load(part("target_encoder."))?.no_grad(),
            encoder: load(part("encoder."))?,
            predictor: load_parameters(narrow, part("predictor.")).map_err(|error| failed(error.to_string()))?,
            loss: JepaLoss { loss_exp: config.loss.loss_exp, reg_coeff: config.loss.reg_coeff },
            clip: Tensor::from_data(TensorData::new(data, shape), &device),
            device,
            what,
            moments: HashMap::new(),
            rates: Rates {
                lr: optimization.lr,
                wd: optimization.weight_decay,
                momentum: optimization.ema[0],
                betas: optimization.betas,
                eps: optimization.eps,
            },
            steps: 0,
        })
    }

    /// One step; the loss.
    pub(super) fn run(&mut self, pairs: &[MaskPair]) -> Result<f64, BenchError> {
        let failed = |error: vjepa_graphs::ShapeError| BenchError::Eager(error.to_string());
        if self.what == What::Encoder {
            let y = self.encoder.forward(self.clip.clone(), None).map_err(failed)?;
            return Ok(f64::from(y.abs().mean().into_scalar::<f32>()));
        }
        let index = |batch: &IndexBatch| -> Tensor<2, Int> {
            Tensor::from_data(TensorData::new(batch.indices.clone(), [batch.batch, batch.len]), &self.device)
        };
        let pairs: Vec<_> = pairs
            .iter()
            .map(|pair| vjepa_graphs::MaskPair {
                context: index(&pair.context),
                target: index(&pair.target),
                weights: None,
            })
            .collect();
        let out = self
            .loss
            .forward(&self.encoder, &self.predictor, &self.target, self.clip.clone(), &pairs)
            .map_err(failed)?;
        let loss = f64::from(out.loss.clone().into_scalar::<f32>());
        let tape = out.loss.backward();
        self.steps += 1;
        let mut adamw =
            AdamW { path: Vec::new(), tape, moments: &mut self.moments, rates: self.rates, steps: self.steps };
        adamw.path.push("encoder".to_owned());
        self.encoder = self.encoder.clone().map(&mut adamw);
        adamw.path[0] = "predictor".to_owned();
        self.predictor = self.predictor.clone().map(&mut adamw);
        let mut sources = Sources(Vec::new());
        vjepa_graphs::visit_parameters(&self.encoder, &mut sources);
        sources.0.reverse();
        self.target = self.target.clone().map(&mut Average { sources: sources.0, momentum: self.rates.momentum });
        Ok(loss)
    }
}

struct AdamW<'a> {
    path: Vec<String>,
    tape: Gradients,
    moments: &'a mut HashMap<String, [Tensor<1>; 2]>,
    rates: Rates,
    steps: i32,
}

impl ModuleMapper for AdamW<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let tensor = param.val();
        let Some(gradient) = tensor.grad(&self.tape) else { return param };
        let (shape, name) = (tensor.dims(), self.path.join("."));
        let count = shape.iter().product::<usize>();
        let g = gradient.reshape([count]);
        let zeros = || Tensor::<1>::zeros([count], &g.device());
        let [m, v] = self.moments.remove(&name).unwrap_or_else(|| [zeros(), zeros()]);
        let Rates { lr, wd, betas: [b1, b2], eps, .. } = self.rates;
        let m = m.mul_scalar(b1) + g.clone().mul_scalar(1.0 - b1);
        let v = v.mul_scalar(b2) + g.clone().powf_scalar(2.0).mul_scalar(1.0 - b2);
        let (c1, c2) = (1.0 - b1.powi(self.steps), 1.0 - b2.powi(self.steps));
        let update = m.clone().div_scalar(c1) / (v.clone().div_scalar(c2).sqrt().add_scalar(eps));
        let decay = if D == 1 || name.contains("bias") { 0.0 } else { lr * wd };
        let plain = tensor.detach().inner().reshape([count]).mul_scalar(1.0 - decay) - update.mul_scalar(lr);
        self.moments.insert(name, [m, v]);
        let new = Tensor::<D>::from_inner(plain.reshape(shape)).require_grad();
        Param::initialized(param.id, new)
    }
}

struct Sources(Vec<Tensor<1>>);

impl vjepa_graphs::ParameterVisitor for Sources {
    fn parameter<const D: usize>(&mut self, _: &str, parameter: &Param<Tensor<D>>) {
        let tensor = parameter.val().detach().inner();
        let count = tensor.dims().iter().product::<usize>();
        self.0.push(tensor.reshape([count]));
    }
}

struct Average {
    sources: Vec<Tensor<1>>,
    momentum: f64,
}

impl ModuleMapper for Average {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(source) = self.sources.pop() else { return param };
        let target = param.val().inner();
        let shape = target.dims();
        let mixed = target.mul_scalar(self.momentum) + source.reshape(shape).mul_scalar(1.0 - self.momentum);
        Param::initialized(param.id, Tensor::<D>::from_inner(mixed))
    }
}
