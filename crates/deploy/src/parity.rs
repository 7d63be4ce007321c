//! A written model on every runtime there is, against the plan.

use std::path::{Path, PathBuf};
use std::time::Instant;

use vjepa_export::Target;
use vjepa_runtime::library::{LibraryError, Search};
use vjepa_runtime::plan::HostTensor;
use vjepa_runtime::{
    ClipBatch, CompareError, Difference, NamedInput, NamedOutput, Options, Runtime, Session, SessionError, Tolerance,
    compare, compare_named,
};

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
    Agrees {
        runtime: String,
        difference: Difference,
        milliseconds: f64,
    },
    /// It does not run the model.
    Unable {
        why: String,
    },
    Absent {
        why: String,
    },
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
    let options = Options { runtime, ort_lib: ort_lib.cloned(), threads, any_inputs: true, ..Options::default() };
    Ok(Ok(Session::open(path, &options)?))
}

/// Clips in the verification of a model of that many parameters, where its batch is not fixed.
pub(super) fn clips_for(parameters: usize, batch: Option<usize>) -> usize {
    batch.unwrap_or(if parameters > LARGE { 1 } else { VERIFIED_CLIPS })
}

/// A written model that is to be run.
pub(super) struct Candidate<'a> {
    pub path: &'a Path,
    pub ort_lib: Option<&'a PathBuf>,
    /// A model for one runtime alone is run on that one, others on all.
    pub target: Target,
    /// Clips of the run, by which its time is divided.
    pub count: usize,
    /// Whether the model has operators that a runtime may lack. Of others it is a fault of the export.
    pub may_be_lacked: bool,
}

impl Candidate<'_> {
    /// What `compared` makes of a session on each runtime that there is; `again` runs it once more, for its time.
    fn on_runtimes(
        &self,
        compared: impl Fn(&Session) -> Result<Vec<Difference>, CompareError>,
        again: impl Fn(&Session) -> Result<Vec<NamedOutput>, SessionError>,
    ) -> Result<Vec<(&'static str, Parity)>, DeployError> {
        let runtimes: &[(&'static str, Runtime)] = match self.target {
            Target::OrtCpu => &[("ort", Runtime::Ort)],
            Target::Tract => &[("tract", Runtime::Tract)],
            _ => &[("tract", Runtime::Tract), ("ort", Runtime::Ort)],
        };
        let one = |(name, runtime): &(&'static str, Runtime)| {
            let parity = match open(self.path, *runtime, self.ort_lib) {
                Ok(Ok(session)) => self.judged(&session, &compared, &again),
                Ok(Err(why)) => Ok(Parity::Absent { why }),
                Err(DeployError::Session(error)) if self.may_be_lacked && error.lacks_operators() => {
                    Ok(Parity::Unable { why: error.to_string() })
                }
                Err(error) => Err(error),
            };
            parity.map(|parity| (*name, parity)).map_err(|error| format!("{name}: {error}").into())
        };
        runtimes.iter().map(one).collect()
    }

    fn judged(
        &self,
        session: &Session,
        compared: impl Fn(&Session) -> Result<Vec<Difference>, CompareError>,
        again: impl Fn(&Session) -> Result<Vec<NamedOutput>, SessionError>,
    ) -> Result<Parity, DeployError> {
        let worst = compared(session)?.into_iter().max_by(|a, b| a.absolute.total_cmp(&b.absolute));
        let difference = worst.ok_or("the model has no output")?;
        let began = Instant::now();
        again(session)?;
        let milliseconds = began.elapsed().as_secs_f64() * 1e3 / self.count as f64;
        Ok(Parity::Agrees { runtime: session.runtime(), difference, milliseconds })
    }

    /// Runs the model on tensors by name, and compares with what the plan gave for them.
    pub(super) fn verify_named(
        &self,
        inputs: &[(&str, HostTensor)],
        expected: &[NamedOutput],
    ) -> Result<Vec<(&'static str, Parity)>, DeployError> {
        let named = inputs.iter().map(|(name, tensor)| NamedInput::new(name, tensor.shape(), tensor.floats()));
        let inputs = named.collect::<Result<Vec<_>, _>>()?;
        self.on_runtimes(
            |session| compare_named(session, &inputs, expected, TOLERANCE),
            |session| session.run_named(&inputs),
        )
    }
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
    let count = clips_for(parameters, batch);
    let [channels, frames, height, width] = frozen.clip();
    let shape = [count * frozen.clips_of_a_result(), channels, frames, height, width];
    let clips = noise(shape.iter().product());
    let expected: Vec<NamedOutput> = named(frozen, &clips)?;
    let clips = ClipBatch::new(shape, &clips)?;
    let candidate = Candidate { path, ort_lib, target, count, may_be_lacked: false };
    candidate.on_runtimes(|session| compare(session, &clips, &expected, TOLERANCE), |session| session.run(&clips))
}

/// The results of runtimes by their names, as JSON.
pub fn parity_json(parity: &[(&'static str, Parity)]) -> serde_json::Map<String, serde_json::Value> {
    parity.iter().map(|(name, parity)| ((*name).to_owned(), parity.json())).collect()
}

impl Parity {
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Agrees { runtime, difference, milliseconds } => serde_json::json!({
                "runtime": runtime, "output": difference.name, "max_abs": difference.absolute,
                "rel_l2": difference.relative, "limit": TOLERANCE.absolute, "pass": true, "latency_ms": milliseconds,
            }),
            Self::Unable { why } => serde_json::json!({"unable": why}),
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
            Self::Unable { why } => write!(f, "does not run it: {why}"),
            Self::Absent { why } => write!(f, "not verified: {why}"),
        }
    }
}
