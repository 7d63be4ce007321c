//! Anticipating actions (V-JEPA 2's evaluation on EPIC-KITCHENS-100): the predictor rolls a frozen encoder's clip out to the time
//! of the action, and a probe reads verb, noun and action from the clip and that future. The figure is class-mean recall at 5.

mod future;
mod official;
mod training;

pub use future::{Anticipated, FutureEncoder, FutureTimes};
pub use official::{OfficialClips, load_official_actions};
pub use training::{AugmentedActions, train_actions, train_actions_augmented};

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vjepa_data::annotations::ActionSegment;
use vjepa_graphs::{NamedTensors, ProbeConfig};
use vjepa_metrics::recall::class_mean_recall;
use vjepa_programs::{self as compile, ACTION_HEADS};
use vjepa_runtime::plan::{Device, HostTensor};
use vjepa_weights as weights;

use crate::EvalError;

/// Metadata of an action probe's file.
pub const ANTICIPATION_KEY: &str = "vjepa_anticipation";
/// What recall is at.
pub const TOP: usize = 5;

/// Which clips a probe was trained on, and what its classes are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnticipationRecord {
    /// Blocks of the probe.
    pub depth: usize,
    /// Attention heads of the probe.
    pub num_heads: usize,
    /// Width of the features.
    pub embed_dim: usize,
    /// Verb classes of the annotations, in the order of the outputs.
    pub verbs: Vec<i64>,
    /// Noun classes, likewise.
    pub nouns: Vec<i64>,
    /// Actions, pairs of both.
    pub actions: Vec<(i64, i64)>,
    /// Frames of a clip.
    pub frames: usize,
    /// Clip frames a second.
    pub fps: f64,
    /// Seconds before the anchor.
    pub seconds: f64,
    /// The anchor, `stop` or `start`.
    pub anchor: String,
    /// Side of a clip in pixels.
    pub side: usize,
    /// SHA-256 of the encoder's file.
    pub encoder_sha256: String,
}

impl AnticipationRecord {
    /// The probe's sizes; the numbers of its classes are [`AnticipationRecord::classes`].
    pub fn probe(&self) -> ProbeConfig {
        let sized = ProbeConfig::sized(self.embed_dim, self.num_heads, self.actions.len());
        ProbeConfig { depth: self.depth, blocks_on: vjepa_graphs::BlocksOn::Features, ..sized }
    }

    /// Verbs, nouns and actions.
    pub fn classes(&self) -> [usize; 3] {
        [self.verbs.len(), self.nouns.len(), self.actions.len()]
    }

    /// The outputs that a segment's verb, noun and action are; none where the probe does not know one of them.
    pub fn labels(&self, segment: &ActionSegment) -> Option<[usize; 3]> {
        // Official probes number their classes in an order of their own.
        let verb = self.verbs.iter().position(|verb| *verb == segment.verb)?;
        let noun = self.nouns.iter().position(|noun| *noun == segment.noun)?;
        Some([verb, noun, self.actions.iter().position(|action| *action == segment.action())?])
    }
}

/// Class-mean recall at 5 of verbs, nouns and actions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recall {
    /// Of verbs.
    pub verb: f64,
    /// Of nouns.
    pub noun: f64,
    /// Of actions.
    pub action: f64,
    /// Actions that were anticipated.
    pub segments: usize,
    /// Actions that the probe has no class for, which are left out.
    pub unknown: usize,
}

/// Evaluates a probe; classes that do not occur among the actions are no answer, as officially.
///
/// # Errors
/// [`EvalError::Setup`] where the probe knows none of the actions; [`EvalError::Run`].
pub fn evaluate_actions(
    device: Device,
    record: &AnticipationRecord,
    weights: &NamedTensors,
    found: &Anticipated,
) -> Result<Recall, EvalError> {
    let labels: Vec<Option<[usize; 3]>> = found.segments.iter().map(|segment| record.labels(segment)).collect();
    let rows: Vec<usize> = (0..labels.len()).filter(|row| labels[*row].is_some()).collect();
    let labels: Vec<[usize; 3]> = labels.iter().copied().flatten().collect();
    if rows.is_empty() {
        return Err(EvalError::setup("the probe has no class for any of the actions: are they of another data set?"));
    }
    let classes = record.classes();
    let graph = compile::optimised(&compile::actions(&record.probe(), classes)?)?;
    let mut plan = device.plan(&graph)?;
    let mut params = device.params();
    for (name, (shape, data)) in weights {
        let name = name.strip_prefix("probe.").unwrap_or(name);
        params.set(&format!("probe.{name}"), HostTensor::F32 { shape: shape.clone(), data: data.clone() });
    }
    let mut logits: [Vec<f32>; 3] = Default::default();
    for rows in rows.chunks(16) {
        let features = found.features.select(rows);
        let shape = vec![rows.len(), features.tokens, features.dim];
        let out = plan.run(&mut params, vec![("features", HostTensor::F32 { shape, data: features.values })])?;
        for (all, head) in logits.iter_mut().zip(ACTION_HEADS) {
            all.extend(out.get(head).map(|logits| logits.floats().to_vec()).unwrap_or_default());
        }
    }
    let mut recalls = [0f64; 3];
    for (head, recall) in recalls.iter_mut().enumerate() {
        let own: Vec<usize> = labels.iter().map(|labels| labels[head]).collect();
        // A sigmoid keeps the order, so that logits do.
        let scores = &mut logits[head];
        let present: BTreeSet<usize> = own.iter().copied().collect();
        let absent: Vec<usize> = (0..classes[head]).filter(|class| !present.contains(class)).collect();
        for row in scores.chunks_exact_mut(classes[head].max(1)) {
            for class in &absent {
                row[*class] = f32::NEG_INFINITY;
            }
        }
        *recall = class_mean_recall(scores, classes[head], &own, TOP, None)
            .map_err(|error| EvalError::setup(error.to_string()))?;
    }
    let [verb, noun, action] = recalls;
    let unknown = found.segments.len() - labels.len();
    Ok(Recall { verb, noun, action, segments: labels.len(), unknown })
}

