//! What training measures of a run and leaves in its folder, for those who read it without being able to train.

use serde::{Deserialize, Deserializer, Serialize};

/// Among fewer clips the nearest ones are not informative: on drifting textures, 64 clips showed a loss of accuracy where
/// there was a gain.
pub const KNN_CLIPS: usize = 128;

/// The result of the diagnostics, on held-out clips. A line of `<tag>-diagnostics.jsonl` is one of these with its `step`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiagnosticsReport {
    /// Held-out loss with the right context.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Held-out loss with another clip's context.
    #[serde(deserialize_with = "number")]
    pub loss_other_context: f64,
    /// The second over the first, minus 1: .05 is a gap of 5 %.
    #[serde(deserialize_with = "number")]
    pub context_gap: f64,
    /// Effective rank of the clips' mean monitored features.
    #[serde(deserialize_with = "number")]
    pub effective_rank: f64,
    /// Standard deviation over tokens, mean over feature dimensions.
    #[serde(deserialize_with = "number")]
    pub deviation_mean: f64,
    /// The smallest of these deviations.
    #[serde(deserialize_with = "number")]
    pub deviation_min: f64,
    /// Leave-one-out accuracy of a vote among the 5 nearest clips, with labels and at least [`KNN_CLIPS`] clips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knn: Option<f64>,
}

/// Metadata of a probe's file: a [`ProbeResult`] as JSON.
pub const PROBE_RESULT_KEY: &str = "vjepa_probe_result";

/// How well a probe does, and how much its encoder has seen: a row of what the paper's table 12 compares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// `attentive`, `average` or `linear`.
    pub kind: String,
    /// Number of classes.
    pub classes: usize,
    /// Clips per video.
    pub clips_per_video: usize,
    /// On the videos it was trained on; not measured where they were augmented and there were others.
    #[serde(default)]
    pub train: Option<Accuracy>,
    /// On others, if there were any.
    pub val: Option<Accuracy>,
    /// The encoder's checkpoint.
    pub encoder: String,
    /// Its steps, if it says so.
    pub encoder_step: Option<u64>,
    /// Clips it had learned from by then, if it says so.
    pub clips_seen: Option<u64>,
}

/// Shares of videos classified right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Where the first guess is right.
    pub top1: f64,
    /// Where one of five guesses is.
    pub top5: f64,
    /// Number of videos.
    pub videos: usize,
}

/// JSON has no NaN and no infinity: they are written as null.
fn number<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_finite_is_read_as_no_number() {
        let report = DiagnosticsReport {
            loss: 0.5,
            loss_other_context: 0.75,
            context_gap: 0.5,
            effective_rank: f64::INFINITY,
            deviation_mean: 0.25,
            deviation_min: 0.125,
            knn: None,
        };
        let read: DiagnosticsReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert!(read.effective_rank.is_nan());
        assert_eq!(DiagnosticsReport { effective_rank: f64::INFINITY, ..read }, report);
        assert!(serde_json::from_str::<DiagnosticsReport>("{\"loss\": 1.0}").is_err());
    }
}
