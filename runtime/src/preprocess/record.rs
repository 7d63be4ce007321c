//! The preprocessing record, as it stands in checkpoints and in the metadata of exported models.

use super::{LARGEST_CLIP, LARGEST_SIDE, METADATA_KEY, PreprocessError};
use crate::onnx::TensorInfo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the frames of a clip are chosen from a video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampling {
    /// The official `linspace` over `num_frames * sampling_rate` frames.
    #[default]
    Vjepa,
    /// Exactly every `sampling_rate`-th frame.
    Exact,
}

/// How pixel values are centred and scaled. Means and deviations are for pixels in `[0, 1]`.
///
/// Written as the word `imagenet` or `per_clip`, or as `{"mean": [..], "std": [..]}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Normalization {
    /// The ImageNet statistics.
    #[default]
    Imagenet,
    /// Each clip to mean 0 and deviation 1 over all its values.
    PerClip,
    /// Other statistics.
    Custom {
        /// Mean of each channel.
        mean: [f32; 3],
        /// Deviation of each channel, above 0.
        std: [f32; 3],
    },
}

impl Normalization {
    /// Mean and deviation of each channel; none where they are the clip's own.
    pub fn statistics(&self) -> Option<([f32; 3], [f32; 3])> {
        match *self {
            Self::Imagenet => Some(([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])),
            Self::PerClip => None,
            Self::Custom { mean, std } => Some((mean, std)),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(String),
    Lists { mean: [f32; 3], std: [f32; 3] },
}

impl TryFrom<Written> for Normalization {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Word(word) if word == "imagenet" => Ok(Self::Imagenet),
            Written::Word(word) if word == "per_clip" => Ok(Self::PerClip),
            Written::Word(word) => Err(format!("the normalization `{word}` is unknown")),
            Written::Lists { mean, std } if std.iter().all(|s| s.is_finite() && *s > 0.0) => {
                Ok(Self::Custom { mean, std })
            }
            Written::Lists { std, .. } => Err(format!("the deviations {std:?} are not above 0")),
        }
    }
}

impl From<Normalization> for Written {
    fn from(normalization: Normalization) -> Self {
        match normalization {
            Normalization::Imagenet => Self::Word("imagenet".to_owned()),
            Normalization::PerClip => Self::Word("per_clip".to_owned()),
            Normalization::Custom { mean, std } => Self::Lists { mean, std },
        }
    }
}

/// Which part of a frame an evaluation sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// The official evaluation: short side resized to 256/224 of the crop, then the centre.
    #[default]
    Centre,
    /// Short side resized to the crop, then the centre: all of a square frame. For models trained on uncropped clips.
    Whole,
}

/// How a clip is made from a video: what the model must be fed the same way again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Frames of a clip.
    pub num_frames: usize,
    /// Video frames from one clip frame to the next.
    pub sampling_rate: usize,
    /// How frames are chosen.
    pub sampling: Sampling,
    /// Side of a clip in pixels; its height, where it is not square.
    pub crop_size: usize,
    /// Width of a clip that is not square, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop_width: Option<usize>,
    /// Side of a token, in pixels.
    pub patch_size: usize,
    /// Frames of a token.
    pub tubelet_size: usize,
    /// How values are scaled.
    pub normalization: Normalization,
    /// Colours replaced by their luma.
    pub grayscale: bool,
    /// Which part of a frame is seen.
    #[serde(default)]
    pub framing: Framing,
}

impl Preprocessing {
    /// The record among a model's metadata.
    ///
    /// # Errors
    /// [`PreprocessError::Missing`], [`PreprocessError::Malformed`].
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, PreprocessError> {
        Self::from_json(metadata.get(METADATA_KEY).ok_or(PreprocessError::Missing)?)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`PreprocessError::Malformed`].
    pub fn from_json(json: &str) -> Result<Self, PreprocessError> {
        let record: Self = serde_json::from_str(json).map_err(|error| PreprocessError::Malformed(error.to_string()))?;
        let frames = 1..=1 << 16;
        if !frames.contains(&record.sampling_rate) {
            return Err(PreprocessError::Malformed(format!("clips of every {}th frame", record.sampling_rate)));
        }
        let [height, width] = record.size();
        let sides = 1..=LARGEST_SIDE;
        if !frames.contains(&record.num_frames) || !sides.contains(&height) || !sides.contains(&width) {
            let frames = record.num_frames;
            return Err(PreprocessError::Malformed(format!("clips of {frames} frames of {height}x{width} pixels")));
        }
        if record.clip_len() > LARGEST_CLIP {
            return Err(PreprocessError::Malformed(format!("clips of {} values", record.clip_len())));
        }
        Ok(record)
    }

    /// Height and width of a clip in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.crop_size, self.crop_width.unwrap_or(self.crop_size)]
    }

    /// Makes it a record of clips of this height and width.
    pub fn set_size(&mut self, [height, width]: [usize; 2]) {
        (self.crop_size, self.crop_width) = (height, (width != height).then_some(width));
    }

    /// Sizes of a clip, `[3, T, H, W]`.
    pub fn clip_shape(&self) -> [usize; 4] {
        let [height, width] = self.size();
        [3, self.num_frames, height, width]
    }

    /// Values of a clip, `3·T·H·W`.
    pub fn clip_len(&self) -> usize {
        self.clip_shape().iter().fold(1, |len: usize, side| len.saturating_mul(*side))
    }

    /// Fails when clips made by this record are none for a model with this input.
    pub(crate) fn suits(&self, input: &TensorInfo) -> Result<(), PreprocessError> {
        let [_, frames, height, width] = self.clip_shape();
        let wanted = [frames, height, width];
        let sizes = input.shape.iter().rev().take(3).rev().zip(wanted);
        if sizes.into_iter().any(|(dimension, wanted)| dimension.size().is_some_and(|size| size != wanted)) {
            let clips = format!("clips of {frames} frames of {height}x{width} pixels, but the model takes {input}");
            return Err(PreprocessError::Malformed(clips));
        }
        Ok(())
    }

    /// Which frames of a video make a clip: `num_frames` numbers, ascending, counted from the clip's first frame. The last
    /// says how many frames must have come before a clip can be cut from a stream.
    pub fn frame_offsets(&self) -> Vec<usize> {
        let span = self.num_frames.saturating_mul(self.sampling_rate);
        let offset = |frame: usize| match self.sampling {
            Sampling::Exact => frame.saturating_mul(self.sampling_rate),
            // `np.linspace(0, span, num_frames)` truncated, as in the official code: its last value is the span.
            Sampling::Vjepa if frame == 0 => 0,
            Sampling::Vjepa if frame + 1 == self.num_frames => span.saturating_sub(1),
            Sampling::Vjepa => (frame as f64 * (span as f64 / (self.num_frames - 1) as f64)) as usize,
        };
        (0..self.num_frames).map(offset).collect()
    }

    /// The record as JSON, for [`METADATA_KEY`].
    pub fn to_json(&self) -> String {
        // Numbers, words and lists: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}
