//! A frozen encoder and its head as an ONNX file that is then run and compared with the plan.
//!
//! [`export`] does everything: weights from a checkpoint or a seed ([`source`]), the graph of the head, the ONNX file, then
//! either parity of f32 results on every available runtime ([`parity`]) or, for lower precisions, an accuracy report on
//! calibration clips ([`accuracy`], [`calibrate`]). A file that fails is removed.

mod accuracy;
pub mod bundle;
mod calibrate;
pub mod compiled;
mod error;
#[cfg(test)]
mod hostile;
mod output;
mod parity;
mod source;
pub mod tensorrt;
pub mod triton;

pub use accuracy::Accuracy;
pub use error::DeployError;
use parity::TOLERANCE;
pub use parity::{Parity, open as open_session};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vjepa_compiler::ir::{DType, Graph};
use vjepa_export::{
    ExternalData, Int8, OnnxOptions, Precision, Target, WeightRange, WeightSource, Written, round_to, rounded, to_onnx,
};
use vjepa_graphs::EncoderConfig;
use vjepa_runtime::files::{hash_all, hex};
use vjepa_runtime::onnx::INT8_RANGE_KEY;
use vjepa_runtime::{Preprocessing, Runtime};

use accuracy::Candidate;
use output::{make_folder_of, refuse, report_of};
use source::Source;
use vjepa_data::clips;
use vjepa_programs as compile;
use vjepa_programs::Head;
use vjepa_programs::frozen::Frozen;
use vjepa_programs::{Model, ProbeFile};
use vjepa_recipe::config::Config;
use vjepa_runtime::Looks;
use vjepa_weights as weights;

/// Calibration clips when none are given, and for a model of more than [`LARGE`] weights.
const CLIPS: [usize; 2] = [128, 4];
const LARGE: usize = 60_000_000;
/// When a model does not agree, one in so many of its 8-bit layers goes back to 32 bits.
const WIDENED: usize = 6;

/// Where the encoder comes from.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// A weights file.
    Checkpoint(&'a Path),
    /// Weights drawn from a seed, of the configured sizes.
    Drawn(u64),
}

/// The form of the exported model.
#[derive(Clone, Debug)]
pub struct Form {
    pub target: Target,
    pub precision: Precision,
    /// Range of 8-bit weights; the target's default if none.
    pub int8_range: Option<WeightRange>,
    pub opset: i64,
    /// Clips per run; any number if none.
    pub batch: Option<usize>,
    /// The head; if none, the probe if there is one, else all tokens.
    pub head: Option<Head>,
    /// Clips and views per prediction.
    pub looks: Looks,
    /// Clip size, if other than in training.
    pub frames: Option<usize>,
    pub resolution: Option<usize>,
    /// Blocks whose outputs are returned.
    pub out_layers: Option<Vec<usize>>,
    pub external: ExternalData,
    /// Clips to check a lower precision on; generated ones if empty.
    pub calibration: Vec<PathBuf>,
    pub min_agreement: f64,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            target: Target::default(),
            precision: Precision::default(),
            int8_range: None,
            opset: OnnxOptions::default().opset,
            batch: None,
            head: None,
            looks: Looks::SINGLE,
            frames: None,
            resolution: None,
            out_layers: None,
            external: ExternalData::default(),
            calibration: Vec::new(),
            min_agreement: 0.99,
        }
    }
}

impl Form {
    /// Range of the 8-bit weights, for a form that has them.
    fn weight_range(&self) -> Option<WeightRange> {
        matches!(self.precision, Precision::Int8Dynamic | Precision::Int8Static)
            .then(|| self.int8_range.unwrap_or(OnnxOptions::new(self.target, self.precision).int8.range))
    }
}

/// What is exported, and where to.
pub struct Export<'a> {
    pub origin: Origin<'a>,
    pub probe: Option<&'a Path>,
    pub config: Option<&'a Config>,
    pub out: &'a Path,
    /// Its name for the user: `out`, or the folder that it becomes part of in the end.
    pub shown_as: &'a Path,
    pub verify: bool,
    pub ort_lib: Option<PathBuf>,
    pub form: Form,
}

