//! Compiled graphs as files: what they were compiled for, and whether that fits a run.

use super::CompileError;
use crate::describe::{encoder_settings, predictor_settings};
use crate::objective;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use vjepa_compiler::accumulate::SUM;
use vjepa_compiler::ir::{Def, Graph, ValueId};
use vjepa_compiler::serialize::{Artifact, DecodeError, Record, decode, encode};
use vjepa_recipe::config::{Config, ConfigError, Dtype};
use vjepa_runtime::compiled::{PROGRAM, program};
use vjepa_runtime::plan::{Device, RunError};
use vjepa_runtime::write_atomically;

/// A compiled graph's file cannot be written or used. Every message ends with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is damaged, of another version, or something else.
    #[error("{}: {source}; {}", path.display(), remedy(path))]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// It was compiled for something else.
    #[error("{} {difference}; {}", path.display(), remedy(path))]
    Differs {
        /// The file.
        path: PathBuf,
        /// The first difference, in words.
        difference: String,
    },
    /// The configuration has no model sizes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The graph cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The graph cannot be lowered for the device.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] vjepa_compiler::plan::PlanError),
}

fn remedy(path: &Path) -> String {
    format!("compile the step again with `vjepa graph step --config ... --out {}`", path.display())
}

/// Lowers a graph for a device, plans it and records which settings of `config` it depends on.
///
/// # Errors
/// [`ArtifactError`].
pub fn artifact(graph: &Graph, config: &Config, device: Device) -> Result<Artifact, ArtifactError> {
    let record = described(&graph.name, config, device)?.into_iter().map(|(key, value)| (key.to_owned(), value));
    Ok(Artifact::new(&device.lower(graph)?, record.collect::<Record>())?)
}

/// Writes a compiled graph; returns the file's length in bytes.
///
/// # Errors
/// [`ArtifactError::Io`].
pub fn save_artifact(path: &Path, artifact: &Artifact) -> Result<usize, ArtifactError> {
    let bytes = encode(artifact);
    let written = write_atomically(path, |file| file.write_all(&bytes));
    written.map_err(|source| ArtifactError::Io { path: path.to_owned(), source })?;
    Ok(bytes.len())
}

/// Which graph a run trains with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainGraph {
    /// The whole step.
    Step,
    /// The half that adds gradients up; the other half is compiled from it.
    Gradients,
}

impl TrainGraph {
    /// Its name, as `vjepa graph` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Gradients => "gradients",
        }
    }
}

/// Reads the training step of `config` (or the half of it that is asked for) for a device, compiled ahead of time.
///
/// # Errors
/// [`ArtifactError::Differs`] names the first setting that differs from what it was compiled for.
pub fn load_step(path: &Path, config: &Config, device: Device, graph: TrainGraph) -> Result<Artifact, ArtifactError> {
    let bytes = std::fs::read(path).map_err(|source| ArtifactError::Io { path: path.to_owned(), source })?;
    let artifact = decode(&bytes).map_err(|source| ArtifactError::Decode { path: path.to_owned(), source })?;
    let differs = |difference| ArtifactError::Differs { path: path.to_owned(), difference };
    if let Some(difference) = difference(&artifact.record, &described(graph.name(), config, device)?) {
        return Err(differs(difference));
    }
    // The record claims that it fits; the graph is what runs.
    match misfit(&artifact.graph, config, graph)? {
        Some(misfit) => Err(differs(misfit)),
        None => Ok(artifact),
    }
}

/// The settings a graph of `config` depends on, by configuration key where there is one. Whatever is an input of the graph
/// (batch, mask lengths, rates) is not among them.
fn described(graph: &str, config: &Config, device: Device) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let data = &config.data;
    let dtype = match config.meta.dtype {
        Dtype::Float32 => "float32",
        // The setting applies to training only; all other graphs are f32.
        _ if !is_training(graph) => "float32",
        Dtype::Bfloat16 => "bfloat16",
        Dtype::Float16 => "float16",
    };
    let mut list = vec![
        (PROGRAM, program()),
        ("graph", graph.to_owned()),
        ("device", device.kind().to_owned()),
        ("meta.dtype", dtype.to_owned()),
    ];
    list.extend(encoder_settings(config)?);
    list.extend([
        ("data.num_frames", data.num_frames.to_string()),
        ("data.crop_size", data.crop_size.to_string()),
        ("data.tubelet_size", data.tubelet_size.to_string()),
        ("data.patch_size", data.patch_size.to_string()),
    ]);
    if is_training(graph) || graph == "predictor" {
        list.extend(predictor_settings(config)?);
        list.push(("mask generators", config.mask.len().to_string()));
    }
    if is_training(graph) {
        let optimization = &config.optimization;
        list.push(("loss.objective", config.loss.objective.name().to_owned()));
        list.extend(objective(config)?.declaration().settings.iter().cloned());
        list.extend([
            ("optimization.betas", format!("{:?}", optimization.betas)),
            ("optimization.eps", format!("{:?}", optimization.eps)),
        ]);
        if graph == TrainGraph::Gradients.name() {
            list.extend([
                ("optimization.bucket_cap_mb", optimization.bucket_cap_mb.to_string()),
                ("optimization.overlap", optimization.overlap.to_string()),
            ]);
        }
    }
    Ok(list)
}

