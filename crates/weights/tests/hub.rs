//! Released files of V-JEPA 2 and 2.1: which model each holds, which entry is taken, and what is refused.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{folders, json, model, shapes, stored};
use vjepa_recipe::config::{Config, Generation, ModelConfig};
use vjepa_weights::{self as weights, Format, MODEL_KEY, Options, Target, WeightsError, convert};

/// A folder's file, and what its `config.json` says of it.
struct File {
    path: PathBuf,
    about: Value,
    config: Value,
}

impl File {
    /// Names and shapes of an entry, without wrappers.
    fn expected(&self, entry: &str) -> BTreeMap<String, Vec<usize>> {
        let ignored: Vec<&str> = match self.about.get("ignored") {
            Some(ignored) => ignored.as_array().unwrap().iter().filter_map(Value::as_str).collect(),
            None => Vec::new(),
        };
        let kept = |(name, shape): (String, Vec<usize>)| {
            let inner = name.replace("module.", "").replace("backbone.", "");
            (!ignored.contains(&name.as_str())).then_some((inner, shape))
        };
        shapes(&self.about[entry]).into_iter().filter_map(kept).collect()
    }

    fn size(&self, key: &str) -> u64 {
        self.config[key].as_u64().unwrap()
    }

    /// The sizes that the folder says, for the generation.
    fn model(&self, generation: Generation) -> ModelConfig {
        let keys = match generation {
            Generation::V21 => ["d21", "depth21", "h21"],
            Generation::V1 | Generation::V2 => ["dim", "depth", "heads"],
        };
        model(generation, keys.map(|key| self.size(key)), self.size("pred_heads"))
    }
}

fn files(name: &str) -> Vec<File> {
    let file = |folder: PathBuf| {
        let all = json(&folder.join("config.json"));
        File { path: folder.join(name), about: all["files"][name].clone(), config: all["config"].clone() }
    };
    folders("vjepa2_hub").into_iter().map(file).collect()
}

/// Shapes of tensors under `model`, without it.
fn shapes_of(tensors: &weights::Tensors, model: &str) -> BTreeMap<String, Vec<usize>> {
    let inner = |name: &String| name.strip_prefix(model).and_then(|name| name.strip_prefix('.')).unwrap().to_owned();
    tensors.iter().map(|(name, (shape, _))| (inner(name), shape.clone())).collect()
}

#[test]
fn each_released_file_is_told_and_taken_whole() {
    for (name, generation, entry, said) in [
        ("vjepa2_tiny.pt", Generation::V2, "target_encoder", "V-JEPA 2 encoder"),
        ("vjepa2_1_tiny_G.pt", Generation::V21, "target_encoder", "V-JEPA 2.1 encoder"),
        ("vjepa2_1_tiny_distilled.pt", Generation::V21, "ema_encoder", "V-JEPA 2.1 encoder"),
    ] {
        for file in files(name) {
            let loaded = weights::load(&file.path).unwrap();
            let taken = loaded.take_model(Some(&file.model(generation))).unwrap();
            let about = &taken.about;
            assert_eq!((about.generation, about.entry), (generation, entry), "{name}");
            assert!(about.name().starts_with(said), "{}", about.name());
            assert_eq!(shapes_of(&taken.encoder, "encoder"), file.expected("encoder"), "{name}");
            assert_eq!(shapes_of(&taken.predictor, "predictor"), file.expected("predictor"), "{name}");
            // Values are those of the entry, not of the encoder in training beside it.
            let (_, values) = loaded.get(&format!("{entry}.patch_embed.proj.bias")).unwrap();
            assert_eq!(taken.encoder["encoder.patch_embed.proj.bias"].1, values);
            let (_, other) = loaded.get("encoder.patch_embed.proj.bias").unwrap();
            assert_ne!(other, values, "{name}");
            let predictor = about.predictor.as_ref().unwrap();
            let levels = file.about.get("levels").map_or(1, |levels| levels.as_u64().unwrap() as usize);
            assert_eq!(predictor.levels, levels);
            let heads = about.encoder.as_ref().unwrap().sizes().unwrap().num_heads as u64;
            assert_eq!(heads, file.size(if generation == Generation::V21 { "h21" } else { "heads" }));
            assert!(about.ignored.contains(&"encoder".to_owned()), "{:?}", about.ignored);
            // The configuration that builds it.
            let config = about.config().unwrap();
            let own = config.model.predictor_sizes().unwrap();
            assert_eq!((own.embed_dim, own.num_heads as u64), (predictor.embed_dim, file.size("pred_heads")));
            assert_eq!(config.model.sizes().unwrap(), about.encoder.as_ref().unwrap().sizes().unwrap());
            assert_eq!(config.model.encoder_levels().unwrap().len(), if generation == Generation::V21 { 4 } else { 0 });
            let teacher =
                file.about.get("levels").filter(|levels| **levels == 1).map(|_| file.size("teacher") as usize);
            assert_eq!(config.model.teacher_embed_dim, teacher, "{name}");
            let tables = about.ignored.iter().filter(|name| name.ends_with("pos_embed")).count();
            assert_eq!(tables, if generation == Generation::V2 { 3 } else { 0 }, "{:?}", about.ignored);
        }
    }
}