/// The result of an export.
pub struct Exported {
    pub written: Written,
    pub nodes: usize,
    pub metadata: BTreeMap<String, String>,
    pub parity: Vec<(&'static str, Parity)>,
    /// Accuracy of a lower precision, and the report's path.
    pub accuracy: Option<(Accuracy, PathBuf)>,
    pub model: Model,
    pub probe: Option<ProbeFile>,
}

/// A model opened for export: everything but the file.
struct Opened {
    model: Model,
    probe: Option<ProbeFile>,
    source: Source,
    graph: Graph,
    clip: [usize; 4],
    record: Preprocessing,
}

/// Writes the model and, unless disabled, compares it with the plan on tract, and on ONNX Runtime if available.
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
            Some(calibrate::clips(&form.calibration, count, form.looks, record, normalization)?)
        }
        false => None,
    };
    let mut quantised_layers = Vec::new();
    if let (Some(calibration), Some(range)) = (&calibration, int8) {
        let ranges = form.precision == Precision::Int8Static;
        (options.int8, quantised_layers) = calibrate::int8(graph, source, *clip, calibration, ranges, range)?;
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
    let judged = match calibration {
        None => parity_of(request, opened).map(|parity| exported.parity = parity),
        Some(calibration) => loop {
            match report(request, opened, &calibration, &options.int8) {
                // The least accurate layers go back to 32 bits, as long as most stay in 8.
                Ok((accuracy, _)) if !accuracy.pass && quantised_layers.len() > options.int8.keep.len() => {
                    let widened = quantised_layers.len().div_ceil(WIDENED);
                    options.int8.keep.extend(quantised_layers.drain(..widened));
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
    judged.map_err(|error| refuse(&exported.written, request.shown_as, &error))?;
    Ok(exported)
}

/// Writes the ONNX file; the second value is the number of its nodes.
fn write(path: &Path, opened: &Opened, options: &OnnxOptions) -> Result<(Written, usize), DeployError> {
    let onnx = to_onnx(&opened.graph, &opened.source, options)?;
    let nodes = onnx.proto().graph.as_ref().map_or(0, |graph| graph.node.len());
    Ok((onnx.write(path)?, nodes))
}

/// Accepts the report of a model that agrees often enough; otherwise keeps it where the model would have been.
fn agreeing(request: &Export<'_>, (accuracy, place): (Accuracy, PathBuf)) -> Result<(Accuracy, PathBuf), DeployError> {
    if accuracy.pass {
        return Ok((accuracy, place));
    }
    let place = report_of(request.shown_as);
    accuracy.write(&place)?;
    let wanted = accuracy.min_agreement;
    Err(format!(
        "{accuracy}; at least {wanted} is asked for. Use a wider --precision, more --calibration clips, or another \
         --min-agreement; {} has the report",
        place.display()
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
    let (frames, side) = (form.frames.unwrap_or(trained.num_frames), form.resolution.unwrap_or(trained.height));
    model.encoder = trained.clone().with_clip(frames, side, form.resolution.unwrap_or(trained.width));
    model.encoder.out_layers.clone_from(&form.out_layers);
    model.encoder.validate()?;
    (model.preprocessing.num_frames, model.preprocessing.crop_size) = (frames, side);
    let mut source = match (request.origin, stored) {
        (Origin::Drawn(seed), _) => Source::drawn(seed, &model.encoder),
        (_, Some(stored)) => Source::file(stored, &trained, &model.encoder)?,
        (Origin::Checkpoint(path), None) => return Err(format!("{} was not read", path.display()).into()),
    };
    let probe = request.probe.map(|path| vjepa_programs::load_probe_for(path, &model.encoder)).transpose()?;
    if let Some(probe) = &probe {
        let (reads, width) = (probe.probe.embed_dim(), model.encoder.embed_dim);
        if reads != width {
            return Err(vjepa_programs::frozen::FrozenError::Width { probe: reads, encoder: width }.into());
        }
        source.extend(&probe.tensors);
    }
    let head = form.head.unwrap_or(if probe.is_some() { Head::Probe } else { Head::Tokens });
    let kind = probe.as_ref().map(|file| &file.probe);
    let traced = match (form.looks, kind) {
        (Looks::SINGLE, _) => compile::deployed(&model.encoder, kind, head)?,
        (looks, Some(probe)) if head == Head::Probe && form.out_layers.is_none() => {
            compile::deployed_views(&model.encoder, probe, looks)?
        }
        _ => return Err("--clips and --views average a probe's predictions; give --probe, and no other --head".into()),
    };
    let graph = compile::optimised(&traced)?;
    let clip = [model.encoder.channels, model.encoder.num_frames, model.encoder.height, model.encoder.width];
    let record = model.preprocessing.clone();
    Ok(Opened { model, probe, source, graph, clip, record })
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

/// Accuracy of a lower-precision model, written next to it.
fn report(
    request: &Export<'_>,
    opened: &Opened,
    calibration: &calibrate::Calibration,
    int8: &Int8,
) -> Result<(Accuracy, PathBuf), DeployError> {
    let (form, path) = (&request.form, request.out);
    let session = match form.precision {
        // No CPU runtime computes in it.
        Precision::Bf16 => None,
        // tract is slow at it, and reveals nothing that rounding does not.
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
    let mut judged = match (&session, low) {
        (Some(session), _) => Candidate::File(session),
        (None, Some(low)) => {
            let read = |name: &str| Ok(round_to(&opened.graph, low, name, &opened.source)?.into_owned());
            Candidate::Rounded(Box::new(Frozen::of_graph(rounded(&opened.graph, low)?, opened.clip, read)?))
        }
        (None, None) => {
            let instead = "install ONNX Runtime, export with a batch of 1 or dynamic, or pass --no-verify";
            return Err(format!("nothing here can check the accuracy of an {} model; {instead}", form.precision).into());
        }
    };
    let target = form.target.to_string();
    let mut plan = opened.plan()?;
    let mut accuracy =
        accuracy::measure(&mut plan, &mut judged, calibration, form.precision, &target, form.min_agreement)?;
    accuracy.kept_f32 = int8.keep.iter().cloned().collect();
    accuracy.of_range(form.weight_range(), session.as_ref().is_some_and(|session| session.caution().is_some()));
    let place = report_of(path);
    accuracy.write(&place)?;
    Ok((accuracy, place))
}

/// A model's metadata: provenance, checksums of its sources, preprocessing and labels.
fn full_metadata(request: &Export<'_>, opened: &Opened) -> Result<BTreeMap<String, String>, DeployError> {
    let mut metadata = metadata(opened, &request.form)?;
    match request.origin {
        Origin::Checkpoint(path) => metadata.insert("vjepa.checkpoint_sha256".to_owned(), sha256(path)?),
        Origin::Drawn(seed) => metadata.insert("vjepa.random_weights".to_owned(), seed.to_string()),
    };
    if let Some(path) = request.probe {
        metadata.insert("vjepa.probe_sha256".to_owned(), sha256(path)?);
    }
    Ok(metadata)
}

/// `metadata_props`: provenance, preprocessing and labels.
fn metadata(opened: &Opened, form: &Form) -> Result<BTreeMap<String, String>, DeployError> {
    let labels = opened.probe.as_ref().map(|file| file.labels.as_slice()).unwrap_or_default();
    let mut metadata = BTreeMap::from([
        (vjepa_runtime::preprocess::METADATA_KEY.to_owned(), opened.record.to_json()),
        ("vjepa.arch".to_owned(), arch(&opened.model.encoder)),
        ("vjepa.precision".to_owned(), form.precision.to_string()),
        ("vjepa.target".to_owned(), form.target.to_string()),
        ("vjepa.exporter".to_owned(), format!("vjepa {}", env!("CARGO_PKG_VERSION"))),
    ]);
    if let Some(range) = form.weight_range() {
        metadata.insert(INT8_RANGE_KEY.to_owned(), range.to_string());
    }
    if form.looks != Looks::SINGLE {
        metadata.insert(clips::CLIPS_KEY.to_owned(), form.looks.clips.to_string());
        metadata.insert(clips::VIEWS_KEY.to_owned(), form.looks.views.to_string());
    }
    if !labels.is_empty() && form.head.is_none_or(|head| head == Head::Probe) {
        metadata.insert(vjepa_runtime::LABELS_KEY.to_owned(), serde_json::to_string(labels)?);
    }
    Ok(metadata)
}

/// The sizes in one line: `ViT 1024/24/16, patch 16, tubelet 2`.
pub fn arch(encoder: &EncoderConfig) -> String {
    let EncoderConfig { embed_dim, depth, num_heads, patch, tubelet, .. } = encoder;
    format!("ViT {embed_dim}/{depth}/{num_heads}, patch {patch}, tubelet {tubelet}")
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String, DeployError> {
    let mut hash = Sha256::new();
    std::fs::File::open(path)
        .and_then(|mut file| hash_all(&mut hash, &mut file))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(hex(&hash.finalize()))
}
