//! Videos as clips: choose frames, decode, crop, resize, flip, normalise.

mod augmented;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use augmented::AugmentedVideos;

use super::augment::{Keyed, Policy, RandAugment, RandomErasing};
use super::decode::{Decoded, reason};
use super::frames::is_picture;
use super::list::{VideoEntry, VideoList};
use super::media::{Media, Opener};
use super::reading::opener_of;
use super::sampling::{ClipSampler, Spacing, step_for_duration};
use super::sets::read_lists;
use super::source::{ClipSource, Contents, DataError, SampleInfo, SampleKey, check_out};
use vjepa_recipe::counter::CounterRng;
use vjepa_runtime::preprocess::{View, to_luma};

use super::transforms::{Frames, Pixels, RandomCrop, TrainTransform};
use vjepa_recipe::config::{AugmentConfig, DataConfig, Framing, Preprocessing, Sampling};
use vjepa_recipe::rng::{DefaultRng, NumpyRng, PyRandom, Stream, WeightedChoice};

/// Separates the choice between weighted data sets from other uses of the seed.
const WEIGHTED: u64 = 0x7765_6967_6874;

/// Videos as training clips: files, frame folders, pictures, members of shards, objects of stores.
#[derive(Debug, Clone)]
pub struct VideoDataset {
    opener: Arc<Opener>,
    lists: Arc<Vec<VideoList>>,
    /// Where each list's entries end, counted through all.
    ends: Vec<usize>,
    /// For each data set: the end of its entries, and the end of its share of [0, 1); empty without weights.
    shares: Vec<(usize, f64)>,
    /// The choice of V-JEPA 2's recipes, which draw with replacement.
    choice: Option<WeightedChoice>,
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
        let until = |end: &mut usize, list: &VideoList| {
            *end += list.entries.len();
            Some(*end)
        };
        let ends: Vec<usize> = lists.iter().scan(0, until).collect();
        let mut shares = Vec::new();
        let mut choice = None;
        if let Some(weights) = &data.datasets_weights {
            let total: f64 = weights.iter().sum();
            let usable = total.is_finite() && total > 0.0 && weights.iter().all(|&w| w >= 0.0);
            if weights.len() != ends.len() || !usable {
                return Err(DataError::Setup("`data.datasets_weights` does not fit `data.datasets`".into()));
            }
            if data.dataset_fpcs.is_some() {
                let begins = [0].into_iter().chain(ends.iter().copied());
                let sizes: Vec<usize> = ends.iter().zip(begins).map(|(end, begin)| end - begin).collect();
                choice = WeightedChoice::new(&sizes, weights);
            }
            let mut sum = 0.0;
            for (&end, &weight) in ends.iter().zip(weights) {
                sum += weight / total;
                shares.push((end, sum));
            }
        }
        Ok(Self {
            opener,
            lists,
            ends,
            shares,
            choice,
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

    /// Which entry a key means. With weights, the data set is drawn by weight and the video within it uniformly, with
    /// replacement (V-JEPA 1's weighted sampler draws without, which needs the whole pass in memory). V-JEPA 2's draws with
    /// it, and these are its draws: those of pass `epoch` are of NumPy's generator of seed `seed + epoch`.
    fn choose(&self, key: SampleKey) -> usize {
        if let (Some(choice), 0) = (&self.choice, key.retry) {
            let seed = key.seed.wrapping_add(key.epoch);
            return choice.at(DefaultRng::new(seed).advanced(key.position).random());
        }
        if self.shares.is_empty() {
            return key.entry(self.videos()).unwrap_or(0) as usize;
        }
        let mut rng = CounterRng::new(&[key.seed, WEIGHTED, key.draw()]);
        let drawn = rng.unit();
        // Rounding may leave the last share a hair below 1; the last data set with a weight takes the rest.
        let mut chosen = (0, 0);
        let (mut begin, mut reached) = (0, 0.0);
        for &(end, share) in &self.shares {
            if share > reached {
                chosen = (begin, end);
                if drawn < share {
                    break;
                }
            }
            (begin, reached) = (end, share);
        }
        chosen.0 + rng.below((chosen.1 - chosen.0) as u64) as usize
    }

    fn open_entry(&self, entry: &VideoEntry) -> Result<Media, DataError> {
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

impl Pixels for Coloured {
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
        let len = self.transform.output_len(frames_per_clip).max(1);
        // Of a clip shorter than its room, the one there is.
        let room = out.len().min(len * self.clips());
        let (out, rest) = out.split_at_mut(room);
        rest.fill(0.0);
        for (number, (indices, out)) in (0..).zip(clips.iter().zip(out.chunks_exact_mut(len))) {
            let clip = media.decode(indices).map_err(|error| bad(&entry.path, error))?;
            let clip = Coloured { clip, grayscale: self.preprocessing.grayscale };
            // As in the official code, each clip of a video draws augmentations, a crop and a flip of its own.
            let mut draws = Keyed::new(key, number);
            let transformed = match &self.policy {
                None => self.transform.apply(&clip, &mut crops, &mut flips, out),
                Some(policy) => {
                    let (mut frames, size) = (clip.frames(), clip.size());
                    Policy::apply(&policy.draw(&mut draws), &mut frames, size, Policy::CLIP_FILL)
                        .and_then(|()| Frames::new(&frames, size.0, size.1))
                        .and_then(|frames| self.transform.apply(frames, &mut crops, &mut flips, out))
                }
            };
            transformed.map_err(|error| bad(&entry.path, error))?;
            if let Some(erase) = &self.erase {
                erase.apply(self.transform.size, out, &mut draws).map_err(|error| bad(&entry.path, error))?;
            }
        }
        Ok(self.info(index, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(weights: [f64; 3]) -> [u32; 3] {
        let folder = tempfile::tempdir().unwrap();
        let mut datasets = Vec::new();
        for (name, count) in [("a", 10), ("b", 1000), ("c", 1)] {
            let path = folder.path().join(format!("{name}.csv"));
            let lines: String = (0..count).map(|i| format!("{name}{i}.mp4 0\n")).collect();
            std::fs::write(&path, lines).unwrap();
            datasets.push(path.display().to_string());
        }
        let data = DataConfig { datasets, datasets_weights: Some(weights.to_vec()), ..DataConfig::default() };
        let source = VideoDataset::open(&data, &AugmentConfig::default()).unwrap();
        let mut counts = [0; 3];
        for position in 0..4000 {
            let index = source.choose(SampleKey { seed: 1, epoch: 0, position, retry: 0 });
            counts[[10, 1010, 1011].iter().position(|&end| index < end).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_weighted_order_of_the_second_generation_is_numpys() {
        let folder = tempfile::tempdir().unwrap();
        let mut datasets = Vec::new();
        for (name, count) in [("a", 5), ("b", 3), ("c", 2)] {
            let path = folder.path().join(format!("{name}.csv"));
            let lines: String = (0..count).map(|i| format!("{name}{i}.mp4 0\n")).collect();
            std::fs::write(&path, lines).unwrap();
            datasets.push(path.display().to_string());
        }
        let weights = vec![0.335, 0.1, 0.565];
        let data = DataConfig {
            datasets,
            datasets_weights: Some(weights.clone()),
            dataset_fpcs: Some(vec![16; 3]),
            ..DataConfig::default()
        };
        let source = VideoDataset::open(&data, &AugmentConfig::default()).unwrap();
        let choice = WeightedChoice::new(&[5, 3, 2], &weights).unwrap();
        for epoch in [0, 3] {
            let mut rng = DefaultRng::new(239 + epoch);
            for position in 0..10 {
                let chosen = source.choose(SampleKey { seed: 239, epoch, position, retry: 0 });
                assert_eq!(chosen, choice.at(rng.random()));
            }
        }
        // A replacement for a video that cannot be read is another one.
        let again: Vec<usize> =
            (0..20).map(|retry| source.choose(SampleKey { seed: 239, epoch: 0, position: 0, retry })).collect();
        assert!(again.iter().any(|index| *index != again[0]));
    }

    #[test]
    fn weights_set_the_share_of_each_data_set() {
        let [a, b, c] = weighted([1.0, 2.0, 1.0]);
        assert!((900..1100).contains(&a) && (1900..2100).contains(&b) && (900..1100).contains(&c), "{a} {b} {c}");
        let [a, b, c] = weighted([0.0, 3.0, 0.0]);
        assert_eq!((a, b, c), (0, 4000, 0));
    }
}