/// Whether a graph is a training step or a half of one.
fn is_training(graph: &str) -> bool {
    matches!(graph, "step" | "gradients" | "update")
}

/// The first entry of `wanted` that differs from the record, in words.
fn difference(record: &Record, wanted: &[(&'static str, String)]) -> Option<String> {
    wanted.iter().find_map(|(key, value)| match record.get(*key) {
        Some(compiled) if compiled == value => None,
        None => Some(format!("does not say for which {key} it was compiled")),
        Some(compiled) => Some(match *key {
            "program" => format!("was compiled by {compiled}, and this is {value}"),
            "graph" => format!(
                "is the graph `{compiled}`, and this run trains with `{value}` (gradients are added up where there are several \
                 groups or processes, or steps may be skipped): compile that one with `vjepa graph {value}`"
            ),
            "device" => format!("was compiled for device {compiled}, and this run is on {value}"),
            _ => format!("was compiled for {key} {compiled}, the configuration says {value}"),
        }),
    })
}

/// Why a graph is not the training step of `config`, or the half of it that is asked for; or none.
fn misfit(graph: &Graph, config: &Config, which: TrainGraph) -> Result<Option<String>, ConfigError> {
    let objective = objective(config)?;
    let declaration = objective.declaration();
    let known: BTreeMap<String, &[usize]> = declaration.parameters().collect();
    for id in &graph.params {
        let name = graph.source_name(*id).unwrap_or_default();
        let weight = ["adam.m.", "adam.v.", SUM].iter().find_map(|moment| name.strip_prefix(moment)).unwrap_or(name);
        let shape: Vec<Option<i64>> = graph.ty(*id).shape.iter().map(vjepa_compiler::ir::Dim::as_const).collect();
        let same = |wanted: &&[usize]| wanted.iter().map(|n| i64::try_from(*n).ok()).eq(shape.iter().copied());
        if !known.get(weight).is_some_and(same) {
            return Ok(Some(format!("has a parameter `{name}` {} that the model does not have", graph.ty(*id))));
        }
    }
    let own = |new: &ValueId| match graph.value(*new).def {
        Def::Node { node, .. } => !graph.nodes.get(node.0).is_some_and(|node| node.op.is_over_ranks()),
        Def::Input(_) | Def::Param(_) => true,
    };
    if let Some((param, _)) = graph.updates.iter().find(|(_, new)| which == TrainGraph::Gradients && own(new)) {
        return Ok(Some(format!("does not sum `{}` over ranks", graph.source_name(*param).unwrap_or_default())));
    }
    let losses = std::iter::once("loss").chain(declaration.terms.iter().copied()).map(str::to_owned);
    let norms = declaration.trained().map(|set| format!("grad_norm.{}", set.name));
    let mut outputs = losses.chain(norms.filter(|_| which == TrainGraph::Step));
    let missing = outputs.find(|name| graph.find_output(name).is_none());
    Ok(missing.map(|name| format!("does not compute `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_put_in_words() {
        let wanted = [("program", "vjepa 2".to_owned()), ("model.depth", "12".to_owned())];
        let record = |program: &str, depth: Option<&str>| {
            let depth = depth.map(|depth| ("model.depth".to_owned(), depth.to_owned()));
            Record::from_iter([("program".to_owned(), program.to_owned())].into_iter().chain(depth))
        };
        assert_eq!(difference(&record("vjepa 2", Some("12")), &wanted), None);
        let told = |record| difference(&record, &wanted).unwrap();
        assert_eq!(told(record("vjepa 1", Some("12"))), "was compiled by vjepa 1, and this is vjepa 2");
        assert_eq!(told(record("vjepa 2", Some("6"))), "was compiled for model.depth 6, the configuration says 12");
        assert_eq!(told(record("vjepa 2", None)), "does not say for which model.depth it was compiled");
    }
}
