use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use vjepa_compiler::ir::Graph;
use vjepa_graphs::objectives::{Batch, Losses, Monitor, ParameterSet, Role, Start};
use vjepa_graphs::{ConfigError, Declaration, Encoder, EncoderConfig, NamedTensors, Objective, ShapeError, init};
use vjepa_weights::{Format, LoadError, Misshapen, RECORD_KEY, Tensors, WeightsError, load, remedy, save_safetensors};

use super::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny/weights.safetensors")
}

fn tiny() -> EncoderConfig {
    EncoderConfig { embed_dim: 96, depth: 3, num_heads: 3, ..EncoderConfig::tiny() }.with_clip(8, 64, 64)
}

#[test]
fn golden_weights_fit_their_model() {
    let weights = load(&golden()).unwrap();
    assert_eq!((weights.format(), weights.models()), (Format::Safetensors, vec!["encoder", "predictor"]));
    let encoder = weights.take_encoder(tiny().parameter_shapes()).unwrap();
    assert_eq!(encoder["encoder.pos_embed"].0, [1, 64, 96]);
    assert_eq!(encoder.len(), tiny().parameter_shapes().len());
}

#[test]
fn every_fault_is_listed() {
    let weights = load(&golden()).unwrap();
    let deeper = EncoderConfig { depth: 4, ..tiny() };
    let error = weights.take_encoder(deeper.parameter_shapes()).unwrap_err().to_string();
    assert!(error.contains("missing: encoder.blocks.3.attn.proj.bias"), "{error}");
    let longer = EncoderConfig { depth: 2, num_frames: 16, ..tiny() };
    let error = weights.take_encoder(longer.parameter_shapes()).unwrap_err().to_string();
    assert!(error.contains("encoder.pos_embed must be [1, 128, 96], got [1, 64, 96]"), "{error}");
    assert!(error.contains("unexpected: encoder.blocks.2.attn.proj.bias"), "{error}");
}

#[test]
fn unknown_heads_ask_for_a_configuration() {
    let error = describe(&load(&golden()).unwrap(), None).unwrap_err();
    assert!(matches!(error, WeightsError::Sizes { .. }), "{error}");
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn shapes_and_position_table_tell_the_clip() {
    let config = EncoderConfig { depth: 1, ..EncoderConfig::tiny() }.with_clip(4, 48, 48);
    let mut tensors = Tensors::new();
    for (name, shape) in config.parameter_shapes() {
        let data = match name.as_str() {
            "pos_embed" => config.position_table(),
            _ => vec![0.0; shape.iter().product()],
        };
        tensors.insert(format!("encoder.{name}"), (shape, data));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let model = describe(&load(&path).unwrap(), None).unwrap();
    assert_eq!(model.encoder, config);
    assert_eq!((model.preprocessing.num_frames, model.preprocessing.crop_size), (4, 48));
    assert_eq!(load(&path).unwrap().take_encoder(config.parameter_shapes()).unwrap(), tensors);
}

#[test]
fn a_stored_record_describes_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run-latest.safetensors");
    let yaml = "model: {embed_dim: 96, depth: 3, num_heads: 3, pred_embed_dim: 48, pred_depth: 2}\ndata: {crop_size: 64, num_frames: 8, normalization: per_clip}";
    let record = serde_json::json!({"format": 1, "step": 7, "config": yaml}).to_string();
    let mut tensors = load(&golden()).unwrap().take_encoder(tiny().parameter_shapes()).unwrap();
    tensors.insert("adam.m.encoder.norm.bias".to_owned(), (vec![96], vec![0.0; 96]));
    save_safetensors(&path, &tensors, &BTreeMap::from([(RECORD_KEY.to_owned(), record)])).unwrap();
    let weights = load(&path).unwrap();
    assert_eq!(weights.record().and_then(|record| record.step), Some(7));
    let model = describe(&weights, None).unwrap();
    assert_eq!(model.encoder, tiny());
    assert_eq!(model.preprocessing.normalization, vjepa_recipe::config::Normalization::PerClip);
}

#[test]
fn damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(golden()).unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        match load(&path) {
            Ok(_) => panic!("{name} was taken"),
            Err(error) => error.to_string(),
        }
    };
    assert!(refused("cut.safetensors", &bytes[..bytes.len() / 2]).contains("cut off"));
    assert!(refused("header.safetensors", &bytes[..100]).contains("cut off in the header"));
    assert!(refused("short.safetensors", &bytes[..5]).contains("only 5 bytes"));
    assert!(refused("long.safetensors", &[&bytes[..], b"x"].concat()).contains("follow the last tensor"));
    assert!(refused("empty.pt", b"").contains("empty"));
    assert!(refused("text.pt", b"these are no weights at all, sorry").contains("is a text file"));
    assert!(load(Path::new("/no/such/file.pt")).is_err());
}

