//! Probe files: a classifier's weights under `probe.*` and its description in the metadata.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vjepa_graphs::ProbeConfig;

use crate::Probe;
use vjepa_weights::{Tensors, WeightsError, load};

/// Metadata key of the description.
pub const PROBE_KEY: &str = "vjepa_probe";

/// The description of a probe, as JSON in the metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// `attentive` or `linear`.
    pub kind: String,
    /// Number of classes.
    pub classes: usize,
    /// Names of the classes; may be empty.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Width of the features it reads.
    pub embed_dim: usize,
    /// Attention heads (attentive).
    #[serde(default)]
    pub num_heads: Option<usize>,
    /// Blocks (attentive).
    #[serde(default)]
    pub depth: Option<usize>,
}

/// A probe read from a file.
#[derive(Clone, Debug)]
pub struct ProbeFile {
    /// Its kind and sizes.
    pub probe: Probe,
    /// Names of the classes: as many as classes, or none.
    pub labels: Vec<String>,
    /// Its weights, `probe.*`.
    pub tensors: Tensors,
}

/// Reads a probe, strictly.
///
/// # Errors
/// [`WeightsError`]: a file that is no probe, a description that makes no sense, weights that do not fit it.
pub fn load_probe(path: &Path) -> Result<ProbeFile, WeightsError> {
    let weights = load(path)?;
    let bad = |why: String| WeightsError::Record { path: path.to_owned(), what: "probe description", why };
    let text = weights
        .metadata()
        .get(PROBE_KEY)
        .ok_or_else(|| bad(format!("there is no `{PROBE_KEY}` in the metadata; write probes with `vjepa probe`")))?;
    let record: ProbeRecord = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    if !record.labels.is_empty() && record.labels.len() != record.classes {
        return Err(bad(format!("it names {} labels for {} classes", record.labels.len(), record.classes)));
    }
    let required = |value: Option<usize>, key: &str| value.ok_or_else(|| bad(format!("`{key}` is missing")));
    let dim = record.embed_dim;
    let (probe, shapes) = match record.kind.as_str() {
        "linear" => {
            let shapes = vec![
                ("linear.weight".to_owned(), vec![record.classes, dim]),
                ("linear.bias".to_owned(), vec![record.classes]),
            ];
            (Probe::Linear { embed_dim: dim, num_classes: record.classes }, shapes)
        }
        "attentive" => {
            let cross = "probe.pooler.cross_attention_block";
            let hidden = weights.shape(&format!("{cross}.mlp.fc1.weight")).and_then(<[usize]>::first).copied();
            let config = ProbeConfig {
                embed_dim: dim,
                num_heads: required(record.num_heads, "num_heads")?,
                mlp_ratio: hidden.map_or(4.0, |hidden| hidden as f64 / dim.max(1) as f64),
                depth: required(record.depth, "depth")?,
                complete_block: weights.shape(&format!("{cross}.norm1.weight")).is_some(),
                num_classes: record.classes,
            };
            config.validate().map_err(|error| WeightsError::Config { path: path.to_owned(), error })?;
            let shapes = config.parameter_shapes();
            (Probe::Attentive(config), shapes)
        }
        other => return Err(bad(format!("the kind `{other}` is neither `attentive` nor `linear`"))),
    };
    let tensors = weights.take("probe", "probe", shapes)?;
    Ok(ProbeFile { probe, labels: record.labels, tensors })
}
