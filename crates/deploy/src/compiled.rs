//! A frozen encoder and its head as a compiled plan: `model.vjg` with graph, plan and record, and the weights next to it.

use std::path::Path;

use vjepa_compiler::ir::ValueId;
use vjepa_compiler::serialize::{Artifact, Record};
use vjepa_export::{Precision, Target, WeightSource, Written};
use vjepa_runtime::compiled::{DEVICE, PROGRAM, WEIGHTS, WEIGHTS_SHA256, program};
use vjepa_runtime::plan::Device;
use vjepa_runtime::{ClipBatch, Options, Runtime, Session, compare, is_compiled};

use super::metadata::{full_metadata, metadata};
use super::parity::TOLERANCE;
use super::paths::{make_folder_of, refuse};
use super::{Export, Exported, Form, Opened, accuracy, open, sha256};
use crate::DeployError;
use vjepa_programs::save_artifact;
use vjepa_recipe::counter::noise;
use vjepa_weights::{Tensors, save_safetensors};

/// Writes the plan and its weights and, unless `verify` is off, opens them again and compares.
pub fn write(request: &Export<'_>) -> Result<Exported, DeployError> {
    let out = request.out;
    suits(out, &request.form)?;
    let weights = out.with_extension("safetensors");
    request.spares(&[out, &weights])?;
    // Without the plan beside it, it is of no earlier export.
    if weights.exists() && !out.exists() {
        let (out, weights) = (out.display(), weights.display());
        return Err(format!(
            "--out {out} would overwrite {weights}, which is of no earlier export; remove it or give another --out"
        )
        .into());
    }
    let opened = open(request)?;
    let metadata = full_metadata(request, &opened)?;
    make_folder_of(out)?;
    save_safetensors(&weights, &parameters(&opened)?, &Default::default())?;
    let mut record: Record = metadata.clone();
    let name = weights.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ours = [
        (PROGRAM, program()),
        ("graph", opened.graph.name.clone()),
        (DEVICE, Device::CPU.kind().to_owned()),
        (WEIGHTS, name),
        (WEIGHTS_SHA256, sha256(&weights)?),
    ];
    record.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    let artifact = Artifact::new(&Device::CPU.lower(&opened.graph)?, record)?;
    let bytes = save_artifact(out, &artifact)? as u64 + std::fs::metadata(&weights)?.len();
    let written = Written { model: out.to_owned(), data: Some(weights), bytes };
    if request.verify {
        verify(out, &opened).map_err(|error| refuse(&written, request.shown_as, &error))?;
    }
    Ok(Exported {
        written,
        nodes: artifact.graph.nodes.len(),
        metadata,
        parity: Vec::new(),
        accuracy: None,
        model: opened.model,
        probe: opened.probe,
    })
}

/// Refuses options that a plan does not have.
fn suits(out: &Path, form: &Form) -> Result<(), DeployError> {
    if !is_compiled(out) {
        return Err(format!("{}: a compiled plan is written to a file that ends in .vjg", out.display()).into());
    }
    let plain = Form::default();
    if form.precision != Precision::F32 || form.target != Target::default() {
        return Err("a compiled plan is f32 for this CPU; omit --precision and --target, or use --export onnx".into());
    }
    if form.batch.is_some() || form.opset != plain.opset {
        return Err("a compiled plan takes any batch and has no opset; omit --batch and --opset".into());
    }
    Ok(())
}

/// The graph's parameters.
fn parameters(opened: &Opened) -> Result<Tensors, DeployError> {
    let Opened { graph, source, .. } = opened;
    let one = |id: &ValueId| -> Result<_, DeployError> {
        let name = graph.source_name(*id).unwrap_or_default();
        let values = source.read(name).map_err(|error| format!("`{name}` cannot be read: {error}"))?.into_owned();
        let shape = graph.ty(*id).fixed_shape().ok_or_else(|| format!("`{name}` is {}", graph.ty(*id)))?;
        Ok((name.to_owned(), (shape, values)))
    };
    graph.params.iter().map(one).collect()
}

/// The file, opened as anyone would, gives what the plan in memory gives.
fn verify(path: &Path, opened: &Opened) -> Result<(), DeployError> {
    let session = Session::open(path, &Options { runtime: Runtime::Plan, ..Options::default() })?;
    let [channels, frames, height, width] = opened.clip;
    let shape = [session.views(), channels, frames, height, width];
    let clips = noise(shape.iter().product());
    let expected = accuracy::named(&mut opened.plan()?, &clips)?;
    compare(&session, &ClipBatch::new(shape, &clips)?, &expected, TOLERANCE)?;
    Ok(())
}

/// A session of the plan of an opened model, without a file.
pub fn in_memory(request: &Export<'_>) -> Result<Session, DeployError> {
    let opened = open(request)?;
    let (executor, params) = opened.plan()?.into_parts();
    Ok(Session::of_compiled(request.out, executor, params, metadata(&opened, &request.form)?)?)
}
