//! The loader: one stream for any number of workers, exact resume, and data that is partly or wholly bad.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vjepa_data::{
    ClipBatch, ClipSource, DataError, DriftingTextures, Loader, LoaderConfig, QuarantineLine, SampleInfo, SampleKey,
    TextureLabels, VideoDataset, open_source, read_videos,
};
use vjepa_recipe::config::{Config, Normalization};

/// A data set without videos: clips hold their entry and key, chosen entries are bad or panic.
#[derive(Default)]
struct Made {
    len: u64,
    bad: HashSet<u64>,
    panics: HashSet<u64>,
    sampled: AtomicU64,
}

impl ClipSource for Made {
    fn len(&self) -> Option<u64> {
        Some(self.len)
    }
    fn shape(&self) -> [usize; 4] {
        [3, 1, 1, 2]
    }
    fn sample(&self, key: SampleKey, out: &mut [f32]) -> Result<SampleInfo, DataError> {
        self.sampled.fetch_add(1, Ordering::SeqCst);
        let index = key.entry(self.len).expect("not empty");
        // Work of uneven length, to mix up the order of the workers.
        std::thread::sleep(Duration::from_micros(index % 7 * 50));
        out.fill(index as f32);
        out[0] = key.draw() as f32;
        assert!(!self.panics.contains(&index), "entry {index} is cursed");
        if self.bad.contains(&index) {
            return Err(DataError::Bad { path: format!("clip{index}.mp4").into(), reason: "made bad".into() });
        }
        Ok(SampleInfo { label: None, index, path: None })
    }
}

fn made(len: u64, bad: impl IntoIterator<Item = u64>) -> Made {
    Made { len, bad: bad.into_iter().collect(), ..Made::default() }
}

fn config(batch: usize, workers: usize) -> LoaderConfig {
    LoaderConfig { workers, ..LoaderConfig::new(batch, 11) }
}

fn batches(source: Made, config: LoaderConfig, count: usize) -> Vec<ClipBatch> {
    let mut loader = Loader::new(Arc::new(source), config).unwrap();
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

#[test]
fn the_stream_does_not_depend_on_workers() {
    let bad = || (0..100).filter(|i| i % 5 == 0);
    let alone = batches(made(100, bad()), config(8, 0), 30);
    for workers in [1, 2, 5] {
        let small_window = LoaderConfig { window: 3, ..config(8, workers) };
        assert_eq!(batches(made(100, bad()), config(8, workers), 30), alone, "{workers} workers");
        assert_eq!(batches(made(100, bad()), small_window, 30), alone, "{workers} workers, window 3");
    }
    assert_eq!(alone[3].shape, [8, 3, 1, 1, 2]);
    assert_eq!(alone[3].clips.len(), 8 * 6);
}

#[test]
fn each_pass_holds_every_entry_once_in_its_own_order() {
    let all = batches(made(24, []), config(8, 2), 6);
    let pass = |range: std::ops::Range<usize>| -> Vec<u64> {
        all[range].iter().flat_map(|b| b.infos.iter().map(|i| i.index)).collect()
    };
    let (first, second) = (pass(0..3), pass(3..6));
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 24);
    assert_eq!(second.iter().collect::<HashSet<_>>().len(), 24);
    assert_ne!(first, second);
}

#[test]
fn a_run_resumes_from_its_step_number() {
    let whole = batches(made(50, [3, 4]), config(8, 2), 12);
    let rest = batches(made(50, [3, 4]), LoaderConfig { start_step: 7, ..config(8, 3) }, 5);
    assert_eq!(rest[0].step, 7);
    assert_eq!(whole[7..], rest);
}

#[test]
fn ranks_take_their_part_of_each_step() {
    let whole = batches(made(50, [3]), config(8, 1), 6);
    let part = |rank| batches(made(50, [3]), LoaderConfig { groups: 2, rank, world: 2, ..config(4, 2) }, 6);
    let (a, b) = (part(0), part(1));
    for ((whole, a), b) in whole.iter().zip(&a).zip(&b) {
        assert_eq!(whole.clips.floats().unwrap(), [a.clips.floats().unwrap(), b.clips.floats().unwrap()].concat());
    }
}

