//! `vjepa compile` and `vjepa run`: a checkpoint and a probe become a model that runs on videos by its own record.

#[path = "cli_compile/narrow.rs"]
mod narrow;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use predicates::prelude::PredicateBooleanExt;
use support::{TINY, compile, probe, refused, texture, tiny, vjepa, write};
use vjepa_programs::PROBE_KEY;
use vjepa_view::Canvas;
use vjepa_weights::{Tensors, save_safetensors};

fn export(folder: &Path, extra: &[&Path]) -> (assert_cmd::Command, PathBuf) {
    let out = folder.join("model.onnx");
    let mut command = vjepa();
    command.args(["compile", "--export", "onnx", "--checkpoint"]).arg(tiny("weights.safetensors"));
    command.arg("--out").arg(&out).args(extra);
    (command, out)
}

fn lines(output: &[u8]) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn encoder_and_probe_are_exported_verified_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        write(folder.path(), "tiny.yaml", format!("{TINY}\n").replace("batch_size: 4", "normalization: per_clip"));
    let probe = probe(folder.path());
    let (mut command, model) =
        export(folder.path(), &[Path::new("--config"), &config, Path::new("--probe"), &probe, Path::new("--json")]);
    let summary = lines(&command.assert().success().get_output().stdout).remove(0);
    assert_eq!(summary["parity"]["tract"]["pass"], true);
    assert!(summary["parity"]["tract"]["max_abs"].as_f64().unwrap() <= 1e-4);
    let sha = summary["metadata"]["vjepa.checkpoint_sha256"].as_str().unwrap();
    assert!(sha.len() == 64 && sha.bytes().all(|byte| byte.is_ascii_hexdigit()));

    let shown = vjepa().arg("inspect").arg(&model).arg("--json").assert().success().get_output().stdout.clone();
    let shown = lines(&shown).remove(0);
    assert_eq!(shown["inputs"], serde_json::json!(["clip f32[batch, 3, 8, 64, 64]"]));
    assert_eq!(shown["outputs"], serde_json::json!(["logits f32[batch, 3]"]));
    assert_eq!(shown["metadata"]["vjepa.labels"], serde_json::json!(["left", "right", "up"]));
    assert_eq!(shown["metadata"]["vjepa.preprocessing"]["normalization"], "per_clip");

    let mut command = vjepa();
    command.arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).arg(texture("t0_d0_s1.webm"));
    let results = lines(&command.args(["--json", "--top-k", "2"]).assert().success().get_output().stdout);
    assert_eq!(results.len(), 2);
    for result in &results {
        let top = result["top"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        assert!(["left", "right", "up"].contains(&top[0]["label"].as_str().unwrap()));
        let probability = |i: usize| top[i]["probability"].as_f64().unwrap();
        assert!(probability(0) >= probability(1) && probability(0) <= 1.0);
        assert!(result["latency_ms"].as_f64().unwrap() > 0.0);
    }
    let mut command = vjepa();
    command.arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).args(["--runtime", "tract"]);
    command.assert().success().stdout(predicates::str::contains("%  ").and(predicates::str::contains(" ms")));

    // The checkpoint's plan says the same as the exported model.
    let mut command = vjepa();
    command.args(["run", "--runtime", "plan", "--json", "--top-k", "2"]).arg(tiny("weights.safetensors"));
    command.arg(texture("t0_d0_s0.mp4")).arg("--probe").arg(&probe).arg("--config").arg(&config);
    let planned = lines(&command.assert().success().get_output().stdout).remove(0);
    for i in 0..2 {
        assert_eq!(planned["top"][i]["label"], results[0]["top"][i]["label"]);
        let of = |result: &serde_json::Value| result["top"][i]["probability"].as_f64().unwrap();
        assert!((of(&planned) - of(&results[0])).abs() < 1e-4);
    }
    let refusal = refused(vjepa().args(["run", "--runtime", "plan"]).arg(&model).arg(texture("t0_d0_s0.mp4")));
    assert!(refusal.contains("--runtime plan runs a checkpoint"), "{refusal}");
    let mut command = vjepa();
    command.arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).arg("--probe").arg(&probe);
    assert!(refused(&mut command).contains("--probe, --probe-number and --config are for --runtime plan"));
}

