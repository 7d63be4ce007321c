//! Checkpoints as people have them: other layouts, other objects, other wrappers, other files altogether. Damage is tested
//! in `checkpoints_damaged.rs`.

mod others;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::pytorch::{self, Value};
use support::{TINY, assert_official_features, refused, tiny, vjepa, write};
use vjepa_weights as weights;
use vjepa_weights::{Tensors, save_safetensors};

/// Parameters of the golden encoder by their own names: `blocks.0.norm1.weight`.
fn encoder() -> Tensors {
    let all = weights::load(&tiny("weights.safetensors")).unwrap().all().unwrap();
    all.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix("encoder.")?.to_owned(), tensor))).collect()
}

/// The golden encoder as an entry of an official checkpoint, with a change to its values.
fn target(change: impl Fn(&str, Value) -> Value) -> (String, Value) {
    let entries = pytorch::state_dict(&encoder()).into_iter();
    let entries = entries.map(|(name, value)| (format!("module.backbone.{name}"), change(&name, value))).collect();
    ("target_encoder".to_owned(), Value::Dict(entries))
}

struct Scene {
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "tiny.yaml", TINY);
        Self { folder, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        write(self.folder.path(), name, bytes)
    }

    fn features(&self, checkpoint: &Path) -> assert_cmd::Command {
        let mut command = vjepa();
        command.arg("features").arg("--checkpoint").arg(checkpoint).arg("--config").arg(&self.config);
        command.arg("--input").arg(tiny("forward.safetensors")).arg("--out").arg(self.path("features.safetensors"));
        command
    }

    /// The file gives the official encoder's features.
    fn gives_features(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let checkpoint = self.write(name, bytes);
        self.features(&checkpoint).assert().success();
        assert_official_features(&self.path("features.safetensors"));
    }

    /// The one sentence that refuses a file.
    fn refuses(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let checkpoint = self.write(name, bytes);
        let message = refused(&mut self.features(&checkpoint));
        assert!(message.contains(name) && message.len() < 1000, "{message}");
        message
    }
}

fn inspect(file: &Path) -> serde_json::Value {
    let output = vjepa().arg("inspect").arg(file).arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn every_layout_gives_the_same_numbers() {
    let scene = Scene::new();
    // A model in channels_last_3d: the channels of kernels are innermost.
    let channels_last = |_: &str, value| match value {
        Value::Tensor { shape, data } if shape.len() == 5 => Value::permuted(&shape, &data, &[0, 2, 3, 4, 1]),
        value => value,
    };
    // Every matrix stored transposed.
    let transposed = |_: &str, value| match value {
        Value::Tensor { shape, data } if shape.len() == 2 => Value::permuted(&shape, &data, &[1, 0]),
        value => value,
    };
    // Every parameter a part of something larger: offset, and rows with gaps.
    let sliced = |_: &str, value| match value {
        Value::Tensor { shape, data } => {
            let width = *shape.last().unwrap();
            let mut storage = vec![9e9; 7];
            data.chunks(width).for_each(|row| storage.extend(row.iter().copied().chain([f32::NAN; 3])));
            let strides = (0..shape.len())
                .map(|axis| match shape[axis + 1..].iter().product::<usize>() {
                    1 if axis + 1 == shape.len() => 1,
                    inner => inner / width * (width + 3),
                })
                .collect();
            Value::View { shape, strides, offset: 7, storage }
        }
        value => value,
    };
    scene.gives_features("big-endian.pth.tar", pytorch::big_endian(&[target(channels_last)]));
    type Change<'a> = &'a dyn Fn(&str, Value) -> Value;
    let changes: [(&str, Change); 3] =
        [("channels_last", &channels_last), ("transposed", &transposed), ("sliced", &sliced)];
    for (name, change) in changes {
        scene.gives_features(&format!("{name}.pth.tar"), pytorch::checkpoint(&[target(change)]));
        scene.gives_features(&format!("{name}-stream.pth.tar"), pytorch::stream(&[target(change)]));
    }
}

#[test]
fn views_are_read_as_pytorch_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Vec<f32> = (0..40u8).map(f32::from).collect();
    let view = |shape: &[usize], strides: &[usize], offset| Value::View {
        shape: shape.to_vec(),
        strides: strides.to_vec(),
        offset,
        storage: storage.clone(),
    };
    let views = vec![
        ("expand".to_owned(), view(&[2, 3], &[0, 2], 1)),
        ("diagonal".to_owned(), view(&[3], &[11], 0)),
        ("overlap".to_owned(), view(&[3, 4], &[2, 1], 5)),
        ("scalar".to_owned(), view(&[], &[], 33)),
        ("none".to_owned(), view(&[3, 0, 2], &[2, 2, 1], 0)),
        ("ones".to_owned(), view(&[1, 2, 1], &[77, 1, 99], 38)),
    ];
    let path = write(folder.path(), "views.pt", pytorch::checkpoint(&[("encoder".to_owned(), Value::Dict(views))]));
    let all = weights::load(&path).unwrap().all().unwrap();
    let values = |name: &str| all[&format!("encoder.{name}")].1.clone();
    assert_eq!(values("expand"), [1., 3., 5., 1., 3., 5.]);
    assert_eq!(values("diagonal"), [0., 11., 22.]);
    assert_eq!(values("overlap"), [5., 6., 7., 8., 7., 8., 9., 10., 9., 10., 11., 12.]);
    assert_eq!((values("scalar"), values("none"), values("ones")), (vec![33.], vec![], vec![38., 39.]));
    // A view that reaches past its storage.
    let outside = vec![("x".to_owned(), view(&[2, 30], &[30, 1], 0))];
    let path = write(folder.path(), "outside.pt", pytorch::checkpoint(&[("encoder".to_owned(), Value::Dict(outside))]));
    assert!(weights::load(&path).err().unwrap().to_string().contains("too short"));
}