#[test]
fn workers_stop_at_the_window_and_end_with_the_loader() {
    let source = Arc::new(made(1000, []));
    let mut loader = Loader::new(source.clone(), LoaderConfig { window: 10, ..config(4, 3) }).unwrap();
    let settled = |n: u64| {
        let until = Instant::now() + Duration::from_secs(10);
        while source.sampled.load(Ordering::SeqCst) < n && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(30));
        source.sampled.load(Ordering::SeqCst)
    };
    assert_eq!(settled(10), 10);
    let batch = loader.next_batch().unwrap();
    loader.recycle(batch.clips);
    assert_eq!(settled(14), 14);
    drop(loader);
    assert_eq!(Arc::strong_count(&source), 1, "a worker outlived its loader");
}

#[test]
fn bad_clips_are_replaced_counted_and_listed_once() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("bad.jsonl");
    let config = LoaderConfig { quarantine: Some(list.clone()), ..config(10, 2) };
    let mut loader = Loader::new(Arc::new(made(20, [1, 2, 3])), config).unwrap();
    for _ in 0..8 {
        let batch = loader.next_batch().unwrap();
        assert!(batch.infos.iter().all(|info| !(1..=3).contains(&info.index)));
        // The clip belongs to what its info says.
        for (clip, info) in batch.clips.floats().unwrap().chunks(6).zip(&batch.infos) {
            assert_eq!(clip[1], info.index as f32);
        }
    }
    assert_eq!(loader.stats().good, 80);
    // Four passes over 20 entries, three of them bad, plus stand-ins that were bad, too.
    assert!((12..30).contains(&loader.stats().bad), "{}", loader.stats().bad);
    assert_eq!(loader.quarantine().len(), 3);
    let text = std::fs::read_to_string(&list).unwrap();
    let lines: Vec<QuarantineLine> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let paths: HashSet<_> = lines.iter().map(|line| line.path.clone()).collect();
    assert_eq!(paths, [1, 2, 3].map(|i| PathBuf::from(format!("clip{i}.mp4"))).into());
    assert!(lines.len() == 3 && lines.iter().all(|line| line.reason == "made bad"));
}

#[test]
fn a_panic_in_one_clip_is_a_bad_clip() {
    for workers in [0, 2] {
        let source = Made { len: 20, panics: [4].into(), ..Made::default() };
        let mut loader = Loader::new(Arc::new(source), config(10, workers)).unwrap();
        for _ in 0..4 {
            assert!(loader.next_batch().unwrap().infos.iter().all(|info| info.index != 4));
        }
        assert!(loader.stats().bad >= 2);
    }
}

#[test]
fn too_many_bad_clips_end_the_run_with_a_reason() {
    let outcome = |workers| {
        let config = LoaderConfig { max_bad_fraction: 0.3, ..config(8, workers) };
        let mut loader = Loader::new(Arc::new(made(100, 0..60)), config).unwrap();
        let error = (0..100).find_map(|_| loader.next_batch().err()).unwrap();
        assert_eq!(loader.next_batch().unwrap_err().to_string(), error.to_string());
        error.to_string()
    };
    let said = outcome(0);
    assert!(said.contains("could not be read, more than data.max_bad_fraction (0.3) allows"), "{said}");
    assert!(said.contains("the first was clip"), "{said}");
    assert_eq!(outcome(3), said);
}

