//! A frozen encoder and its head as an ONNX file that is then run and compared with the plan.
//!
//! [`export`] is the whole way: weights from a checkpoint or a seed ([`model_weights`]), the graph of the head, the ONNX file,
//! then either parity of 32-bit results on every runtime there is ([`parity`]) or, for low precisions, a report of the
//! accuracy on calibration clips ([`accuracy`], [`calibrate`]). A file that fails is removed.

mod accuracy;
pub mod action;
pub mod bundle;
mod calibrate;
pub mod compiled;
pub mod detector;
mod error;
mod form;
#[cfg(test)]
mod hostile;
mod metadata;
mod model_weights;
mod parity;
mod paths;
pub mod tensorrt;
pub mod triton;

pub use accuracy::AccuracyReport;
pub use error::DeployError;
pub use form::{Export, Exported, Form, Origin};
pub use metadata::{arch, sha256};
use parity::TOLERANCE;
pub use parity::{Parity, open as open_session, parity_json};

use std::path::{Path, PathBuf};

use vjepa_compiler::ir::{DType, Graph};
use vjepa_export::{Int8, OnnxOptions, Precision, Target, WeightSource, Written, round_to, rounded, to_onnx};
use vjepa_runtime::{Preprocessing, Runtime};

use accuracy::Candidate;
use metadata::full_metadata;
use model_weights::ModelWeights;
use paths::{make_folder_of, refuse, report_of};
use vjepa_programs as compile;
use vjepa_programs::DeployedHead;
use vjepa_programs::frozen::Frozen;
use vjepa_programs::{Model, PROBE_KEY, Probe, ProbeChoice, ProbeFile};
use vjepa_runtime::ClipViews;
use vjepa_weights as weights;

/// Calibration clips when none are given, and for a model of more than [`LARGE`] weights.
const CLIPS: [usize; 2] = [128, 4];
const LARGE: usize = 60_000_000;
/// The part of the 8-bit layers, one in so many, that goes back to 32 bits when a model does not agree.
const WIDENED: usize = 6;

/// A model opened for export: everything but the file.
struct Opened {
    model: Model,
    probe: Option<ProbeFile>,
    source: ModelWeights,
    graph: Graph,
    clip: [usize; 4],
    record: Preprocessing,
}

/// Writes the model and, unless `verify` is off, runs it on tract and, where it is installed, on ONNX Runtime, and compares
/// the results with the plan's.
pub fn export(request: &Export<'_>) -> Result<Exported, DeployError> {
    form_options(&request.form)?;
    request.spares(&[request.out])?;
    export_opened(request, &open(request)?)
}

/// The exporter's options; what the target cannot do is an error.
fn form_options(form: &Form) -> Result<OnnxOptions, DeployError> {
    let mut options = OnnxOptions::new(form.target, form.precision);
    (options.opset, options.batch, options.external_data) = (form.opset, form.batch, form.external);
    options.int8.range = form.weight_range().unwrap_or_default();
    options.check()?;
    Ok(options)
}

fn export_opened(request: &Export<'_>, opened: &Opened) -> Result<Exported, DeployError> {
    let form = &request.form;
    let mut options = form_options(form)?;
    let Opened { source, graph, clip, record, .. } = opened;
    options.metadata = full_metadata(request, opened)?;
    make_folder_of(request.out)?;
    let int8 = form.weight_range();
    let narrow = form.precision != Precision::F32;
    let calibration = match int8.is_some() || (narrow && request.verify) {
        true => {
            let count = CLIPS[usize::from(source.parameters() > LARGE)];
            let normalization = opened.model.preprocessing.normalization;
            Some(calibrate::clips(&form.calibration, count, form.clip_views, record, normalization)?)
        }
        false => None,
    };
    let mut narrow_layers = Vec::new();
    if let (Some(calibration), Some(range)) = (&calibration, int8) {
        let ranges = form.precision == Precision::Int8Static;
        (options.int8, narrow_layers) = calibrate::int8(graph, source, *clip, calibration, ranges, range)?;
    }
    let (written, nodes) = write(request.out, opened, &options)?;
    let mut exported = Exported {
        written,
        nodes,
        metadata: options.metadata.clone(),
        parity: Vec::new(),
        accuracy: None,
        model: opened.model.clone(),
        probe: opened.probe.clone(),
    };
    if !request.verify {
        return Ok(exported);
    }
    let candidate = match calibration {
        None => parity_of(request, opened).map(|parity| exported.parity = parity),
        Some(calibration) => loop {
            match report(request, opened, &calibration, &options.int8) {
                // The layers that lose most go back to 32 bits, as long as most stay in 8.
                Ok((accuracy, _)) if !accuracy.pass && narrow_layers.len() > options.int8.keep.len() => {
                    let widened = narrow_layers.len().div_ceil(WIDENED);
                    options.int8.keep.extend(narrow_layers.drain(..widened));
                    (exported.written, exported.nodes) = write(request.out, opened, &options)?;
                }
                found => {
                    break found
                        .and_then(|found| agreeing(request, found))
                        .map(|found| exported.accuracy = Some(found));
                }
            }
        },
    };
    candidate.map_err(|error| refuse(&exported.written, request.shown_as, &error))?;
    Ok(exported)
}