/// The faults of weights for `stored` under the configuration `wanted`.
fn faults(stored: &EncoderConfig, wanted: &EncoderConfig) -> LoadError {
    let mut faults = LoadError::default();
    let named = |config: &EncoderConfig| -> std::collections::BTreeMap<String, Vec<usize>> {
        config.parameter_shapes().into_iter().map(|(name, shape)| (format!("encoder.{name}"), shape)).collect()
    };
    let (stored, mut wanted) = (named(stored), named(wanted));
    for (name, got) in stored {
        match wanted.remove(&name) {
            None => faults.unexpected.push(name),
            Some(expected) if expected != got => {
                faults.misshapen.push(Misshapen { name, expected, values: got.iter().product(), got });
            }
            Some(_) => {}
        }
    }
    faults.missing.extend(wanted.into_keys());
    faults
}

#[test]
fn each_difference_has_its_own_remedy() {
    let own = EncoderConfig::tiny();
    let told = |stored: &EncoderConfig| remedy(&faults(stored, &own));
    assert!(told(&EncoderConfig::small()).contains("`model.embed_dim: 384`"));
    assert!(told(&EncoderConfig { depth: 7, ..own.clone() }).contains("`model.depth: 7`"));
    assert!(told(&EncoderConfig { depth: 15, ..own.clone() }).contains("`model.depth: 15`"));
    let kernel = EncoderConfig { patch: 8, ..own.clone() };
    assert!(told(&kernel).contains("`data.patch_size: 8`"));
    let longer = EncoderConfig { num_frames: 2 * own.num_frames, ..own.clone() };
    assert!(told(&longer).contains("3136 tokens and the configuration's 1568"));
    let mut lacking = LoadError::default();
    lacking.missing.push("encoder.norm.bias".to_owned());
    assert!(remedy(&lacking).contains("--config"));
    lacking.missing = own.parameter_shapes().into_iter().map(|(name, _)| format!("encoder.{name}")).collect();
    lacking.unexpected = (0..20).map(|i| format!("encoder.layers.{i}.weight")).collect();
    assert!(remedy(&lacking).contains("another model"));
}

/// An objective unlike the official one: a teacher that stays as it is, no moving average, nothing reported but the loss.
#[derive(Clone, Debug)]
struct Distillation(EncoderConfig);

#[derive(Module, Debug)]
struct DistillationModel {
    student: Encoder,
    teacher: Encoder,
}

impl Objective for Distillation {
    type Model = DistillationModel;

    fn declaration(&self) -> Declaration {
        let EncoderConfig { channels, num_frames, height, width, .. } = self.0;
        let set = |name, role| ParameterSet { name, shapes: self.0.parameter_shapes(), role };
        Declaration {
            clip: [channels, num_frames, height, width],
            others: Vec::new(),
            inputs: Declaration::masked_clips(0),
            sets: vec![set("student", Role::Trained), set("teacher", Role::Fixed)],
            terms: Vec::new(),
            context_share: None,
            monitor: Monitor { gradient: "student", features: "student" },
            settings: Vec::new(),
        }
    }

