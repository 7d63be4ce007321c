//! Frozen detection: features of boxes, and a linear classifier of several labels on them (SlowFast's head over a ViT).

use super::forward::{DeployedHead, deployed};
use super::step::{TrainOptions, plain_step};
use super::{CompileError, optimised};
use vjepa_compiler::ir::{Dim, Graph, GraphError, TensorType, ValueId};
use vjepa_compiler::ops::{Op, RoiSampling, Unary};
use vjepa_graphs::EncoderConfig;

/// Bins of a side of a box.
const BINS: usize = 7;

/// `box_features[B, R]`: `clip f32[B, C, T, H, W]` and `boxes f32[R, 5]` to `box_features f32[R, L·D]`, with the parameters of
/// the encoder under `encoder.`. A box is the number of its clip, then x1, y1, x2, y2 in pixels of the clip.
///
/// Tokens of the config's `out_layers` stand side by side and are averaged over time; of the bins of a box (RoIAlign, aligned,
/// as many samples as cells) the largest counts.
///
/// # Errors
/// [`CompileError`].
pub fn box_features(config: &EncoderConfig) -> Result<Graph, CompileError> {
    let mut graph = pooled(config)?;
    let Some(features) = graph.find_output("box_features") else { return Err(lost()) };
    graph.outputs.retain(|(_, id)| *id == features);
    optimised(&graph)
}

/// `detector[B, R]`: like [`box_features`], with the classifier's `probe.linear.*`, to `scores f32[R, classes]` from 0 to 1.
///
/// # Errors
/// [`CompileError`].
pub fn detector(config: &EncoderConfig, classes: usize) -> Result<Graph, CompileError> {
    let mut graph = pooled(config)?;
    let Some(features) = graph.find_output("box_features") else { return Err(lost()) };
    let logits = classifier(&mut graph, features, classes)?;
    let scores = sigmoid(&mut graph, logits)?;
    graph.outputs.clear();
    graph.output("scores", scores);
    graph.name = "detector".to_owned();
    optimised(&graph)
}

/// `classified[R]`: `features f32[R, width]` to `scores f32[R, classes]`.
///
/// # Errors
/// [`CompileError`].
pub fn box_classifier(width: usize, classes: usize) -> Result<Graph, CompileError> {
    let (mut graph, logits) = on_features("classified", width, classes)?;
    let scores = sigmoid(&mut graph, logits)?;
    graph.output("scores", scores);
    optimised(&graph)
}

/// `detector_step[R]`: the training step of the classifier: `features f32[R, width]` and `labels f32[R, classes]`, each 0 or 1,
/// to `loss f32[]`, the binary cross entropy averaged over boxes and classes; AdamW as in [`super::step`].
///
/// # Errors
/// [`CompileError`].
pub fn detector_step(width: usize, classes: usize, options: TrainOptions) -> Result<Graph, CompileError> {
    let (mut graph, logits) = on_features("detector_step", width, classes)?;
    let rows = Dim::symbol("R");
    let labels = graph.input("labels", TensorType::f32([rows, Dim::from(classes)]))?;
    let loss = binary_cross_entropy(&mut graph, logits, labels)?;
    graph.output("loss", loss);
    graph.output("logits", logits);
    plain_step(graph, &["probe"], options)
}

fn lost() -> CompileError {
    GraphError::Other("the encoder's graph has no layers".to_owned()).into()
}

/// A graph of features and their logits.
fn on_features(name: &str, width: usize, classes: usize) -> Result<(Graph, ValueId), CompileError> {
    let mut graph = Graph::new(name, &["R"]);
    let features = graph.input("features", TensorType::f32([Dim::symbol("R"), Dim::from(width)]))?;
    let logits = classifier(&mut graph, features, classes)?;
    Ok((graph, logits))
}

/// The linear layer: `[R, width]` to `[R, classes]`.
fn classifier(graph: &mut Graph, features: ValueId, classes: usize) -> Result<ValueId, GraphError> {
    let Some(width) = graph.ty(features).shape.last().cloned() else {
        return Err(GraphError::Other("features have no width".to_owned()));
    };
    let weight = graph.param("probe.linear.weight", TensorType::f32([Dim::from(classes), width]))?;
    let bias = graph.param("probe.linear.bias", TensorType::f32([Dim::from(classes)]))?;
    graph.push1(Op::Linear, &[features, weight, bias])
}

/// `1 / (1 + e^-x)`.
fn sigmoid(graph: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let negative = graph.unary(Unary::Neg, x)?;
    let exponential = graph.unary(Unary::Exp, negative)?;
    let sum = graph.add_scalar(exponential, 1.0)?;
    graph.unary(Unary::Recip, sum)
}

/// The mean of `max(x, 0) - x·z + ln(1 + e^-|x|)`, which overflows nowhere: `f32[]`.
fn binary_cross_entropy(graph: &mut Graph, x: ValueId, labels: ValueId) -> Result<ValueId, GraphError> {
    let positive = graph.unary(Unary::Relu, x)?;
    let product = graph.mul(x, labels)?;
    let linear = graph.sub(positive, product)?;
    let size = graph.unary(Unary::Abs, x)?;
    let size = graph.unary(Unary::Neg, size)?;
    let exponential = graph.unary(Unary::Exp, size)?;
    let shifted = graph.add_scalar(exponential, 1.0)?;
    let logarithm = graph.unary(Unary::Log, shifted)?;
    let each = graph.add(linear, logarithm)?;
    let mean = graph.mean(each, &[0, 1])?;
    graph.reshape(mean, &[])
}

/// The encoder's layers, averaged over time and pooled in boxes, as the output `box_features`.
fn pooled(config: &EncoderConfig) -> Result<Graph, CompileError> {
    let mut graph = deployed(config, None, DeployedHead::Tokens)?;
    graph.name = "box_features".to_owned();
    graph.symbols.push("R".to_owned());
    let [time, height, width] = config.grid();
    let (batch, dim) = (Dim::symbol("B"), config.embed_dim);
    let layers: Vec<ValueId> = graph.outputs.iter().map(|(_, id)| *id).collect();
    let mut averaged = Vec::with_capacity(layers.len());
    for tokens in layers {
        let apart = [batch.clone(), Dim::from(time), Dim::from(height * width), Dim::from(dim)];
        let apart = graph.reshape(tokens, &apart)?; // [B, T, H·W, D]
        let mean = graph.mean(apart, &[1])?; // [B, 1, H·W, D]
        averaged.push(graph.reshape(mean, &[batch.clone(), Dim::from(height), Dim::from(width), Dim::from(dim)])?);
    }
    let joined = match averaged.as_slice() {
        [] => return Err(lost()),
        [one] => *one,
        several => graph.push1(Op::Concat { axis: 3 }, several)?, // [B, H, W, L·D]
    };
    let channels = graph.permute(joined, &[0, 3, 1, 2])?; // [B, L·D, H, W]
    let boxes = graph.input("boxes", TensorType::f32([Dim::symbol("R"), Dim::from(5usize)]))?;
    let sampling = RoiSampling { scale: 1.0 / config.patch as f64, samples: 0, aligned: true };
    let bins = graph.push1(Op::RoiAlign { size: BINS, sampling }, &[channels, boxes])?; // [R, L·D, 7, 7]
    let largest = graph.push1(Op::ReduceMax { axes: vec![2, 3] }, &[bins])?; // [R, L·D, 1, 1]
    let wide = Dim::from(averaged.len() * dim);
    let features = graph.reshape(largest, &[Dim::symbol("R"), wide])?;
    graph.output("box_features", features);
    Ok(graph)
}
