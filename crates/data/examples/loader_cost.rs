//! What the loader costs beside decoding and resizing: processor time per clip of both, taking turns.
//!
//! `cargo run --release -p vjepa-data --example loader_cost -- LIST CLIPS [ROUNDS]` decodes the same frames and takes the same crops
//! once with nothing around it and once through a loader with as many workers as the machine has, prints both in milliseconds of
//! processor time per clip, and their ratio in each round.

use std::path::Path;
use std::sync::Arc;

use cpu_time::ProcessTime;
use vjepa_data::sampling::ClipSampler;
use vjepa_data::transforms::{Pixels, TrainTransform};
use vjepa_data::{Loader, LoaderConfig, SampleStream, VideoDataset, default_workers, read_list};
use vjepa_recipe::config::{AugmentConfig, DataConfig};
use vjepa_recipe::rng::{NumpyRng, PyRandom, Stream};
use vjepa_video::Frame;

type Failed = Box<dyn std::error::Error>;

struct Decoded(Vec<Frame>);

impl Pixels for Decoded {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn size(&self) -> (usize, usize) {
        self.0.first().map_or((0, 0), |frame| (frame.display_height(), frame.display_width()))
    }

    fn read(&self, index: usize, y: usize, left: usize, out: &mut [u8]) {
        if let Some(frame) = self.0.get(index) {
            frame.rgb_row(y, left, out);
        }
    }
}

const BATCH: usize = 4;
const SEED: u64 = 0;

/// The clips that a loader would make, with nothing but decoder and transform.
fn alone(list: &Path, clips: usize) -> Result<f64, Failed> {
    let entries = read_list(list)?.entries;
    let stream = SampleStream {
        seed: SEED,
        len: Some(entries.len() as u64),
        batch: BATCH as u64,
        groups: 1,
        base: 0,
        rank: 0,
        world: 1,
    };
    let transform = TrainTransform::official(224);
    let sampler = ClipSampler::pretrain(16, 4);
    let mut out = vec![0.0; transform.output_len(16)];
    let began = ProcessTime::now();
    for ticket in 0..clips as u64 {
        let key = stream.key(ticket);
        let entry = &entries[key.entry(entries.len() as u64).ok_or("an empty list")? as usize];
        let mut video = vjepa_video::open(&entry.path)?;
        let mut starts = NumpyRng::keyed(SEED, Stream::Clips, key.draw());
        let frames = sampler.sample(video.info().frames, |low, high| starts.randint(low, high))?;
        let decoded = Decoded(video.frames(&frames[0])?);
        let mut crops = PyRandom::keyed(SEED, Stream::Crops, key.draw());
        let mut flips = NumpyRng::keyed(SEED, Stream::Flips, key.draw());
        transform.apply(&decoded, &mut crops, &mut flips, &mut out)?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e3 / clips as f64)
}

/// The same through a loader; also the share of the time that its consumer, which does nothing else, waited.
fn loaded(list: &Path, clips: usize) -> Result<(f64, f64), Failed> {
    let data = DataConfig { datasets: vec![list.display().to_string()], ..DataConfig::default() };
    let source = Arc::new(VideoDataset::open(&data, &AugmentConfig::default())?);
    let batches = clips / BATCH;
    // No further ahead than what is taken, so that no clip is made that is not counted.
    let config = LoaderConfig { workers: default_workers(), window: BATCH, ..LoaderConfig::new(BATCH, SEED) };
    let began = ProcessTime::now();
    let mut loader = Loader::new(source, config)?;
    for _ in 0..batches {
        let batch = loader.next_batch()?;
        loader.recycle(batch.clips);
    }
    let share = loader.stats().wait_share();
    drop(loader);
    Ok((began.elapsed().as_secs_f64() * 1e3 / (batches * BATCH) as f64, share))
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [list, clips, rest @ ..] = arguments.as_slice() else { return Err("loader_cost LIST CLIPS [ROUNDS]".into()) };
    let rounds: usize = rest.first().map_or(Ok(5), |rounds| rounds.parse())?;
    let clips = clips.parse::<usize>()?.next_multiple_of(BATCH).max(BATCH);
    let list = Path::new(list);
    println!("ms of processor time per clip; {} workers", default_workers());
    println!("alone   loader  ratio");
    for _ in 0..rounds {
        let alone = alone(list, clips)?;
        let (loader, _) = loaded(list, clips)?;
        println!("{alone:6.2}  {loader:6.2}  {:.3}", loader / alone);
    }
    Ok(())
}
