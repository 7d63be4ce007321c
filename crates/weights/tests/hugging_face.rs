//! Folders of V-JEPA 2 in Hugging Face's format: read, written, and refused.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{folders, stored};
use vjepa_recipe::config::{Framing, Generation, Normalization};
use vjepa_weights::{self as weights, Options, Target, TensorFile, convert};

const FILES: [&str; 3] = ["config.json", "model.safetensors", "video_preprocessor_config.json"];

/// `model` and `classifier` of every folder.
fn written() -> Vec<PathBuf> {
    folders("vjepa2_hf").into_iter().flat_map(|folder| ["model", "classifier"].map(|name| folder.join(name))).collect()
}

/// Shapes, types and bytes by name, as they stand in a safetensors file.
fn raw(path: &Path) -> BTreeMap<String, (Vec<usize>, String, Vec<u8>)> {
    let file = TensorFile::read(path).unwrap();
    let tensor = |name: &str| {
        let (shape, bytes) = (file.shape(name).unwrap().to_vec(), file.bytes(name).unwrap().to_vec());
        (name.to_owned(), (shape, format!("{:?}", file.dtype(name).unwrap()), bytes))
    };
    file.names().map(tensor).collect()
}

/// Numbers as floats, so that `4` and `4.0` are one.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(values) => values.iter().map(numbers).collect(),
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), numbers(value))).collect(),
        other => other.clone(),
    }
}

/// What a command must not write over that reads a checkpoint.
#[test]
fn a_checkpoint_is_all_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    copied(written().first().unwrap(), folder);
    let files = weights::files_of(folder);
    assert!(
        FILES.iter().all(|name| files.contains(&folder.join(name))) && files.contains(&folder.to_owned()),
        "{files:?}"
    );
    let written = Target::HuggingFace.files(folder);
    assert!(
        written.len() == FILES.len() && FILES.iter().all(|name| written.contains(&folder.join(name))),
        "{written:?}"
    );
    assert_eq!(Target::Official.files(folder), [folder.to_owned()]);
    // What cannot be read is itself.
    let gone = folder.join("gone.pt");
    assert!(weights::files_of(&gone).iter().all(|file| *file == gone));
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in FILES {
        std::fs::write(to.join(name), std::fs::read(from.join(name)).unwrap()).unwrap();
    }
}

