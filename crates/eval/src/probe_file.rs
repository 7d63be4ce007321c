//! Writes probes as [`vjepa_programs::load_probe`] reads them.

use std::collections::BTreeMap;
use std::path::Path;

use vjepa_graphs::NamedTensors;

use super::EvalError;
use super::attentive::classes;
use super::logistic::LogisticModel;
use vjepa_programs::Probe;
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

/// Writes a probe with the names of its classes (as many as classes, or none); `extra` goes into the metadata next to the
/// description.
///
/// # Errors
/// [`EvalError::Weights`], [`EvalError::Setup`] for another number of names.
pub fn save_probe(
    path: &Path,
    probe: &Probe,
    weights: &NamedTensors,
    labels: &[String],
    extra: &BTreeMap<String, String>,
) -> Result<(), EvalError> {
    if !labels.is_empty() && labels.len() != classes(probe) {
        return Err(EvalError::setup(format!("{} names do not fit {} classes", labels.len(), classes(probe))));
    }
    let text = serde_json::to_string(&ProbeRecord::of(probe, labels)).map_err(|error| EvalError::file(path, error))?;
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
            save_probe(&path, &probe, &weights, &names, &BTreeMap::new()).unwrap();
            let file = vjepa_programs::load_probe(&path).unwrap();
            assert_eq!((file.probe, file.labels), (probe.clone(), names.to_vec()));
            assert!(weights.iter().all(|(name, tensor)| file.tensors[&format!("probe.{name}")] == *tensor));
            assert!(save_probe(&path, &probe, &weights, &names[..1], &BTreeMap::new()).is_err());
        }
    }
}
