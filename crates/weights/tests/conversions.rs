//! Conversions: every number keeps its type and its bits, whichever way a checkpoint goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_weights::{self as weights, Element, Format, Options, Weights, convert};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

type Stored = BTreeMap<String, (Vec<usize>, Element, Vec<u8>)>;

/// Every tensor as it is stored, moments included.
fn stored(path: &Path) -> Stored {
    let (weights, _) = weights::load(path).unwrap().with_training().unwrap();
    let tensor =
        |name: &str| weights.bytes(name).map(|(shape, element, bytes)| (shape.to_vec(), element, bytes)).unwrap();
    weights.tensors().map(|(name, ..)| (name.to_owned(), tensor(name))).collect()
}

fn state(path: &Path) -> Option<weights::TrainingState> {
    weights::load(path).and_then(Weights::with_training).unwrap().1
}

#[test]
fn there_and_back_is_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["official.pth.tar", "legacy-f64.pt", "mixed-types.pt", "strides.pt", "zip-bf16.pt", "bf16.safetensors"]
    {
        let [first, second, third, fourth] = ["1.safetensors", "2.pth.tar", "3.safetensors", "4.pth.tar"]
            .map(|end| folder.path().join(format!("{name}-{end}")));
        let options = Options::default();
        let told = convert(&file(name), &first, Format::Safetensors, &options).unwrap();
        assert_eq!(told.training, name == "official.pth.tar");
        assert_eq!(convert(&first, &second, Format::PyTorch, &options).unwrap().tensors, told.tensors);
        convert(&second, &third, Format::Safetensors, &options).unwrap();
        convert(&third, &fourth, Format::PyTorch, &options).unwrap();
        let original = stored(&file(name));
        for path in [&first, &second, &third, &fourth] {
            assert!(stored(path) == original, "{} differs from {name}", path.display());
            assert_eq!(state(path), state(&file(name)), "{}", path.display());
        }
        assert_eq!(std::fs::read(&second).unwrap(), std::fs::read(&fourth).unwrap(), "{name}");
    }
}

#[test]
fn names_are_official_in_both_formats() {
    let folder = tempfile::tempdir().unwrap();
    let [plain, torch] = ["x.safetensors", "x.pt"].map(|name| folder.path().join(name));
    convert(&file("compiled-data-parallel.pt"), &plain, Format::Safetensors, &Options::default()).unwrap();
    let names: Vec<String> = weights::TensorFile::read(&plain).unwrap().names().map(str::to_owned).collect();
    assert!(names.contains(&"encoder.blocks.0.attn.qkv.weight".to_owned()), "{names:?}");
    convert(&plain, &torch, Format::PyTorch, &Options::default()).unwrap();
    let bytes = std::fs::read(&torch).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("module.backbone.blocks.0.attn.qkv.weight") && !holds("_orig_mod"));
}

