//! The training state of an official checkpoint: what it holds beside its models.

use serde::{Deserialize, Serialize};

use super::plain::Plain;
use super::{Format, RECORD_KEY, Weights, WeightsError, pytorch};
use vjepa_recipe::config::Config;

/// Metadata key under which a converted official checkpoint keeps its training state.
pub const OFFICIAL_KEY: &str = "vjepa_official";

/// Counters and settings of an official run. Its moments are tensors of [`Weights`]: `adam.m.*` and `adam.v.*`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// Updates that AdamW has made; none before the first.
    pub updates: Option<u64>,
    /// The settings of its four groups: encoder and predictor, each what decays, then each what does not.
    pub groups: Vec<Plain>,
    /// Everything else that is plain: `epoch`, `loss`, `batch_size`, `world_size`, `lr`, `scaler`.
    pub others: Vec<(String, Plain)>,
}

impl TrainingState {
    /// A value beside the models.
    pub fn other(&self, key: &str) -> Option<&Plain> {
        self.others.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Epochs that are finished.
    pub fn epoch(&self) -> Option<u64> {
        self.other("epoch").and_then(Plain::count)
    }

    /// Mean loss of the last epoch.
    pub fn loss(&self) -> Option<f64> {
        self.other("loss").and_then(Plain::number).filter(|loss| loss.is_finite())
    }

    /// Clips of a step on all processes together.
    pub fn batch_size(&self) -> Option<u64> {
        let count = |key| self.other(key).and_then(Plain::count);
        count("batch_size")?.checked_mul(count("world_size").unwrap_or(1))
    }

    /// The highest learning rate of the schedule.
    pub fn lr(&self) -> Option<f64> {
        self.other("lr").and_then(Plain::number)
    }

    /// What the official code would have saved of a run of this program.
    ///
    /// The rates of the groups are those the schedules start from: the official code sets them anew before every step.
    ///
    /// # Errors
    /// Why the run's epochs cannot be told, in words.
    fn of_run(config: &Config, step: u64, loss: Option<f64>, epoch_steps: Option<u64>) -> Result<Self, String> {
        let optimization = &config.optimization;
        let plan = optimization.plan(epoch_steps).map_err(|error| error.to_string())?;
        let [first, second] = optimization.betas;
        let group = |decays: bool| {
            let decay = if decays { Plain::Float(optimization.weight_decay) } else { Plain::Int(0) };
            let mut items = match Plain::dict([
                ("lr", Plain::Float(optimization.lr)),
                ("betas", Plain::Tuple(vec![Plain::Float(first), Plain::Float(second)])),
                ("eps", Plain::Float(optimization.eps)),
                ("weight_decay", decay),
                ("amsgrad", Plain::Bool(false)),
                ("maximize", Plain::Bool(false)),
                ("foreach", Plain::None),
                ("capturable", Plain::Bool(false)),
                ("differentiable", Plain::Bool(false)),
                ("fused", Plain::None),
            ]) {
                Plain::Dict(items) => items,
                other => vec![(Plain::None, other)],
            };
            if !decays {
                items.push((Plain::Text("WD_exclude".to_owned()), Plain::Bool(true)));
            }
            Plain::Dict(items)
        };
        let count = |count: u64| Plain::Int(i64::try_from(count).unwrap_or(i64::MAX));
        let others = [
            ("scaler", Plain::None),
            ("epoch", count(step / plan.steps_per_epoch.max(1))),
            ("loss", loss.map_or(Plain::None, Plain::Float)),
            ("batch_size", count(config.data.batch_size as u64)),
            ("world_size", Plain::Int(1)),
            ("lr", Plain::Float(optimization.lr)),
        ];
        Ok(Self {
            updates: (step > 0).then_some(step),
            groups: vec![group(true), group(true), group(false), group(false)],
            others: others.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        })
    }
}

impl Weights {
    /// The training state in the file, with its moments as tensors; none where it holds weights alone.
    ///
    /// # Errors
    /// [`WeightsError::Training`], [`WeightsError::Record`], or a file that cannot be read.
    pub fn with_training(mut self) -> Result<(Self, Option<TrainingState>), WeightsError> {
        let state = match self.format() {
            Format::PyTorch if self.files.len() == 1 => {
                let Some((state, moments)) = pytorch::training(&self.path, &self.entries)? else {
                    return Ok((self, None));
                };
                self.foreign.retain(|key| !key.starts_with("opt.state."));
                self.entries.extend(moments);
                Some(state)
            }
            Format::PyTorch => None,
            Format::Safetensors => self.written_state()?,
        };
        Ok((self, state))
    }

    /// The state that a converted file, or one of this program's own runs, has in its metadata.
    fn written_state(&self) -> Result<Option<TrainingState>, WeightsError> {
        if let Some(text) = self.metadata.get(OFFICIAL_KEY) {
            let path = self.path.clone();
            let bad =
                |why: serde_json::Error| WeightsError::Record { path, what: "training state", why: why.to_string() };
            return serde_json::from_str(text).map(Some).map_err(bad);
        }
        let (Some(record), true) = (self.record(), self.has("adam")) else { return Ok(None) };
        let Some(step) = record.step else { return Ok(None) };
        let written: Option<serde_json::Value> =
            self.metadata.get(RECORD_KEY).and_then(|text| serde_json::from_str(text).ok());
        let number = |pointer: &str| written.as_ref().and_then(|written| written.pointer(pointer));
        let loss = number("/loss").and_then(serde_json::Value::as_f64);
        let videos = number("/contents/videos").and_then(serde_json::Value::as_u64);
        let epoch_steps = videos.map(|videos| videos / (record.config.data.batch_size as u64).max(1));
        let unusable = |why| WeightsError::Training { path: self.path.clone(), why };
        let mut state = TrainingState::of_run(&record.config, step, loss, epoch_steps).map_err(unusable)?;
        // A cool-down goes on with an optimiser that counts on.
        let before = number("/updates_before").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let updates = step.saturating_add(before);
        state.updates = (updates > 0).then_some(updates);
        Ok(Some(state))
    }
}
