//! Videos as clips: choose frames, decode, crop, resize, flip, normalise.

mod augmented;
mod shares;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use augmented::AugmentedVideos;
use shares::Shares;

use super::augment::{Keyed, Policy, RandAugment, RandomErasing};
use super::decode::{Decoded, reason};
use super::frames::is_picture;
use super::list::{VideoEntry, VideoList};
use super::media::{Media, Opener};
use super::reading::opener_of;
use super::sampling::{ClipSampler, Spacing, step_for_duration};
use super::sets::read_lists;
use super::source::{ClipSource, Contents, DataError, SampleInfo, SampleKey, check_out};
use vjepa_runtime::preprocess::{View, to_luma};

use super::transforms::{ClipValue, Frames, PixelReader, RandomCrop, TrainTransform};
use super::values::Scaling;
use vjepa_recipe::config::{AugmentConfig, DataConfig, Framing, Normalization, Preprocessing, Sampling};
use vjepa_recipe::rng::{NumpyRng, PyRandom, Stream};

/// Videos as training clips: files, frame folders, pictures, members of shards, objects of stores.
#[derive(Debug, Clone)]
pub struct VideoDataset {
    opener: Arc<Opener>,
    lists: Arc<Vec<VideoList>>,
    /// Where each list's entries end, counted through all.
    ends: Vec<usize>,
    /// How often each data set is drawn from.
    shares: Shares,
    sampler: ClipSampler,
    /// Frames of the clips of each data set, where they differ.
    lengths: Vec<usize>,
    clip_duration: Option<f64>,
    fps: Option<f64>,
    transform: TrainTransform,
    /// Operations on the frames before the crop (`data_aug.auto_augment`).
    policy: Option<Policy>,
    /// What is erased after it (`data_aug.reprob`).
    erase: Option<RandomErasing>,
    preprocessing: Preprocessing,
    /// Whether a loader hands out bytes (`data.clip_bytes`).
    bytes: bool,
}

impl VideoDataset {
    /// The data sets of a configuration, one after the other.
    ///
    /// # Errors
    /// [`DataError::List`], as [`crate::Reading::read`]; [`DataError::Setup`] for weights that do not fit the data sets.
    pub fn open(data: &DataConfig, augment: &AugmentConfig) -> Result<Self, DataError> {
        Self::open_with(data, augment, Arc::new(opener_of(data)?))
    }

    /// As [`VideoDataset::open`], with an opener of one's own.
    ///
    /// # Errors
    /// As [`VideoDataset::open`].
    pub fn open_with(data: &DataConfig, augment: &AugmentConfig, opener: Arc<Opener>) -> Result<Self, DataError> {
        let lists = read_lists(data, &opener)?;
        Self::of(data, augment, Arc::new(lists), opener)
    }

    pub(crate) fn of(
        data: &DataConfig,
        augment: &AugmentConfig,
        lists: Arc<Vec<VideoList>>,
        opener: Arc<Opener>,
    ) -> Result<Self, DataError> {
        if lists.is_empty() {
            return Err(DataError::Setup("`data.datasets` lists no data set".into()));
        }
        if data.clip_bytes && (data.normalization == Normalization::PerClip || augment.reprob > 0.0) {
            let why = "`data.clip_bytes` takes neither `per_clip` normalisation nor `data_aug.reprob`: both need the values themselves";
            return Err(DataError::Setup(why.into()));
        }
        let until = |end: &mut usize, list: &VideoList| {
            *end += list.entries.len();
            Some(*end)
        };
        let ends: Vec<usize> = lists.iter().scan(0, until).collect();
        let shares = Shares::of(data, &ends)?;
        Ok(Self {
            opener,
            lists,
            ends,
            shares,
            sampler: ClipSampler {
                exact: data.sampling == Sampling::Exact,
                filter_short: data.filter_short_videos,
                num_clips: data.num_clips,
                ..ClipSampler::pretrain(data.num_frames, data.sampling_rate)
            },
            lengths: Vec::new(),
            clip_duration: data.clip_duration,
            fps: data.fps,
            transform: TrainTransform {
                size: (data.crop_size, data.crop_size),
                crop: Some(crop_of(augment)),
                motion_shift: augment.motion_shift,
                hflip: augment.horizontal_flip,
                normalization: data.normalization,
            },
            policy: policy_of(augment),
            erase: erasing_of(augment),
            preprocessing: data.preprocessing(),
            bytes: data.clip_bytes,
        })
    }

