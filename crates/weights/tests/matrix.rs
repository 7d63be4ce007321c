//! The checkpoint matrix: the same weights by every writer people use, each read right or refused by name.
//!
//! `checkpoints/make.py` made the files with PyTorch and safetensors, and says how.

use std::path::{Path, PathBuf};

use vjepa_weights::{self as weights, Element, TensorFile, Weights, WeightsError};

/// Names and shapes of the encoder, in the order in which `make.py` numbers them.
const ENCODER: [(&str, &[usize]); 9] = [
    ("pos_embed", &[1, 4, 6]),
    ("patch_embed.proj.weight", &[6, 3, 2, 2, 2]),
    ("patch_embed.proj.bias", &[6]),
    ("blocks.0.norm1.weight", &[6]),
    ("blocks.0.norm1.bias", &[6]),
    ("blocks.0.attn.qkv.weight", &[18, 6]),
    ("blocks.0.attn.qkv.bias", &[18]),
    ("norm.weight", &[6]),
    ("norm.bias", &[6]),
];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

/// The values that `make.py` gives a tensor.
fn values(shape: &[usize], seed: usize) -> Vec<f32> {
    let count = shape.iter().product::<usize>();
    (0..count).map(|i| ((i * 37 + seed * 11) % 251) as f32).map(|value| (value - 125.0) / 64.0).collect()
}

/// The encoder of a file has the names, shapes and values of the script, bit for bit, under `model`.
fn assert_encoder(weights: &Weights, model: &str, name: &str) {
    let shapes = ENCODER.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    let tensors = weights.take(model, "encoder", shapes).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(tensors.len(), ENCODER.len(), "{name}");
    for (seed, (parameter, shape)) in ENCODER.iter().enumerate() {
        let (found, data) = &tensors[&format!("encoder.{parameter}")];
        assert_eq!((found.as_slice(), data), (*shape, &values(shape, seed)), "{name}: {parameter}");
    }
}