/// Writes the ONNX file; the second value is the number of its nodes.
fn write(path: &Path, opened: &Opened, options: &OnnxOptions) -> Result<(Written, usize), DeployError> {
    let onnx = to_onnx(&opened.graph, &opened.source, options)?;
    let nodes = onnx.proto().graph.as_ref().map_or(0, |graph| graph.node.len());
    Ok((onnx.write(path)?, nodes))
}

/// The report of a model whose agreement is high enough. That of a model that is refused is kept where the model would
/// have been.
fn agreeing(
    request: &Export<'_>,
    (accuracy, path): (AccuracyReport, PathBuf),
) -> Result<(AccuracyReport, PathBuf), DeployError> {
    if accuracy.pass {
        return Ok((accuracy, path));
    }
    let path = report_of(request.shown_as);
    accuracy.write(&path)?;
    let wanted = accuracy.min_agreement;
    Err(format!(
        "{accuracy}; at least {wanted} is asked for. Use a higher --precision, more --calibration clips, or another \
         --min-agreement; {} has the report",
        path.display()
    )
    .into())
}

fn open(request: &Export<'_>) -> Result<Opened, DeployError> {
    let form = &request.form;
    let (mut model, stored) = match request.origin {
        Origin::Checkpoint(path) => {
            let stored = weights::load(path)?;
            (vjepa_programs::describe(&stored, request.config)?, Some(stored))
        }
        Origin::Drawn(_) => {
            let config = request.config.ok_or("random weights need the sizes of the model; give --config FILE")?;
            let encoder = vjepa_programs::encoder_config(config)?;
            let source = "the configuration given";
            (Model { encoder, preprocessing: config.preprocessing(), config: Some(config.clone()), source }, None)
        }
    };
    let trained = model.encoder.clone();
    let frames = form.frames.unwrap_or(trained.num_frames);
    let [height, width] = form.resolution.unwrap_or([trained.height, trained.width]);
    model.encoder = trained.clone().with_clip(frames, height, width);
    if let Some(layers) = &form.out_layers {
        model.encoder.check_blocks(layers).map_err(|why| format!("--out-layers {why}"))?;
    }
    model.encoder.out_layers.clone_from(&form.out_layers);
    model.encoder.validate()?;
    model.preprocessing.num_frames = frames;
    model.preprocessing.set_size([height, width]);
    let mut source = match (request.origin, stored) {
        (Origin::Drawn(seed), _) => ModelWeights::drawn(seed, &model.encoder),
        (_, Some(stored)) => ModelWeights::file(stored, &trained, &model.encoder)?,
        (Origin::Checkpoint(path), None) => return Err(format!("{} was not read", path.display()).into()),
    };
    let choice = ProbeChoice { number: form.probe_number, ..ProbeChoice::default() };
    let mut probe =
        request.probe.map(|path| vjepa_programs::load_probe_for(path, &model.encoder, choice)).transpose()?;
    if probe.as_ref().is_some_and(|probe| matches!(probe.probe, Probe::Tuned(_))) {
        return Err(
            "--probe holds the classifier of a fine-tuned encoder; give that file as --checkpoint, alone".into()
        );
    }
    // A fine-tuned encoder has its classifier with it, which other heads do not want.
    if let (None, Origin::Checkpoint(path), None | Some(DeployedHead::Probe)) = (&probe, request.origin, form.head)
        && form.out_layers.is_none()
    {
        probe = tuned(path)?;
    }
    let head = form.head.unwrap_or(if probe.is_some() { DeployedHead::Probe } else { DeployedHead::Tokens });
    if let (DeployedHead::Probe | DeployedHead::Pooled, Some(probe)) = (head, &probe) {
        if form.out_layers.is_some() {
            let why = "a probe reads the blocks that it was trained on; with --out-layers use the head `tokens` or `features`";
            return Err(why.into());
        }
        model.encoder.out_layers.clone_from(&probe.layers);
        model.encoder.validate()?;
    }
    if let Some(probe) = &probe {
        let (reads, width) = (probe.probe.embed_dim(), model.encoder.embed_dim);
        if let Some(path) = request.probe.filter(|_| reads != width) {
            weights::load(path)?.refuse_probe_for(reads, &vjepa_programs::encoder_name(&model.encoder), width)?;
        }
        source.extend(&probe.tensors);
    }
    let kind = probe.as_ref().map(|file| &file.probe);
    let traced = match (form.clip_views, kind) {
        (ClipViews::SINGLE, _) => compile::deployed(&model.encoder, kind, head)?,
        (clip_views, Some(probe)) if head == DeployedHead::Probe => {
            compile::deployed_views(&model.encoder, probe, clip_views)?
        }
        _ => return Err("--clips and --views average a probe's predictions; give --probe, and no other --head".into()),
    };
    let graph = compile::optimised(&traced)?;
    let clip = [model.encoder.channels, model.encoder.num_frames, model.encoder.height, model.encoder.width];
    let record = model.preprocessing.clone();
    Ok(Opened { model, probe, source, graph, clip, record })
}

