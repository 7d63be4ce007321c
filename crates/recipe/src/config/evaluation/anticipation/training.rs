//! How the official evaluation draws and augments the clips that probes of actions are trained on.

use super::Data;
use crate::config::error::ConfigError;

/// How training clips are drawn and augmented.
#[derive(Clone, Debug, PartialEq)]
pub struct AnticipationTraining {
    /// Seconds from a clip's end to the frame that they are counted from, drawn between both.
    pub seconds: [f64; 2],
    /// Which frame that is, drawn between both: 0 is an action's last, 1 its first.
    pub point: [f64; 2],
    /// Whether RandAugment changes the frames.
    pub auto_augment: bool,
    /// Whether crops move with time.
    pub motion_shift: bool,
    /// Share of clips in which a rectangle is erased.
    pub reprob: f64,
    /// Share of the frame that a crop has, drawn between both.
    pub scale: [f64; 2],
    /// The keys of the file that say it.
    pub keys: Vec<&'static str>,
}

impl AnticipationTraining {
    /// As the released files have it.
    pub fn released() -> Self {
        Self {
            seconds: [0.25, 1.75],
            point: [0.0, 0.25],
            auto_augment: true,
            motion_shift: false,
            reprob: 0.25,
            scale: SCALE,
            keys: Vec::new(),
        }
    }
}

/// The official crops' share of a frame.
const SCALE: [f64; 2] = [0.08, 1.0];

impl Data {
    /// What the file says of training clips. Where it says only a part, times are those of the evaluation, nothing is augmented
    /// beyond that part, and crops are the official ones; none where it says nothing.
    pub(super) fn training(&self) -> Option<AnticipationTraining> {
        let keys: Vec<&str> = [
            ("experiment.data.train_anticipation_time_sec", self.train_anticipation_time_sec.is_some()),
            ("experiment.data.train_anticipation_point", self.train_anticipation_point.is_some()),
            ("experiment.data.auto_augment", self.auto_augment.is_some()),
            ("experiment.data.motion_shift", self.motion_shift.is_some()),
            ("experiment.data.reprob", self.reprob.is_some()),
            ("experiment.data.random_resize_scale", self.random_resize_scale.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, said)| said.then_some(key))
        .collect();
        (!keys.is_empty()).then(|| AnticipationTraining {
            seconds: self.train_anticipation_time_sec.unwrap_or(self.anticipation_time_sec),
            point: self.train_anticipation_point.unwrap_or(self.val_anticipation_point),
            auto_augment: self.auto_augment.unwrap_or(false),
            motion_shift: self.motion_shift.unwrap_or(false),
            reprob: self.reprob.unwrap_or(0.0),
            scale: self.random_resize_scale.unwrap_or(SCALE),
            keys,
        })
    }

    pub(super) fn check_training(&self) -> Result<(), ConfigError> {
        let Some(AnticipationTraining { seconds, point, reprob, scale, .. }) = self.training() else { return Ok(()) };
        let between = |[from, to]: [f64; 2], least: f64, most: f64| least <= from && from <= to && to <= most;
        for (key, fine, rule) in [
            ("train_anticipation_time_sec", between(seconds, 0.0, 3600.0), "must be two ascending times in seconds"),
            ("train_anticipation_point", between(point, 0.0, 1.0), "must be two ascending numbers from 0 to 1"),
            ("reprob", (0.0..=1.0).contains(&reprob), "must be from 0 to 1"),
            (
                "random_resize_scale",
                between(scale, 0.0, 1.0) && scale[0] > 0.0,
                "must be two ascending numbers above 0, at most 1",
            ),
        ] {
            if !fine {
                return Err(ConfigError::rule(format!("experiment.data.{key}"), rule));
            }
        }
        Ok(())
    }
}
