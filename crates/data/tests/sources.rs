//! The same videos give the same clips wherever they lie, and what goes wrong with one costs one sample.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::{batches, carried, config, frames_of, loose, names, pack_copies};
use vjepa_data::shards::index_path;
use vjepa_data::{
    DataError, Loader, LoaderConfig, QuarantineLine, Reading, SampleKey, VideoDataset, open_source, read_list, survey,
};
use vjepa_recipe::config::{AugmentConfig, DataConfig, FoldersHold};

#[test]
fn shards_give_the_batches_of_the_loose_files() {
    let folder = tempfile::tempdir().unwrap();
    let list = loose(folder.path());
    let wanted = batches(&config(&[&list]), 6);
    let shards = folder.path().join("shards");
    let report = pack_copies(&list, &shards, 20_000);
    assert!(report.shards.len() > 2, "{report:?}");
    assert_eq!((report.samples, report.left_out), (carried().len(), 0));
    for datasets in [vec![shards.clone()], vec![shards.join("train-*.tar")]] {
        let datasets: Vec<&Path> = datasets.iter().map(PathBuf::as_path).collect();
        assert!(batches(&config(&datasets), 6) == wanted, "{datasets:?}");
    }
    // A list may name samples of shards.
    let packed = read_list(&shards).unwrap();
    let lines = packed.entries.iter().map(|e| format!("{} {}\n", e.path.display(), e.label.unwrap()));
    let named = folder.path().join("named.csv");
    std::fs::write(&named, lines.collect::<String>()).unwrap();
    assert!(batches(&config(&[&named]), 6) == wanted);
    // Without workers, and from the middle on.
    let source = open_source(&config(&[&shards]), &AugmentConfig::default()).unwrap();
    let mut loader =
        Loader::new(source, LoaderConfig { workers: 0, start_step: 4, ..LoaderConfig::new(3, 7) }).unwrap();
    assert!(loader.next_batch().unwrap().clips.floats().unwrap() == wanted[4].0);
    assert!(survey(&config(&[&shards])).unwrap()[0].to_string().ends_with(&format!("{} videos", carried().len())));
}

#[test]
fn frame_folders_give_the_clips_of_the_video() {
    let folder = tempfile::tempdir().unwrap();
    let video = carried().remove(0);
    let frames = folder.path().join("videos/a");
    frames_of(&video, &frames);
    // The end of the numbers is not the order of the names.
    let data = |dataset: &Path, folders_hold| DataConfig { folders_hold, ..config(&[dataset]) };
    let of = |data: &DataConfig| {
        let source = open_source(data, &AugmentConfig::default()).unwrap();
        let mut out = vec![0.0; source.shape().iter().product()];
        source.sample(SampleKey { seed: 3, epoch: 0, position: 0, retry: 0 }, &mut out).unwrap();
        out
    };
    let list = folder.path().join("one.csv");
    std::fs::write(&list, format!("{} 0\n", video.display())).unwrap();
    let wanted = of(&data(&list, FoldersHold::Videos));
    assert_eq!(of(&data(&folder.path().join("videos"), FoldersHold::Frames)), wanted);
    std::fs::write(&list, "videos/a 0\n").unwrap();
    assert_eq!(of(&data(&list, FoldersHold::Videos)), wanted, "a list says itself what a video is");
    std::fs::remove_file(frames.join("f3.png")).unwrap();
    let source = open_source(&data(&list, FoldersHold::Videos), &AugmentConfig::default()).unwrap();
    let mut out = vec![0.0; source.shape().iter().product()];
    let error = source.sample(SampleKey { seed: 3, epoch: 0, position: 0, retry: 0 }, &mut out).unwrap_err();
    assert!(error.to_string().contains("lacks a frame after number 2"), "{error}");
    assert!(error.is_bad_sample());
}

#[test]
fn a_picture_is_a_clip_of_equal_frames() {
    let folder = tempfile::tempdir().unwrap();
    frames_of(&carried().remove(0), &folder.path().join("pictures"));
    let pictures = folder.path().join("pictures");
    let data = DataConfig { folders_hold: FoldersHold::Images, filter_short_videos: true, ..config(&[&pictures]) };
    let source = open_source(&data, &AugmentConfig::default()).unwrap();
    assert!(source.len().unwrap() > 4);
    let mut out = vec![0.0; source.shape().iter().product()];
    source.sample(SampleKey { seed: 3, epoch: 0, position: 0, retry: 0 }, &mut out).unwrap();
    let [_, frames, height, width] = source.shape();
    for channel in out.chunks_exact(frames * height * width) {
        let first = &channel[..height * width];
        assert!(channel.chunks_exact(height * width).all(|frame| frame == first));
    }
    assert!(out.iter().any(|&value| value != out[0]));
    // Packed, they are the same.
    let shards = folder.path().join("shards");
    let list = folder.path().join("list.csv");
    let reading = Reading { folders_hold: FoldersHold::Images, ..Reading::default() };
    let lines = reading
        .read(&pictures)
        .unwrap()
        .entries
        .iter()
        .map(|e| format!("{} 1\n", e.path.display()))
        .collect::<String>();
    std::fs::write(&list, lines).unwrap();
    pack_copies(&list, &shards, 10_000);
    let key = SampleKey { seed: 3, epoch: 0, position: 4, retry: 0 };
    let mut packed = vec![0.0; out.len()];
    let shards = DataConfig { datasets: vec![shards.display().to_string()], ..data.clone() };
    open_source(&shards, &AugmentConfig::default()).unwrap().sample(key, &mut packed).unwrap();
    source.sample(key, &mut out).unwrap();
    assert_eq!(packed, out);
}

