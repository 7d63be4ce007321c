//! `vjepa inspect`: describes a file.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vjepa_compiler::ir::Graph;
use vjepa_compiler::serialize::Artifact;
use vjepa_runtime::FileKind;
use vjepa_runtime::onnx::OnnxFile;
use vjepa_video::VideoError;

use super::CliError;
use vjepa_programs::{PROBE_KEY, ProbeRecord};
use vjepa_weights as weights;
use vjepa_weights::Format;

/// Describe a file: checkpoint (with generation and size), video, ONNX model, or graph (.ir, .vjg)
#[derive(clap::Args)]
pub struct Args {
    /// File to describe
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a file seems to be, from its name and first bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Checkpoint,
    GraphText,
    Graph,
    Onnx,
    Video,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let file = args.file.as_path();
    let about = match kind(file)? {
        Kind::Checkpoint => checkpoint(file)?,
        Kind::GraphText => {
            let text = std::fs::read_to_string(file).map_err(|error| cannot_read(file, &error))?;
            let graph = vjepa_compiler::text::parse(&text).map_err(|error| format!("{}: {error}", file.display()))?;
            graph_value(&graph)
        }
        Kind::Graph => {
            let bytes = std::fs::read(file).map_err(|error| cannot_read(file, &error))?;
            let artifact =
                vjepa_compiler::serialize::decode(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
            compiled_value(&artifact)
        }
        Kind::Onnx => onnx(file)?,
        Kind::Video => video(file)?,
    };
    if args.json {
        println!("{about}");
    } else {
        println!("{}", file.display());
        print_value(&about, 1);
    }
    Ok(())
}

fn cannot_read(file: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", file.display())
}

fn kind(file: &Path) -> Result<Kind, CliError> {
    if weights::is_hugging_face(file) {
        return Ok(Kind::Checkpoint);
    }
    if let Some(foreign) = weights::foreign(file) {
        return Err(foreign.sentence(file).into());
    }
    let mut head = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(16).read_to_end(&mut head))
        .map_err(|error| cannot_read(file, &error))?;
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    Ok(match extension.as_str() {
        "safetensors" | "pt" | "pth" | "tar" | "ckpt" | "bin" => Kind::Checkpoint,
        "ir" => Kind::GraphText,
        "vjg" => Kind::Graph,
        "onnx" => Kind::Onnx,
        // The index of several files.
        _ if file.to_string_lossy().ends_with(".index.json") => Kind::Checkpoint,
        _ => match FileKind::of(&head) {
            Some(FileKind::Checkpoint) => Kind::Checkpoint,
            Some(FileKind::Onnx) => Kind::Onnx,
            // Other containers of videos are the reader's to know.
            Some(FileKind::Video) | None => Kind::Video,
            Some(kind @ (FileKind::Picture(_) | FileKind::Other(_) | FileKind::Text)) => {
                return Err(format!("{} is {kind}, {UNKNOWN}", file.display()).into());
            }
        },
    })
}

/// What is said of a file that is nothing of what is described.
const UNKNOWN: &str = "not a file that inspect knows: a checkpoint, a video, an ONNX model or a graph (.ir, .vjg)";

fn checkpoint(file: &Path) -> Result<Value, CliError> {
    let weights = weights::load(file)?;
    let mut models: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut types: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (name, shape, element) in weights.tensors() {
        let model = models.entry(name.split('.').next().unwrap_or(name).to_owned()).or_default();
        *model = (model.0 + 1, model.1 + shape.iter().product::<usize>());
        *types.entry(element.name()).or_default() += 1;
    }
    let models: serde_json::Map<String, Value> = models
        .into_iter()
        .map(|(model, (tensors, parameters))| (model, json!({"tensors": tensors, "parameters": parameters})))
        .collect();
    let format = match weights.format() {
        Format::PyTorch => "PyTorch",
        Format::Safetensors => "safetensors",
    };
    let mut about = json!({"kind": "checkpoint", "format": format, "holds": models, "types": types});
    if weights.files().len() > 1 {
        about["files"] = json!(weights.files().len());
    }
    model(&weights, &mut about)?;
    // A training state has many keys; they are worth listing only if there is no model.
    if weights.models().is_empty() {
        let keys: Vec<&str> = weights.keys_of_no_model().collect();
        about["other_tensors"] = json!({"count": keys.len(), "first": keys.iter().take(4).collect::<Vec<_>>()});
    }
    if let Some(step) = weights.record().and_then(|record| record.step) {
        about["step"] = json!(step);
    }
    if let Some(text) = weights.metadata().get(PROBE_KEY) {
        let record: ProbeRecord =
            serde_json::from_str(text).map_err(|error| format!("{}: its `{PROBE_KEY}`: {error}", file.display()))?;
        about["probe"] = serde_json::to_value(record)?;
    }
    // The modules of later generations are described by the file's own layout.
    if weights.encoder().is_ok() && weights.later_generation().is_none() {
        match vjepa_programs::describe(&weights, None) {
            Ok(model) => {
                about["encoder"] = json!({
                    "described_by": model.source, "embed_dim": model.encoder.embed_dim, "depth": model.encoder.depth,
                    "num_heads": model.encoder.num_heads, "tokens": model.encoder.grid(),
                    "patch": model.encoder.patch, "tubelet": model.encoder.tubelet,
                });
                about["preprocessing"] = serde_json::to_value(&model.preprocessing)?;
            }
            // Not an error here: as much as the file says about itself is shown.
            Err(error) => about["note"] = json!(error.to_string()),
        }
    }
    Ok(about)
}

