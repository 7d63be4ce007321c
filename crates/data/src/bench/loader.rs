//! What the loader costs beside decoding and resizing.

use std::sync::Arc;
use std::time::Instant;

use cpu_time::ProcessTime;
use serde::Serialize;
use vjepa_recipe::config::{AugmentConfig, DataConfig};
use vjepa_recipe::rng::{NumpyRng, PyRandom, Stream};

use super::compare::spread;
use crate::dataset::{Coloured, VideoDataset};
use crate::source::{ClipSource, DataError};
use crate::{Loader, LoaderConfig, SampleStream};

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoaderSettings {
    /// Rounds; in each, both sides make the same clips.
    pub rounds: usize,
    /// Batches per round, of `data.batch_size` clips.
    pub batches: usize,
    /// Loader threads.
    pub workers: usize,
    /// Seed of the order, the frames and the crops.
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct LoaderReport {
    /// How much was measured.
    pub settings: LoaderSettings,
    /// Clips per batch.
    pub batch: usize,
    /// Round after round.
    pub rounds: Vec<LoaderRound>,
    /// Median, smallest and largest of the loader's processor time over that of decoding and resizing alone.
    pub ratio: [f64; 3],
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoaderRound {
    /// Milliseconds of processor time per clip with nothing but decoder and transform, on as many threads as the loader has.
    pub alone_ms: f64,
    /// The same through the loader.
    pub loader_ms: f64,
    /// Clips per second of the loader's wall time, with a consumer that does nothing.
    pub clips_per_second: f64,
}

/// Lets both sides take turns on the videos of a configuration; `progress` is told of each round that is over.
///
/// # Errors
/// [`DataError::Setup`] for a configuration whose clips are more than decoded, cropped and resized frames, so that the
/// comparison would not be one, and for nothing to measure; otherwise as [`VideoDataset::open`] and [`Loader`].
pub fn loader(
    data: &DataConfig,
    augment: &AugmentConfig,
    settings: LoaderSettings,
    mut progress: impl FnMut(usize),
) -> Result<LoaderReport, DataError> {
    plain(data, augment)?;
    let source = Arc::new(VideoDataset::open(data, augment)?);
    // Reads every file once, so that the first round does not pay for the disk.
    let _ = alone(&source, data, settings)?;
    progress(0);
    let mut rounds = Vec::with_capacity(settings.rounds);
    for round in 0..settings.rounds {
        let alone_ms = alone(&source, data, settings)?;
        let (loader_ms, clips_per_second) = loaded(&source, data.batch_size, settings)?;
        rounds.push(LoaderRound { alone_ms, loader_ms, clips_per_second });
        progress(round + 1);
    }
    let ratio = spread(rounds.iter().map(|round| round.loader_ms / round.alone_ms));
    let ratio = ratio.ok_or_else(|| DataError::Setup("no rounds to measure".into()))?;
    Ok(LoaderReport { settings, batch: data.batch_size, rounds, ratio })
}

/// Refuses what only the loader's side would do.
fn plain(data: &DataConfig, augment: &AugmentConfig) -> Result<(), DataError> {
    let more = [
        ("data.datasets_weights", data.datasets_weights.is_some()),
        ("data.clip_duration", data.clip_duration.is_some()),
        ("data.fps", data.fps.is_some()),
        ("data.num_clips", data.num_clips != 1),
        ("data.grayscale", data.grayscale),
        ("data_aug.auto_augment", augment.auto_augment),
        ("data_aug.motion_shift", augment.motion_shift),
        ("data_aug.reprob", augment.reprob > 0.0),
    ];
    match more.iter().find(|(_, set)| *set) {
        None => Ok(()),
        Some((key, _)) => Err(DataError::Setup(format!(
            "the loader is compared with decoding, cropping and resizing alone, and {key} asks for more: override it with --set"
        ))),
    }
}

/// The clips of a round with nothing around them: milliseconds of processor time per clip. As many threads as the loader has
/// take turns, since two threads of one core are slower each.
fn alone(source: &VideoDataset, data: &DataConfig, settings: LoaderSettings) -> Result<f64, DataError> {
    let clips = settings.batches as u64 * data.batch_size as u64;
    let threads = settings.workers.max(1) as u64;
    let began = ProcessTime::now();
    std::thread::scope(|scope| {
        let thread = |number| scope.spawn(move || share(source, data, settings.seed, number..clips, threads));
        let threads: Vec<_> = (0..threads).map(thread).collect();
        let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(DataError::Setup("a thread that decoded alone has panicked".into())))
        };
        threads.into_iter().map(ended).collect::<Result<Vec<()>, DataError>>()
    })?;
    Ok(began.elapsed().as_secs_f64() * 1e3 / clips.max(1) as f64)
}

/// Every `step`th of the clips, each decoded, cropped, resized and forgotten.
fn share(
    source: &VideoDataset,
    data: &DataConfig,
    seed: u64,
    tickets: std::ops::Range<u64>,
    step: u64,
) -> Result<(), DataError> {
    let batch = data.batch_size as u64;
    let stream = SampleStream { seed, len: source.len(), batch, groups: 1, base: 0, rank: 0, world: 1 };
    let (sampler, transform) = source.clips_of();
    let mut out = vec![0.0; transform.output_len(data.num_frames)];
    for ticket in tickets.step_by(step as usize) {
        let key = stream.key(ticket);
        let entry = source.entry(key.entry(source.len().unwrap_or(0)).unwrap_or(0) as usize)?;
        let bad = |reason: String| DataError::Bad { path: entry.path.clone(), reason };
        let mut video = source.open_entry(entry)?;
        let mut starts = NumpyRng::keyed(seed, Stream::Clips, key.draw());
        let frames = sampler.sample(video.info().frames, |low, high| starts.randint(low, high));
        let frames = frames.map_err(|error| bad(error.to_string()))?;
        let clip = video.decode(frames.first().map(Vec::as_slice).unwrap_or_default()).map_err(bad)?;
        let mut crops = PyRandom::keyed(seed, Stream::Crops, key.draw());
        let mut flips = NumpyRng::keyed(seed, Stream::Flips, key.draw());
        let clip = Coloured { clip, grayscale: false };
        transform.apply(&clip, &mut crops, &mut flips, &mut out).map_err(|error| bad(error.to_string()))?;
        std::hint::black_box(&out);
    }
    Ok(())
}

/// The same clips through a loader: milliseconds of processor time per clip, and clips per second.
fn loaded(source: &Arc<VideoDataset>, batch: usize, settings: LoaderSettings) -> Result<(f64, f64), DataError> {
    // No further ahead than what is taken, so that no clip is made that is not counted.
    let window = batch.max(settings.workers);
    let config = LoaderConfig { workers: settings.workers, window, ..LoaderConfig::new(batch, settings.seed) };
    let (began, wall) = (ProcessTime::now(), Instant::now());
    let mut loader = Loader::new(Arc::clone(source) as Arc<dyn ClipSource>, config)?;
    for _ in 0..settings.batches {
        let batch = loader.next_batch()?;
        loader.recycle(batch.clips);
    }
    let seconds = wall.elapsed().as_secs_f64();
    drop(loader);
    let clips = (settings.batches * batch) as f64;
    Ok((began.elapsed().as_secs_f64() * 1e3 / clips, clips / seconds))
}
