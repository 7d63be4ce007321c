//! Calibration: the clips that a low-precision model is evaluated on, the ranges of its layers' inputs, and the layers that
//! do not bear 8 bits.

use std::collections::BTreeMap;
use std::path::PathBuf;

use vjepa_compiler::ir::{Def, Graph};
use vjepa_compiler::ops::Op;
use vjepa_export::{Int8, WeightRange, WeightSource};
use vjepa_runtime::Preprocessing;

use super::model_weights::ModelWeights;
use crate::DeployError;
use vjepa_data::clips;
use vjepa_data::textures::DriftingTextures;
use vjepa_data::{ClipSource, SampleKey};
use vjepa_programs::frozen::Frozen;
use vjepa_runtime::ClipViews;

/// The stream of generated calibration clips.
const SEED: u64 = 0x6361_6c69_6272;
/// A layer whose result in 8 bits is further (relative, L2) from its result in 32 bits stays in 32 bits.
const OUTLIER: f64 = 0.05;
/// Tokens of a clip that a layer is ranked by.
const RANKED: usize = 16;
/// Layers that read fewer rows a clip are never quantised.
const FEWEST_ROWS: usize = 8;

/// Prepared clips, one after the other, and where they come from.
pub struct Calibration {
    pub count: usize,
    pub data: Vec<f32>,
    pub origin: String,
}

/// The clips of `files`, or else generated ones for `results` results: drifting textures in the model's own preprocessing.
pub fn clips(
    files: &[PathBuf],
    results: usize,
    clip_views: ClipViews,
    record: &Preprocessing,
    normalization: vjepa_recipe::config::Normalization,
) -> Result<Calibration, DeployError> {
    if files.is_empty() {
        if record.crop_width.is_some() {
            return Err("generated clips are square; give --calibration clips for a model of others".into());
        }
        let count = results * clip_views.count();
        let source = DriftingTextures::new(record.num_frames, record.crop_size, normalization);
        let one: usize = source.shape().iter().product();
        let mut data = vec![0.0; one * count];
        for (position, clip) in data.chunks_exact_mut(one.max(1)).enumerate() {
            source.sample(SampleKey { seed: SEED, epoch: 0, position: position as u64, retry: 0 }, clip)?;
        }
        return Ok(Calibration { count, data, origin: "generated textures".to_owned() });
    }
    let mut all = Calibration { count: 0, data: Vec::new(), origin: format!("{} files", files.len()) };
    for file in files {
        let clips = clips::read_views(file, record, clip_views)?;
        all.count += clips.count;
        all.data.extend(clips.data);
    }
    Ok(all)
}

/// A linear layer that may be quantised: its weight's name, what it reads, its index among the taps.
struct Layer {
    weight: String,
    tap: String,
}

/// Ranges and means of every large linear layer's input over the clips, and the layers that must stay in 32 bits; then the
/// layers that need not, the one that loses most first.
pub fn int8(
    graph: &Graph,
    source: &ModelWeights,
    clip: [usize; 4],
    calibration: &Calibration,
    with_ranges: bool,
    range: WeightRange,
) -> Result<(Int8, Vec<String>), DeployError> {
    let mut tapped = graph.clone();
    tapped.outputs.clear();
    let mut layers: Vec<Layer> = Vec::new();
    let mut taps = BTreeMap::new();
    for node in graph.nodes.iter().filter(|node| node.op == Op::Linear) {
        let &[x, weight, ..] = node.inputs.as_slice() else { continue };
        let Def::Param(name) = &graph.value(weight).def else { continue };
        let rows: usize =
            graph.ty(x).shape.iter().rev().skip(1).filter_map(|dim| dim.as_const()).product::<i64>() as usize;
        if rows < FEWEST_ROWS {
            continue;
        }
        let tap = taps.entry(x).or_insert_with(|| format!("tap.{}", x.0)).clone();
        layers.push(Layer { weight: name.clone(), tap });
    }
    for (id, tap) in &taps {
        tapped.output(tap, *id);
    }
    let mut frozen = Frozen::of_graph(tapped, clip, |name| Ok(source.read(name)?.into_owned()))?;
    let one = clip.iter().product::<usize>() * frozen.clips_of_a_result();
    let mut ranges: BTreeMap<String, [f32; 2]> = BTreeMap::new();
    let mut samples: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let mut means: BTreeMap<String, (Vec<f64>, usize)> = BTreeMap::new();
    for clip in calibration.data.chunks_exact(one.max(1)) {
        for (tap, tensor) in frozen.run(clip.to_vec())? {
            let values = tensor.floats();
            let range = ranges.entry(tap.clone()).or_insert([0.0, 0.0]);
            for value in values {
                *range = [range[0].min(*value), range[1].max(*value)];
            }
            let width = tensor.shape().last().copied().unwrap_or(1).max(1);
            let (sums, count) = means.entry(tap.clone()).or_insert_with(|| (vec![0.0; width], 0));
            for row in values.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                *count += 1;
            }
            samples.entry(tap).or_insert_with(|| {
                let rows = values.len() / width;
                values.chunks_exact(width).step_by((rows / RANKED).max(1)).take(RANKED).flatten().copied().collect()
            });
        }
    }
    let mut int8 = Int8 { range, ..Int8::default() };
    let mut narrow: Vec<(f64, String)> = Vec::new();
    for layer in &layers {
        let reads = ranges.get(&layer.tap).copied().unwrap_or_default();
        let rows = samples.get(&layer.tap).map(Vec::as_slice).unwrap_or_default();
        match error_of(&source.read(&layer.weight)?, source, &layer.weight, rows, reads, range) {
            // No number is the worst there is.
            error if error.is_nan() || error > OUTLIER => {
                int8.keep.insert(layer.weight.clone());
            }
            error => narrow.push((error, layer.weight.clone())),
        }
        if let Some((sums, count)) = means.get(&layer.tap) {
            let mean = sums.iter().map(|sum| (sum / (*count).max(1) as f64) as f32).collect();
            int8.means.insert(layer.weight.clone(), mean);
        }
        if with_ranges {
            int8.ranges.insert(layer.weight.clone(), reads);
        }
    }
    narrow.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok((int8, narrow.into_iter().map(|(_, weight)| weight).collect()))
}

/// Relative distance (L2) of a layer's result in 8 bits from its result in 32.
fn error_of(
    weight: &[f32],
    source: &ModelWeights,
    name: &str,
    rows: &[f32],
    [low, high]: [f32; 2],
    range: WeightRange,
) -> f64 {
    let out = source.describe(name).and_then(|(_, shape)| shape.first().copied()).unwrap_or(1).max(1);
    let width = (weight.len() / out).max(1);
    let step = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
    let zero = (-low / step).round();
    let narrow: Vec<f32> =
        rows.iter().map(|value| (((value / step).round() + zero).clamp(0.0, 255.0) - zero) * step).collect();
    let (mut difference, mut length) = (0.0f64, 0.0f64);
    for row in weight.chunks_exact(width) {
        let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / f32::from(range.limit()) } else { 1.0 };
        let rounded: Vec<f32> = row.iter().map(|value| (value / scale).round() * scale).collect();
        for (x, x8) in rows.chunks_exact(width).zip(narrow.chunks_exact(width)) {
            let wide: f32 = x.iter().zip(row).map(|(a, b)| a * b).sum();
            let short: f32 = x8.iter().zip(&rounded).map(|(a, b)| a * b).sum();
            difference += f64::from(wide - short).powi(2);
            length += f64::from(wide).powi(2);
        }
    }
    if length > 0.0 { (difference / length).sqrt() } else { 0.0 }
}