fn edited(folder: &Path, name: &str, edit: impl Fn(&mut Value)) {
    let path = folder.join(name);
    let mut value = support::json(&path);
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn a_folder_is_read_with_its_configuration_obeyed() {
    for folder in written() {
        let config = support::json(&folder.join("config.json"));
        let size = |key: &str| config[key].as_u64().unwrap() as usize;
        let taken = weights::load(&folder).unwrap().take_model(None).unwrap();
        let (about, encoder) = (&taken.about, taken.about.encoder.as_ref().unwrap());
        assert_eq!((about.generation, encoder.embed_dim), (Generation::V2, size("hidden_size")));
        assert_eq!(encoder.num_heads, Some(size("num_attention_heads")));
        assert_eq!(Some(encoder.layer_norm_eps), config["layer_norm_eps"].as_f64());
        let predictor = about.predictor.as_ref().unwrap();
        assert_eq!(predictor.num_heads, Some(size("pred_num_attention_heads")));
        assert_eq!(predictor.mask_tokens, size("pred_num_mask_tokens"));
        let clip = about.preprocessing.as_ref().unwrap();
        assert_eq!((clip.num_frames, clip.crop_size), (size("frames_per_clip"), size("crop_size")));
        assert_eq!(&about.config().unwrap().preprocessing(), clip);
        assert_eq!((clip.normalization, clip.framing), (Normalization::Imagenet, Framing::Centre));
        // Rows of joined tensors, and tensors of stacked ones, are the file's own values.
        let file = TensorFile::read(folder.join("model.safetensors")).unwrap();
        let before = if taken.about.probe.is_some() { "vjepa2." } else { "" };
        let theirs = |name: &str| file.f32(&format!("{before}{name}")).unwrap();
        let qkv = &taken.encoder["encoder.blocks.1.attn.qkv.weight"].1;
        let parts = ["query", "key", "value"].map(|part| theirs(&format!("encoder.layer.1.attention.{part}.weight")));
        assert_eq!(qkv, &parts.concat());
        let tokens = theirs("predictor.embeddings.mask_tokens");
        let width = predictor.embed_dim;
        assert_eq!(taken.predictor["predictor.mask_tokens.3"].1, tokens[3 * width..4 * width]);
        if let Some(probe) = &about.probe {
            // Hugging Face's epsilon, not the official one, and the encoder's heads.
            assert_eq!((probe.layer_norm_eps, probe.num_heads), (encoder.layer_norm_eps, encoder.num_heads));
            let label = |number: usize| config["id2label"][number.to_string()].as_str().unwrap().to_owned();
            assert_eq!(probe.labels, (0..probe.labels.len()).map(label).collect::<Vec<_>>());
            let kv = &taken.probe["probe.pooler.cross_attention_block.xattn.kv.weight"].1;
            let part =
                |part: &str| file.f32(&format!("pooler.cross_attention_layer.cross_attn.{part}_proj.weight")).unwrap();
            assert_eq!(kv, &[part("k"), part("v")].concat());
        }
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    let scratch = tempfile::tempdir().unwrap();
    for (number, folder) in written().into_iter().enumerate() {
        let [plain, out, official] =
            ["safetensors", "hf", "pt"].map(|end| scratch.path().join(format!("{number}.{end}")));
        convert(&folder, &plain, Target::Safetensors, &Options::default()).unwrap();
        let told = convert(&plain, &out, Target::HuggingFace, &Options::default()).unwrap();
        assert!(told.left_out.is_empty(), "{told:?}");
        // Names, shapes, types and every bit of the tensors; every key of the JSON files but the writer's version.
        assert!(raw(&out.join("model.safetensors")) == raw(&folder.join("model.safetensors")), "{}", folder.display());
        for name in ["config.json", "video_preprocessor_config.json"] {
            let mut wanted = support::json(&folder.join(name));
            wanted.as_object_mut().unwrap().remove("transformers_version");
            assert_eq!(numbers(&support::json(&out.join(name))), numbers(&wanted), "{}", folder.display());
        }
        // Reading it back, and going through a PyTorch file.
        assert!(stored(&out) == stored(&folder) && stored(&plain) == stored(&folder));
        let about = |path: &Path| weights::load(path).unwrap().model_file(None).unwrap().unwrap();
        assert_eq!(about(&out), about(&folder));
        assert_eq!(about(&plain), about(&folder));
        convert(&out, &official, Target::Official, &Options::default()).unwrap();
        assert!(stored(&official) == stored(&folder), "{}", folder.display());
    }
}

#[test]
fn shards_are_read_through_their_index_and_a_missing_one_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = written().remove(0);
    let whole = scratch.path().join("whole");
    copied(&folder, &whole);
    let file = TensorFile::read(whole.join("model.safetensors")).unwrap();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let mut map = serde_json::Map::new();
    for (number, part) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", number + 1);
        let tensors: weights::Tensors = part
            .iter()
            .map(|name| (name.clone(), (file.shape(name).unwrap().to_vec(), file.f32(name).unwrap())))
            .collect();
        weights::save_safetensors(&whole.join(&name), &tensors, &BTreeMap::new()).unwrap();
        part.iter().for_each(|tensor| drop(map.insert(tensor.clone(), json!(name))));
    }
    drop(file);
    std::fs::remove_file(whole.join("model.safetensors")).unwrap();
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    std::fs::write(whole.join("model.safetensors.index.json"), index).unwrap();
    assert!(stored(&whole) == stored(&folder));
    weights::load(&whole).unwrap().take_model(None).unwrap();
    std::fs::remove_file(whole.join("model-00002-of-00002.safetensors")).unwrap();
    let error = weights::load(&whole).err().unwrap().to_string();
    assert!(
        error.contains("its part model-00002-of-00002.safetensors of V-JEPA 2 (48 wide, 2 blocks) is missing"),
        "{error}"
    );
    std::fs::remove_file(whole.join("model.safetensors.index.json")).unwrap();
    let error = weights::load(&whole).err().unwrap().to_string();
    assert!(error.contains("of V-JEPA 2 (48 wide, 2 blocks) holds no model.safetensors"), "{error}");
}