/// A Python that has PyTorch: that of `VJEPA_TORCH_PYTHON`, else `python3`.
fn python_with_torch() -> Option<String> {
    let given = std::env::var("VJEPA_TORCH_PYTHON").ok();
    let has = |python: &String| {
        let output = std::process::Command::new(python).args(["-c", "import torch"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = given.clone().or(Some("python3".into())).filter(has);
    assert!(given.is_none() || found.is_some(), "VJEPA_TORCH_PYTHON has no PyTorch");
    found
}

/// What PyTorch itself says of a file that was written: read without any code in it, names, types, shapes and values.
#[test]
fn torch_loads_what_is_written_with_weights_only() {
    let Some(python) = python_with_torch() else {
        println!("skipped: there is no Python with PyTorch (VJEPA_TORCH_PYTHON)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for name in ["official.pth.tar", "mixed-types.pt"] {
        let (out, plain) = (folder.path().join("w.pth.tar"), folder.path().join("w.safetensors"));
        convert(&file(name), &out, Format::PyTorch, &Options::default()).unwrap();
        convert(&file(name), &plain, Format::Safetensors, &Options::default()).unwrap();
        let script = "import sys, json, torch
def tensors(value, path=''):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f'{path}/{key}')
    elif isinstance(value, (list, tuple)):
        for key, inner in enumerate(value):
            yield from tensors(inner, f'{path}/{key}')
loaded = torch.load(sys.argv[1], map_location='cpu', weights_only=True)
one = lambda t: [str(t.dtype)[6:], list(t.shape), t.to(torch.float64).sum().item() if t.numel() else 0.0]
print(json.dumps({'keys': sorted(loaded), 'tensors': {path: one(t) for path, t in tensors(loaded)}}))";
        let output = std::process::Command::new(&python).args(["-c", script]).arg(&out).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let read = said["tensors"].as_object().unwrap();
        let of_models = weights::load(&plain).unwrap();
        let sum_of = |name: &str| of_models.get(name).unwrap().1.iter().map(|value| f64::from(*value)).sum::<f64>();
        let (moments, models): (Vec<&str>, Vec<&str>) =
            of_models.tensors().map(|(name, ..)| name).partition(|name| name.starts_with("adam."));
        // The optimiser's state is numbered: its moments are compared as they come.
        for (own, theirs) in [("adam.m.", "/exp_avg"), ("adam.v.", "/exp_avg_sq")] {
            let mut own: Vec<f64> =
                moments.iter().filter(|name| name.starts_with(own)).map(|name| sum_of(name)).collect();
            let found = read.iter().filter(|(path, _)| path.ends_with(theirs));
            let mut theirs: Vec<f64> = found.map(|(_, tensor)| tensor[2].as_f64().unwrap()).collect();
            own.sort_by(f64::total_cmp);
            theirs.sort_by(f64::total_cmp);
            assert_eq!(own.len(), theirs.len(), "{name}");
            assert!(
                own.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(1e-6)),
                "{name}: {own:?}, {theirs:?}"
            );
        }
        for wanted in models {
            let (shape, _) = of_models.get(wanted).unwrap();
            // `encoder.x` lies under `encoder`, with the wrappers that official files have.
            let rest = wanted.split_once('.').map_or(wanted, |(_, rest)| rest);
            let model = wanted.split_once('.').map_or("", |(model, _)| model);
            let found = read.iter().find(|(path, _)| {
                path.starts_with(&format!("/{model}/"))
                    && (path.ends_with(&format!(".{rest}")) || path.ends_with(&format!("/{rest}")))
            });
            let (_, found) = found.unwrap_or_else(|| panic!("{name}: {wanted} is not in {:?}", read.keys().take(5)));
            assert_eq!(found[1], serde_json::json!(shape), "{name}: {wanted}");
            let sum = sum_of(wanted);
            assert!(
                (found[2].as_f64().unwrap() - sum).abs() <= 1e-9 * sum.abs().max(1.0),
                "{name}: {wanted}: {found} is not {sum}"
            );
        }
        if name == "official.pth.tar" {
            for key in ["encoder", "predictor", "target_encoder", "opt", "epoch"] {
                assert!(said["keys"].as_array().unwrap().contains(&key.into()), "{key}: {}", said["keys"]);
            }
        }
    }
}

#[test]
fn weights_only_leaves_the_optimiser_out() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { weights_only: true, ..Options::default() };
    for (name, format) in [("w.safetensors", Format::Safetensors), ("w.pt", Format::PyTorch)] {
        let out = folder.path().join(name);
        let told = convert(&file("official.pth.tar"), &out, format, &options).unwrap();
        assert_eq!((told.training, told.tensors.get("adam"), state(&out)), (false, None, None));
        assert!(!told.left_out.is_empty() && told.left_out.iter().all(|key| key.starts_with("opt.")));
        // From the converted file too.
        let whole = folder.path().join("whole.safetensors");
        convert(&file("official.pth.tar"), &whole, Format::Safetensors, &Options::default()).unwrap();
        let again = folder.path().join("again.safetensors");
        convert(&whole, &again, Format::Safetensors, &options).unwrap();
        assert_eq!(state(&again), None);
        assert_eq!(stored(&again), stored(&out));
    }
}

#[test]
fn what_a_format_cannot_say_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pt");
    let refused = |input: &Path, format| {
        let error = convert(input, &out, format, &Options::default()).unwrap_err().to_string();
        assert!(!out.exists() && error.contains(&input.display().to_string()), "{error}");
        error
    };
    assert!(refused(&file("refused-other-model.pt"), Format::PyTorch).contains("holds no model"));
    assert!(refused(&file("refused-float8.pt"), Format::Safetensors).contains("float8_e4m3fn"));
    assert!(refused(&file("refused-sgd.pth.tar"), Format::Safetensors).contains("is not AdamW"));
    // Moments without the record of a run.
    let one = (vec![1], vec![1.0f32]);
    let tensors = BTreeMap::from([("encoder.norm.bias", one.clone()), ("adam.m.encoder.norm.bias", one.clone())]);
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    let moments = folder.path().join("moments.safetensors");
    weights::save_safetensors(&moments, &tensors, &BTreeMap::new()).unwrap();
    assert!(refused(&moments, Format::PyTorch).contains("--weights-only"));
}
