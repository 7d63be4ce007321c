//! V-JEPA 2's evaluations at the command line, on the carried videos: its configuration files, and action anticipation.

#[path = "second_generation/anticipation.rs"]
mod anticipation;
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use vjepa_eval::attentive::ProbeRunner;
use vjepa_eval::protocols::videos::{Wanted, open_encoder_as};
use vjepa_programs::load_probe;
use vjepa_runtime::plan::Device;

/// A folder with a small trained V-JEPA 2 and labelled videos.
struct Scene {
    folder: tempfile::TempDir,
}

fn textures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures")
}

fn vjepa(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vjepa").unwrap();
    command.args(args).timeout(Duration::from_secs(300));
    command
}

/// What it prints, and whether it succeeds.
fn said(command: &mut Command) -> (String, bool) {
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (text, output.status.success())
}

impl Scene {
    fn new(generation: &str) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        let levels = if generation == "vjepa2_1" { ", levels: [0, 1, 2]" } else { "" };
        let recipe = format!(
            "model: {{generation: {generation}, embed_dim: 32, depth: 3, num_heads: 2, pred_embed_dim: 16, pred_depth: 1, \
             pred_num_heads: 1{levels}}}\ndata: {{datasets: [{}], num_frames: 4, batch_size: 2, crop_size: 32, patch_size: 8}}\n\
             meta: {{dtype: float32}}\noptimization: {{steps: 2, warmup_steps: 1}}\nlogging: {{folder: {}}}\n",
            textures().display(),
            scene.at("run").display()
        );
        std::fs::write(scene.at("recipe.yaml"), recipe).unwrap();
        vjepa(&["train", "--config", &scene.path("recipe.yaml")]).assert().success();
        let list = |seconds: &[&str]| -> String {
            let videos = seconds.iter().flat_map(|second| ["t0", "t1"].map(|texture| (texture, *second)));
            let name = |texture: &str, second: &str| {
                let both = ["mp4", "webm"].map(|ending| textures().join(format!("{texture}_{second}.{ending}")));
                both.into_iter().find(|path| path.exists()).unwrap()
            };
            videos.map(|(texture, second)| format!("{} {}\n", name(texture, second).display(), &texture[1..])).collect()
        };
        std::fs::write(scene.at("train.csv"), list(&["d0_s0", "d1_s0", "d2_s0", "d3_s0"])).unwrap();
        std::fs::write(scene.at("val.csv"), list(&["d4_s0", "d5_s0"])).unwrap();
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// The checkpoint of the run.
    fn checkpoint(&self) -> String {
        self.path("run/jepa-latest.safetensors")
    }
}

/// An evaluation in V-JEPA 2's layout, of two probes on the tokens of two blocks.
fn evaluation(scene: &Scene) -> String {
    format!(
        "nodes: 8\ntasks_per_node: 8\nmem_per_gpu: 220G\nfolder: /out\ntag: mine\neval_name: video_classification_frozen\n\
         resume_checkpoint: false\nexperiment:\n  classifier: {{num_probe_blocks: 2, num_heads: 4}}\n  data:\n\
         \x20   dataset_train: {}\n    dataset_val: {}\n    dataset_type: VideoDataset\n    num_classes: 2\n    frames_per_clip: 8\n\
         \x20   frame_step: 2\n    num_segments: 2\n    num_views_per_segment: 3\n    resolution: 48\n  optimization:\n\
         \x20   batch_size: 4\n    num_epochs: 3\n    use_bfloat16: true\n    use_pos_embed: false\n    multihead_kwargs:\n\
         \x20   - {{lr: 0.003, start_lr: 0.003, final_lr: 0.0, warmup: 0.0, weight_decay: 0.1, final_weight_decay: 0.1}}\n\
         \x20   - {{lr: 0.001, start_lr: 0.0001, final_lr: 0.0, warmup: 1.0, weight_decay: 0.01, final_weight_decay: 0.0}}\n\
         model_kwargs:\n  checkpoint: {}\n  module_name: evals.video_classification_frozen.modelcustom.vit_encoder_multiclip\n\
         \x20 pretrain_kwargs:\n    encoder: {{checkpoint_key: target_encoder, patch_size: 8, tubelet_size: 2, uniform_power: true, use_rope: true}}\n\
         \x20 wrapper_kwargs: {{max_frames: 128, use_pos_embed: false, out_layers: [1, 2]}}\n",
        scene.path("train.csv"),
        scene.path("val.csv"),
        scene.checkpoint()
    )
}

