//! `vjepa compile --export tensorrt`: the typed ONNX file, and its engine where TensorRT is installed; elsewhere the line
//! that builds the engine.

use std::path::Path;
use std::time::Instant;

use vjepa_export::{Precision, Target};
use vjepa_runtime::onnx::OnnxFile;
use vjepa_runtime::{Batches, ClipBatch, Difference, Options, Runtime, Session, SessionError, Tolerance, compare};

use super::{Export, Exported, accuracy, export_opened, open, refuse};
use crate::DeployError;
use vjepa_recipe::counter::noise;

/// TensorRT multiplies 32-bit floats in TF32, whose mantissa has ten bits.
const TF32: Tolerance = Tolerance { absolute: 2e-2, relative: 5e-3 };

/// The outcome of building an engine.
pub enum EngineBuild {
    /// It was built (or was kept), and gives what the plan gives.
    Built { runtime: String, difference: Difference, milliseconds: f64 },
    /// TensorRT is not here: why, and what builds the engine where it is.
    Elsewhere { why: String, line: String },
}

/// Exports for TensorRT; `options` say which library, GPU, batches and cache.
pub fn write(request: &Export<'_>, options: &Options) -> Result<(Exported, EngineBuild), DeployError> {
    if request.form.target != Target::TensorRt {
        return Err("--export tensorrt is for the target tensorrt; omit --target".into());
    }
    request.spares(&[request.out])?;
    let opened = open(request)?;
    let exported = export_opened(request, &opened)?;
    let options = Options { runtime: Runtime::TensorRt, ..options.clone() };
    let session = match Session::open(request.out, &options) {
        Ok(session) => session,
        Err(error @ (SessionError::Provider { .. } | SessionError::Library(_))) => {
            let line = trtexec(&OnnxFile::read(request.out)?, options.batches.unwrap_or_default())?;
            return Ok((exported, EngineBuild::Elsewhere { why: error.to_string(), line }));
        }
        Err(error) => return Err(error.into()),
    };
    let tolerance = match &exported.accuracy {
        _ if request.form.precision == Precision::F32 => TF32,
        Some((report, _)) => report.tolerance(),
        None => return Err("an engine below f32 needs its accuracy report; omit --no-verify".into()),
    };
    let [channels, frames, height, width] = opened.clip;
    let results = options.batches.map_or(1, |batches| batches.min).max(request.form.batch.unwrap_or(1));
    let shape = [results * session.views(), channels, frames, height, width];
    let clips = noise(shape.iter().product());
    let expected = accuracy::named(&mut opened.plan()?, &clips)?;
    let clips = ClipBatch::new(shape, &clips)?;
    let differences = compare(&session, &clips, &expected, tolerance)
        .map_err(|error| refuse(&exported.written, request.shown_as, &error.into()))?;
    let difference = differences.into_iter().max_by(|a, b| a.relative.total_cmp(&b.relative));
    let difference = difference.ok_or("the model has no output")?;
    let began = Instant::now();
    session.run(&clips)?;
    let milliseconds = began.elapsed().as_secs_f64() * 1e3 / results as f64;
    Ok((exported, EngineBuild::Built { runtime: session.runtime(), difference, milliseconds }))
}

/// The line that builds an engine of the file with NVIDIA's own tool.
fn trtexec(file: &OnnxFile, batches: Batches) -> Result<String, DeployError> {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let (onnx, plan) = (quoted(&file.path), quoted(&file.path.with_extension("plan")));
    let timing = quoted(&file.path.with_extension("timing"));
    let mut line = format!("trtexec --onnx={onnx} --saveEngine={plan} --stronglyTyped --timingCacheFile={timing}");
    for input in file.inputs.iter().filter(|input| input.has_free_batch()) {
        for (flag, batch) in [("min", batches.min), ("opt", batches.opt), ("max", batches.max)] {
            let shape = input
                .with_batch(batch)
                .ok_or_else(|| format!("`{input}` has other dynamic dimensions than its batch"))?;
            line += &format!(" --{flag}Shapes={shape}");
        }
    }
    Ok(line)
}

impl EngineBuild {
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Built { runtime, difference, milliseconds } => serde_json::json!({
                "runtime": runtime, "rel_l2": difference.relative, "max_abs": difference.absolute,
                "latency_ms": milliseconds,
            }),
            Self::Elsewhere { why, line } => serde_json::json!({"absent": why, "trtexec": line}),
        }
    }
}

impl std::fmt::Display for EngineBuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Built { runtime, difference, milliseconds } => {
                write!(f, "agrees with the plan ({difference}), {milliseconds:.1} ms per clip on {runtime}")
            }
            Self::Elsewhere { why, line } => {
                write!(f, "not built: {why}\n         where TensorRT is installed, build it with:\n{line}")
            }
        }
    }
}
