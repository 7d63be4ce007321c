//! A written model on every runtime there is, against the plan.

use std::path::{Path, PathBuf};
use std::time::Instant;

use vjepa_export::Target;
use vjepa_runtime::library::{LibraryError, Search};
use vjepa_runtime::{ClipBatch, Difference, NamedOutput, Options, Runtime, Session, SessionError, Tolerance, compare};

use super::accuracy::named;
use crate::DeployError;
use vjepa_programs::frozen::Frozen;
use vjepa_recipe::counter::noise;

/// How far a runtime may be from the plan.
pub const TOLERANCE: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-3 };
/// Clips in the verification: more than one, so that the batch dimension is tried too, unless the model is large.
const VERIFIED_CLIPS: usize = 2;
/// A model with more parameters is verified with one clip.
const LARGE: usize = 60_000_000;

/// The results of a runtime.
pub enum Parity {
    Agrees { runtime: String, difference: Difference, milliseconds: f64 },
    Absent { why: String },
}

/// A session for verification; none where ONNX Runtime is not installed and nobody named it.
pub fn open(path: &Path, runtime: Runtime, ort_lib: Option<&PathBuf>) -> Result<Result<Session, String>, DeployError> {
    if runtime == Runtime::Ort && ort_lib.is_none() {
        match Runtime::discover(&Search::default()) {
            Err(error @ LibraryError::TooOld { .. }) => return Ok(Err(error.to_string())),
            Err(error) if !error.is_of_a_named_library() => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    let threads = vjepa_runtime::cores();
    let options = Options { runtime, ort_lib: ort_lib.cloned(), threads, ..Options::default() };
    Ok(Ok(Session::open(path, &options)?))
}

/// Runs the file on tract, and on ONNX Runtime where there is one, on clips of noise, and compares with the plan. A model
/// for one of them alone is run on that one.
pub(super) fn verify(
    frozen: &mut Frozen,
    path: &Path,
    ort_lib: Option<&PathBuf>,
    parameters: usize,
    target: Target,
    batch: Option<usize>,
) -> Result<Vec<(&'static str, Parity)>, DeployError> {
    let count = batch.unwrap_or(if parameters > LARGE { 1 } else { VERIFIED_CLIPS });
    let [channels, frames, height, width] = frozen.clip();
    let shape = [count * frozen.clips_of_a_result(), channels, frames, height, width];
    let clips = noise(shape.iter().product());
    let expected: Vec<NamedOutput> = named(frozen, &clips)?;
    let clips = ClipBatch::new(shape, &clips)?;
    let runtimes: &[(&'static str, Runtime)] = match target {
        Target::OrtCpu => &[("ort", Runtime::Ort)],
        Target::Tract => &[("tract", Runtime::Tract)],
        _ => &[("tract", Runtime::Tract), ("ort", Runtime::Ort)],
    };
    let mut results = Vec::new();
    for (name, runtime) in runtimes {
        let session = match open(path, *runtime, ort_lib).map_err(|error| format!("{name}: {error}"))? {
            Ok(session) => session,
            Err(why) => {
                results.push((*name, Parity::Absent { why }));
                continue;
            }
        };
        let differences =
            compare(&session, &clips, &expected, TOLERANCE).map_err(|error| format!("{name}: {error}"))?;
        let worst = differences.into_iter().max_by(|a, b| a.absolute.total_cmp(&b.absolute));
        let difference = worst.ok_or("the model has no output")?;
        let began = Instant::now();
        session.run(&clips).map_err(|error: SessionError| format!("{name}: {error}"))?;
        let milliseconds = began.elapsed().as_secs_f64() * 1e3 / count as f64;
        results.push((*name, Parity::Agrees { runtime: session.runtime(), difference, milliseconds }));
    }
    Ok(results)
}

impl Parity {
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
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
                    "agrees with the plan ({difference}; {:.0e} allowed), {milliseconds:.1} ms per clip on {runtime}",
                    TOLERANCE.absolute
                )
            }
            Self::Absent { why } => write!(f, "not verified: {why}"),
        }
    }
}