#[test]
fn other_objects_are_opaque() {
    let scene = Scene::new();
    let own = |_: &str, value| value;
    let raw = |opcodes: &[u8]| Value::Raw(opcodes.to_vec());
    for (name, object) in [
        ("numpy", Value::numpy_scalar()),
        // os.system("exit 1") would end the test; nothing is called.
        ("call", raw(b"cposix\nsystem\n(X\x06\0\0\0exit 1tR")),
        ("path", raw(b"cpathlib\nPosixPath\n(X\x01\0\0\0/X\x01\0\0\0atR")),
        // argparse.Namespace, with a tensor that nobody asks for in it.
        ("namespace", Value::Instance("Namespace", vec![("w".to_owned(), Value::Tensor { shape: vec![1], data: vec![1.0] })])),
        // A random state of protocol 4: bytes of 8-byte length, memoised; a set; a frozen set; a long integer; NaN.
        ("state", raw(b"(\x8e\x03\0\0\0\0\0\0\0abc\x94\x8f\x94(K\x01K\x02\x90(K\x03\x91\x8a\x15ABCDEFGHIJKLMNOPQRSTUG\x7f\xf8\0\0\0\0\0\0t")),
        ("class", raw(b"\x8c\x08builtins\x8c\x05slice\x93(K\x01K\x02Nt\x81")),
        // A list that contains itself.
        ("cycle", raw(b"]q\xf0(h\xf0h\xf0e")),
        // A sparse tensor, and a type of storage that no release has.
        ("sparse", raw(b"ctorch._utils\n_rebuild_sparse_tensor\n(K\x01NtR")),
        ("storage", raw(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nOddStorage\nX\x02\0\0\0zzX\x03\0\0\0cpuK\x01tQK\0)))NtR")),
    ] {
        let root = [("loss".to_owned(), object), target(own)];
        scene.gives_features(&format!("{name}.pth.tar"), pytorch::checkpoint(&root));
    }
    scene.gives_features(
        "numpy-stream.pth.tar",
        pytorch::stream(&[("loss".to_owned(), Value::numpy_scalar()), target(own)]),
    );
}

