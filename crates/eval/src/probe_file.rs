//! Writes probes as [`vjepa_programs::load_probe`] reads them.

use std::collections::BTreeMap;
use std::path::Path;

use vjepa_graphs::NamedTensors;

use super::EvalError;
use super::logistic::LogisticModel;
use vjepa_programs::{PROBE_KEY, ProbeRecord};
use vjepa_weights as weights;

/// The weights of a linear probe from a logistic regression.
pub fn linear_weights(model: &LogisticModel) -> NamedTensors {
    let classes = model.bias.len();
    NamedTensors::from([
        ("linear.weight".to_owned(), (vec![classes, model.dim], model.weight.clone())),
        ("linear.bias".to_owned(), (vec![classes], model.bias.clone())),
    ])
}

/// Writes a probe with its description, whose names of classes are as many as classes, or none; `extra` goes into the metadata
/// beside it.
///
/// # Errors
/// [`EvalError::Weights`], [`EvalError::Setup`] for another number of names.
pub fn save_probe(
    path: &Path,
    record: &ProbeRecord,
    weights: &NamedTensors,
    extra: &BTreeMap<String, String>,
) -> Result<(), EvalError> {
    let (names, classes) = (record.labels.len(), record.classes);
    if names > 0 && names != classes {
        return Err(EvalError::setup(format!("{names} names do not fit {classes} classes")));
    }
    let text = serde_json::to_string(record).map_err(|error| EvalError::file(path, error))?;
    let mut metadata = extra.clone();
    metadata.insert(PROBE_KEY.to_owned(), text);
    let named = |(name, tensor): (&String, &(Vec<usize>, Vec<f32>))| (format!("probe.{name}"), tensor.clone());
    Ok(weights::save_safetensors(path, &weights.iter().map(named).collect(), &metadata)?)
}

#[cfg(test)]
mod tests {
    use super::super::attentive::first_weights;
    use super::*;
    use vjepa_graphs::ProbeConfig;
    use vjepa_programs::Probe;

    #[test]
    fn probes_survive_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.safetensors");
        let config = ProbeConfig { depth: 2, ..ProbeConfig::sized(12, 3, 2) };
        for probe in [
            Probe::Attentive(config.clone()),
            Probe::Attentive(ProbeConfig { complete_block: false, ..config }),
            Probe::Linear { embed_dim: 12, num_classes: 2 },
        ] {
            let weights = first_weights(&probe, 1);
            let names = ["left".to_owned(), "right".to_owned()];
            let record = ProbeRecord { layers: Some(vec![1, 3]), ..ProbeRecord::of(&probe, &names) };
            save_probe(&path, &record, &weights, &BTreeMap::new()).unwrap();
            let file = vjepa_programs::load_probe(&path).unwrap();
            assert_eq!((file.probe, file.labels, file.layers), (probe.clone(), names.to_vec(), record.layers));
            assert_eq!(vjepa_programs::probe_layers(&path).unwrap(), Some(vec![1, 3]));
            assert!(weights.iter().all(|(name, tensor)| file.tensors[&format!("probe.{name}")] == *tensor));
            assert!(save_probe(&path, &ProbeRecord::of(&probe, &names[..1]), &weights, &BTreeMap::new()).is_err());
        }
    }
}