#[test]
fn the_first_of_a_list_of_probes_is_taken() {
    for file in files("probe_tiny.pt") {
        let loaded = weights::load(&file.path).unwrap();
        let taken = loaded.take_model(None).unwrap();
        assert_eq!(shapes_of(&taken.probe, "probe"), file.expected("classifiers0"));
        let probe = taken.about.probe.as_ref().unwrap();
        assert_eq!((probe.blocks, probe.queries, probe.layer_norm_eps), (Some(3), 1, 1e-5));
        assert_eq!(probe.heads, [("linear".to_owned(), file.size("classes") as usize)]);
        assert_eq!(taken.about.generation, Generation::V2);
        assert!(taken.encoder.is_empty() && taken.predictor.is_empty());
        // Released probes have 16 heads, of which this width has no multiple.
        assert_eq!(probe.num_heads, None);
    }
}

/// A safetensors file of the released model's tensors, changed by `change`.
fn changed(folder: &Path, name: &str, change: impl Fn(&mut weights::Tensors)) -> PathBuf {
    let file = files(name).remove(0);
    let mut tensors = weights::load(&file.path).unwrap().all().unwrap();
    tensors.retain(|name, _| !name.starts_with("encoder."));
    change(&mut tensors);
    let out = folder.join("changed.safetensors");
    weights::save_safetensors(&out, &tensors, &BTreeMap::new()).unwrap();
    out
}

#[test]
fn everything_else_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let name = "vjepa2_1_tiny_G.pt";
    let one = (vec![1], vec![0.0]);
    let refused = |change: &dyn Fn(&mut weights::Tensors)| {
        let path = changed(folder.path(), name, change);
        weights::load(&path).unwrap().take_model(None).unwrap_err().to_string()
    };
    for (what, told) in [
        (
            refused(&|all| drop(all.insert("target_encoder.extra".to_owned(), one.clone()))),
            "unexpected: target_encoder.extra",
        ),
        (refused(&|all| drop(all.insert("predictor.extra".to_owned(), one.clone()))), "unexpected: predictor.extra"),
        (refused(&|all| drop(all.insert("other.model".to_owned(), one.clone()))), "unexpected: other.model"),
        (refused(&|all| drop(all.remove("target_encoder.video_mod_embed"))), "missing: target_encoder.video_mod_embed"),
        (
            refused(&|all| drop(all.remove("target_encoder.patch_embed_img.proj.bias"))),
            "missing: target_encoder.patch_embed_img",
        ),
        (
            refused(&|all| drop(all.insert("predictor.predictor_proj_context.bias".to_owned(), one.clone()))),
            "predictor_proj_context.bias must be",
        ),
    ] {
        assert!(what.contains(told), "{what}");
    }
}

