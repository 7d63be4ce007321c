//! A frozen encoder, or encoder and probe, as an ONNX file that is then run and compared with the plan.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};
use vjepa_export::{OnnxOptions, Written, to_onnx};
use vjepa_graphs::EncoderConfig;
use vjepa_runtime::library::{LibraryError, Search};
use vjepa_runtime::{ClipBatch, Difference, NamedOutput, Options, Runtime, Session, SessionError, Tolerance, compare};

use crate::cli::CliError;
use crate::clips;
use crate::config::Config;
use crate::data::CounterRng;
use crate::frozen::Frozen;
use crate::weights::{self, Model, ProbeFile};

/// How far a runtime may be from the plan.
pub(crate) const TOLERANCE: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-3 };
/// Clips in the verification: more than one, so that the batch dimension is tried too, unless the model is large.
const VERIFIED_CLIPS: usize = 2;
/// A model with more parameters is verified with one clip.
const LARGE: usize = 60_000_000;

/// What a runtime gave.
pub(crate) enum Parity {
    Agrees { runtime: String, difference: Difference, milliseconds: f64 },
    Absent { why: String },
}

/// What is exported, and where to.
pub(crate) struct Export<'a> {
    pub checkpoint: &'a Path,
    pub probe: Option<&'a Path>,
    pub config: Option<&'a Config>,
    pub out: &'a Path,
    pub verify: bool,
    pub ort_lib: Option<PathBuf>,
}

/// What came of it.
pub(crate) struct Exported {
    pub written: Written,
    pub nodes: usize,
    pub metadata: BTreeMap<String, String>,
    pub parity: Vec<(&'static str, Parity)>,
    pub model: Model,
    pub probe: Option<ProbeFile>,
}

/// Writes the model and, unless told not to, runs it on tract, and on ONNX Runtime where there is one, against the plan.
pub(crate) fn export(request: &Export<'_>) -> Result<Exported, CliError> {
    let weights = weights::load(request.checkpoint)?;
    let model = weights::describe(&weights, request.config)?;
    let mut tensors = weights.take_encoder(&model.encoder)?;
    let probe = request.probe.map(weights::load_probe).transpose()?;
    if let Some(probe) = &probe {
        tensors.extend(probe.tensors.clone());
    }
    let mut frozen = Frozen::new(&model.encoder, probe.as_ref().map(|file| &file.probe), &tensors)?;

    let labels = probe.as_ref().map(|file| file.labels.as_slice()).unwrap_or_default();
    let mut metadata = metadata(&model, labels)?;
    metadata.insert("vjepa.checkpoint_sha256".to_owned(), sha256(request.checkpoint)?);
    if let Some(path) = request.probe {
        metadata.insert("vjepa.probe_sha256".to_owned(), sha256(path)?);
    }
    let options = OnnxOptions { metadata: metadata.clone(), ..OnnxOptions::default() };
    if let Some(folder) = request.out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    }
    let onnx = to_onnx(frozen.graph(), &tensors, &options)?;
    let written = onnx.write(request.out)?;
    let nodes = onnx.proto().graph.as_ref().map_or(0, |graph| graph.node.len());
    let parity = if request.verify {
        verify(&mut frozen, request.out, request.ort_lib.clone(), &tensors).map_err(|error| refuse(&written, &error))?
    } else {
        Vec::new()
    };
    Ok(Exported { written, nodes, metadata, parity, model, probe })
}

/// A model that does not do what the plan does is not left lying about.
fn refuse(written: &Written, error: &CliError) -> CliError {
    for file in std::iter::once(&written.model).chain(&written.data) {
        let _ = std::fs::remove_file(file);
    }
    format!("{} was removed, since it does not agree with the plan: {error}", written.model.display()).into()
}