#[test]
fn a_changed_configuration_is_refused_and_old_keys_are_not() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = written().remove(1);
    let told = |name: &str, edit: &dyn Fn(&mut Value)| {
        let changed = scratch.path().join("changed");
        copied(&folder, &changed);
        edited(&changed, name, edit);
        let taken = weights::load(&changed).and_then(|weights| weights.take_model(None));
        taken.err().map_or_else(String::new, |error| error.to_string())
    };
    let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value.clone();
    let named = "V-JEPA 2 encoder (48 wide, 2 blocks)";
    for (key, value, why) in [
        ("hidden_size", json!(64), "`hidden_size` 64, its tensors 48"),
        ("num_hidden_layers", json!(3), "`num_hidden_layers` 3, its tensors 2"),
        ("mlp_ratio", json!(3.0), "mlp_ratio"),
        ("patch_size", json!(8), "patch_size"),
        ("tubelet_size", json!(4), "tubelet_size"),
        ("pred_num_mask_tokens", json!(2), "pred_num_mask_tokens"),
        ("pred_hidden_size", json!(16), "pred_hidden_size"),
        ("num_pooler_layers", json!(1), "num_pooler_layers"),
        ("num_attention_heads", json!(5), "48 wide, which 5 attention heads do not divide"),
        ("pred_num_attention_heads", json!(5), "32 wide, which 5 attention heads do not divide"),
        ("id2label", json!({"0": "a"}), "id2label"),
        ("qkv_bias", json!(false), "says `qkv_bias` false"),
    ] {
        let error = told("config.json", &set(key, value));
        assert!(error.contains(named) && error.contains(why), "{key}: {error}");
    }
    for (key, value) in [("hidden_act", json!("relu")), ("layer_norm_eps", json!(0.0)), ("hidden_size", json!("wide"))]
    {
        let error = told("config.json", &set(key, value));
        assert!(error.contains("of V-JEPA 2 in Hugging Face's format holds a config.json that"), "{key}: {error}");
    }
    let error = told("video_preprocessor_config.json", &set("do_normalize", json!(false)));
    assert!(error.contains("video_preprocessor_config.json that has `do_normalize: false`"), "{error}");
    // Keys that other versions write.
    let older = |config: &mut Value| {
        config["torch_dtype"] = config["dtype"].take();
        config.as_object_mut().unwrap().remove("dtype");
        config["use_SiLU"] = json!(false);
        config["num_channels"] = json!(3);
    };
    assert_eq!(told("config.json", &older), "");
}

#[test]
fn a_folder_of_its_tensors_is_told_what_is_wrong_with_its_configuration() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = written().remove(0);
    let told = |text: Option<&str>| {
        let changed = scratch.path().join("changed");
        copied(&folder, &changed);
        match text {
            Some(text) => std::fs::write(changed.join("config.json"), text).unwrap(),
            None => std::fs::remove_file(changed.join("config.json")).unwrap(),
        }
        assert!(weights::is_hugging_face(&changed));
        weights::load(&changed).err().unwrap().to_string()
    };
    for (text, why) in [
        (None, "holds no config.json;"),
        (Some("not JSON at all"), "holds a config.json that cannot be read: expected ident"),
        (Some("{}"), "holds a config.json that has no `model_type`;"),
        (Some(r#"{"model_type": "videomae"}"#), "holds a config.json that has `model_type: videomae`, not `vjepa2`;"),
    ] {
        let error = told(text);
        assert!(error.contains(&format!("changed of V-JEPA 2 in Hugging Face's format {why}")), "{error}");
    }
    // A folder of other tensors is an ordinary one.
    let other = scratch.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    let tensors = weights::Tensors::from([("layer.weight".to_owned(), (vec![1], vec![0.0]))]);
    weights::save_safetensors(&other.join("model.safetensors"), &tensors, &Default::default()).unwrap();
    let error = weights::load(&other).err().unwrap().to_string();
    assert!(error.contains("a folder; give the weights in it, model.safetensors"), "{error}");
}

#[test]
fn tensors_alone_are_told_but_not_taken() {
    let scratch = tempfile::tempdir().unwrap();
    let alone = scratch.path().join("model.safetensors");
    std::fs::copy(written()[0].join("model.safetensors"), &alone).unwrap();
    let loaded = weights::load(&alone).unwrap();
    assert_eq!(
        loaded.later_generation().as_deref(),
        Some("V-JEPA 2 encoder (48 wide, 2 blocks) in Hugging Face's format")
    );
    let error = loaded.take_model(None).unwrap_err().to_string();
    assert!(error.contains("config.json is not beside it"), "{error}");
}

#[test]
fn what_transformers_has_no_model_for_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let hub = folders("vjepa2_hub").remove(0);
    for (file, why) in [
        ("vjepa2_1_tiny_G.pt", "knows V-JEPA 2 only"),
        ("vjepa2_tiny.pt", "give --config"),
        ("probe_tiny.pt", "have both encoder and predictor"),
    ] {
        let error = convert(&hub.join(file), &out, Target::HuggingFace, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(why) && !out.exists(), "{file}: {error}");
    }
}