#[test]
fn an_encoder_alone_gives_tokens_and_one_bad_input_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let (mut command, model) = export(folder.path(), &[Path::new("--config"), &config, Path::new("--no-verify")]);
    command.assert().success();
    let mut command = vjepa();
    command.arg("run").arg(&model).arg(tiny("config.json")).arg(texture("t0_d0_s0.mp4")).arg("--json");
    let output = command.assert().code(1).get_output().clone();
    let results = lines(&output.stdout);
    assert!(results[0]["error"].as_str().unwrap().contains("not a video"));
    assert_eq!(results[1]["outputs"][0]["shape"], serde_json::json!([1, 64, 96]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 of 2 inputs"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let with = |path: &Path| [Path::new("--config").to_owned(), config.clone(), "--probe".into(), path.to_owned()];
    let refuse = |path: &Path| {
        let extra = with(path);
        let extra: Vec<&Path> = extra.iter().map(PathBuf::as_path).collect();
        let (mut command, out) = export(folder.path(), &extra);
        let message = refused(&mut command);
        assert!(!out.exists());
        message
    };
    assert!(refuse(&tiny("weights.safetensors")).contains("vjepa_probe"));
    let narrow = |classes: usize, labels: &[&str]| {
        let tensors = Tensors::from([
            ("probe.linear.weight".to_owned(), (vec![2, 48], vec![0.0; 96])),
            ("probe.linear.bias".to_owned(), (vec![2], vec![0.0; 2])),
        ]);
        let record = serde_json::json!({"kind": "linear", "classes": classes, "labels": labels, "embed_dim": 48});
        let path = folder.path().join("narrow.safetensors");
        save_safetensors(&path, &tensors, &BTreeMap::from([(PROBE_KEY.to_owned(), record.to_string())])).unwrap();
        path
    };
    assert!(
        refuse(&narrow(2, &[])).contains(
            "narrow.safetensors holds a probe of V-JEPA's evaluation for features 48 wide, but V-JEPA encoder (96 wide, 3 blocks) has"
        )
    );
    assert!(refuse(&narrow(3, &[])).contains("probe.linear.bias must be [3], got [2]"));
    assert!(refuse(&narrow(2, &["one"])).contains("1 labels for 2 classes"));
    assert!(refused(&mut export(folder.path(), &[]).0).contains("pass --config"));
    vjepa().arg("compile").assert().code(2);
    for graph in [&["graph", "encoder"][..], &["graph"], &["compile", "--graph", "encoder"], &["compile", "--graph"]] {
        vjepa().args(graph).assert().code(2);
    }
    let garbage = write(folder.path(), "garbage.onnx", "not a model");
    assert!(refused(vjepa().arg("run").arg(&garbage).arg(texture("t0_d0_s0.mp4"))).contains("garbage.onnx"));
}

#[test]
fn other_clip_sizes_and_layers_agree_with_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    for (flags, outputs) in [
        (["--frames", "16", "--resolution", "96"], serde_json::json!(["encoder_out f32[batch, 288, 96]"])),
        (["--head", "tokens", "--resolution", "48x96"], serde_json::json!(["encoder_out f32[batch, 72, 96]"])),
        (
            ["--out-layers", "0,2", "--head", "features"],
            serde_json::json!(["layer_0 f32[batch, 96]", "layer_2 f32[batch, 96]"]),
        ),
        (["--head", "features", "--batch", "3"], serde_json::json!(["features f32[3, 96]"])),
    ] {
        let (mut command, model) = export(folder.path(), &[Path::new("--config"), &config]);
        let summary = lines(&command.args(flags).arg("--json").assert().success().get_output().stdout).remove(0);
        assert_eq!(summary["parity"]["tract"]["pass"], true);
        let shown = vjepa().arg("inspect").arg(&model).arg("--json").assert().success().get_output().stdout.clone();
        assert_eq!(lines(&shown).remove(0)["outputs"], outputs);
    }
    let (mut command, _) = export(folder.path(), &[Path::new("--config"), &config]);
    assert!(refused(command.args(["--resolution", "100"])).contains("multiple of `patch`"));
    let (mut command, _) = export(folder.path(), &[Path::new("--config"), &config]);
    assert!(refused(command.args(["--head", "pooled"])).contains("attentive probe"));
}

#[test]
fn a_folder_of_hugging_face_is_exported_with_its_classifier() {
    let folder = tempfile::tempdir().unwrap();
    let classifier = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vjepa2_hf/classifier");
    for (kind, out) in [("onnx", "model.onnx"), ("plan", "model.vjg"), ("bundle", "bundle")] {
        let mut command = vjepa();
        command.args(["compile", "--export", kind, "--checkpoint"]).arg(&classifier).arg("--probe").arg(&classifier);
        command.arg("--out").arg(folder.path().join(out)).assert().success();
    }
    let mut run = vjepa();
    run.arg("run").arg(folder.path().join("model.onnx")).arg(texture("t0_d0_s0.mp4")).assert().success();
}

