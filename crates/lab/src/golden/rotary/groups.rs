//! Recorded runs through the training program's own state: images and videos as groups of a step, and a group's clips of two
//! lengths as its parts.

use serde_json::{Value, json};
use vjepa_collective::Alone;
use vjepa_programs::Precision;
use vjepa_recipe::config::Config;
use vjepa_recipe::masks::MaskPair;
use vjepa_runtime::plan::HostTensor;
use vjepa_train::{Group, StepReport, TrainState};
use vjepa_weights::TensorFile;

use super::super::check::GoldenError;
use super::super::clip::Clip;
use super::super::run::{Execution, Outputs};
use super::wrong;

/// A run's state with the recorded weights of encoder and predictor.
pub(super) struct Trained {
    pub(super) state: TrainState,
}

/// The configuration that a folder describes.
pub(super) fn configuration(execution: Execution, values: Value, weights: &TensorFile) -> Result<Config, GoldenError> {
    let mut values = values;
    let dtype = if execution.precision == Precision::Bf16 { "bfloat16" } else { "float32" };
    values["meta"] = json!({"dtype": dtype});
    values["optimization"]["mask_buckets"] = json!(execution.mask_buckets);
    Config::from_yaml(&values.to_string(), "", &[]).map_err(|error| wrong(weights, error))
}

impl Trained {
    /// Compiles the step of a configuration; the run begins with these weights.
    pub(super) fn new(execution: Execution, config: &Config, weights: &TensorFile) -> Result<Self, GoldenError> {
        let failed = |error: vjepa_train::TrainError| wrong(weights, error);
        let plan = config.optimization.plan(None).map_err(|error| wrong(weights, error))?;
        let mut state = TrainState::on(execution.device, config, plan, false).map_err(failed)?;
        let own = |name: &&str| ["encoder.", "predictor."].iter().any(|set| name.starts_with(set));
        let tensor = |name: &str| Ok((name.to_owned(), (weights.shape(name)?.to_vec(), weights.f32(name)?)));
        let tensors = weights.names().filter(own).map(tensor).collect::<Result<_, GoldenError>>()?;
        state.set_weights(tensors).map_err(failed)?;
        Ok(Self { state })
    }

    /// One step of groups of parts.
    pub(super) fn step(
        &mut self,
        groups: Vec<Vec<Group>>,
        weights: &TensorFile,
    ) -> Result<(Outputs, StepReport), GoldenError> {
        let failed = |error: vjepa_train::TrainError| wrong(weights, error);
        for parts in groups {
            self.state.add_parts(parts).map_err(failed)?;
        }
        let report = self.state.finish_step(&Alone).map_err(failed)?;
        let mut outputs = Outputs::from([("loss".to_owned(), HostTensor::scalar(report.loss as f32))]);
        outputs
            .extend(report.terms.iter().map(|(term, value)| ((*term).to_owned(), HostTensor::scalar(*value as f32))));
        let norms = report.grad_norms.iter();
        outputs.extend(norms.map(|(set, norm)| (format!("grad_norm.{set}"), HostTensor::scalar(*norm as f32))));
        Ok((outputs, report))
    }
}

/// Clips with their masks as what a variant computes, counting `weight` within its group.
pub(super) fn part(clip: &Clip, pairs: Vec<MaskPair>, (variant, weight): (usize, f64)) -> Group {
    Group { variant, weight, ..Group::masked(clip.values.clone(), clip.shape, pairs) }
}