#[test]
fn a_whole_module_is_read_as_its_state_dict() {
    let scene = Scene::new();
    // Parameters by module: `blocks.0.norm1.weight` is in the module norm1 of the module 0 of the module blocks.
    fn module(entries: Vec<(String, Value)>) -> Value {
        let (mut own, mut children) = (Vec::new(), BTreeMap::<String, Vec<(String, Value)>>::new());
        for (name, value) in entries {
            match name.split_once('.') {
                Some((child, rest)) => children.entry(child.to_owned()).or_default().push((rest.to_owned(), value)),
                None => own.push((name, value)),
            }
        }
        let passing = Value::Tensor { shape: vec![1], data: vec![0.0] };
        let children = children.into_iter().map(|(name, entries)| (name, module(entries))).collect();
        let set = b"c__builtin__\nset\n(](X\x05\0\0\0cacheetR".to_vec();
        Value::Instance(
            "Module",
            vec![
                ("training".to_owned(), Value::Raw(vec![0x88])),
                ("_parameters".to_owned(), Value::Dict(own)),
                ("_buffers".to_owned(), Value::Dict(vec![("cache".to_owned(), passing)])),
                ("_non_persistent_buffers_set".to_owned(), Value::Raw(set)),
                ("_modules".to_owned(), Value::Dict(children)),
            ],
        )
    }
    let whole = || module(pytorch::state_dict(&encoder()));
    scene.gives_features("model.pt", pytorch::saved(&whole()));
    scene.gives_features(
        "wrapped.pt",
        pytorch::saved(&module(
            pytorch::state_dict(&encoder())
                .into_iter()
                .map(|(name, value)| (format!("module.{name}"), value))
                .collect(),
        )),
    );
    scene.gives_features("in-a-dict.pt", pytorch::checkpoint(&[("model".to_owned(), whole())]));
    // A model that is not an encoder: said by its names, not "cut off".
    let tensor = Value::Tensor { shape: vec![1], data: vec![0.0] };
    let other = pytorch::saved(&module(vec![("0.weight".to_owned(), tensor)]));
    let message = scene.refuses("other.pt", &other);
    assert!(message.contains("tensors of other models (0.weight)") && !message.contains("cut off"), "{message}");
    assert_eq!(inspect(&scene.path("other.pt"))["other_tensors"]["first"][0], "0.weight");
}

#[test]
fn wrappers_and_bare_encoders_are_accepted() {
    let scene = Scene::new();
    let bare = pytorch::state_dict;
    let under = |prefix: &str| -> Vec<(String, Value)> {
        bare(&encoder()).into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    };
    for prefix in [
        "",
        "module.",
        "_orig_mod.module.backbone.",
        "module._orig_mod.backbone.",
        "_fsdp_wrapped_module._checkpoint_wrapped_module.",
        "target_encoder.",
    ] {
        scene.gives_features("top.pt", pytorch::checkpoint(&under(prefix)));
        let nested = [("state_dict".to_owned(), Value::Dict(under(prefix))), ("epoch".to_owned(), Value::Int(1))];
        scene.gives_features("nested.ckpt", pytorch::checkpoint(&nested));
        let tensors: Tensors =
            encoder().into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        let path = scene.path("bare.safetensors");
        save_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
        scene.features(&path).assert().success();
        assert_official_features(&scene.path("features.safetensors"));
    }
    // Activation checkpointing wraps each block.
    let blocks =
        under("").into_iter().map(|(name, value)| (name.replace(".norm", "._checkpoint_wrapped_module.norm"), value));
    scene.gives_features("blocks.pt", pytorch::checkpoint(&blocks.collect::<Vec<_>>()));

    let mut twice = under("module.");
    twice.extend(under("").into_iter().take(1));
    let message = scene.refuses("twice.pt", pytorch::checkpoint(&twice));
    assert!(message.contains("both mean `encoder."), "{message}");
    let flat = vec![("_fsdp_wrapped_module._flat_param".to_owned(), Value::Tensor { shape: vec![1], data: vec![1.0] })];
    assert!(scene.refuses("flat.pt", pytorch::checkpoint(&flat)).contains("FULL_STATE_DICT"));
    let folder = scene.path("sharded");
    std::fs::create_dir(&folder).unwrap();
    write(&folder, ".metadata", "");
    assert!(refused(&mut scene.features(&folder)).contains("dcp_to_torch"));
}