#[test]
fn a_configuration_of_another_generation_is_refused_with_the_files_name() {
    for (name, held, wanted, word) in [
        ("vjepa2_tiny.pt", Generation::V2, Generation::V21, "V-JEPA 2 encoder (24 wide, 2 blocks)"),
        ("vjepa2_1_tiny_G.pt", Generation::V21, Generation::V2, "V-JEPA 2.1 encoder (16 wide, 12 blocks)"),
        ("vjepa2_1_tiny_distilled.pt", Generation::V21, Generation::V1, "V-JEPA 2.1 encoder"),
    ] {
        let file = files(name).remove(0);
        let error = weights::load(&file.path).unwrap().take_model(Some(&file.model(wanted))).unwrap_err();
        assert!(matches!(error, WeightsError::Generation { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(word) && error.contains(&format!("model.generation: {}", held.name())), "{error}");
    }
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    let file = files("vjepa2_tiny.pt").remove(0);
    let odd = ModelConfig { num_heads: Some(5), ..file.model(Generation::V2) };
    let error = weights::load(&file.path).unwrap().take_model(Some(&odd)).unwrap_err().to_string();
    assert!(error.contains("V-JEPA 2 encoder (24 wide") && error.contains("which 5 attention heads do not"), "{error}");
}

#[test]
fn a_probe_of_another_width_is_refused() {
    let probe = weights::load(&files("probe_tiny.pt").remove(0).path).unwrap();
    let other = files("vjepa2_1_tiny_G.pt").remove(0);
    let encoder = weights::load(&other.path).unwrap().model_file(None).unwrap().unwrap();
    let error = probe.refuse_probe_for(24, &encoder.name(), 16).unwrap_err().to_string();
    assert!(error.contains("for features 24 wide") && error.contains("V-JEPA 2.1 encoder (16 wide"), "{error}");
    probe.refuse_probe_for(24, "V-JEPA 2 encoder (24 wide, 3 blocks)", 24).unwrap();
}

/// Names and shapes in the order of a PyTorch file, by the model's key.
fn inside(stored: &BTreeMap<String, (Vec<usize>, weights::Element, Vec<u8>)>, model: &str) -> usize {
    stored.keys().filter(|name| name.starts_with(&format!("{model}."))).count()
}

#[test]
fn conversions_keep_every_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (name, generation) in [
        ("vjepa2_tiny.pt", Generation::V2),
        ("vjepa2_1_tiny_G.pt", Generation::V21),
        ("vjepa2_1_tiny_distilled.pt", Generation::V21),
    ] {
        for file in files(name) {
            let config = Config { model: file.model(generation), ..Config::default() };
            let options = Options { config: Some(config), ..Options::default() };
            let [plain, official, hub] =
                ["a.safetensors", "b.pt", "c.pt"].map(|end| folder.path().join(format!("{name}-{end}")));
            let told = convert(&file.path, &plain, Target::Safetensors, &options).unwrap();
            assert!(told.training, "{name}");
            let original = stored(&file.path);
            assert!(stored(&plain).iter().filter(|(name, _)| !name.starts_with("adam.")).eq(original.iter()), "{name}");
            // What the file now says of itself is obeyed.
            let again = weights::load(&plain).unwrap();
            assert!(again.metadata().contains_key(MODEL_KEY));
            let about = again.model_file(None).unwrap().unwrap();
            assert_eq!(about.encoder.unwrap().num_heads, options.config.as_ref().unwrap().model.num_heads);
            convert(&plain, &official, Format::PyTorch, &Options::default()).unwrap();
            assert!(stored(&official) == original, "{name}");
            let back = weights::load(&official).unwrap().with_training().unwrap().1;
            assert_eq!(back, weights::load(&file.path).unwrap().with_training().unwrap().1, "{name}");
            // The hub's file has weights alone, under the entries that loaders ask for.
            let told = convert(&plain, &hub, Target::Hub, &Options::default()).unwrap();
            let held = stored(&hub);
            let entry = again.encoder().unwrap();
            assert!(!told.training && told.tensors.contains_key(entry), "{told:?}");
            for (name, tensor) in original.iter().filter(|(name, _)| name.starts_with(entry)) {
                assert!(held.get(name) == Some(tensor), "{name}");
            }
            let other = if generation == Generation::V2 { inside(&original, "target_encoder") } else { 0 };
            assert_eq!(inside(&held, "encoder"), other, "{name}");
            assert_eq!(inside(&held, "predictor"), inside(&original, "predictor"), "{name}");
            weights::load(&hub).unwrap().take_model(None).unwrap();
            // From the released file itself, what is left out is named by its key.
            let told = convert(&file.path, &hub, Target::Hub, &Options::default()).unwrap();
            assert!(told.left_out.len() < 6 && told.left_out.contains(&"encoder".to_owned()), "{:?}", told.left_out);
        }
    }
}

#[test]
fn action_conditioned_files_are_told_and_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = files("vjepa2_tiny.pt").remove(0);
    let mut about = weights::load(&file.path).unwrap().model_file(None).unwrap().unwrap();
    about.encoder.as_mut().unwrap().depth = 40;
    let predictor = about.predictor.as_mut().unwrap();
    (predictor.action_conditioned, predictor.mask_tokens, predictor.depth) = (true, 0, 24);
    let mut tensors = weights::Tensors::new();
    for (part, parameters) in about.parameters() {
        for (name, shape) in parameters {
            let values = vec![0.5; shape.iter().product()];
            tensors.insert(format!("{part}.{name}"), (shape, values));
        }
    }
    for name in ["action_encoder.weight", "state_encoder.bias", "extrinsics_encoder.weight"] {
        assert!(tensors.contains_key(&format!("predictor.{name}")));
    }
    let held = tensors.len();
    // Released files have a table that is not used.
    tensors.insert("encoder.pos_embed".to_owned(), (vec![1, 64, 24], vec![0.0; 64 * 24]));
    let path = folder.path().join("ac.safetensors");
    weights::save_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let loaded = weights::load(&path).unwrap();
    let taken = loaded.take_model(None).unwrap();
    assert_eq!(taken.encoder.len() + taken.predictor.len(), held);
    assert!(taken.about.name().starts_with("V-JEPA 2-AC encoder (24 wide, 40 blocks)"), "{}", taken.about.name());
    assert_eq!(loaded.later_generation(), Some(taken.about.name()));
}
