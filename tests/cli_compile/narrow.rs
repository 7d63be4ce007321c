//! Models below f32.

use super::*;
use vjepa_runtime::cpu::Processor;
use vjepa_runtime::{Options, Runtime, Session};

#[test]
fn narrow_models_come_with_a_report_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let common = [Path::new("--config"), &config, Path::new("--precision")];
    for precision in ["bf16", "f16-weights", "int8", "int8-static"] {
        let (mut command, model) = export(folder.path(), &common);
        let summary = lines(&command.args([precision, "--json"]).assert().success().get_output().stdout).remove(0);
        assert_eq!(summary["accuracy"]["precision"], precision);
        assert!(summary["accuracy"]["agreement"].as_f64().unwrap() > 0.999, "{summary}");
        let report = std::fs::read(model.with_file_name("model.onnx.accuracy.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["pass"], &report["clips"]), (&true.into(), &128.into()));
        assert!(report["outputs"][0]["rel_l2"].as_f64().unwrap() > 1e-5);
    }
    let (mut command, _) = export(folder.path(), &common);
    let plain = lines(&command.args(["int8", "--json"]).assert().success().get_output().stdout).remove(0);
    assert_eq!(plain["accuracy"]["kept_f32"], serde_json::json!([]));
    let reached = plain["accuracy"]["agreement"].as_f64().unwrap();
    let asked = (reached + 0.1 * (1.0 - reached)).to_string();
    let (mut command, _) = export(folder.path(), &common);
    command.args(["int8", "--json", "--min-agreement", &asked]);
    let wider = lines(&command.assert().success().get_output().stdout).remove(0);
    assert!(!wider["accuracy"]["kept_f32"].as_array().unwrap().is_empty(), "layers go back to 32 bits: {wider}");
    assert!(wider["accuracy"]["agreement"].as_f64().unwrap() >= asked.parse().unwrap());
    let (mut command, _) = export(folder.path(), &common);
    assert!(refused(command.args(["int8", "--min-agreement", "1"])).contains("at least 1 is asked for"));

    let (mut command, model) = export(folder.path(), &common);
    let message = refused(command.args(["bf16", "--min-agreement", "1"]));
    assert!(message.contains("--min-agreement") && message.contains("was removed"), "{message}");
    assert!(!model.exists());
    let (mut command, _) = export(folder.path(), &common);
    assert!(refused(command.args(["f16", "--target", "tract"])).contains("use f32"));
}

/// Weights of the default range give the same sums on every processor; the full range is asked for, recorded and warned of.
#[test]
fn the_range_of_8_bit_weights_is_recorded_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let run = |flags: &[&str]| {
        let (mut command, model) = export(folder.path(), &[Path::new("--config"), &config]);
        let output = command.args(flags).arg("--json").assert().success().get_output().stdout.clone();
        (lines(&output).remove(0), model)
    };
    for precision in ["int8", "int8-static"] {
        let (summary, model) = run(&["--precision", precision]);
        assert_eq!(summary["metadata"]["vjepa.int8_range"], "reduced");
        assert_eq!(summary["accuracy"]["int8_range"], "reduced");
        assert_eq!(summary["accuracy"]["not_covered"], serde_json::Value::Null);
        assert!(!summary["accuracy"]["processor"]["model"].as_str().unwrap().is_empty(), "{summary}");
        assert!(summary["accuracy"]["processor"]["extensions"].is_array(), "{summary}");
        let mut command = vjepa();
        command.arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).args(["--runtime", "tract"]);
        command.assert().success().stderr("");
    }
    let (summary, model) = run(&["--precision", "int8", "--int8-range", "full", "--min-agreement", "0"]);
    assert_eq!(summary["metadata"]["vjepa.int8_range"], "full");
    assert!(summary["accuracy"]["not_covered"].as_str().unwrap().contains("x86 without VNNI"), "{summary}");
    // On ONNX Runtime, where it is installed.
    let mut command = vjepa();
    command.arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).args(["--runtime", "ort"]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let required = std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1");
    assert!(output.status.success() || !required, "{told}");
    if output.status.success() {
        let warned = vjepa_runtime::cpu::Processor::here().saturates();
        assert_eq!(told.matches("warning: ").count(), usize::from(warned), "{told}");
        assert!(!warned || told.contains("--int8-range full") && told.contains("VNNI"), "{told}");
    }
    // What `run`, `serve` and `verify bundle` say, whichever processor this is.
    for runtime in [Runtime::Ort, Runtime::Tract] {
        let Ok(session) = Session::open(&model, &Options { runtime, ..Options::default() }) else { continue };
        let with = |extensions| Processor { model: "some processor".to_owned(), extensions };
        assert_eq!(session.caution_on(&with(vec!["avx2", "avxvnni"])), None);
        let said = session.caution_on(&with(vec!["avx2"])).unwrap_or_default();
        assert_eq!(runtime == Runtime::Ort, said.contains("some processor (avx2, no VNNI) does not have it"), "{said}");
        assert_eq!(runtime == Runtime::Tract, said.is_empty(), "{said}");
    }
    let (mut command, _) = export(folder.path(), &[Path::new("--config"), &config]);
    let told = refused(command.args(["--precision", "int8", "--int8-range", "full", "--min-agreement", "1"]));
    assert!(told.contains("x86 without VNNI") && told.contains(" on ") && told.len() < 1000, "{told}");
    for flags in [&["--int8-range", "full"][..], &["--precision", "f16-weights", "--int8-range", "reduced"]] {
        let (mut command, _) = export(folder.path(), &[Path::new("--config"), &config]);
        assert!(refused(command.args(flags)).contains("--int8-range is for --precision int8"));
    }
    let (summary, _) = run(&["--no-verify", "--target", "tensorrt", "--precision", "int8-static"]);
    assert_eq!(summary["metadata"]["vjepa.int8_range"], "full", "GPUs do not saturate");
}

