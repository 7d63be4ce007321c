//! Clips and views of the evaluation loaders.

use std::path::Path;

use serde::Deserialize;
use vjepa_data::sampling::{ClipSampler, TestClips, crop_starts};
use vjepa_recipe::rng::NumpyRng;
use vjepa_runtime::preprocess::View;

use super::super::check::{Check, GoldenError, read_json};

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
    indices: Option<Vec<Vec<i64>>>,
}

#[derive(Deserialize)]
struct Crops {
    #[serde(rename = "H")]
    height: usize,
    #[serde(rename = "W")]
    width: usize,
    side: usize,
    starts_jepa: Vec<i64>,
    starts_videomae: Vec<i64>,
}

#[derive(Deserialize)]
struct VideoMaeClips {
    kind: String,
    length: usize,
    clips: Vec<Vec<i64>>,
}

/// `eval_multiview/`.
pub(super) fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let index: Index = read_json(&dir.join("index.json"))?;
    let mut checks: Vec<Check> = index.rows.iter().map(loader).collect();
    for row in &index.crops {
        let name = format!("multiview.crops.{}x{}", row.width, row.height);
        let count = row.starts_jepa.len();
        let start = |index: usize| {
            let (top, left) = View { index, count }.corner((row.height, row.width), [row.side; 2]);
            (if row.height > row.width { top } else { left }) as i64
        };
        let got: Vec<i64> = (0..count).map(start).collect();
        checks.push(Check::exact(format!("{name}.probe"), &got, &row.starts_jepa));
        let got = crop_starts(row.height.max(row.width), row.side, row.starts_videomae.len());
        checks.push(Check::exact(format!("{name}.finetune"), &flat(&[got]), &row.starts_videomae));
    }
    for row in &index.videomae {
        let (word, test) = match row.kind.split(' ').next() {
            Some("5x3") => ("5x3", TestClips::KINETICS),
            Some("2x3") => ("2x3", TestClips::SSV2),
            _ => {
                checks.push(Check::unsupported(format!("multiview.finetune.{}", row.kind), "no such test is known"));
                continue;
            }
        };
        let got = test.sample(row.length).map(|clips| flat(&clips)).unwrap_or_default();
        checks.push(Check::exact(format!("multiview.finetune.{word}.{}", row.length), &got, &row.clips.concat()));
    }
    Ok(checks)
}

fn loader(row: &Row) -> Check {
    let drawn = row.seed.map_or("first".to_owned(), |seed| format!("seed{seed}"));
    let name = format!("multiview.clips.{}frames.{}segments.{drawn}", row.length, row.segments);
    let sampler = ClipSampler {
        num_clips: row.segments,
        random: row.seed.is_some(),
        allow_overlap: true,
        ..ClipSampler::pretrain(row.frames, row.step)
    };
    let mut rng = row.seed.map(NumpyRng::new);
    let draw = |low, high| rng.as_mut().map_or(low, |rng| rng.randint(low, high));
    match (sampler.sample(row.length, draw).ok(), &row.indices) {
        (Some(got), Some(want)) => Check::exact(name, &flat(&got), &want.concat()),
        (got, want) => Check::exact(format!("{name}.is_error"), &[got.is_none()], &[want.is_none()]),
    }
}

fn flat(clips: &[Vec<usize>]) -> Vec<i64> {
    clips.iter().flatten().map(|&frame| frame as i64).collect()
}