#[test]
fn each_misfit_has_its_remedy_in_few_words() {
    let scene = Scene::new();
    let own = pytorch::checkpoint(&pytorch::state_dict(&encoder()));
    let checkpoint = scene.write("encoder.pt", own);
    let refused_with = |from: &str, to: &str| {
        let config = scene.write("other.yaml", TINY.replace(from, to));
        let mut command = vjepa();
        command.arg("features").arg("--checkpoint").arg(&checkpoint).arg("--config").arg(config);
        command.arg("--input").arg(tiny("forward.safetensors")).arg("--out").arg(scene.path("none"));
        let message = refused(&mut command);
        assert!(message.len() < 1000, "{} characters: {message}", message.len());
        message
    };
    assert!(refused_with("embed_dim: 96", "embed_dim: 192").contains("`model.embed_dim: 96`"));
    assert!(refused_with("depth: 3,", "depth: 40,").contains("`model.depth: 3`"));
    assert!(refused_with("depth: 3,", "depth: 2,").contains("`model.depth: 3`"));
    assert!(refused_with("patch_size: 16", "patch_size: 8").contains("`data.patch_size: 16`"));
    assert!(refused_with("num_frames: 8", "num_frames: 16").contains("64 tokens and the configuration's 128"));

    // Another model, and a whole other library's names.
    let foreign: Vec<_> = (0..600)
        .map(|i| {
            (
                format!("encoder.layers.{i}.self_attn.{}", "w".repeat(200)),
                Value::Tensor { shape: vec![1], data: vec![0.0] },
            )
        })
        .collect();
    let message = scene.refuses("foreign.pt", pytorch::checkpoint(&foreign));
    assert!(message.contains("another model") && message.contains("and 597 more"), "{message}");
    // Training goes on from a whole checkpoint only.
    let mut command = support::train(&scene.path("run"), &["--set", "meta.load_checkpoint=true"]);
    support::train(&scene.path("first"), &[]).assert().success();
    let trained = weights::load(&scene.path("first/jepa-latest.safetensors")).unwrap().all().unwrap();
    let only: Tensors = trained.into_iter().filter(|(name, _)| name.starts_with("target_encoder.")).collect();
    let only: Tensors = only
        .into_iter()
        .flat_map(|(name, tensor)| [(name.replace("target_", ""), tensor.clone()), (name, tensor)])
        .collect();
    let path = scene.path("no-predictor.safetensors");
    save_safetensors(&path, &only, &BTreeMap::new()).unwrap();
    command.arg("--set").arg(format!("meta.read_checkpoint={}", path.display()));
    let output = command.assert().code(1).get_output().stderr.clone();
    let message = String::from_utf8_lossy(&output).lines().last().unwrap_or_default().to_owned();
    assert!(message.contains("holds no predictor") && message.len() < 1000, "{message}");
}

#[test]
fn a_frozen_encoder_needs_no_predictor_sizes() {
    let scene = Scene::new();
    let config = scene.write("encoder.yaml", TINY.replace(", pred_embed_dim: 48, pred_depth: 2", ""));
    let out = scene.path("features.safetensors");
    let mut command = vjepa();
    command.arg("features").arg("--checkpoint").arg(tiny("weights.safetensors")).arg("--config").arg(&config);
    command.arg("--input").arg(tiny("forward.safetensors")).arg("--out").arg(&out).assert().success();
    assert_official_features(&out);
    // What trains or shows a predictor still asks for it.
    let mut command = vjepa();
    command.args(["graph", "predictor", "--config"]).arg(&config);
    assert!(refused(&mut command).contains("model.pred_embed_dim"));
    let mut command = vjepa();
    command
        .args([
            "train",
            "--set",
            "logging.folder=run",
            "--set",
            "data.dataset_type=DriftingTextures",
            "--set",
            "meta.dtype=float32",
            "--config",
        ])
        .arg(&config);
    assert!(refused(command.current_dir(scene.folder.path())).contains("model.pred_embed_dim"));
}