#[test]
fn an_all_bad_data_set_ends_at_once() {
    for (len, workers) in [(1, 0), (3, 2), (1_000_000_000, 2)] {
        let source = Arc::new(AllBad { len });
        let began = Instant::now();
        let mut loader = Loader::new(source, LoaderConfig { max_bad_fraction: 1.0, ..config(32, workers) }).unwrap();
        let said = loader.next_batch().unwrap_err().to_string();
        // All of its videos are the one file, however many tries find it.
        let none = match len {
            1 => "the only video could not be read".to_owned(),
            _ => format!("none of the 1 videos tried, of {len}, could be read"),
        };
        assert!(said.starts_with(&format!("{none}; the first was gone.mp4: lost")), "{said}");
        drop(loader);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

struct AllBad {
    len: u64,
}

impl ClipSource for AllBad {
    fn len(&self) -> Option<u64> {
        Some(self.len)
    }
    fn shape(&self) -> [usize; 4] {
        [3, 1, 1, 1]
    }
    fn sample(&self, _: SampleKey, _: &mut [f32]) -> Result<SampleInfo, DataError> {
        Err(DataError::Bad { path: "gone.mp4".into(), reason: "lost".into() })
    }
}

#[test]
fn impossible_set_ups_are_refused() {
    let refused = |len, config| Loader::new(Arc::new(made(len, [])), config).map(drop).unwrap_err().to_string();
    assert!(refused(0, config(4, 1)).contains("empty"));
    assert!(refused(4, config(0, 1)).contains("batch"));
    assert!(refused(4, LoaderConfig { groups: 2, rank: 2, world: 2, ..config(4, 1) }).contains("rank"));
    assert!(refused(4, LoaderConfig { start_step: u64::MAX, ..config(4, 1) }).contains("too far"));
    assert!(refused(4, config(usize::MAX, 1)).contains("memory"));
}

#[test]
fn textures_stream_through_the_loader() {
    let source = Arc::new(DriftingTextures::new(8, 48, Normalization::PerClip));
    let mut loader = Loader::new(source.clone(), config(4, 2)).unwrap();
    loader.next_batch().unwrap();
    let batch = loader.next_batch().unwrap();
    assert_eq!(batch.shape, [4, 3, 8, 48, 48]);
    for (slot, info) in batch.infos.iter().enumerate() {
        assert_eq!(info.index, 4 + slot as u64);
        assert_eq!(info.label, Some(source.labels(11, info.index).texture as i64));
    }
}

fn textures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures")
}

/// 8 frames of 48 pixels, uncropped, from the data sets given.
fn video_config(datasets: &[&Path]) -> Config {
    let list: Vec<String> = datasets.iter().map(|d| d.display().to_string()).collect();
    let text = "
model: {model_name: vit_tiny}
data: {num_frames: 8, sampling_rate: 1, sampling: exact, crop_size: 48, patch_size: 8, normalization: per_clip, grayscale: true}
data_aug: {horizontal_flip: false, random_resize_scale: [1.0, 1.0], random_resize_aspect_ratio: [1.0, 1.0]}
";
    let mut config = Config::from_yaml(text, "", &[]).unwrap();
    config.data.datasets = list;
    config
}

fn open(config: &Config) -> Arc<dyn ClipSource> {
    open_source(&config.data, &config.data_aug).unwrap()
}

fn open_videos(config: &Config) -> VideoDataset {
    VideoDataset::open(&config.data, &config.data_aug).unwrap()
}

#[test]
fn carried_clips_hold_what_was_rendered() {
    let stream = DriftingTextures::new(8, 48, Normalization::PerClip);
    let entries = read_videos(&textures().join("labels.csv")).unwrap();
    let motions = read_videos(&textures().join("labels_motion.csv")).unwrap();
    assert_eq!((entries.len(), motions.len()), (128, 128));
    let source = open_videos(&video_config(&[&textures().join("labels.csv")]));
    let mut rendered = vec![0.0; 8 * 48 * 48];
    let mut worst = 0f64;
    for (class, (entry, motion)) in entries.iter().zip(&motions).enumerate() {
        assert_eq!(entry.path, motion.path);
        let labels = TextureLabels { texture: class >> 4, direction: class >> 1 & 7, speed: class & 1 };
        assert_eq!((entry.label, motion.label), (Some(labels.texture as i64), Some(labels.direction as i64)));
        stream.render_as(0x7465_7874_7572_6573, class as u64, labels, &mut rendered).unwrap();
        let mut clip = vjepa_video::open(&entry.path).unwrap();
        assert_eq!(clip.info().frames, 8, "{}", entry.path.display());
        let frames = clip.frames(&[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        let mut error = 0f64;
        for (frame, image) in frames.iter().zip(rendered.chunks(48 * 48)) {
            let rgb = frame.rgb();
            error +=
                rgb.chunks(3).zip(image).map(|(p, v)| (f64::from(p[0]) - 255.0 * f64::from(*v)).abs()).sum::<f64>();
        }
        worst = worst.max(error / rendered.len() as f64);
    }
    eprintln!("worst mean absolute error: {worst:.3} levels");
    assert!(worst < 3.0, "{worst}");
    // The whole path agrees with the stream, up to the same loss.
    let mut out = vec![0.0; 3 * 8 * 48 * 48];
    let info = source.sample(SampleKey { seed: 0, epoch: 0, position: 5, retry: 0 }, &mut out).unwrap();
    let class = info.index;
    let labels =
        TextureLabels { texture: class as usize >> 4, direction: class as usize >> 1 & 7, speed: class as usize & 1 };
    stream.render_as(0x7465_7874_7572_6573, class, labels, &mut rendered).unwrap();
    let n = rendered.len() as f32;
    let mean = rendered.iter().sum::<f32>() / n;
    let std = (rendered.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
    let off: f32 = rendered.iter().zip(&out).map(|(r, o)| ((r - mean) / std - o).abs()).sum::<f32>() / n;
    assert!(off < 0.1, "{off}");
}

/// Files as broken downloads leave them.
fn spoil(folder: &Path) {
    let good = std::fs::read(textures().join("t0_d0_s0.mp4")).unwrap();
    std::fs::write(folder.join("zero.mp4"), []).unwrap();
    std::fs::write(folder.join("text.mp4"), "not a video\n".repeat(200)).unwrap();
    std::fs::write(folder.join("tiny.webm"), "x").unwrap();
    std::fs::write(folder.join("cut.mp4"), &good[..good.len() / 2]).unwrap();
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(folder.join("noise.mkv"), noise).unwrap();
}

#[test]
fn good_videos_among_bad_ones_train_on() {
    let folder = tempfile::tempdir().unwrap();
    spoil(folder.path());
    for name in [
        "t1_d0_s1.mp4",
        "t2_d0_s0.mp4",
        "t3_d1_s0.mp4",
        "t4_d4_s0.mp4",
        "t5_d0_s0.webm",
        "t6_d1_s0.webm",
        "t7_d0_s0.webm",
    ] {
        std::fs::copy(textures().join(name), folder.path().join(name)).unwrap();
    }
    let run = |workers| {
        let source = open(&video_config(&[folder.path()]));
        let list = folder.path().join(format!("bad{workers}.jsonl"));
        let config = LoaderConfig { max_bad_fraction: 0.75, quarantine: Some(list.clone()), ..config(12, workers) };
        let mut loader = Loader::new(source, config).unwrap();
        let all: Vec<ClipBatch> = (0..3).map(|_| loader.next_batch().unwrap()).collect();
        assert_eq!(loader.quarantine().len(), 5);
        (all, std::fs::read_to_string(list).unwrap())
    };
    let (alone, list) = run(0);
    assert_eq!(run(2), (alone.clone(), list.clone()));
    assert!(alone.iter().flat_map(|b| &b.infos).all(|i| i.path.as_ref().unwrap().to_string_lossy().contains("/t")));
    assert!(list.contains("1 KiB"), "{list}");
    assert!(alone.iter().all(|b| b.clips.floats().unwrap().iter().all(|v| v.is_finite())));
}

#[test]
fn a_folder_of_bad_videos_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    spoil(folder.path());
    let began = Instant::now();
    let source = open(&video_config(&[folder.path()]));
    let mut loader = Loader::new(source, config(8, 2)).unwrap();
    let said = loader.next_batch().unwrap_err().to_string();
    assert!(said.starts_with("none of the 5 videos could be read; the first was "), "{said}");
    drop(loader);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn evaluation_reads_the_same_clip_every_time() {
    let source = open_videos(&video_config(&[&textures().join("labels.csv")]));
    let mut clips = [vec![0.0; 3 * 8 * 48 * 48], vec![1.0; 3 * 8 * 48 * 48]];
    for clip in &mut clips {
        assert_eq!(source.evaluate(17, clip).unwrap().label, Some(1));
    }
    assert_eq!(clips[0], clips[1]);
    assert!(source.evaluate(128, &mut clips[0]).is_err());
    assert!(source.evaluate(0, &mut clips[0][1..]).is_err());
}