#[test]
fn a_model_that_is_not_square_runs_on_videos() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let more = [Path::new("--config"), &config, Path::new("--resolution"), Path::new("48x96")];
    let (mut command, model) = export(folder.path(), &more);
    command.assert().success();
    let plan = folder.path().join("model.vjg");
    let mut command = compile(folder.path(), "plan", &plan);
    command.args(["--resolution", "48x96"]).assert().success();
    for (file, runtime) in [(&model, "tract"), (&plan, "auto")] {
        let mut run = vjepa();
        run.args(["run", "--runtime", runtime]).arg(file).arg(texture("t0_d0_s0.mp4"));
        run.assert().success().stdout(predicates::str::contains("8 frames of 48x96"));
    }
    // A probe on the exported encoder gets clips of its size.
    let line = |(class, file)| format!("{} {class}\n", texture(file).display());
    let list: String = ["t0_d0_s0.mp4", "t1_d0_s1.mp4"].into_iter().enumerate().map(line).collect();
    let list = write(folder.path(), "list.csv", list);
    let mut features = vjepa();
    features.args(["probe", "--kind", "linear", "--epochs", "1", "--encoder"]).arg(&model).arg("--data").arg(&list);
    features.arg("--out").arg(folder.path().join("p.safetensors")).assert().success();
    let picture = folder.path().join("p.png");
    Canvas::new(64, 64).save(&picture).unwrap();
    let mut run = vjepa();
    let told = run.arg("run").arg(&model).arg(&picture).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&told).contains("the model takes clips of 48x96"), "{told:?}");
    for wrong in ["48x", "0x96", "48x96x2", "x"] {
        let (mut command, _) = export(folder.path(), &[Path::new("--resolution"), Path::new(wrong)]);
        command.assert().failure().stderr(predicates::str::contains("384 or 256x448"));
    }
}

#[test]
fn drawn_weights_give_the_same_bytes_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let mut seen = Vec::new();
    for name in ["a", "b"] {
        let out = folder.path().join(name).join("model.onnx");
        let mut command = vjepa();
        command.args([
            "compile",
            "--export",
            "onnx",
            "--random-weights",
            "7",
            "--external-data",
            "--no-verify",
            "--config",
        ]);
        command.arg(&config).arg("--out").arg(&out).assert().success();
        let data = std::fs::read(out.with_file_name("model.onnx.data")).unwrap();
        seen.push((std::fs::read(&out).unwrap(), data));
    }
    assert!(seen[0] == seen[1] && seen[0].1.len() > 1 << 20);
}

#[test]
fn what_is_read_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = write(folder.path(), "model.safetensors", std::fs::read(tiny("weights.safetensors")).unwrap());
    let probe = probe(folder.path());
    let before = [&checkpoint, &probe].map(|file| std::fs::read(file).unwrap());
    let config = write(folder.path(), "tiny.yaml", TINY);
    for (export, out) in
        [("plan", "model.vjg"), ("plan", "probe.vjg"), ("onnx", "model.safetensors"), ("onnx", "./probe.safetensors")]
    {
        let mut command = vjepa();
        command.args(["compile", "--export", export, "--checkpoint"]).arg(&checkpoint).arg("--probe").arg(&probe);
        let told = refused(command.arg("--config").arg(&config).arg("--out").arg(folder.path().join(out)));
        assert!(told.contains("would overwrite"), "{out}: {told}");
    }
    assert!(before == [&checkpoint, &probe].map(|file| std::fs::read(file).unwrap()));
}

