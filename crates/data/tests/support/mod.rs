//! Small data sets made of the carried videos.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};

use vjepa_data::media::Opener;
use vjepa_data::shards::{PackPlan, PackReport, pack};
use vjepa_data::{Loader, LoaderConfig, open_source, read_list};
use vjepa_recipe::config::{AugmentConfig, DataConfig};

/// The carried videos, mp4 and webm.
pub fn carried() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/textures");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut videos: Vec<PathBuf> =
        entries.filter(|p| p.extension().is_some_and(|e| e == "mp4" || e == "webm")).collect();
    videos.sort();
    videos.truncate(12);
    videos
}

/// A list of copies of them, with labels.
pub fn loose(folder: &Path) -> PathBuf {
    let mut lines = String::new();
    for (label, video) in carried().iter().enumerate() {
        let name = video.file_name().unwrap().to_str().unwrap();
        std::fs::copy(video, folder.join(name)).unwrap();
        lines.push_str(&format!("{name} {}\n", label % 5));
    }
    let list = folder.join("list.csv");
    std::fs::write(&list, lines).unwrap();
    list
}

/// The names of the files beside a list, without the list.
pub fn names(list: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(list.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path != list).collect()
}

/// Small clips of these data sets.
pub fn config(datasets: &[&Path]) -> DataConfig {
    DataConfig {
        datasets: datasets.iter().map(|path| path.display().to_string()).collect(),
        num_frames: 8,
        sampling_rate: 1,
        crop_size: 32,
        ..DataConfig::default()
    }
}

/// Clips and labels of the first batches.
pub fn batches(data: &DataConfig, count: usize) -> Vec<(Vec<f32>, Vec<Option<i64>>)> {
    let source = open_source(data, &AugmentConfig::default()).unwrap();
    let mut loader = Loader::new(source, LoaderConfig { workers: 2, ..LoaderConfig::new(3, 7) }).unwrap();
    let one = |_| {
        let batch = loader.next_batch().unwrap();
        (batch.clips.into_floats(batch.shape), batch.infos.iter().map(|info| info.label).collect())
    };
    (0..count).map(one).collect()
}

/// Packs a list as it is.
pub fn pack_copies(list: &Path, out: &Path, shard_bytes: u64) -> PackReport {
    let list = read_list(list).unwrap();
    let opener = Opener::shared();
    pack(&PackPlan { list: &list, out, name: "train", shard_bytes, transcode: None, opener }, &|_| {}).unwrap()
}

/// Writes the frames of a video as `f0.png`, `f1.png`, ...
pub fn frames_of(video: &Path, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let mut clip = vjepa_video::open(video).unwrap();
    let all: Vec<usize> = (0..clip.info().frames).collect();
    for frame in clip.frames(&all).unwrap() {
        let file = std::fs::File::create(folder.join(format!("f{}.png", frame.index))).unwrap();
        let mut encoder = png::Encoder::new(file, frame.display_width() as u32, frame.display_height() as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&frame.rgb()).unwrap();
    }
}