/// The classifier that was trained with a file's encoder; none of other files.
fn tuned(path: &Path) -> Result<Option<ProbeFile>, DeployError> {
    if !weights::load(path)?.metadata().contains_key(PROBE_KEY) {
        return Ok(None);
    }
    let probe = vjepa_programs::load_probe(path)?;
    Ok(matches!(probe.probe, Probe::Tuned(_)).then_some(probe))
}

impl Opened {
    fn plan(&self) -> Result<Frozen, DeployError> {
        Ok(Frozen::of_graph(self.graph.clone(), self.clip, |name| Ok(self.source.read(name)?.into_owned()))?)
    }
}

fn parity_of(request: &Export<'_>, opened: &Opened) -> Result<Vec<(&'static str, Parity)>, DeployError> {
    let (form, parameters) = (&request.form, opened.source.parameters());
    parity::verify(&mut opened.plan()?, request.out, request.ort_lib.as_ref(), parameters, form.target, form.batch)
}

/// Measures a low-precision model and writes the report next to it.
fn report(
    request: &Export<'_>,
    opened: &Opened,
    calibration: &calibrate::Calibration,
    int8: &Int8,
) -> Result<(AccuracyReport, PathBuf), DeployError> {
    let (form, path) = (&request.form, request.out);
    let session = match form.precision {
        // No runtime for a CPU computes in it.
        Precision::Bf16 => None,
        // tract is slow at it, and there is nothing to learn from it that rounding does not tell.
        _ if form.batch.is_some_and(|batch| batch > 1) => None,
        Precision::F16 => parity::open(path, Runtime::Ort, request.ort_lib.as_ref())?.ok(),
        _ => match parity::open(path, Runtime::Ort, request.ort_lib.as_ref())? {
            Ok(session) => Some(session),
            Err(_) if form.target != Target::OrtCpu => parity::open(path, Runtime::Tract, None)?.ok(),
            Err(_) => None,
        },
    };
    let low = match form.precision {
        Precision::F16 | Precision::F16Weights => Some(DType::F16),
        Precision::Bf16 => Some(DType::BF16),
        _ => None,
    };
    let mut candidate = match (&session, low) {
        (Some(session), _) => Candidate::File(session),
        (None, Some(low)) => {
            let read = |name: &str| Ok(round_to(&opened.graph, low, name, &opened.source)?.into_owned());
            Candidate::Rounded(Box::new(Frozen::of_graph(rounded(&opened.graph, low)?, opened.clip, read)?))
        }
        (None, None) => {
            let instead = "install ONNX Runtime, export with a batch of 1 or dynamic, or pass --no-verify";
            return Err(format!("no runtime here can evaluate an {} model; {instead}", form.precision).into());
        }
    };
    let target = form.target.to_string();
    let mut plan = opened.plan()?;
    let mut accuracy =
        accuracy::measure(&mut plan, &mut candidate, calibration, form.precision, &target, form.min_agreement)?;
    accuracy.kept_f32 = int8.keep.iter().cloned().collect();
    accuracy.of_range(form.weight_range(), session.as_ref().is_some_and(|session| session.caution().is_some()));
    let report = report_of(path);
    accuracy.write(&report)?;
    Ok((accuracy, report))
}
