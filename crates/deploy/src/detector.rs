//! An encoder with a detector's classifier as one ONNX file, from a clip and boxes to scores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_compiler::ir::Graph;
use vjepa_export::{OnnxOptions, Precision, Target, WeightSource, Written, to_onnx};
use vjepa_graphs::EncoderConfig;
use vjepa_programs::frozen::planned;
use vjepa_programs::{self as programs, DetectorRecord, EXPORTED_DETECTOR_KEY, ExportedDetector};
use vjepa_recipe::config::{Config, Preprocessing};
use vjepa_recipe::counter::noise;
use vjepa_runtime::files;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::{self as weights, Tensors};

use crate::DeployError;
use crate::accuracy::outputs;
use crate::metadata::arch;
use crate::model_weights::ModelWeights;
use crate::parity::{Candidate, Parity, clips_for};
use crate::paths::{make_folder_of, refuse};

/// What to export.
pub struct DetectorExport<'a> {
    /// The encoder.
    pub checkpoint: &'a Path,
    /// Its configuration, where the file does not describe itself.
    pub config: Option<&'a Config>,
    /// `linear.weight f32[classes, width]` and `linear.bias f32[classes]`.
    pub classifier: &'a Tensors,
    /// What the detector is; its encoder is the checkpoint, which the caller has seen to.
    pub record: &'a DetectorRecord,
    /// SHA-256 of the detector's file.
    pub digest: &'a str,
    /// Files beside the checkpoint that it is made from, which it must not overwrite.
    pub inputs: &'a [&'a Path],
    /// Height and width of a clip in pixels.
    pub size: [usize; 2],
    /// Where to.
    pub out: &'a Path,
    /// Whether the file is run and compared with the plan.
    pub verify: bool,
    /// ONNX Runtime's library for that; searched for when not given.
    pub ort_lib: Option<PathBuf>,
}

/// A detector that was written.
pub struct DetectorExported {
    /// Its files.
    pub written: Written,
    /// Its scores on every runtime, against the plan's; empty where it was not run.
    pub parity: Vec<(&'static str, Parity)>,
}

/// Writes the model: `clip f32[B, C, T, H, W]` and `boxes f32[R, 5]` in pixels of the clip to `scores f32[R, classes]`, and
/// runs it on the runtimes there are. tract has no `RoiAlign`, which its result then says.
///
/// # Errors
/// [`DeployError`] for a clip that the encoder does not take, a file that cannot be read or written, or scores that differ from the
/// plan's: the file is then removed.
pub fn write(request: &DetectorExport<'_>) -> Result<DetectorExported, DeployError> {
    let read = weights::files_of(request.checkpoint);
    let read = request.inputs.iter().copied().chain(read.iter().map(PathBuf::as_path));
    files::spare("--out", request.out, &[request.out], read)?;
    let stored = weights::load(request.checkpoint)?;
    let model = programs::describe(&stored, request.config)?;
    let ([height, width], record) = (request.size, request.record);
    let encoder = EncoderConfig {
        out_layers: Some(record.layers.clone()),
        ..model.encoder.clone().with_clip(record.frames, height, width)
    };
    encoder.validate()?;
    let mut source = ModelWeights::file(stored, &model.encoder, &encoder)?;
    let named = request.classifier.iter().map(|(name, tensor)| (format!("probe.{name}"), tensor.clone()));
    source.extend(&named.collect());
    let classes = request.classifier.get("linear.bias").map_or(0, |(_, bias)| bias.len());
    let graph = programs::detector(&encoder, classes)?;
    make_folder_of(request.out)?;
    let mut options = OnnxOptions::new(Target::Portable, Precision::F32);
    let Preprocessing { normalization, grayscale, .. } = model.preprocessing;
    let exported = ExportedDetector {
        record: record.clone(),
        detector: request.digest.to_owned(),
        patch: encoder.patch,
        normalization,
        grayscale,
    };
    options.metadata = metadata(&exported, &encoder)?;
    let written = to_onnx(&graph, &source, &options)?.write(request.out)?;
    let mut exported = DetectorExported { written, parity: Vec::new() };
    if request.verify {
        let checked = verified(request, &encoder, &graph, &source);
        exported.parity = checked.map_err(|error| refuse(&exported.written, request.out, &error))?;
    }
    Ok(exported)
}

/// `metadata_props`: what the detector is, how its clips are made, and provenance.
fn metadata(exported: &ExportedDetector, encoder: &EncoderConfig) -> Result<BTreeMap<String, String>, DeployError> {
    Ok(BTreeMap::from([
        (EXPORTED_DETECTOR_KEY.to_owned(), exported.to_json()?),
        ("vjepa.arch".to_owned(), arch(encoder)),
        ("vjepa.precision".to_owned(), Precision::F32.to_string()),
        ("vjepa.target".to_owned(), Target::Portable.to_string()),
        ("vjepa.exporter".to_owned(), format!("vjepa {}", env!("CARGO_PKG_VERSION"))),
        ("vjepa.checkpoint_sha256".to_owned(), exported.record.encoder.clone()),
    ]))
}

/// Boxes of the verification: shares of the height and width of a clip, one of them all of it, one less than a patch.
const BOXES: [[f32; 4]; 3] = [[0.0, 0.0, 1.0, 1.0], [0.25, 0.1, 0.6, 0.9], [0.5, 0.5, 0.52, 0.53]];

fn verified(
    request: &DetectorExport<'_>,
    encoder: &EncoderConfig,
    graph: &Graph,
    source: &ModelWeights,
) -> Result<Vec<(&'static str, Parity)>, DeployError> {
    let count = clips_for(source.parameters(), None);
    let EncoderConfig { channels, num_frames, height, width, .. } = *encoder;
    let shape = vec![count, channels, num_frames, height, width];
    let (last_x, last_y) = ((width - 1) as f32, (height - 1) as f32);
    let boxes = (0..count).flat_map(|clip| {
        BOXES.iter().flat_map(move |[x1, y1, x2, y2]| [clip as f32, x1 * last_x, y1 * last_y, x2 * last_x, y2 * last_y])
    });
    let inputs = [
        ("clip", HostTensor::F32 { data: noise(shape.iter().product()), shape }),
        ("boxes", HostTensor::F32 { shape: vec![count * BOXES.len(), 5], data: boxes.collect() }),
    ];
    let (mut executor, mut params) = planned(graph, |name| Ok(source.read(name)?.into_owned()))?;
    let expected = outputs(executor.run(&mut params, inputs.to_vec())?);
    let target = Target::Portable;
    let path = request.out;
    let candidate = Candidate { path, ort_lib: request.ort_lib.as_ref(), target, count, may_be_lacked: true };
    candidate.verify_named(&inputs, &expected)
}
