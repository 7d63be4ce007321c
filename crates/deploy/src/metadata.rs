//! The metadata of an exported model.

use std::collections::BTreeMap;
use std::path::Path;

use vjepa_data::clips;
use vjepa_graphs::EncoderConfig;
use vjepa_programs::DeployedHead;
use vjepa_runtime::ClipViews;
use vjepa_runtime::files;
use vjepa_runtime::onnx::INT8_RANGE_KEY;
use vjepa_weights as weights;

use crate::{DeployError, Export, Form, Opened, Origin};

/// The metadata: provenance, checksums of the files it was made from, preprocessing and labels.
pub(crate) fn full_metadata(request: &Export<'_>, opened: &Opened) -> Result<BTreeMap<String, String>, DeployError> {
    let mut metadata = metadata(opened, &request.form)?;
    match request.origin {
        Origin::Checkpoint(path) => {
            metadata.insert("vjepa.checkpoint_sha256".to_owned(), vjepa_programs::digest(&weights::load(path)?)?)
        }
        Origin::Drawn(seed) => metadata.insert("vjepa.random_weights".to_owned(), seed.to_string()),
    };
    if let Some(path) = request.probe {
        let file = weights::load(path)?;
        metadata.insert("vjepa.probe_sha256".to_owned(), vjepa_programs::digest(&file)?);
        if file.probes() > 1 {
            metadata.insert("vjepa.probe_number".to_owned(), request.form.probe_number.to_string());
        }
    }
    Ok(metadata)
}

/// `metadata_props`: provenance, preprocessing and labels.
pub(crate) fn metadata(opened: &Opened, form: &Form) -> Result<BTreeMap<String, String>, DeployError> {
    let labels = opened.probe.as_ref().map(|file| file.labels.as_slice()).unwrap_or_default();
    let mut metadata = BTreeMap::from([
        (vjepa_runtime::preprocess::METADATA_KEY.to_owned(), opened.record.to_json()),
        ("vjepa.arch".to_owned(), arch(&opened.model.encoder)),
        ("vjepa.precision".to_owned(), form.precision.to_string()),
        ("vjepa.target".to_owned(), form.target.to_string()),
        ("vjepa.exporter".to_owned(), format!("vjepa {}", env!("CARGO_PKG_VERSION"))),
    ]);
    if let Some(range) = form.weight_range() {
        metadata.insert(INT8_RANGE_KEY.to_owned(), range.to_string());
    }
    if form.clip_views != ClipViews::SINGLE {
        metadata.insert(clips::CLIPS_KEY.to_owned(), form.clip_views.clips.to_string());
        metadata.insert(clips::VIEWS_KEY.to_owned(), form.clip_views.views.to_string());
    }
    if !labels.is_empty() && form.head.is_none_or(|head| head == DeployedHead::Probe) {
        metadata.insert(vjepa_runtime::LABELS_KEY.to_owned(), serde_json::to_string(labels)?);
    }
    Ok(metadata)
}

/// The sizes in one line: `ViT 1024/24/16, patch 16, tubelet 2`.
pub fn arch(encoder: &EncoderConfig) -> String {
    let EncoderConfig { embed_dim, depth, num_heads, patch, tubelet, .. } = encoder;
    format!("ViT {embed_dim}/{depth}/{num_heads}, patch {patch}, tubelet {tubelet}")
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String, DeployError> {
    Ok(files::sha256(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?)
}