#[test]
fn a_file_of_the_second_layout_trains_and_measures_its_probes() {
    let scene = Scene::new("vjepa2");
    std::fs::write(scene.at("eval.yaml"), evaluation(&scene)).unwrap();
    let (yaml, probe) = (scene.path("eval.yaml"), scene.path("probe.safetensors"));
    let train = ["probe", "--config", &yaml, "--out", &probe, "--cached", "--json"];
    let (told, fine) = said(&mut vjepa(&train));
    assert!(fine, "{told}");
    for (key, times) in
        [("`nodes` has no effect", 1), ("`model_kwargs.module_name` has no effect", 1), ("use_rope` has no", 1)]
    {
        assert_eq!(told.matches(key).count(), times, "{key}: {told}");
    }
    let summary: serde_json::Value =
        serde_json::from_str(told.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    let text = summary.to_string();
    assert!(text.contains("0.003") && text.contains("0.001"), "both probes are told: {text}");
    let (told, fine) = said(&mut vjepa(&["eval", "--config", &yaml, "--probe", &probe, "--json"]));
    assert!(fine && told.contains("\"clips\":2") && told.contains("\"views\":3"), "{told}");
    // A file of inference names its probe itself.
    let named = format!("probe_checkpoint={probe}");
    let (same, fine) =
        said(&mut vjepa(&["eval", "--config", &yaml, "--set", "val_only=true", "--set", &named, "--json"]));
    let top1 = |told: &str| {
        let line = told.lines().find(|line| line.starts_with('{')).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()["top1"].clone()
    };
    assert!(fine && top1(&same) == top1(&told), "{same}");
    // A probe that is only measured, and what the file says wrongly of the checkpoint.
    for (sets, words) in [
        ("val_only=true", "trains nothing"),
        (
            "model_kwargs.pretrain_kwargs.encoder.model_name=vit_large",
            "holds a V-JEPA 2 encoder (32 wide, 3 blocks) with 2 heads",
        ),
        ("model_kwargs.pretrain_kwargs.encoder.patch_size=16", "has 8: correct it"),
        ("experiment.data.num_classes=3", "`experiment.data.num_classes` is 3, but the training samples have 2"),
        ("experiment.classifier.num_heads=5", "must divide the width of the features, 32"),
        ("model_kwargs.wrapper_kwargs.out_layers=[7]", "out_layers"),
    ] {
        let (told, fine) = said(vjepa(&train).args(["--set", sets]));
        let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error:")).collect();
        assert!(!fine && errors.len() == 1 && errors[0].contains(words), "{sets}: {told}");
    }
}

/// A probe of several blocks is read as one wherever it goes: by hand on joined tokens, in `eval` without the file that named the
/// blocks, and exported.
#[test]
fn a_probe_of_several_blocks_keeps_them() {
    let scene = Scene::new("vjepa2");
    let yaml = evaluation(&scene)
        .replace("frames_per_clip: 8", "frames_per_clip: 4")
        .replace("resolution: 48", "resolution: 32");
    std::fs::write(scene.at("eval.yaml"), yaml.replace("num_segments: 2", "num_segments: 1")).unwrap();
    let (yaml, probe, checkpoint) = (scene.path("eval.yaml"), scene.path("probe.safetensors"), scene.checkpoint());
    let (told, fine) = said(&mut vjepa(&["probe", "--config", &yaml, "--out", &probe, "--cached"]));
    assert!(fine, "{told}");
    let file = load_probe(Path::new(&probe)).unwrap();
    assert_eq!(file.layers, Some(vec![1, 2]));

    let model = scene.path("model.onnx");
    let exported = ["compile", "--checkpoint", &checkpoint, "--probe", &probe, "--export", "onnx", "--out", &model];
    let (told, fine) = said(&mut vjepa(&exported));
    assert!(fine, "{told}");
    let video = textures().join("t1_d4_s0.mp4");
    let video = if video.exists() { video } else { video.with_extension("webm") };
    let (told, fine) = said(&mut vjepa(&["run", &model, &video.display().to_string(), "--runtime", "tract", "--json"]));
    assert!(fine, "{told}");
    let line: serde_json::Value =
        serde_json::from_str(told.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    let said_of = |class: u64| {
        let top = line["top"].as_array().unwrap().iter().find(|entry| entry["class"] == class).unwrap();
        top["probability"].as_f64().unwrap()
    };

    let wanted = Wanted { layers: file.layers.clone(), ..Wanted::default() };
    let mut opened = open_encoder_as(Device::CPU, Path::new(&checkpoint), None, &wanted).unwrap();
    let clip = vjepa_data::clips::read(&video, &opened.model.preprocessing).unwrap();
    let features = opened.encoder.encode(clip.data).unwrap();
    let mut runner = ProbeRunner::on(Device::CPU, &file.probe, &file.tensors).unwrap();
    for (class, probability) in (0..).zip(runner.probabilities(&features).unwrap()) {
        let exported = said_of(class);
        assert!((exported - f64::from(probability)).abs() < 1e-4, "class {class}: {exported}, by hand {probability}");
    }

    let eval = |more: &[&str]| {
        let val = scene.path("val.csv");
        let (told, fine) =
            said(vjepa(&["eval", "--checkpoint", &checkpoint, "--probe", &probe, "--data", &val]).args(more));
        assert!(fine, "{told}");
    };
    eval(&["--json"]);
    // What the probe was not trained on is refused.
    for (command, words) in [
        (
            vec![
                "eval",
                "--config",
                &yaml,
                "--probe",
                &probe,
                "--set",
                "model_kwargs.wrapper_kwargs.out_layers=[0, 2]",
            ],
            "[1, 2]",
        ),
        ([&exported[..], &["--head", "probe", "--out-layers", "1"]].concat(), "blocks that it was trained on"),
    ] {
        let (told, fine) = said(&mut vjepa(&command));
        assert!(!fine && told.contains(words), "{told}");
    }
}
