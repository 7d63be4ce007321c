//! Against `eval_multiview`: clips and crops of the evaluation loaders.

use std::path::Path;

use serde::Deserialize;
use vjepa_recipe::rng::NumpyRng;
use vjepa_runtime::preprocess::View;

use super::{ClipSampler, TestClips, crop_starts};

#[derive(Deserialize)]
struct Index {
    rows: Vec<Row>,
    crops: Vec<Crops>,
    videomae: Vec<VideoMaeClips>,
}

#[derive(Deserialize)]
struct Row {
    frames: usize,
    step: usize,
    segments: usize,
    length: usize,
    seed: Option<u32>,
    /// Absent where the official code raises an error.
    indices: Option<Vec<Vec<usize>>>,
}

#[derive(Deserialize)]
struct Crops {
    #[serde(rename = "H")]
    height: usize,
    #[serde(rename = "W")]
    width: usize,
    side: usize,
    starts_jepa: Vec<usize>,
    axis: String,
    starts_videomae: Vec<usize>,
}

#[derive(Deserialize)]
struct VideoMaeClips {
    kind: String,
    length: usize,
    clips: Vec<Vec<usize>>,
}

fn files() -> Vec<Index> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden/eval_multiview/index.json");
    assert!(carried.is_file(), "{} is part of the repository", carried.display());
    let beside = root.join("../shared/golden/eval_multiview/index.json");
    let read = |path: &std::path::PathBuf| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    [carried, beside].iter().filter(|path| path.is_file()).map(read).collect()
}

#[test]
fn clips_of_the_evaluation_loader() {
    for row in files().iter().flat_map(|file| &file.rows) {
        let sampler = ClipSampler {
            num_clips: row.segments,
            random: row.seed.is_some(),
            allow_overlap: true,
            ..ClipSampler::pretrain(row.frames, row.step)
        };
        let mut rng = row.seed.map(NumpyRng::new);
        let draw = |low, high| rng.as_mut().map_or(low, |rng| rng.randint(low, high));
        let got = sampler.sample(row.length, draw);
        assert_eq!(got.ok(), row.indices, "{} frames, {} segments, {:?}", row.length, row.segments, row.seed);
    }
}

#[test]
fn clips_of_the_fine_tuning_test() {
    for row in files().iter().flat_map(|file| &file.videomae) {
        let test = if row.kind.starts_with("5x3") { TestClips::KINETICS } else { TestClips::SSV2 };
        assert_eq!(test.sample(row.length).unwrap(), row.clips, "{} of {}", row.kind, row.length);
    }
}

#[test]
fn crops_of_both_tests() {
    for row in files().iter().flat_map(|file| &file.crops) {
        for (index, start) in row.starts_jepa.iter().enumerate() {
            let view = View { index, count: row.starts_jepa.len() };
            let (top, left) = view.corner((row.height, row.width), [row.side; 2]);
            let (moved, still) = if row.axis == "H" { (top, left) } else { (left, top) };
            assert_eq!((moved, still), (*start, 0), "{} of {}x{}", index, row.width, row.height);
        }
        let got = crop_starts(row.height.max(row.width), row.side, row.starts_videomae.len());
        assert_eq!(got, row.starts_videomae);
    }
}
