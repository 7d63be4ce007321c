//! RoIAlign through a plan, forwards and backwards; boxes and clips around key frames.

use std::path::Path;

use serde::Deserialize;
use vjepa_compiler::grad::differentiate;
use vjepa_compiler::ir::{Graph, TensorType};
use vjepa_compiler::ops::{Op, RoiSampling};
use vjepa_data::detection::{TEST_SIDE, flipped_box, key_frame_clip, resized, resized_box, to_pixels};
use vjepa_graphs::EncoderConfig;
use vjepa_programs::{CompileError, TrainOptions, detector, detector_step};
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::clip::Clip;
use super::super::run::{Execution, float, run_once, values, zero_moments};
use super::super::sampled::Compare;
use super::super::training::Training;

/// Of bins and gradients.
const BINS: Limit = Limit::MaxAbs(1e-5);

#[derive(Deserialize)]
struct Info {
    roi: Vec<Roi>,
    head: Option<Head>,
    keyframes: Vec<KeyFrame>,
    boxes: Vec<Frame>,
}

#[derive(Deserialize)]
struct Head {
    loss: f64,
    /// Of the encoder, all of which are read.
    layers: usize,
}

#[derive(Deserialize)]
struct Roi {
    key: String,
    output: usize,
    /// 0 and less: adaptive.
    sampling_ratio: i64,
    aligned: bool,
    spatial_scale: f64,
}

#[derive(Deserialize)]
struct KeyFrame {
    sec: u32,
    frames: usize,
    step: usize,
    total: usize,
    indices: Vec<i64>,
}

#[derive(Deserialize)]
struct Frame {
    image_hw: (usize, usize),
    boxes01: Vec<[f64; 4]>,
    clipped: Vec<[f64; 4]>,
    test_image_hw: (usize, usize),
    test: Vec<[f64; 4]>,
    flipped_at_test_size: Vec<[f64; 4]>,
}

/// `eval_detection/`.
pub(super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let info: Info = read_json(&dir.join("info.json"))?;
    let file = TensorFile::read(dir.join("detection.safetensors"))?;
    let mut checks = Vec::new();
    for roi in &info.roi {
        align(execution, &file, roi, &mut checks)?;
    }
    if file.contains("head.time_mean") {
        checks.push(pooled(execution, &file)?);
    }
    if let Some(head) = info.head.as_ref().filter(|_| file.contains("head.weight")) {
        classifier(execution, &file, head, &mut checks)?;
        checks.push(whole(execution, &file, head, dir)?);
    }
    for row in &info.keyframes {
        let got = key_frame_clip(row.sec, row.frames, row.step, row.total).unwrap_or_default();
        let got: Vec<i64> = got.into_iter().map(|frame| frame as i64).collect();
        let name = format!("detection.key_frame.{}.{}x{}.{}", row.sec, row.frames, row.step, row.total);
        checks.push(Check::exact(name, &got, &row.indices));
    }
    info.boxes.iter().for_each(|frame| boxes(frame, &mut checks));
    Ok(checks)
}

/// Bins and the features' gradient.
fn align(execution: Execution, file: &TensorFile, roi: &Roi, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let sampling = RoiSampling {
        scale: roi.spatial_scale,
        samples: usize::try_from(roi.sampling_ratio).unwrap_or(0),
        aligned: roi.aligned,
    };
    let upstream = float(file, &format!("{}.g", roi.key))?;
    let inputs = vec![("x", float(file, "roi.x")?), ("boxes", float(file, "roi.boxes")?), ("g", upstream)];
    let graph = graph(&inputs, roi.output, sampling)?;
    let outputs = run_once(execution, &graph, &mut execution.params(), inputs)?;
    for (output, stored) in [("y", "y"), ("gx", "gx")] {
        let name = format!("{}.{stored}", roi.key);
        checks.push(file.compare(&name, &values(&outputs, output)?, BINS)?.under("detection"));
    }
    Ok(())
}

/// `y`, and with an upstream gradient as third input `gx`.
fn graph(inputs: &[(&str, HostTensor)], size: usize, sampling: RoiSampling) -> Result<Graph, CompileError> {
    let mut graph = Graph::new("roi", &[]);
    let mut ids = Vec::new();
    for (name, tensor) in inputs {
        ids.push(graph.input(name, TensorType::f32(tensor.shape().iter().map(|size| (*size).into())))?);
    }
    let [x, boxes, rest @ ..] = ids.as_slice() else { return Ok(graph) };
    let y = graph.push1(Op::RoiAlign { size, sampling }, &[*x, *boxes])?;
    if let [upstream] = rest {
        let weighted = graph.mul(y, *upstream)?;
        let loss = graph.sum_to(weighted, &[])?;
        if let [gx] = differentiate(&mut graph, loss, &[*x])?[..] {
            graph.output("gx", gx);
        }
    }
    graph.output("y", y);
    Ok(graph)
}