/// The weights of a plan lie beside it, by a name that a checkpoint may have.
#[test]
fn a_plan_replaces_its_own_weights_alone() {
    let folder = tempfile::tempdir().unwrap();
    let weights = write(folder.path(), "model.safetensors", "a checkpoint of somebody");
    let out = folder.path().join("model.vjg");
    let told = refused(&mut compile(folder.path(), "plan", &out));
    assert!(
        told.contains("model.safetensors, which is of no earlier export; remove it or give another --out"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&weights).unwrap(), "a checkpoint of somebody");
    std::fs::remove_file(&weights).unwrap();
    for _ in 0..2 {
        compile(folder.path(), "plan", &out).assert().success();
    }
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    for flags in [["--precision", "bf16"], ["--target", "tract"], ["--batch", "2"], ["--frames", "8"], ["--name", "x"]]
    {
        let mut command = vjepa();
        command.args(["graph", "step", "--config"]).arg(&config).args(flags);
        command.assert().code(2).stderr(predicates::str::contains("unexpected argument"));
        let mut command = vjepa();
        command.args(["compile", "--graph", "step", "--config"]).arg(&config).args(flags).assert().code(2);
    }
    for (flags, format) in [
        (["--name", "x"], "triton"),
        (["--licence", "mine"], "bundle"),
        (["--batches", "1:2:4"], "tensorrt"),
        (["--engine-cache", "cache"], "tensorrt"),
    ] {
        let told = refused(compile(folder.path(), "onnx", &folder.path().join("m.onnx")).args(flags));
        assert!(told.contains(&format!("for --export {format} alone")), "{flags:?}: {told}");
    }
    let probe = ["probe", "--checkpoint", "c.safetensors", "--data", "d.csv", "--out", "p.safetensors"];
    let told = refused(vjepa().args(probe).args(["--probe-heads", "4"]));
    assert!(told.contains("--probe-heads is for --encoder and --features"), "{told}");
    for flags in [["--clips", "2"], ["--views", "2"], ["--still-frames", "2"], ["--cache", "folder"]] {
        let mut command = vjepa();
        command.args(["probe", "--features", "f.safetensors", "--out", "p.safetensors"]).args(flags);
        command.assert().code(2).stderr(predicates::str::contains("cannot be used with"));
    }
    let eval = ["eval", "--checkpoint", "c.safetensors", "--probe", "p.safetensors", "--data", "d.csv", "--seed", "1"];
    vjepa().args(eval).assert().code(2).stderr(predicates::str::contains("--official-validation"));
    for flags in [["--batch", "8"], ["--size", "64"], ["--pred-depth", "2"], ["--rounds", "0"], ["--mask-sets", "0"]] {
        let mut command = vjepa();
        command.args(["bench", "step", "--config"]).arg(&config).args(flags).assert().code(2);
    }
    for flags in [["--precision", "bf16"], ["--set", "a=b"], ["--size", "64"], ["--model", "tiny"]] {
        let told = refused(vjepa().args(["bench", "infer", "model.onnx"]).args(flags));
        assert!(told.contains("without a model file"), "{flags:?}: {told}");
    }
}

#[test]
fn outputs_that_are_nan_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let read = vjepa_weights::TensorFile::read(tiny("weights.safetensors")).unwrap();
    let mut tensors = Tensors::new();
    for name in read.names() {
        let mut values = read.f32(name).unwrap();
        values[0] = f32::NAN;
        tensors.insert(name.to_owned(), (read.shape(name).unwrap().to_vec(), values));
    }
    let damaged = folder.path().join("damaged.safetensors");
    save_safetensors(&damaged, &tensors, &BTreeMap::new()).unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let model = folder.path().join("model.onnx");
    let mut command = vjepa();
    command.args(["compile", "--export", "onnx", "--no-verify", "--checkpoint"]).arg(&damaged);
    command.arg("--config").arg(&config).arg("--out").arg(&model).assert().success();
    let output = vjepa().arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).assert().code(1).get_output().clone();
    assert!(String::from_utf8_lossy(&output.stderr).contains("outputs are NaN or infinite"));
}

#[test]
fn clips_and_views_are_averaged_inside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let probe = probe(folder.path());
    let looks: Vec<&Path> = ["--clips", "2", "--views", "3"].into_iter().map(Path::new).collect();
    let with = |more: &[&Path]| {
        let base = [Path::new("--config"), &config];
        let (command, model) = export(folder.path(), &[base.as_slice(), &looks, more].concat());
        (command, model)
    };
    let (mut command, model) = with(&[Path::new("--probe"), &probe]);
    command.assert().success();
    let mut command = vjepa();
    command.arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).arg("--json");
    let ours = lines(&command.assert().success().get_output().stdout).remove(0);
    let total: f64 = ours["top"].as_array().unwrap().iter().map(|class| class["probability"].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{total}");

    // A narrow model is judged on all looks at each video, not on one clip of each.
    let video = texture("t0_d0_s0.mp4");
    let narrow = ["--precision", "f16-weights", "--json", "--calibration"].map(Path::new);
    let (mut command, _) = with(&[&[Path::new("--probe"), &probe], narrow.as_slice(), &[&video]].concat());
    let summary = lines(&command.assert().success().get_output().stdout).remove(0);
    assert_eq!((&summary["accuracy"]["clips"], &summary["accuracy"]["agreement"]), (&6.into(), &1.0.into()));

    let (mut command, _) = with(&[]);
    assert!(refused(&mut command).contains("--clips and --views average a probe's predictions"));
}