    /// With clips as long as `lengths` says of each data set. A sample then has room for the longest clip, and a shorter one
    /// fills the beginning of it, `[3, t, H, W]`; [`VideoDataset::frames_of`] tells how long it is.
    ///
    /// # Errors
    /// [`DataError::Setup`] for another number of lengths than data sets, a length beyond the room, or several clips of a
    /// video.
    pub fn with_lengths(mut self, lengths: Vec<usize>) -> Result<Self, DataError> {
        let fits = |frames: &usize| (1..=self.sampler.frames_per_clip).contains(frames);
        if lengths.len() != self.ends.len() || !lengths.iter().all(fits) || self.sampler.num_clips != 1 {
            return Err(DataError::Setup("`data.dataset_fpcs` does not fit `data.datasets`".into()));
        }
        self.lengths = lengths;
        Ok(self)
    }

    /// Frames of the clips of entry `index`, counted through all data sets.
    pub fn frames_of(&self, index: u64) -> usize {
        let set = usize::try_from(index).map_or(usize::MAX, |index| self.ends.partition_point(|&end| end <= index));
        self.lengths.get(set).copied().unwrap_or(self.sampler.frames_per_clip)
    }

    /// Writes the clip of entry `index` as an evaluation sees it: from the video's beginning, short side resized, centre
    /// cropped, nothing random. `out` is `[3, T, H, W]`.
    ///
    /// # Errors
    /// As [`ClipSource::sample`]; [`DataError::Setup`] for an entry that does not exist.
    pub fn evaluate(&self, index: usize, out: &mut [f32]) -> Result<SampleInfo, DataError> {
        check_out(self.shape(), 1, out)?;
        let entry = self.entry(index)?;
        let mut media = self.open_entry(entry)?;
        let indices = self.indices(entry, &media, ClipSampler { num_clips: 1, random: false, ..self.sampler }, None)?;
        let first = indices.first().map(Vec::as_slice).unwrap_or_default();
        let clip = media.decode(first).map_err(|error| bad(&entry.path, error))?;
        // The centre, also where training clips are not cropped.
        let record = Preprocessing { framing: Framing::Centre, ..self.preprocessing.clone() };
        let prepared = record.prepare_view(&clip.rgb(), clip.height, clip.width, View::SINGLE, out);
        prepared.map_err(|error| bad(&entry.path, error))?;
        Ok(self.info(index, entry))
    }

    /// How frames are chosen and prepared, for whoever makes the same clips without the rest.
    pub(crate) fn clips_of(&self) -> (ClipSampler, &TrainTransform) {
        (self.sampler, &self.transform)
    }

    /// A video by its number, counted through all data sets.
    ///
    /// # Errors
    /// [`DataError::Setup`] for one that does not exist.
    pub fn entry(&self, index: usize) -> Result<&VideoEntry, DataError> {
        let set = self.ends.partition_point(|&end| end <= index);
        let begin = set.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let entry = self.lists.get(set).and_then(|list| list.entries.get(index.checked_sub(begin)?));
        entry.ok_or_else(|| DataError::Setup(format!("there is no video number {index}")))
    }

    fn videos(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0) as u64
    }

    fn info(&self, index: usize, entry: &VideoEntry) -> SampleInfo {
        SampleInfo { label: entry.label, index: index as u64, path: Some(entry.path.clone()) }
    }

    fn choose(&self, key: SampleKey) -> usize {
        self.shares.choose(key, self.videos())
    }

    /// Opens a video, as [`ClipSource::sample`] does.
    pub(crate) fn open_entry(&self, entry: &VideoEntry) -> Result<Media, DataError> {
        self.opener.open(&entry.path).map_err(|error| error.of(&entry.path))
    }

    /// The frames of each clip; `random` is the generator of their starts.
    fn indices(
        &self,
        entry: &VideoEntry,
        media: &Media,
        mut sampler: ClipSampler,
        mut random: Option<NumpyRng>,
    ) -> Result<Vec<Vec<usize>>, DataError> {
        let info = media.info();
        if let Some(fps) = self.fps {
            let step = Spacing::Fps(fps).step(info.average_fps(), sampler.frames_per_clip);
            sampler.frame_step = step.map_err(|error| bad(&entry.path, error))?;
        } else if let Some(seconds) = self.clip_duration {
            sampler.frame_step = step_for_duration(seconds, info.average_fps(), sampler.frames_per_clip);
        }
        // A picture is a clip of equal frames by intention.
        sampler.filter_short &= !is_picture(&entry.path);
        let draw = |low, high| random.as_mut().map_or(low, |rng| rng.randint(low, high));
        sampler.sample(info.frames, draw).map_err(|error| bad(&entry.path, error))
    }
}

/// The random crop of a configuration.
fn crop_of(augment: &AugmentConfig) -> RandomCrop {
    RandomCrop { scale: augment.random_resize_scale.into(), ratio: augment.random_resize_aspect_ratio.into() }
}

/// The official RandAugment, where a configuration asks for it.
fn policy_of(augment: &AugmentConfig) -> Option<Policy> {
    augment.auto_augment.then_some(Policy::Rand(RandAugment::OFFICIAL))
}