#[test]
fn several_clips_of_a_video_are_put_clip_by_clip() {
    let folder = tempfile::tempdir().unwrap();
    let list = loose(folder.path());
    let data = DataConfig { num_clips: 3, num_frames: 4, ..config(&[&list]) };
    let augment = AugmentConfig { motion_shift: true, ..AugmentConfig::default() };
    let source = open_source(&data, &augment).unwrap();
    assert_eq!((source.clips(), source.shape()), (3, [3, 4, 32, 32]));
    let len: usize = source.shape().iter().product();
    let mut loader = Loader::new(Arc::clone(&source), LoaderConfig { workers: 2, ..LoaderConfig::new(2, 9) }).unwrap();
    let batch = loader.next_batch().unwrap();
    assert_eq!((batch.shape, batch.infos.len()), ([6, 3, 4, 32, 32], 2));
    for position in 0..2 {
        let mut out = vec![0.0; 3 * len];
        source.sample(SampleKey { seed: 9, epoch: 0, position, retry: 0 }, &mut out).unwrap();
        for (clip, values) in out.chunks_exact(len).enumerate() {
            let place = clip * 2 + position as usize;
            assert_eq!(
                &batch.clips.floats().unwrap()[place * len..][..len],
                values,
                "clip {clip} of sample {position}"
            );
        }
        assert_ne!(out[..len], out[len..2 * len]);
    }
    assert!(matches!(
        source.sample(SampleKey { seed: 9, epoch: 0, position: 0, retry: 0 }, &mut vec![0.0; len]),
        Err(DataError::Setup(_))
    ));
    // Evaluation takes one.
    let dataset = VideoDataset::open(&data, &augment).unwrap();
    dataset.evaluate(0, &mut vec![0.0; len]).unwrap();
}

#[test]
fn filters_and_durations_are_the_official_ones() {
    let folder = tempfile::tempdir().unwrap();
    let list = loose(folder.path());
    let try_one = |data: DataConfig| {
        let source = open_source(&data, &AugmentConfig::default()).unwrap();
        let mut out = vec![0.0; source.shape().iter().product()];
        source.sample(SampleKey { seed: 3, epoch: 0, position: 0, retry: 0 }, &mut out).map(|_| out)
    };
    let long = DataConfig { filter_long_videos: Some(2000), ..config(&[&list]) };
    let error = try_one(long).unwrap_err();
    assert!(error.is_bad_sample() && error.to_string().contains("more than data.filter_long_videos (2000)"), "{error}");
    let short = DataConfig { filter_short_videos: true, sampling_rate: 1000, ..config(&[&list]) };
    assert!(try_one(short).unwrap_err().to_string().contains("fewer than the 8000 of a clip"));
    let (slow, fast) = (
        DataConfig { clip_duration: Some(4.0), ..config(&[&list]) },
        DataConfig { clip_duration: Some(0.1), ..config(&[&list]) },
    );
    assert!(try_one(slow).unwrap() != try_one(fast).unwrap());
}

/// A loader of a source that has begun, and the list of bad videos it keeps.
fn watched(folder: &Path, source: &Path) -> (Loader, PathBuf) {
    let bad_list = folder.join("bad.jsonl");
    let source = open_source(&config(&[source]), &AugmentConfig::default()).unwrap();
    let settings = LoaderConfig {
        workers: 2,
        quarantine: Some(bad_list.clone()),
        max_bad_fraction: 0.9,
        ..LoaderConfig::new(4, 7)
    };
    let mut loader = Loader::new(source, settings).unwrap();
    loader.next_batch().unwrap();
    assert_eq!(loader.stats().bad, 0);
    (loader, bad_list)
}

