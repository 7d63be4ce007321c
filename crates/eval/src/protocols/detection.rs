//! Frozen detection on AVA: features of boxes around key frames, a linear classifier on them, its detections.
//!
//! After SlowFast's head (`head_helper.py`, `ava_dataset.py`): tokens of four layers side by side, averaged over time, RoIAlign
//! 7x7, the largest bin, one linear layer for 80 actions, each yes or no. Boxes are those of files. Clips are whole frames,
//! whose features are computed once, or in training random crops at random sizes, mirrored or not, whose features are those of
//! an epoch.

mod classifier;
mod exported;
mod features;
mod shared;

pub use classifier::{DetectorOptions, Lesson, detections, rows, train};
pub use exported::ExportedModels;
pub use features::{BoxEncoder, FrameView};

use std::path::PathBuf;

use vjepa_metrics::ava::KeyFrame;

/// A box to be classified, and the actions it is known to show.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledRegion {
    /// x1, y1, x2, y2 as shares of the frame.
    pub corners: [f64; 4],
    /// Action ids, from 1.
    pub actions: Vec<u32>,
    /// The person detector's score; 1 for ground truth.
    pub score: f64,
}

/// A key frame with its boxes and the file of its video.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledFrame {
    /// Video and second.
    pub key: KeyFrame,
    /// The video.
    pub path: PathBuf,
    /// At least one box.
    pub regions: Vec<LabelledRegion>,
}

/// Numbers of boxes: their features, or their scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxValues {
    /// How many numbers a box has.
    pub width: usize,
    /// `f32[boxes, width]`, row-major.
    pub values: Vec<f32>,
    /// The boxes.
    pub boxes: Vec<(KeyFrame, LabelledRegion)>,
    /// Key frames whose video cannot be used, with the reason.
    pub bad: Vec<(KeyFrame, String)>,
    /// Key frames beyond the end of their video, for which its last frame was taken.
    pub beyond: Vec<KeyFrame>,
}

/// The blocks whose outputs are read where none are given: the last and three others, evenly spaced over the last quarter as
/// the paper's are (table 7 counts from 1), fewer in small encoders.
pub fn default_layers(depth: usize) -> Vec<usize> {
    let step = (depth / 12).max(1);
    let mut layers: Vec<usize> = (0..4).filter_map(|i| depth.checked_sub(1 + i * step)).collect();
    layers.reverse();
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_spread_as_in_the_paper() {
        assert_eq!(default_layers(24), [17, 19, 21, 23]);
        assert_eq!(default_layers(12), [8, 9, 10, 11]);
        assert_eq!(default_layers(2), [0, 1]);
        // Table 7 has every second block of ViT-H's 32, too.
        assert_eq!(default_layers(32), [25, 27, 29, 31]);
    }
}