#[test]
fn every_writer_is_read_bit_for_bit() {
    for name in [
        "zip-f32.pth.tar",
        "zip-f16.pt",
        "zip-bf16.pt",
        "zip-f64.pt",
        "legacy-f32.pth.tar",
        "legacy-f16.pt",
        "legacy-bf16.pt",
        "legacy-f64.pt",
        "mixed-types.pt",
        "protocol-3.pt",
        "protocol-4.pt",
        "protocol-5.pt",
        "protocol-4-legacy.pt",
        "no-checksums.pt",
        "shared-storage.pt",
        "shared-storage-legacy.pt",
        "same-tensors-twice.pt",
        "strides.pt",
        "parameters.pt",
        "extra-keys.pt",
        "plain.safetensors",
        "bf16.safetensors",
        "model.safetensors.index.json",
        "official.pth.tar",
    ] {
        let loaded = weights::load(&file(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_encoder(&loaded, "target_encoder", name);
    }
    for name in [
        "bare.pt",
        "module.pt",
        "data-parallel.pt",
        "compiled.pt",
        "compiled-data-parallel.pt",
        "lightning.ckpt",
        "fsdp-full.pt",
        "same-tensors-twice.pt",
        "mixed.safetensors",
        "pytorch_model.bin.index.json",
    ] {
        let loaded = weights::load(&file(name)).unwrap_or_else(|error| panic!("{error}"));
        assert_encoder(&loaded, "encoder", name);
    }
}

#[test]
fn types_are_kept_until_they_are_asked_for() {
    let types = |name: &str| {
        let mut found: Vec<Element> =
            weights::load(&file(name)).unwrap().tensors().map(|(.., element)| element).collect();
        found.sort_by_key(|element| element.name());
        found.dedup();
        found
    };
    assert_eq!(types("zip-bf16.pt"), [Element::Bf16]);
    assert_eq!(types("legacy-f64.pt"), [Element::F64]);
    assert_eq!(types("mixed-types.pt"), [Element::Bf16, Element::F16, Element::F32, Element::F64]);
}

#[test]
fn keys_of_no_model_are_named() {
    let loaded = weights::load(&file("extra-keys.pt")).unwrap();
    let others: Vec<&str> = loaded.keys_of_no_model().collect();
    assert_eq!(others, ["ema.shadow.head.weight", "rng"]);
    assert_eq!(loaded.models(), ["target_encoder"]);
}

/// What is refused, wherever that is said: on opening, on taking the encoder, or on asking for the training state.
fn refusal(name: &str) -> String {
    let path = file(name);
    let taken = weights::load(&path).and_then(|loaded| {
        let (loaded, _) = loaded.with_training()?;
        let model = loaded.encoder()?;
        let shapes = ENCODER.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        loaded.take(model, "encoder", shapes)
    });
    let error: WeightsError = taken.err().unwrap_or_else(|| panic!("{name} was read"));
    let message = error.to_string();
    assert!(message.contains(name) && message.len() < 1000, "{message}");
    message
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    for (name, why) in [
        ("refused-fsdp-flat.pt", "flattened by FSDP (`_flat_param`)"),
        ("refused-fsdp-sharded.pt", "FULL_STATE_DICT"),
        ("refused-sharded-folder", "dcp_to_torch"),
        ("refused-torchscript.pt", "TorchScript"),
        ("refused-export.pt2", "torch.export"),
        ("refused-compressed.pt", "compressed after saving"),
        ("refused-quantised.pt", "is quantised"),
        ("refused-float8.pt", "float8_e4m3fn"),
        ("refused-float8.safetensors", "F8_E4M3"),
        ("refused-int8.pt", "int8"),
        ("refused-complex.pt", "complex64"),
        ("refused-sparse.pt", "is sparse"),
        ("refused-meta.pt", "on the meta device"),
        ("refused-other-model.pt", "tensors of other models (bias, weight)"),
        ("refused-pickle.pt", "holds no"),
        ("refused-amsgrad.pth.tar", "amsgrad"),
        ("refused-sgd.pth.tar", "is not AdamW"),
        ("refused-regrouped.pth.tar", "group 0 of its optimiser has 2 parameters"),
        ("model-00001-of-00002.safetensors", "give their index"),
    ] {
        let message = refusal(name);
        assert!(message.contains(why), "{name}: {message}");
    }
}

#[test]
fn an_official_checkpoint_is_read_whole() {
    let (loaded, state) = weights::load(&file("official.pth.tar")).unwrap().with_training().unwrap();
    let state = state.expect("it has an optimiser");
    // PyTorch's own naming of the moments: by the parameters themselves, not by their numbers.
    let expected = TensorFile::read(file("official.expected.safetensors")).unwrap();
    let mut compared = 0;
    for name in expected.names() {
        let (shape, data) = loaded.get(name).unwrap();
        assert_eq!((shape.as_slice(), data), (expected.shape(name).unwrap(), expected.f32(name).unwrap()), "{name}");
        compared += 1;
    }
    // 13 trained parameters with two moments each; nothing else has a moment.
    assert_eq!(compared, 3 * 13);
    assert_eq!(loaded.tensors().filter(|(name, ..)| name.starts_with("adam.")).count(), 2 * 13);
    assert_eq!((state.epoch(), state.updates, state.batch_size()), (Some(3), Some(3), Some(48)));
    assert_eq!((state.loss(), state.lr()), (Some(0.731_632_232_666_015_6), Some(0.000_625)));
    assert_eq!(state.groups.len(), 4);
    let excluded: Vec<bool> = state.groups.iter().map(|group| group.get("WD_exclude").is_some()).collect();
    assert_eq!(excluded, [false, false, true, true]);
    let scale = state.other("scaler").and_then(|scaler| scaler.get("scale")).and_then(weights::Plain::number);
    assert_eq!(scale, Some(65536.0));
    // Weights alone have no training state.
    assert!(weights::load(&file("zip-f32.pth.tar")).unwrap().with_training().unwrap().1.is_none());
    assert!(weights::load(&file("plain.safetensors")).unwrap().with_training().unwrap().1.is_none());
}
