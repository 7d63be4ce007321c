//! How many clips and views of a video make one prediction.

/// How many clips a prediction is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipViews {
    /// Clips from the beginning to the end of a video, whose tokens one call of the probe reads together.
    pub clips: usize,
    /// Views along the long side of the frames, whose probabilities are averaged.
    pub views: usize,
}

impl ClipViews {
    /// One clip, one view.
    pub const SINGLE: Self = Self { clips: 1, views: 1 };

    /// Clips of a prediction in all.
    pub fn count(self) -> usize {
        self.clips * self.views
    }
}