/// The random erasing of a configuration, where there is any.
fn erasing_of(augment: &AugmentConfig) -> Option<RandomErasing> {
    (augment.reprob > 0.0).then(|| RandomErasing::clips(augment.reprob))
}

/// A decoded clip whose pixels are read in colour or as their luma.
pub(crate) struct Coloured {
    pub clip: Decoded,
    pub grayscale: bool,
}

impl Coloured {
    /// All frames, `[H * W * 3]` each.
    fn frames(&self) -> Vec<Vec<u8>> {
        let (height, width) = self.size();
        let frame = |index: usize| {
            let mut pixels = vec![0; height * width * 3];
            let rows = pixels.chunks_exact_mut((width * 3).max(1)).enumerate();
            rows.for_each(|(y, row)| self.read(index, y, 0, row));
            pixels
        };
        (0..self.count()).map(frame).collect()
    }
}

impl PixelReader for Coloured {
    fn count(&self) -> usize {
        self.clip.frames.len()
    }

    fn size(&self) -> (usize, usize) {
        (self.clip.height, self.clip.width)
    }

    fn read(&self, index: usize, y: usize, left: usize, out: &mut [u8]) {
        if let Some(frame) = self.clip.frames.get(index) {
            frame.rgb_row(y, left, out);
            if self.grayscale {
                to_luma(out);
            }
        }
    }
}

/// A bad video. The decoder's messages begin with the path, which is kept in a field of its own.
fn bad(path: &Path, error: impl std::fmt::Display) -> DataError {
    DataError::Bad { path: PathBuf::from(path), reason: reason(path, error) }
}

impl ClipSource for VideoDataset {
    fn len(&self) -> Option<u64> {
        Some(self.videos())
    }

    fn shape(&self) -> [usize; 4] {
        [3, self.sampler.frames_per_clip, self.transform.size.0, self.transform.size.1]
    }

    fn contents(&self) -> Option<Contents> {
        Some(Contents::of(self.lists.iter().flat_map(|list| &list.entries)))
    }

    fn clips(&self) -> usize {
        self.sampler.num_clips
    }

    fn sample(&self, key: SampleKey, out: &mut [f32]) -> Result<SampleInfo, DataError> {
        self.make(key, out)
    }

    fn scaling(&self) -> Option<Scaling> {
        self.bytes.then(|| self.transform.normalization.affine())
    }

    fn sample_bytes(&self, key: SampleKey, out: &mut [u8]) -> Result<SampleInfo, DataError> {
        self.make(key, out)
    }
}

impl VideoDataset {
    /// The clips of a sample.
    fn make<V: ClipValue>(&self, key: SampleKey, out: &mut [V]) -> Result<SampleInfo, DataError> {
        let transform = &self.transform;
        check_out(self.shape(), self.clips(), out)?;
        let index = self.choose(key);
        let entry = self.entry(index)?;
        let draw = key.draw();
        let mut media = self.open_entry(entry)?;
        let starts = NumpyRng::keyed(key.seed, Stream::Clips, draw);
        let frames_per_clip = self.frames_of(index as u64);
        let clips = self.indices(entry, &media, ClipSampler { frames_per_clip, ..self.sampler }, Some(starts))?;
        let mut crops = PyRandom::keyed(key.seed, Stream::Crops, draw);
        let mut flips = NumpyRng::keyed(key.seed, Stream::Flips, draw);
        let len = transform.output_len(frames_per_clip).max(1);
        // Of a clip shorter than its room, the one there is.
        let room = out.len().min(len * self.clips());
        let (out, rest) = out.split_at_mut(room);
        rest.fill(V::default());
        for (number, (indices, out)) in (0..).zip(clips.iter().zip(out.chunks_exact_mut(len))) {
            let clip = media.decode(indices).map_err(|error| bad(&entry.path, error))?;
            let clip = Coloured { clip, grayscale: self.preprocessing.grayscale };
            // As in the official code, each clip of a video draws augmentations, a crop and a flip of its own.
            let mut draws = Keyed::new(key, number);
            let transformed = match &self.policy {
                None => transform.apply(&clip, &mut crops, &mut flips, out),
                Some(policy) => {
                    let (mut frames, size) = (clip.frames(), clip.size());
                    Policy::apply(&policy.draw(&mut draws), &mut frames, size, Policy::CLIP_FILL)
                        .and_then(|()| Frames::new(&frames, size.0, size.1))
                        .and_then(|frames| transform.apply(frames, &mut crops, &mut flips, out))
                }
            };
            transformed.map_err(|error| bad(&entry.path, error))?;
            // Nothing of bytes is erased, which opening refuses.
            if let (Some(erase), Some(out)) = (&self.erase, V::floats(out)) {
                erase.apply(transform.size, out, &mut draws).map_err(|error| bad(&entry.path, error))?;
            }
        }
        Ok(self.info(index, entry))
    }
}