fn lines_of(bad_list: &Path) -> Vec<QuarantineLine> {
    let text = std::fs::read_to_string(bad_list).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A loose file that is replaced by something else, and one that is cut off, cost a sample each time they are drawn, and stand
/// in the list of bad videos once.
#[test]
fn a_loose_file_replaced_while_training_goes_on_is_a_bad_sample() {
    let folder = tempfile::tempdir().unwrap();
    let list = loose(folder.path());
    let (mut loader, bad_list) = watched(folder.path(), &list);
    let mut videos = names(&list);
    videos.retain(|path| path != &bad_list);
    videos.sort();
    let (replaced, cut) = (&videos[0], &videos[1]);
    // As a copying program replaces a file: another one under the same name.
    let other = folder.path().join("other");
    std::fs::write(&other, "no video ".repeat(500)).unwrap();
    std::fs::rename(&other, replaced).unwrap();
    let bytes = std::fs::read(cut).unwrap();
    // Further back its first frames would be whole.
    std::fs::write(cut, &bytes[..1100]).unwrap();
    let mut drawn = 0;
    for _ in 0..12 {
        drawn += loader.next_batch().unwrap().infos.len();
    }
    assert_eq!(drawn, 48, "others stand in");
    assert!(loader.stats().bad >= 2, "{:?}", loader.stats().bad);
    let lines = lines_of(&bad_list);
    assert_eq!(lines.len(), 2, "{lines:?}");
    let of = |path: &Path| &lines.iter().find(|line| line.path == path).unwrap().reason;
    assert!(of(replaced).contains("it holds text"), "{}", of(replaced));
    assert!(of(cut).contains("cut off"), "{}", of(cut));
}

#[test]
fn what_changes_while_training_goes_on_is_a_bad_sample() {
    let folder = tempfile::tempdir().unwrap();
    let list = loose(folder.path());
    let shards = folder.path().join("shards");
    let report = pack_copies(&list, &shards, 20_000);
    let (mut loader, bad_list) = watched(folder.path(), &shards);
    // One shard is cut off, another is packed anew with other contents.
    let cut = &report.shards[0].shard;
    let bytes = std::fs::read(cut).unwrap();
    std::fs::write(cut, &bytes[..bytes.len() / 2]).unwrap();
    let other = &report.shards[1].shard;
    std::fs::write(other, std::fs::read(&report.shards[2].shard).unwrap()).unwrap();
    for _ in 0..12 {
        loader.next_batch().unwrap();
    }
    assert!(loader.stats().bad > 0);
    let lines = lines_of(&bad_list);
    let reasons: Vec<&str> = lines.iter().map(|line| line.reason.as_str()).collect();
    assert!(reasons.iter().any(|why| why.contains("it was cut off or replaced")), "{reasons:?}");
    assert!(reasons.iter().any(|why| why.contains("has changed since it was indexed")), "{reasons:?}");
    assert!(lines.iter().all(|line| line.path.starts_with(cut) || line.path.starts_with(other)), "{lines:?}");
    // Opened anew, the data set says what is wrong before it starts.
    let error = open_source(&config(&[&shards]), &AugmentConfig::default()).err().unwrap().to_string();
    assert!(error.contains("train-000000.tar") && error.contains("vjepa data index"), "{error}");
}

#[test]
fn a_data_set_of_bad_files_ends_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let list = loose(folder.path());
    let shards = folder.path().join("shards");
    pack_copies(&list, &shards, 1 << 30);
    let shard = shards.join("train-000000.tar");
    // Every video's bytes are nonsense; headers and index are whole.
    let mut bytes = std::fs::read(&shard).unwrap();
    for entry in vjepa_data::shards::ShardIndex::parse(&std::fs::read(index_path(&shard)).unwrap()).unwrap().members() {
        bytes[entry.offset as usize..(entry.offset + entry.length) as usize].fill(0xA5);
    }
    std::fs::write(&shard, bytes).unwrap();
    let source = open_source(&config(&[&shards]), &AugmentConfig::default()).unwrap();
    let mut loader = Loader::new(source, LoaderConfig { workers: 2, ..LoaderConfig::new(4, 7) }).unwrap();
    let error = loader.next_batch().unwrap_err().to_string();
    assert!(error.contains("could be read; the first was") && error.contains("not a video file"), "{error}");
    assert!(error.contains("train-000000.tar/0"), "{error}");
    assert!(!error.contains("/proc/"), "{error}");
    // Without the index, the remedy.
    std::fs::remove_file(index_path(&shard)).unwrap();
    let error = open_source(&config(&[&shards]), &AugmentConfig::default()).err().unwrap().to_string();
    assert!(error.contains("make it with `vjepa data index`"), "{error}");
}

#[test]
fn addresses_need_the_feature_and_say_so() {
    if cfg!(feature = "cloud") {
        return;
    }
    let error = read_list(Path::new("s3://bucket/list.csv")).unwrap_err().to_string();
    assert!(error.contains("--features cloud"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.csv");
    std::fs::write(&list, "s3://bucket/a.mp4 0\n").unwrap();
    let error = read_list(&list).unwrap().check_found().unwrap_err().to_string();
    assert!(error.contains("--features cloud"), "{error}");
    assert!(names(&list).is_empty());
}
