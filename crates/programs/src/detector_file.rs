//! What a detector is beside its weights: the record in its file, and the one in an exported model.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vjepa_recipe::config::Normalization;
use vjepa_weights::{Tensors, WeightsError, load, shortened};

use crate::probe_file::probe_of;

/// Metadata key of [`DetectorRecord`] in a detector's file.
pub const DETECTOR_KEY: &str = "vjepa_detector";
/// Metadata key of [`ExportedDetector`] in an exported model.
pub const EXPORTED_DETECTOR_KEY: &str = "vjepa.detector";

/// Most frames of a clip, or from one to the next, that a record may say.
const MOST_FRAMES: usize = 1 << 16;
/// Largest side in pixels that a record may say.
const LARGEST_SIDE: usize = 1 << 14;

/// What a detector is beside its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectorRecord {
    /// Frames of a clip.
    pub frames: usize,
    /// Frames from one to the next.
    pub step: usize,
    /// Short side of a clip in pixels.
    pub side: usize,
    /// Blocks whose outputs it reads, from 0.
    pub layers: Vec<usize>,
    /// SHA-256 of the encoder's checkpoint.
    pub encoder: String,
    /// Names of actions by id, of those that have one.
    pub actions: BTreeMap<u32, String>,
}

/// A detector's file.
#[derive(Clone, Debug)]
pub struct DetectorFile {
    /// What it is.
    pub record: DetectorRecord,
    /// `linear.weight f32[classes, width]` and `linear.bias f32[classes]`.
    pub classifier: Tensors,
}

/// Reads a file of `vjepa detect train`, strictly.
///
/// # Errors
/// [`WeightsError`]: a file that cannot be read, a probe that is no detector, a record that cannot be used.
pub fn load_detector(path: &Path) -> Result<DetectorFile, WeightsError> {
    let bad = |why: String| WeightsError::Record { path: path.to_owned(), what: "record of a detector", why };
    let weights = load(path)?;
    let probe = probe_of(&weights)?;
    let record = weights.metadata().get(DETECTOR_KEY).ok_or_else(|| WeightsError::Model {
        path: path.to_owned(),
        model: "a probe".to_owned(),
        why: "no detector: give a file that `vjepa detect train` wrote".to_owned(),
    })?;
    let record: DetectorRecord = serde_json::from_str(record).map_err(|error| bad(shortened(&error.to_string())))?;
    record.check().map_err(bad)?;
    let plain = |(name, tensor): (String, (Vec<usize>, Vec<f32>))| {
        (name.strip_prefix("probe.").unwrap_or(&name).to_owned(), tensor)
    };
    Ok(DetectorFile { record, classifier: probe.tensors.into_iter().map(plain).collect() })
}

impl DetectorRecord {
    /// Refuses sizes that no detector has: the file may be anybody's.
    fn check(&self) -> Result<(), String> {
        let Self { frames, step, side, .. } = self;
        let counts = 1..=MOST_FRAMES;
        match counts.contains(frames) && counts.contains(step) && (1..=LARGEST_SIDE).contains(side) {
            true => Ok(()),
            false => Err(format!("clips of {frames} frames, {step} apart, with a short side of {side} pixels")),
        }
    }
}

/// What an exported detector is: how its clips are made, and what its scores are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportedDetector {
    /// As in the detector's file.
    pub record: DetectorRecord,
    /// SHA-256 of the detector's file: models of one detector, for clips of different sizes, share it.
    pub detector: String,
    /// Side of a patch in pixels, which divides both sides of a clip.
    pub patch: usize,
    /// Centring and scaling of pixels.
    pub normalization: Normalization,
    /// Whether pixels are read as their luma.
    #[serde(default)]
    pub grayscale: bool,
}

impl ExportedDetector {
    /// As JSON, for [`EXPORTED_DETECTOR_KEY`].
    ///
    /// # Errors
    /// None that these types can have.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The record among a model's metadata.
    ///
    /// # Errors
    /// What is missing or wrong, to follow the model's name.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        let json = metadata.get(EXPORTED_DETECTOR_KEY).ok_or_else(|| {
            format!("has no `{EXPORTED_DETECTOR_KEY}` in its metadata: give a model that `vjepa detect export` wrote")
        })?;
        let malformed = |why: String| {
            format!(
                "has a `{EXPORTED_DETECTOR_KEY}` that cannot be used: {why}; export it again with `vjepa detect export`"
            )
        };
        let found: Self = serde_json::from_str(json).map_err(|error| malformed(shortened(&error.to_string())))?;
        found.record.check().map_err(malformed)?;
        match found.patch {
            1..=LARGEST_SIDE => Ok(found),
            patch => Err(malformed(format!("patches of {patch} pixels"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported() -> ExportedDetector {
        let record = DetectorRecord {
            frames: 16,
            step: 4,
            side: 224,
            layers: vec![17, 19, 21, 23],
            encoder: "ab".to_owned(),
            actions: BTreeMap::from([(1, "bend".to_owned()), (80, "watch".to_owned())]),
        };
        let normalization = Normalization::Imagenet;
        ExportedDetector { record, detector: "cd".to_owned(), patch: 16, normalization, grayscale: true }
    }

    #[test]
    fn records_of_exported_models_are_read_back_and_checked() {
        let json = exported().to_json().unwrap();
        let read = |json: &str| {
            ExportedDetector::from_metadata(&BTreeMap::from([(EXPORTED_DETECTOR_KEY.to_owned(), json.to_owned())]))
        };
        assert_eq!(read(&json).unwrap(), exported());
        // As before models said it, when clips of none were grey.
        assert!(!read(&json.replace(",\"grayscale\":true", "")).unwrap().grayscale);
        for (from, to, words) in [
            ("\"step\":4", "\"step\":0", "16 frames, 0 apart"),
            ("\"frames\":16", "\"frames\":99999999", "99999999 frames"),
            ("\"patch\":16", "\"patch\":0", "patches of 0 pixels"),
            ("\"imagenet\"", "\"other\"", "normalization `other`"),
            ("\"side\":224,", "", "side"),
            // As before models named the file that they are of.
            ("\"detector\":\"cd\",", "", "missing field `detector`"),
        ] {
            assert!(json.contains(from), "{from}: {json}");
            let told = read(&json.replace(from, to)).unwrap_err();
            assert!(told.contains(words) && told.contains("vjepa detect export"), "{words}: {told}");
        }
        let told = ExportedDetector::from_metadata(&BTreeMap::new()).unwrap_err();
        assert!(told.contains("vjepa detect export"), "{told}");
    }
}