    fn model(&self, device: &Device) -> Result<DistillationModel, ConfigError> {
        Ok(DistillationModel { student: Encoder::empty(&self.0, device)?, teacher: Encoder::empty(&self.0, device)? })
    }

    fn initial(&self, start: Start) -> NamedTensors {
        let set = |name: &'static str, seed| {
            let tensors = init::encoder(&self.0, start.init, seed).into_iter();
            tensors.map(move |(parameter, tensor)| (format!("{name}.{parameter}"), tensor))
        };
        set("student", start.seed).chain(set("teacher", start.seed + 1)).collect()
    }

    fn losses(&self, model: &DistillationModel, batch: &Batch) -> Result<Losses, ShapeError> {
        let [student, teacher] = [(&model.student, &batch.context), (&model.teacher, &batch.target)]
            .map(|(encoder, clips)| encoder.forward(clips.clone(), None));
        Ok(Losses { loss: (student? - teacher?.detach()).abs().mean(), terms: Vec::new() })
    }

    fn monitored(&self, model: &DistillationModel, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
        model.student.forward(clips, None)
    }

    fn decays(&self, name: &str, _: usize) -> bool {
        name.ends_with("fc1.weight")
    }
}

fn names<'a>(graph: &'a Graph, ids: impl IntoIterator<Item = &'a vjepa_compiler::ir::ValueId>) -> Vec<&'a str> {
    ids.into_iter().filter_map(|id| graph.source_name(*id)).collect()
}

#[test]
fn a_step_has_what_its_objective_declares_and_no_more() {
    let config = EncoderConfig { embed_dim: 32, depth: 1, num_heads: 2, patch: 8, ..EncoderConfig::tiny() };
    let objective: AnyObjective = Distillation(config.with_clip(4, 16, 16)).into();
    let graph = step(&objective, TrainOptions::default()).unwrap();
    assert_eq!(names(&graph, &graph.inputs), ["clip", "lr", "wd", "c1", "c2", "max_norm"]);
    let outputs: Vec<&str> = graph.outputs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(outputs, ["loss", "grad_norm.student"]);
    let updated = names(&graph, graph.updates.iter().map(|(param, _)| param));
    assert!(updated.contains(&"student.norm.bias") && updated.contains(&"adam.v.student.norm.bias"), "{updated:?}");
    assert!(!updated.iter().any(|name| name.contains("teacher") || name.ends_with("pos_embed")), "{updated:?}");
    // The optimiser alone updates the same parameters from gradients that are given.
    let alone = optimizer(&objective, TrainOptions::default()).unwrap();
    let mut others = names(&alone, alone.updates.iter().map(|(param, _)| param));
    let mut updated = updated;
    others.sort_unstable();
    updated.sort_unstable();
    assert_eq!(others, updated);
    // Of the diagnostics' graphs, one reads two sets of clips and the other nothing of the teacher.
    let apart = diagnose(&objective).unwrap();
    assert_eq!(names(&apart, &apart.inputs), ["clip_context", "clip_target"]);
    let monitored = monitored(&objective).unwrap();
    assert!(names(&monitored, &monitored.params).iter().all(|name| name.starts_with("student.")));
}

#[test]
fn a_budget_without_its_unit_is_asked_about() {
    let told = |budget| CompileError::Memory { budget, least: 5_000_001 }.to_string();
    assert_eq!(
        told(1),
        "the step needs 6 MB even with everything recomputed, more than the memory budget of 1 byte; did you mean 1GiB?"
    );
    assert!(told(800).ends_with("of 800 bytes; did you mean 800GiB?"));
    assert!(told(20_000).ends_with("of 20000 bytes: lower `data.batch_size` or raise --memory-budget"));
    assert!(told(4_000_000).ends_with("of 4 MB: lower `data.batch_size` or raise --memory-budget"));
}
