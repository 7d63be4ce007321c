//! `vjepa graph` and what `vjepa train` makes of it: compiled ahead of time, cut short, profiled.

mod support;

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{SMALL_RUN, losses, recipe, refused, train, vjepa};
use vjepa_compiler::serialize::{decode, encode};

fn compile(extra: &[&str]) -> Command {
    let mut command = vjepa();
    command.args(["graph", "step", "--config"]).arg(recipe());
    for set in SMALL_RUN {
        command.args(["--set", set]);
    }
    command.args(extra);
    command
}

fn plan(folder: &Path) -> PathBuf {
    let path = folder.join("step.vjg");
    compile(&["--out", path.to_str().unwrap()]).assert().success();
    path
}

fn with_plan(folder: &Path, plan: &Path, extra: &[&str]) -> Command {
    let mut command = train(folder, extra);
    command.arg("--plan").arg(plan);
    command
}

/// What a run that must fail says last.
fn error(command: &mut Command) -> String {
    let output = command.assert().code(1).get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.trim_end().lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("error: "), "{text}");
    last
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
}

#[test]
fn a_step_compiled_ahead_of_time_trains_bit_for_bit_as_one_compiled_now() {
    let [files, now, ahead] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let plan = plan(files.path());
    train(now.path(), &[]).assert().success();
    with_plan(ahead.path(), &plan, &[]).assert().success();
    let losses_now = losses(now.path());
    assert_eq!(losses_now.len(), 6);
    assert_eq!(losses_now, losses(ahead.path()));
    let latest = |folder: &Path| vjepa_train::Checkpoint::new(folder, "jepa").load().unwrap().0;
    assert!(latest(now.path()) == latest(ahead.path()), "weights and moments differ");
}

#[test]
fn inspect_shows_graph_plan_and_what_they_were_compiled_for() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(folder.path());
    let shown: Value = serde_json::from_str(&stdout(vjepa().arg("inspect").arg(&plan).arg("--json"))).unwrap();
    assert_eq!((&shown["kind"], &shown["name"]), (&"compiled graph".into(), &"step".into()));
    assert_eq!(shown["plan"]["steps"], shown["nodes"]);
    assert_eq!(shown["compiled_for"]["model.embed_dim"], "32");
    assert_eq!(shown["compiled_for"]["device"], "cpu");
    assert!(stdout(vjepa().arg("inspect").arg(&plan)).contains("model.embed_dim"));
}

