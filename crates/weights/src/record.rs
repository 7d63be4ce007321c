//! The record that training stores with its weights.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use vjepa_recipe::config::{Config, Preprocessing};

use super::WeightsError;

/// Metadata key under which training describes its checkpoints.
pub const RECORD_KEY: &str = "vjepa";

/// The record that training stores with its weights.
#[derive(Clone, Debug)]
pub struct Record {
    /// Steps done.
    pub step: Option<u64>,
    /// The configuration of the run.
    pub config: Config,
    /// How its clips were prepared.
    pub preprocessing: Preprocessing,
}

/// The written form of [`Record`]; other keys (counters) are the trainer's own.
#[derive(Deserialize)]
struct WrittenRecord {
    step: Option<u64>,
    config: Option<String>,
    preprocessing: Option<Preprocessing>,
}

/// The record in the metadata, or else in a file of the same name ending in `.json`.
pub(super) fn record(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Option<Record>, WeightsError> {
    let bad = |why: String| WeightsError::Record { path: path.to_owned(), what: "configuration", why };
    let (text, required) = match metadata.get(RECORD_KEY) {
        Some(text) => (text.clone(), true),
        None => match std::fs::read_to_string(path.with_extension("json")) {
            Ok(text) => (text, false),
            Err(_) => return Ok(None),
        },
    };
    let written: WrittenRecord = match serde_json::from_str(&text) {
        Ok(written) => written,
        Err(error) if required => return Err(bad(error.to_string())),
        // Another program's file that happens to have the name.
        Err(_) => return Ok(None),
    };
    let Some(yaml) = written.config else { return Ok(None) };
    let config = Config::from_yaml(&yaml, "", &[]).map_err(|error| bad(error.to_string()))?;
    let preprocessing = written.preprocessing.unwrap_or_else(|| config.preprocessing());
    Ok(Some(Record { step: written.step, config, preprocessing }))
}