/// The detector's features of a box: the largest of its bins, channel by channel.
fn pooled(execution: Execution, file: &TensorFile) -> Result<Check, GoldenError> {
    let inputs = vec![("x", float(file, "head.time_mean")?), ("boxes", float(file, "head.boxes")?)];
    let sampling = RoiSampling { scale: 1.0 / 16.0, samples: 0, aligned: true };
    let graph = graph(&inputs, 7, sampling)?;
    let bins = values(&run_once(execution, &graph, &mut execution.params(), inputs)?, "y")?;
    let largest: Vec<f32> =
        bins.chunks_exact(49).map(|bins| bins.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
    Ok(file.compare("head.pooled", &largest, Limit::RelL2(1e-5))?.under("detection"))
}

/// The classifier on recorded features: logits, loss and gradients, by the compiled step.
fn classifier(
    execution: Execution,
    file: &TensorFile,
    head: &Head,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let features = float(file, "head.pooled")?;
    let labels = file.u8("head.labels")?.iter().copied().map(f32::from).collect();
    let labels = HostTensor::F32 { shape: file.shape("head.labels")?.to_vec(), data: labels };
    let (Some(width), Some(classes)) = (features.shape().last().copied(), labels.shape().last().copied()) else {
        return Ok(());
    };
    let options = TrainOptions { export_gradients: true, ..TrainOptions::default() };
    let graph = detector_step(width, classes, options)?;
    let mut params = execution.params();
    for name in ["weight", "bias"] {
        params.set(&format!("probe.linear.{name}"), float(file, &format!("head.{name}"))?);
    }
    zero_moments(&mut params, &graph);
    let numbers = [("lr", 0.0), ("wd", 0.0), ("c1", 0.1), ("c2", 1e-3), ("max_norm", f32::INFINITY)];
    let numbers = numbers.map(|(name, value)| (name, HostTensor::scalar(value)));
    let inputs = [("features", features), ("labels", labels)].into_iter().chain(numbers).collect();
    let outputs = execution.plan_step(graph)?.run(&mut params, inputs)?;
    let compare = |stored: &str, output: &str, limit: Limit| -> Result<Check, GoldenError> {
        Ok(file.compare(stored, &values(&outputs, output)?, limit)?.under("detection"))
    };
    checks.push(compare("head.logits", "logits", Limit::RelL2(1e-5))?);
    checks.push(compare("head.grad_weight", "grad/probe.linear.weight", BINS)?);
    checks.push(compare("head.grad_bias", "grad/probe.linear.bias", BINS)?);
    let loss = f64::from(values(&outputs, "loss")?.first().copied().unwrap_or(f32::NAN));
    let (rel, abs) = ((loss / head.loss - 1.0).abs(), (loss - head.loss).abs());
    checks.push(Check::measured("detection.head.loss".to_owned(), rel, abs, Limit::RelL2(1e-6)));
    Ok(())
}

/// Clip and boxes to scores by one plan, where the golden encoder `tiny` is beside this folder.
fn whole(execution: Execution, file: &TensorFile, head: &Head, dir: &Path) -> Result<Check, GoldenError> {
    let model = dir.parent().unwrap_or(dir).join("tiny");
    if !model.join("weights.safetensors").is_file() {
        let why = format!("the encoder's weights are not in {}: keep the folders together", model.display());
        return Ok(Check::unsupported("detection.head.scores", why));
    }
    let training = Training::read(execution, &model)?;
    let Some(clip) = Clip::read(file, "head.clip_u8")?.into_iter().next() else {
        return Ok(Check::unsupported("detection.head.scores", "there is no clip"));
    };
    let encoder = EncoderConfig { out_layers: Some((0..head.layers).collect()), ..training.encoder.clone() };
    let mut params = training.params()?;
    for name in ["weight", "bias"] {
        params.set(&format!("probe.linear.{name}"), float(file, &format!("head.{name}"))?);
    }
    let classes = file.shape("head.bias")?.first().copied().unwrap_or(0);
    let graph = detector(&encoder, classes)?;
    let inputs = vec![("clip", clip.host()), ("boxes", float(file, "head.boxes")?)];
    let got = values(&run_once(execution, &graph, &mut params, inputs)?, "scores")?;
    Ok(file.compare("head.scores", &got, Limit::RelL2(1e-5))?.under("detection"))
}

fn boxes(frame: &Frame, checks: &mut Vec<Check>) {
    let (height, width) = frame.image_hw;
    let name = |what: &str| format!("detection.boxes.{width}x{height}.{what}");
    let sides = |(height, width): (usize, usize)| [height as i64, width as i64];
    let size = resized(frame.image_hw, TEST_SIDE);
    checks.push(Check::exact(name("size"), &sides(size), &sides(frame.test_image_hw)));
    let pixels: Vec<[f64; 4]> = frame.boxes01.iter().map(|corners| to_pixels(*corners, frame.image_hw)).collect();
    let test: Vec<[f64; 4]> = pixels.iter().map(|corners| resized_box(*corners, frame.image_hw, TEST_SIDE)).collect();
    let flipped: Vec<[f64; 4]> = test.iter().map(|corners| flipped_box(*corners, size.1)).collect();
    let stages = [("clipped", &pixels, &frame.clipped), ("test", &test, &frame.test)];
    for (what, got, want) in stages.into_iter().chain([("flipped", &flipped, &frame.flipped_at_test_size)]) {
        let off = got.concat().iter().zip(want.concat()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let off = if got.len() == want.len() { off } else { f64::INFINITY };
        checks.push(Check::measured(name(what), off, off, Limit::MaxAbs(1e-9)));
    }
}
