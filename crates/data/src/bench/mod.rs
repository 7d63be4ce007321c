//! Decoders compared: clips per second of processor time, with proof that all of them decoded the same frames.
//!
//! A *clip* is what a training step asks of a file: open it, decode 16 frames at step 4 from a random start, and, as the task
//! has it, convert them to RGB or crop, resize, mirror and normalise them. Every contender is a process of its own
//! ([`Contender`]) on one thread; ours runs [`serve`], those of other libraries run [`PYTHON`]. In each round all of them get
//! the same starts and crops, one after the other, and ratios are taken round by round, so that a busy machine spoils none.
//!
//! Frames are told apart by means over blocks of each picture, which are compared with those of all frames of the file,
//! decoded in order by this crate's decoder: a contender's frame `i` has to be nearest to frame `i`.
//!
//! [`loader()`] measures the whole path: what a [`crate::Loader`] costs beside decoding and resizing alone.

mod compare;
mod contender;
mod loader;
mod serve;

pub use compare::{Figures, FileReport, Ratio, Report, Settings, compare};
pub use contender::{Contender, Started};
pub use loader::{LoaderReport, LoaderRound, LoaderSettings, loader};
pub use serve::serve;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The other decoders, as a Python program that takes one of [`PYTHON_DECODERS`] as its argument.
pub const PYTHON: &str = include_str!("../../../../benches/decode.py");
/// What [`PYTHON`] knows; a library that is not installed is left out with a word.
pub const PYTHON_DECODERS: [&str; 3] = ["decord", "torchcodec", "pyav"];

/// What is done with the frames of a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameTask {
    /// Whole frames as RGB.
    Rgb,
    /// Training clips: crop, resize, mirror, normalise.
    Clip,
    /// Not measured: describe each picture by means over blocks.
    Look,
}

impl FrameTask {
    /// Those that are measured.
    pub const MEASURED: [Self; 2] = [Self::Clip, Self::Rgb];

    /// Its word on the command line and in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rgb => "rgb",
            Self::Clip => "clip",
            Self::Look => "look",
        }
    }

    /// What it is, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::Rgb => "open, decode 16 frames, convert them to RGB",
            Self::Clip => "open, decode 16 frames, crop, resize to 224, mirror, normalise",
            Self::Look => "open, decode 16 frames, describe them (not measured)",
        }
    }
}

/// One clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pick {
    /// Frame numbers, ascending.
    frames: Vec<usize>,
    /// Top, left, height, width.
    crop: [usize; 4],
    flip: bool,
}

/// Clips of one file, as a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Request {
    path: PathBuf,
    task: FrameTask,
    /// Side of the prepared clips in pixels.
    size: usize,
    clips: Vec<Pick>,
}

/// What a contender says of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    Done {
        /// Processor time of all threads.
        seconds: f64,
        /// Of [`FrameTask::Look`]: the means of each picture.
        looks: Vec<Vec<i32>>,
    },
    Failed {
        error: String,
    },
}

/// Blocks of which means are taken, down and across.
const BLOCKS: (usize, usize) = (10, 16);

/// Means of the green channel over blocks, row by row; blocks overlap where the sides are no multiples.
fn describe(rgb: &[u8], height: usize, width: usize) -> Vec<i32> {
    let span = |i: usize, of: usize, side: usize| i * side / of..((i + 1) * side).div_ceil(of);
    let mut means = Vec::with_capacity(BLOCKS.0 * BLOCKS.1);
    for row in 0..BLOCKS.0 {
        for column in 0..BLOCKS.1 {
            let (ys, xs) = (span(row, BLOCKS.0, height), span(column, BLOCKS.1, width));
            let count = (ys.len() * xs.len()).max(1) as f64;
            let line = |y: usize| rgb.get((y * width + xs.start) * 3..(y * width + xs.end) * 3).unwrap_or_default();
            let sum: u64 = ys.flat_map(|y| line(y).iter().skip(1).step_by(3)).map(|&green| u64::from(green)).sum();
            means.push((sum as f64 / count).round() as i32);
        }
    }
    means
}

#[cfg(test)]
mod tests;