/// Writes a probe of actions.
///
/// # Errors
/// [`EvalError::Weights`], [`EvalError::File`].
pub fn save_actions(path: &Path, record: &AnticipationRecord, probe: &NamedTensors) -> Result<(), EvalError> {
    let json = serde_json::to_string(record).map_err(|error| EvalError::file(path, error))?;
    let metadata = std::collections::BTreeMap::from([(ANTICIPATION_KEY.to_owned(), json)]);
    let named = probe.iter().map(|(name, tensor)| (format!("probe.{name}"), tensor.clone()));
    Ok(weights::save_safetensors(path, &named.collect(), &metadata)?)
}

/// Reads a probe of actions.
///
/// # Errors
/// [`EvalError::Weights`]; [`EvalError::Setup`] for a file of something else.
pub fn load_actions(path: &Path) -> Result<(AnticipationRecord, NamedTensors), EvalError> {
    let file = weights::load(path)?;
    let other = || {
        let path = path.display();
        EvalError::setup(format!(
            "{path} is not a probe of actions: give one that `vjepa anticipate train` has written, or an official one with --classes \
             EPIC_100_train.csv"
        ))
    };
    let text = file.metadata().get(ANTICIPATION_KEY).ok_or_else(other)?;
    let record: AnticipationRecord = serde_json::from_str(text).map_err(|_| other())?;
    let mut tensors = file.all()?;
    tensors.retain(|name, _| name.starts_with("probe."));
    Ok((record, tensors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attentive::ProbeOptions;
    use crate::features::Features;

    #[test]
    fn a_probe_learns_what_follows() {
        let record = AnticipationRecord {
            depth: 2,
            num_heads: 2,
            embed_dim: 16,
            verbs: vec![0, 4],
            nouns: vec![1, 2, 9],
            actions: vec![(0, 1), (0, 2), (4, 1), (4, 9)],
            frames: 4,
            fps: 8.0,
            seconds: 1.0,
            anchor: "stop".into(),
            side: 32,
            encoder_sha256: String::new(),
        };
        // The first token says the verb, the second the noun.
        let mut features = Features::empty(3, 16);
        let mut segments = Vec::new();
        for number in 0..32usize {
            let (verb, noun) = record.actions[number % 4];
            let mut clip = vec![0f32; 48];
            clip[verb as usize] = 3.0;
            clip[16 + noun as usize] = 3.0;
            clip[32 + number % 16] = 0.3;
            features.values.extend(clip);
            segments.push(ActionSegment { path: "v.mp4".into(), start: 0, stop: 1, verb, noun });
        }
        let found = Anticipated { features, segments, bad: Vec::new() };
        let options =
            ProbeOptions { epochs: 30, batch: 8, lr: 3e-3, max_norm: f32::INFINITY, ..ProbeOptions::default() };
        let mut epochs = 0;
        let weights = train_actions(Device::CPU, &record, &found, &options, &mut |p| epochs = p.done).unwrap();
        assert_eq!(epochs, 30);
        let recall = evaluate_actions(Device::CPU, &record, &weights, &found).unwrap();
        // With at most five classes a head every answer is among the first five.
        assert_eq!((recall.verb, recall.noun, recall.action, recall.segments, recall.unknown), (1.0, 1.0, 1.0, 32, 0));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("actions.safetensors");
        save_actions(&path, &record, &weights).unwrap();
        let (read, tensors) = load_actions(&path).unwrap();
        assert_eq!(read, record);
        assert_eq!(evaluate_actions(Device::CPU, &read, &tensors, &found).unwrap(), recall);
        let strange = ActionSegment { verb: 7, ..found.segments[0].clone() };
        let more = Anticipated { segments: vec![strange; 32], ..found };
        assert!(evaluate_actions(Device::CPU, &record, &weights, &more).is_err());
    }
}