#[test]
fn the_precision_of_a_target_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let common = [Path::new("--config"), &config, Path::new("--no-verify"), Path::new("--target")];
    let (mut command, _) = export(folder.path(), &common);
    let assumed = "form     tensorrt, f16 (the default for this target; --precision chooses another)\n";
    command.arg("tensorrt").assert().success().stdout(predicates::str::contains(assumed));
    let (mut command, _) = export(folder.path(), &common);
    let summary = lines(&command.args(["tensorrt", "--json"]).assert().success().get_output().stdout).remove(0);
    assert_eq!((&summary["precision"], &summary["precision_assumed"]), (&"f16".into(), &true.into()));
    for (flags, form) in
        [(&["tensorrt", "--precision", "f16"][..], "tensorrt, f16\n"), (&["portable"], "portable, f32\n")]
    {
        let (mut command, _) = export(folder.path(), &common);
        command.args(flags).assert().success().stdout(predicates::str::contains(format!("form     {form}")));
    }
}

#[test]
fn an_engine_is_built_or_the_line_that_builds_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("it's.onnx");
    let engine = |extra: &[&str]| {
        let mut command = compile(folder.path(), "tensorrt", &out);
        command.args(["--head", "features", "--batches", "1:4:8", "--json"]).args(extra);
        command
    };
    let summary = lines(&engine(&[]).assert().success().get_output().stdout).remove(0);
    assert_eq!(summary["metadata"]["vjepa.target"], "tensorrt");
    assert_eq!(summary["metadata"]["vjepa.precision"], "f16");
    // Machines with TensorRT have built it.
    if let Some(line) = summary["engine"]["trtexec"].as_str() {
        assert!(line.contains("--stronglyTyped") && line.contains("--optShapes=clip:4x3x8x64x64"), "{line}");
        assert!(line.contains(r"it'\''s.onnx'"), "{line}");
        assert!(summary["engine"]["absent"].as_str().unwrap().contains("--runtime ort"));
    }
    assert!(refused(&mut engine(&["--target", "tract"])).contains("--target"));
    let mut command = vjepa();
    command.arg("run").arg(&out).args(["--runtime", "tensorrt", "--batches", "8:4:1"]).arg(texture("t0_d0_s0.mp4"));
    command.assert().code(2).stderr(predicates::str::contains("MIN:OPT:MAX"));
}