/// `metadata_props`: provenance, preprocessing and labels.
fn metadata(model: &Model, labels: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let record = clips::runtime_record(&model.preprocessing)?;
    let mut metadata = BTreeMap::from([
        (vjepa_runtime::preprocess::METADATA_KEY.to_owned(), record.to_json()),
        ("vjepa.arch".to_owned(), arch(&model.encoder)),
        ("vjepa.precision".to_owned(), "f32".to_owned()),
        ("vjepa.exporter".to_owned(), format!("vjepa {}", env!("CARGO_PKG_VERSION"))),
    ]);
    if !labels.is_empty() {
        metadata.insert("vjepa.labels".to_owned(), serde_json::to_string(labels)?);
    }
    Ok(metadata)
}

/// The sizes in one line: `ViT 1024/24/16, patch 16, tubelet 2`.
pub(crate) fn arch(encoder: &EncoderConfig) -> String {
    let EncoderConfig { embed_dim, depth, num_heads, patch, tubelet, .. } = encoder;
    format!("ViT {embed_dim}/{depth}/{num_heads}, patch {patch}, tubelet {tubelet}")
}

/// SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> Result<String, CliError> {
    let read = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut file = std::fs::File::open(path).map_err(read)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(read)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Runs the file on tract, and on ONNX Runtime where there is one, on clips of noise, and compares with the plan.
fn verify(
    frozen: &mut Frozen,
    path: &Path,
    ort_lib: Option<PathBuf>,
    tensors: &weights::Tensors,
) -> Result<Vec<(&'static str, Parity)>, CliError> {
    let parameters: usize = tensors.values().map(|(_, data)| data.len()).sum();
    let count = if parameters > LARGE { 1 } else { VERIFIED_CLIPS };
    let [channels, frames, height, width] = frozen.clip();
    let shape = [count, channels, frames, height, width];
    let mut noise = CounterRng::new(&[0x7665_7269_6679]);
    let clips: Vec<f32> = (0..shape.iter().product()).map(|_| noise.uniform(-2.0, 2.0) as f32).collect();
    let expected: Vec<NamedOutput> = frozen
        .run(clips.clone())?
        .into_iter()
        .map(|(name, tensor)| NamedOutput { name, shape: tensor.shape().to_vec(), data: tensor.into_floats() })
        .collect();
    let batch = ClipBatch::new(shape, &clips)?;
    let threads = std::thread::available_parallelism().ok().map(usize::from);
    let explicit = ort_lib.is_some();
    let mut results = Vec::new();
    for (name, runtime) in [("tract", Runtime::Tract), ("ort", Runtime::Ort)] {
        if runtime == Runtime::Ort && !explicit {
            match Runtime::discover(&Search::default()) {
                Err(error @ (LibraryError::NotFound | LibraryError::TooOld { .. })) => {
                    results.push((name, Parity::Absent { why: error.to_string() }));
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        let options = Options { runtime, ort_lib: ort_lib.clone(), threads, ..Options::default() };
        let failed = |error: SessionError| format!("{name}: {error}");
        let session = Session::open(path, &options).map_err(failed)?;
        let differences =
            compare(&session, &batch, &expected, TOLERANCE).map_err(|error| format!("{name}: {error}"))?;
        let worst = differences.into_iter().max_by(|a, b| a.absolute.total_cmp(&b.absolute));
        let difference = worst.ok_or("the model has no output")?;
        let began = Instant::now();
        session.run(&batch).map_err(failed)?;
        let milliseconds = began.elapsed().as_secs_f64() * 1e3 / count as f64;
        results.push((name, Parity::Agrees { runtime: session.runtime(), difference, milliseconds }));
    }
    Ok(results)
}

impl Parity {
    /// As JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Agrees { runtime, difference, milliseconds } => serde_json::json!({
                "runtime": runtime, "output": difference.name, "max_abs": difference.absolute,
                "rel_l2": difference.relative, "limit": TOLERANCE.absolute, "pass": true, "latency_ms": milliseconds,
            }),
            Self::Absent { why } => serde_json::json!({"absent": why}),
        }
    }
}

impl std::fmt::Display for Parity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agrees { runtime, difference, milliseconds } => {
                write!(
                    f,
                    "agrees with the plan ({difference}; {:.0e} allowed), {milliseconds:.1} ms a clip on {runtime}",
                    TOLERANCE.absolute
                )
            }
            Self::Absent { why } => write!(f, "not verified: {why}"),
        }
    }
}