/// Generation and size, and of V-JEPA 2 and 2.1 how its parts are laid out.
fn model(weights: &weights::Weights, about: &mut Value) -> Result<(), CliError> {
    let later = weights.later_generation();
    match weights.model_file(None) {
        Ok(Some(model)) => {
            about["model"] = json!(later.clone().unwrap_or_else(|| model.name()));
            about["generation"] = json!(model.generation);
            if later.is_some() {
                let layout = serde_json::to_value(&model)?;
                let parts = ["encoder", "predictor", "probe", "preprocessing"];
                parts
                    .iter()
                    .filter(|part| !layout[**part].is_null())
                    .for_each(|part| about[*part] = layout[*part].clone());
                if !model.ignored.is_empty() {
                    about["not_of_the_model"] = json!(model.ignored);
                }
            }
        }
        Ok(None) => {}
        // As much as can be told.
        Err(error) => {
            if let Some(model) = later {
                about["model"] = json!(model);
                // A classifier that describes itself, as a fine-tuned one, is shown as it does.
                if !weights.metadata().contains_key(PROBE_KEY) {
                    about["note"] = json!(error.to_string());
                }
            }
        }
    }
    Ok(())
}

fn graph_value(graph: &Graph) -> Value {
    let typed = |id| format!("{} {}", graph.source_name(id).unwrap_or_default(), graph.ty(id));
    let mut operations: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *operations.entry(node.op.name()).or_default() += 1;
    }
    let parameters = graph.params.iter().filter_map(|id| graph.ty(*id).elements().as_const()).sum::<i64>();
    json!({
        "kind": "graph", "name": graph.name, "symbols": graph.symbols,
        "inputs": graph.inputs.iter().map(|id| typed(*id)).collect::<Vec<_>>(),
        "outputs": graph.outputs.iter().map(|(name, id)| format!("{name} {}", graph.ty(*id))).collect::<Vec<_>>(),
        "parameters": {"tensors": graph.params.len(), "parameters": parameters, "updated": graph.updates.len()},
        "nodes": graph.nodes.len(), "operations": operations,
    })
}

/// A graph with its plan and what it was compiled for.
fn compiled_value(artifact: &Artifact) -> Value {
    let mut about = graph_value(&artifact.graph);
    about["kind"] = json!("compiled graph");
    let steps = &artifact.plan.steps;
    about["plan"] = json!({
        "steps": steps.len(), "in_place": steps.iter().filter(|step| !step.in_place.is_empty()).count(),
        "frees": steps.iter().map(|step| step.frees.len()).sum::<usize>(),
    });
    about["compiled_for"] = json!(artifact.record);
    about
}

fn onnx(file: &Path) -> Result<Value, CliError> {
    let model = OnnxFile::read(file)?;
    let typed = |tensors: &[vjepa_runtime::TensorInfo]| tensors.iter().map(ToString::to_string).collect::<Vec<_>>();
    // Values that are JSON themselves are shown as such.
    let metadata: serde_json::Map<String, Value> = model
        .metadata
        .iter()
        .map(|(key, text)| (key.clone(), serde_json::from_str(text).unwrap_or_else(|_| json!(text))))
        .collect();
    Ok(json!({
        "kind": "ONNX model", "bytes": model.bytes.len(), "inputs": typed(&model.inputs),
        "outputs": typed(&model.outputs), "metadata": metadata,
    }))
}

fn video(file: &Path) -> Result<Value, CliError> {
    let info = vjepa_video::probe(file).map_err(|error| match error {
        VideoError::NotAVideo { path, why } => CliError::from(format!("{} is {UNKNOWN} ({why})", path.display())),
        other => other.into(),
    })?;
    Ok(json!({
        "kind": "video", "codec": info.codec.to_string(), "width": info.width(), "height": info.height(),
        "frames": info.frames, "intact_frames": info.intact_frames, "left_out_at_start": info.left_out,
        "duration": info.duration,
        "average_fps": info.average_fps(),
        "rotated": u32::from(info.orientation.quarter_turns) * 90, "mirrored": info.orientation.mirrored,
    }))
}

/// Prints a mapping as indented lines.
fn print_value(value: &Value, depth: usize) {
    let Value::Object(entries) = value else { return };
    let width = entries.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in entries {
        let lead = "  ".repeat(depth);
        match value {
            Value::Object(inner) if inner.values().any(Value::is_object) || inner.len() > 4 => {
                println!("{lead}{key}");
                print_value(value, depth + 1);
            }
            _ => println!("{lead}{key:<width$}  {}", in_line(value)),
        }
    }
}

fn in_line(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(in_line).collect::<Vec<_>>().join(", "),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| format!("{key} {}", in_line(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
