//! An encoder with a detector's classifier as one ONNX file, from a clip and boxes to scores.

use std::path::Path;

use vjepa_export::{OnnxOptions, Precision, Target, Written, to_onnx};
use vjepa_graphs::EncoderConfig;
use vjepa_programs as programs;
use vjepa_recipe::config::Config;
use vjepa_weights::{self as weights, Tensors};

use crate::DeployError;
use crate::paths::make_folder_of;
use crate::source::Source;

/// What to export.
pub struct DetectorExport<'a> {
    /// The encoder.
    pub checkpoint: &'a Path,
    /// Its configuration, where the file does not describe itself.
    pub config: Option<&'a Config>,
    /// `linear.weight f32[classes, width]` and `linear.bias f32[classes]`.
    pub classifier: &'a Tensors,
    /// Blocks whose outputs it reads.
    pub layers: &'a [usize],
    /// Frames, height and width of a clip.
    pub clip: [usize; 3],
    /// Where to.
    pub out: &'a Path,
}

/// Writes the model: `clip f32[B, C, T, H, W]` and `boxes f32[R, 5]` in pixels of the clip to `scores f32[R, classes]`.
///
/// # Errors
/// [`DeployError`] for a clip that the encoder does not take, or a file that cannot be read or written.
pub fn write(request: &DetectorExport<'_>) -> Result<Written, DeployError> {
    let stored = weights::load(request.checkpoint)?;
    let model = programs::describe(&stored, request.config)?;
    let [frames, height, width] = request.clip;
    let encoder = EncoderConfig {
        out_layers: Some(request.layers.to_vec()),
        ..model.encoder.clone().with_clip(frames, height, width)
    };
    encoder.validate()?;
    let mut source = Source::file(stored, &model.encoder, &encoder)?;
    let named = request.classifier.iter().map(|(name, tensor)| (format!("probe.{name}"), tensor.clone()));
    source.extend(&named.collect());
    let classes = request.classifier.get("linear.bias").map_or(0, |(_, bias)| bias.len());
    let graph = programs::detector(&encoder, classes)?;
    make_folder_of(request.out)?;
    let options = OnnxOptions::new(Target::Portable, Precision::F32);
    Ok(to_onnx(&graph, &source, &options)?.write(request.out)?)
}