#[test]
fn what_does_not_fit_is_refused_and_the_difference_named() {
    let [files, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let plan = plan(files.path());
    for (set, words) in [
        ("model.embed_dim=64", "was compiled for model.embed_dim 32, the configuration says 64"),
        ("model.pred_depth=2", "model.pred_depth 1, the configuration says 2"),
        ("data.crop_size=48", "data.crop_size 32, the configuration says 48"),
        ("loss.reg_coeff=0.5", "loss.reg_coeff 0, the configuration says 0.5"),
        ("optimization.betas=[0.9, 0.95]", "optimization.betas [0.9, 0.999], the configuration says [0.9, 0.95]"),
        ("meta.dtype=bfloat16", "meta.dtype float32, the configuration says bfloat16"),
    ] {
        let message = error(&mut with_plan(folder.path(), &plan, &["--set", set]));
        assert!(message.contains(words) && message.contains("vjepa graph step"), "{set}: {message}");
    }
    let rewritten = |name: &str, change: &dyn Fn(&mut vjepa_compiler::serialize::Artifact)| {
        let mut artifact = decode(&std::fs::read(&plan).unwrap()).unwrap();
        change(&mut artifact);
        support::write(files.path(), name, encode(&artifact))
    };
    let record = |key: &str, value: &str| {
        rewritten(&format!("other-{key}.vjg"), &|artifact| {
            drop(artifact.record.insert(key.to_owned(), value.to_owned()))
        })
    };
    for (path, words) in [
        (record("program", "vjepa 0.0.1"), "was compiled by vjepa 0.0.1, and this is vjepa"),
        (record("device", "cuda"), "was compiled for device cuda, and this run is on cpu"),
        (record("graph", "encoder"), "is the graph `encoder`"),
        (rewritten("bare.vjg", &|artifact| artifact.record.clear()), "does not say for which program"),
        (rewritten("unrun.vjg", &|artifact| drop(artifact.plan.steps.pop())), "never runs"),
        (
            rewritten("silent.vjg", &|artifact| artifact.graph.outputs[0].0 = "lost".to_owned()),
            "does not compute `loss`",
        ),
        (support::write(files.path(), "text.vjg", "graph step[]"), "not a compiled graph"),
        (files.path().join("nowhere.vjg"), "nowhere.vjg"),
    ] {
        let message = error(&mut with_plan(folder.path(), &path, &[]));
        assert!(message.contains(words), "{}: {message}", path.display());
    }
    // Rates, batch and masks are inputs of the graph: they may change.
    let other = ["--set", "data.batch_size=2", "--set", "optimization.lr=1e-4", "--set", "mask.0.num_blocks=2"];
    with_plan(folder.path(), &plan, &other).args(["--stop-at", "2"]).assert().success();
}

#[test]
fn every_cut_of_the_passes_trains_alike_and_unknown_passes_are_listed() {
    let whole = tempfile::tempdir().unwrap();
    train(whole.path(), &["--stop-at", "2", "--verify-ir"]).assert().success();
    for stop in ["none", "forward/cse", "clean-up"] {
        let cut = tempfile::tempdir().unwrap();
        train(cut.path(), &["--stop-at", "2", "--verify-ir", "--stop-after", stop]).assert().success();
        for (a, b) in losses(whole.path()).iter().zip(losses(cut.path())) {
            assert!((a - b).abs() <= 1e-5 * b.abs(), "after {stop}: {b}, all passes: {a}");
        }
    }
    for message in [
        refused(&mut compile(&["--stop-after", "inline"])),
        error(&mut train(whole.path(), &["--stop-after", "forward/inline"])),
    ] {
        assert!(message.contains("there is no pass `inline`; the passes are none, clean-up"), "{message}");
    }
    let nodes = |extra: &[&str]| -> u64 {
        let text = stdout(compile(extra).args(["--json", "--verify-ir"]));
        serde_json::from_str::<Value>(&text).unwrap()["nodes"].as_u64().unwrap()
    };
    let counts = [nodes(&["--stop-after", "none"]), nodes(&["--stop-after", "forward/dead-code"]), nodes(&[])];
    assert!(counts.is_sorted_by(|more, fewer| more > fewer), "{counts:?}");
}

#[test]
fn passes_and_plan_are_shown() {
    let passes: Value = serde_json::from_str(&stdout(&mut compile(&["--emit", "passes", "--json"]))).unwrap();
    let stages = passes["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    for name in ["trace", "forward/clean-up", "grad", "optimizer", "clean-up", "fuse-adamw-ema", "lower", "plan"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    for pair in stages.windows(2) {
        assert_eq!(pair[0]["nodes"][1], pair[1]["nodes"][0], "{} before {}", pair[0]["name"], pair[1]["name"]);
        assert_eq!(pair[0]["cost"][1], pair[1]["cost"][0]);
    }
    let table = stdout(&mut compile(&["--emit", "passes"]));
    assert!(table.contains("forward/sink-tokens") && table.contains("GFLOP"), "{table}");

    let text = stdout(&mut compile(&["--emit", "plan"]));
    let shown: Value = serde_json::from_str(&stdout(&mut compile(&["--emit", "plan", "--json"]))).unwrap();
    let steps = shown["steps"].as_array().unwrap();
    let (runs, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("by "));
    assert_eq!(rest.len(), 3 + steps.len());
    assert!(runs[0].starts_with("by our kernels: ") && runs.len() <= 2, "{runs:?}");
    assert_eq!(text.matches("<- peak").count(), 1);
    let held = steps.iter().map(|step| step["bytes_held"].as_u64().unwrap()).max().unwrap();
    assert_eq!(shown["peak_memory"].as_u64().unwrap(), held);
}

#[test]
fn a_profile_is_a_table_and_a_trace_and_changes_no_number() {
    let [plain, profiled] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let trace = profiled.path().join("trace.json");
    let arguments = ["--profile", trace.to_str().unwrap(), "--profile-steps", "2"];
    train(plain.path(), &[]).assert().success();
    let text = stdout(&mut train(profiled.path(), &arguments));
    assert!(text.contains("GFLOP/s") && text.contains("linear") && text.contains("2 runs"), "{text}");
    assert_eq!(losses(plain.path()), losses(profiled.path()));
    // The columns stand below each other, however long a name is.
    let table = text.lines().skip_while(|line| !line.contains("GFLOP/s")).take_while(|line| !line.is_empty());
    let lengths: Vec<usize> = table.map(|line| line.chars().count()).collect();
    assert!(lengths.len() > 5 && lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");

    let trace: Value = serde_json::from_slice(&std::fs::read(&trace).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |phase: &str, category: Option<&str>| {
        events.iter().filter(|event| event["ph"] == phase && event["cat"].as_str() == category).collect::<Vec<_>>()
    };
    let (nodes, runs, held) = (of("X", Some("node")), of("X", Some("run")), of("C", None));
    assert_eq!(runs.len(), 2);
    assert!(nodes.len() > 200 && nodes.len() == held.len());
    assert!(nodes.iter().any(|event| event["name"] == "linear" && event["args"]["flops"].as_u64().unwrap() > 0));
    assert!(nodes.iter().all(|event| event["args"]["results"][0].as_str().unwrap().contains('[')));
    assert!(held.iter().all(|event| event["args"]["bytes"].as_u64().unwrap() > 0));
    let end = |event: &Value| event["ts"].as_f64().unwrap() + event["dur"].as_f64().unwrap();
    assert!(nodes.iter().all(|event| end(event) <= end(runs[1]) + 1.0));
}
