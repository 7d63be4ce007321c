//! The interface between data sets and the loader: a function from a sample's key to its clip.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vjepa_runtime::files::hex;

use super::list::VideoEntry;
use super::stream::Permutation;
use super::values::Scaling;
use vjepa_recipe::counter::{CounterRng, mix};

/// Names one sample of one run. A clip is a function of its key and the data set, whoever computes it and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleKey {
    /// Seed of the run.
    pub seed: u64,
    /// Pass over the data set, from 0; always 0 for an endless one.
    pub epoch: u64,
    /// Position in the pass, from 0.
    pub position: u64,
    /// 0 for the sample at this position; 1, 2, ... for its stand-ins when that one cannot be read.
    pub retry: u32,
}

impl SampleKey {
    /// One number for the whole key but the seed, to key the generators of `vjepa_recipe::rng`.
    pub fn draw(&self) -> u64 {
        mix(&[self.epoch, self.position, u64::from(self.retry)])
    }

    /// Which of `len` entries this key means: a shuffle of the pass for the first try (every entry once), a random entry
    /// for a stand-in, as in the official code. None for an empty data set.
    pub fn entry(&self, len: u64) -> Option<u64> {
        if len == 0 {
            return None;
        }
        if self.retry == 0 {
            return Some(Permutation::new(len, mix(&[self.seed, ORDER, self.epoch])).at(self.position % len));
        }
        Some(CounterRng::new(&[self.seed, STAND_IN, self.draw()]).below(len))
    }
}

/// Separates the shuffle from other uses of the seed.
const ORDER: u64 = 0x6F_7264_6572;
/// Likewise the choice of stand-ins.
const STAND_IN: u64 = 0x73_7461_6E64;

/// A sample's label, number and file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleInfo {
    /// Its label, where the data set has labels.
    pub label: Option<i64>,
    /// Its number in the data set (in the stream, for an endless one).
    pub index: u64,
    /// Its file, where it has one.
    pub path: Option<PathBuf>,
}

/// Why a clip cannot be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DataError {
    /// One video cannot be used. The loader skips it, counts it and goes on.
    #[error("{}: {reason}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A clip made the program panic: a bug, counted like a bad video.
    #[error("sample {index} made the decoder panic: {message}")]
    Panic {
        /// Its position in the stream.
        index: u64,
        /// The panic's message.
        message: String,
    },
    /// Too much of the data is unusable to go on.
    #[error("{0}")]
    TooBad(String),
    /// Where the data lies cannot be reached, or refuses: other samples would fare no better.
    #[error("{0}")]
    Storage(String),
    /// A list of videos cannot be read.
    #[error("{}", .0)]
    List(String),
    /// There is no such data set.
    #[error("data set {}: there is no such file or folder", .0.display())]
    Absent(PathBuf),
    /// A folder without videos.
    #[error(
        "data set {}: holds no videos (of {endings}){}", folder.display(),
        if held.is_empty() { String::new() } else { format!("; it holds {}", held.join(", ")) }
    )]
    NoVideos {
        /// The folder.
        folder: PathBuf,
        /// Endings of the files that were looked for.
        endings: String,
        /// What it holds instead, with the number of each: `3 .png (pictures)`.
        held: Vec<String>,
        /// Whether pictures are among that, which frames and images are.
        pictures: bool,
    },
    /// A loader or source was set up with values that cannot work.
    #[error("{0}")]
    Setup(String),
}

impl DataError {
    /// True where another sample may be tried instead.
    pub fn is_bad_sample(&self) -> bool {
        matches!(self, Self::Bad { .. } | Self::Panic { .. })
    }
}

/// Which videos a data set holds, as a run's record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// How many.
    pub videos: u64,
    /// SHA-256 of their paths, in order.
    pub sha256: String,
}

impl Contents {
    /// Of a data set with these entries.
    pub(super) fn of<'a>(entries: impl IntoIterator<Item = &'a VideoEntry>) -> Self {
        Self::of_paths(entries.into_iter().map(|entry| entry.path.as_path()))
    }

    /// Of several data sets, one after another; of one, that one's.
    pub fn joined(all: &[Self]) -> Option<Self> {
        match all {
            [] => None,
            [one] => Some(one.clone()),
            several => {
                let mut digest = Sha256::new();
                several.iter().for_each(|contents| digest.update(contents.sha256.as_bytes()));
                let videos = several.iter().map(|contents| contents.videos).fold(0, u64::saturating_add);
                Some(Self { videos, sha256: hex(&digest.finalize()) })
            }
        }
    }

    /// Of these paths.
    pub fn of_paths<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let (mut digest, mut videos) = (Sha256::new(), 0);
        for path in paths {
            videos += 1;
            let path = path.as_os_str().as_encoded_bytes();
            digest.update((path.len() as u64).to_le_bytes());
            digest.update(path);
        }
        Self { videos, sha256: hex(&digest.finalize()) }
    }
}

/// A data set.
pub trait ClipSource: Send + Sync {
    /// Entries in a pass; none for an endless stream.
    fn len(&self) -> Option<u64>;

    /// True for a data set without entries.
    fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The videos it holds; none where clips are made on the fly.
    fn contents(&self) -> Option<Contents> {
        None
    }

    /// Shape of a clip, `[channels, time, height, width]`; the first is 3.
    fn shape(&self) -> [usize; 4];

    /// Clips of a sample.
    fn clips(&self) -> usize {
        1
    }

    /// Writes the clips of `key`, `[clips, 3, T, H, W]` row-major and normalised, into `out`.
    ///
    /// # Errors
    /// [`DataError::Bad`] for a video that cannot be used; [`DataError::Setup`] for an `out` of another size.
    fn sample(&self, key: SampleKey, out: &mut [f32]) -> Result<SampleInfo, DataError>;

    /// What the bytes of [`ClipSource::sample_bytes`] stand for; none where a loader is to hand out floats.
    fn scaling(&self) -> Option<Scaling> {
        None
    }

    /// As [`ClipSource::sample`], the pixels as bytes, which are rounded and not normalised.
    ///
    /// # Errors
    /// As [`ClipSource::sample`]; [`DataError::Setup`] where there is no [scaling](ClipSource::scaling).
    fn sample_bytes(&self, key: SampleKey, out: &mut [u8]) -> Result<SampleInfo, DataError> {
        let _ = (key, out);
        Err(DataError::Setup("these clips are made of floats, not of bytes".into()))
    }
}

/// An error unless `out` holds exactly `clips` clips of `shape`.
pub(super) fn check_out<T>(shape: [usize; 4], clips: usize, out: &[T]) -> Result<(), DataError> {
    let wanted: usize = clips * shape.iter().product::<usize>();
    if out.len() == wanted {
        return Ok(());
    }
    let what = if clips == 1 { "a clip".to_owned() } else { format!("{clips} clips") };
    Err(DataError::Setup(format!("{what} of shape {shape:?} needs room for {wanted} values, but has {}", out.len())))
}
