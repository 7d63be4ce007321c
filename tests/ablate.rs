//! `vjepa ablate` on tables of runs of seconds.

mod support;

use std::path::{Path, PathBuf};

use support::{SMALL_RUN, recipe, refused, vjepa, write};
use vjepa_recipe::ablation::AblationState;
use vjepa_recipe::config::Config;

/// A folder with lists of carried clips and a table.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let textures = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join("textures");
        let list = std::fs::read_to_string(textures.join("labels.csv")).unwrap();
        for (name, offset) in [("train.csv", 0), ("val.csv", 1)] {
            let lines = list.lines().skip(offset).step_by(2).take(20);
            let text: String = lines.map(|line| format!("{}\n", textures.join(line).display())).collect();
            write(folder.path(), name, text);
        }
        Self(folder)
    }

    /// Writes the table with these lines at its end.
    fn table(&self, more: &str) {
        let sets: Vec<&str> = SMALL_RUN.into_iter().filter(|set| !set.starts_with("meta.seed")).collect();
        let text = format!("name: small\nbase: {}\nset: [{}]\n{more}", recipe().display(), sets.join(", "));
        write(self.0.path(), "table.yaml", text);
    }

    fn ablate(&self, more: &[&str]) -> assert_cmd::Command {
        let mut command = vjepa();
        command.current_dir(self.0.path()).args(["ablate", "table.yaml", "--out", "out"]).args(more);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// What a command that succeeds prints, as JSON.
fn json(command: &mut assert_cmd::Command) -> serde_json::Value {
    let output = command.assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

const PROBE: &str = "[probe, --data, train.csv, --val, val.csv, --kind, 'linear,knn']";

const ROWS: &str = "seeds: [3, 4]
evaluations:
  - {name: files, run: [probe, --data, train.csv, --val, val.csv, --kind, 'linear,knn']}
rows:
  - {name: plain, reference: {files: 72.9}}
  - {name: 'causal, short', set: [mask.0.max_temporal_keep=0.5, mask.1.max_temporal_keep=0.5]}
  - {name: first weights, untrained: true}
orderings:
  - [plain, first weights]
";

#[test]
fn a_table_is_run_once_and_goes_on_where_it_was_stopped() {
    let scene = Scene::new();
    scene.table(ROWS);
    let run = |scene: &Scene| {
        let output = scene.ablate(&[]).assert().success().get_output().clone();
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [table, progress] = run(&scene);
    assert!(
        progress.contains("run 1 of 6: plain-seed3") && progress.contains("run 6 of 6: first-weights-untrained-seed4")
    );
    assert!(table.contains("| plain | 2/2 |") && table.contains("| 72.9 |"), "{table}");
    assert!(table.contains("- plain > first weights (files): "), "{table}");
    for file in ["ablation.md", "ablation.csv", "ablation-files.png", "runs/plain-seed3/jepa-latest.safetensors"] {
        assert!(scene.path("out").join(file).is_file(), "{file}");
    }
    let state = AblationState::read(&scene.path("out/runs.json")).unwrap();
    assert!(state.runs.len() == 6 && state.runs.values().all(|run| (0.0..=1.0).contains(&run.figures["files"])));

    // All of it is kept; what is missing is run again, from the checkpoint, with the same figure.
    let [again, progress] = run(&scene);
    assert_eq!((again, progress.contains("run ")), (table.clone(), false), "{progress}");
    let mut part = state.clone();
    part.runs.remove("causal-short-seed4");
    part.write(&scene.path("out/runs.json")).unwrap();
    let [again, progress] = run(&scene);
    assert!(progress.contains("run 5 of 6: causal-short-seed4") && !progress.contains("run 1 of 6"), "{progress}");
    assert_eq!(again, table);

    scene.table(&ROWS.replace("0.5, ", "0.25, "));
    let text = refused(&mut scene.ablate(&[]));
    assert!(text.contains("causal-short-seed3") && text.contains("another configuration"), "{text}");
}

#[test]
fn encoders_are_compared_by_what_fine_tuning_makes_of_them() {
    let scene = Scene::new();
    let tuning = "{data: {batch_size: 4, num_workers: 1}, data_aug: {auto_augment: false}, meta: {dtype: float32}, finetune: {num_sample: 1, \
                  test_num_segment: 1, test_num_crop: 1}, optimization: {epochs: 1, warmup: 0.5}}";
    write(scene.0.path(), "tuning.yaml", tuning);
    let rows = "evaluations:
  - {name: tuned, run: [finetune, --config, tuning.yaml, --data, train.csv, --val, val.csv]}
rows:
  - {name: plain}
  - {name: first weights, untrained: true}
";
    scene.table(rows);
    scene.ablate(&[]).assert().success();
    let state = AblationState::read(&scene.path("out/runs.json")).unwrap();
    assert!(state.runs.len() == 2 && state.runs.values().all(|run| (0.0..=1.0).contains(&run.figures["tuned"])));
    for run in ["plain-seed0", "first-weights-untrained-seed0"] {
        assert!(scene.path("out/runs").join(run).join("finetune-tuned/finetune-latest.safetensors").is_file(), "{run}");
    }
    // A run that was stopped during its evaluation goes on there, to the same figure.
    let steps = || std::fs::read(scene.path("out/runs/plain-seed0/finetune-tuned/finetune-metrics.csv")).unwrap();
    let (mut part, done) = (state.clone(), steps());
    part.runs.remove("plain-seed0");
    part.write(&scene.path("out/runs.json")).unwrap();
    scene.ablate(&[]).assert().success();
    assert!(done == steps(), "steps were repeated");
    let figures = |state: AblationState| state.runs.into_iter().map(|(id, run)| (id, run.figures)).collect::<Vec<_>>();
    assert_eq!(figures(AblationState::read(&scene.path("out/runs.json")).unwrap()), figures(state));
    // Without a test list there is no figure.
    scene.table(&rows.replace(", --val, val.csv", ""));
    std::fs::remove_dir_all(scene.path("out")).unwrap();
    let output = scene.ablate(&[]).assert().failure().get_output().stderr.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(
        text.ends_with("error: the evaluation `tuned` tested nothing: name its test list, `--val FILE`\n"),
        "{text}"
    );
}

#[test]
fn a_row_is_evaluated_by_detection() {
    let scene = Scene::new();
    // Second 900 is a clip's first; of eight frames of one-second clips.
    let lines = |seed: &str| -> String {
        let texture = |texture: usize| format!("t{texture}_d0_s{seed},900,0.0,0.0,1.0,1.0,{},0\n", texture + 1);
        (0..4).map(texture).collect()
    };
    write(scene.0.path(), "train-boxes.csv", lines("0"));
    write(scene.0.path(), "val-boxes.csv", lines("1"));
    let textures = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join("textures");
    let videos = textures.display();
    let rows = format!(
        "evaluations:
  - {{name: boxes, run: [detect, --boxes, train-boxes.csv, --videos, {videos}, --step, 1, --epochs, 2, --, --boxes, val-boxes.csv, --videos, {videos}]}}
rows:
  - {{name: plain}}
"
    );
    scene.table(&rows);
    scene.ablate(&[]).assert().success();
    let state = AblationState::read(&scene.path("out/runs.json")).unwrap();
    let run = &state.runs["plain-seed0"];
    assert!(run.figures["boxes"] > 0.0 && run.figures["boxes"] <= 1.0, "{run:?}");
    assert!(scene.path("out/runs/plain-seed0/detector-boxes.safetensors").is_file());
    scene.table(&rows.replace(" --, --boxes, val-boxes.csv,", " --boxes, val-boxes.csv,"));
    let text = refused(&mut scene.ablate(&[]));
    assert!(text.contains("one `--`, and arguments of `vjepa detect eval`"), "{text}");
}

#[test]
fn slips_are_found_before_anything_runs() {
    let scene = Scene::new();
    for (from, to, words) in [
        ("run: [probe,", "run: [probed,", &["`files` is not known", "motion attentive"][..]),
        (PROBE, "[motion, labels=0]", &["`files` takes 1 to 100 labels a class, not `0`"]),
        ("untrained: true", "untrained: 1", &["table.yaml", "untrained"]),
        ("0.5, ", "5, ", &["causal, short", "max_temporal_keep"]),
        ("[plain, first weights]", "[plain, last weights]", &["no row `last weights`"]),
        ("--kind,", "--kinds,", &["`files`", "vjepa probe", "--kinds"]),
        ("'linear,knn'", "cubic", &["`files`", "cubic"]),
        ("train.csv", "absent.csv", &["`files`", "absent.csv", "no such file"]),
        (PROBE, "[finetune, --config, train.csv, --data, train.csv]", &["`files`", "train.csv"]),
        ("knn']", "knn'], assume: {trian: 4}", &["`assume` of the evaluation `files`", "trian", "train=N"]),
        ("knn']", "knn'], assume: {train: few}", &["table.yaml", "assume"]),
    ] {
        assert!(ROWS.contains(from), "{from}");
        scene.table(&ROWS.replacen(from, to, 1));
        let text = refused(&mut scene.ablate(&[]));
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(!scene.path("out").exists());
    }
    // Textures are asked about where clips show them.
    let videos = "set: [data.dataset_type=VideoDataset, 'data.datasets=[train.csv]']";
    scene.table(&format!("evaluations: [texture]\nrows:\n  - {{name: plain, {videos}}}\n"));
    for more in [&[][..], &["--dry-run"]] {
        let text = refused(&mut scene.ablate(more));
        assert!(text.contains("`texture`") && text.contains("use `probe` for videos"), "{text}");
    }
    // What fails while it runs names the run and leaves the others.
    let list = std::fs::read_to_string(scene.path("train.csv")).unwrap();
    write(scene.0.path(), "one.csv", list.lines().next().unwrap());
    scene.table(&ROWS.replace("train.csv", "one.csv"));
    let output = scene.ablate(&[]).assert().failure().get_output().stderr.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("one.csv") && text.contains("the evaluation `files` failed"), "{text}");
}

#[test]
fn a_dry_run_says_what_it_would_cost() {
    let scene = Scene::new();
    scene.table(ROWS);
    let output = scene.ablate(&["--dry-run", "--speed", "0.1"]).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.starts_with("small: 6 runs, 0 finished, evaluated by files\n"), "{text}");
    for words in [
        "to run plain-seed3",
        "6 steps of 1 x 4 clips",
        "GFLOP",
        "h at 0.1 TFLOP/s",
        "first weights, not trained",
        "evaluations of each run:\n  files: at least ",
        "    encoder, training: 20 samples x 1 clips x 1 views, once: ",
        "    encoder, evaluation: 20 samples",
        "not counted: linear on the features",
        "without what is not counted above",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!scene.path("out").exists());
    // Evaluations of six runs, and trainings of four: the other two are first weights.
    let told = json(&mut scene.ablate(&["--dry-run", "--speed", "0.1", "--json"]));
    let runs = told["runs"].as_array().unwrap();
    let sum = |of: &dyn Fn(&serde_json::Value) -> Option<f64>| runs.iter().filter_map(of).sum::<f64>();
    let trained = sum(&|run| run["training"]["hours"].as_f64());
    let evaluated = sum(&|run| run["evaluations"]["files"]["hours"].as_f64());
    assert_eq!((runs.len(), runs.iter().filter(|run| run["training"].is_null()).count()), (6, 2), "{told}");
    for (sum, key) in [(trained, "hours_of_training"), (evaluated, "hours_of_evaluations")] {
        assert!(sum > 0.0 && (told[key].as_f64().unwrap() - sum).abs() <= 1e-9 * sum, "{key}: {told}");
    }
}

#[test]
fn evaluations_of_the_shipped_tables_are_counted_without_their_lists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, evaluations) in [("finetune-vitl16", 2), ("pooling-k400", 4), ("images-in1k", 1), ("small", 1)] {
        let table = format!("configs/ablations/{name}.yaml");
        let told = json(vjepa().current_dir(root).args(["ablate", &table, "--dry-run", "--json"]));
        let bills = told["runs"][0]["evaluations"].as_object().unwrap();
        assert_eq!(bills.len(), evaluations, "{name}: {told}");
        for (evaluation, bill) in bills {
            let left = bill["not_counted"].as_array().unwrap();
            assert!(
                left.iter().all(|why| why.as_str().unwrap().starts_with("logistic")),
                "{name}, {evaluation}: {bill}"
            );
            assert!(bill["flops"].as_f64().unwrap() > 0.0 && bill["peak_memory"].as_u64().unwrap() > 0, "{bill}");
        }
    }
}

#[test]
fn a_dry_run_invents_no_samples() {
    let scene = Scene::new();
    let evaluation = |list: &str, assume: &str| {
        let probe = format!("[probe, --data, {list}, --val, val.csv, --kind, 'attentive,average', --subset, 50%]");
        scene.table(&format!("evaluations:\n  - {{name: files, run: {probe}{assume}}}\nrows:\n  - {{name: plain}}\n"));
        json(&mut scene.ablate(&["--dry-run", "--json"]))["runs"][0]["evaluations"]["files"].clone()
    };
    let part = |bill: &serde_json::Value, what: &str| {
        let parts = bill["parts"].as_array().unwrap().iter();
        parts
            .filter(|part| part["what"].as_str().unwrap().starts_with(what))
            .map(|part| part["flops"].as_f64().unwrap())
            .sum::<f64>()
    };
    let listed = evaluation("train.csv", "");
    assert_eq!(listed["not_counted"], serde_json::json!([]), "{listed}");
    // Ten samples of each of three splits: one batch in each of 20 epochs.
    assert!(part(&listed, "attentive, training: 20 steps of 16 samples") > 0.0, "{listed}");
    let absent = evaluation("absent.csv", "");
    assert_eq!(part(&absent, "attentive, training"), 0.0, "{absent}");
    let why = absent["not_counted"].to_string();
    assert!(why.contains("absent.csv is not here") && why.contains("classes=N"), "{why}");
    assert!(part(&absent, "encoder, evaluation: 20 samples") > 0.0, "{absent}");
    let given = evaluation("absent.csv", ", assume: {train: 2000, classes: 8}");
    assert!(
        given["not_counted"] == serde_json::json!([]) && given["parts"].to_string().contains("2000 (given)"),
        "{given}"
    );
    // Of two halves of 1,000 each: 63 batches of 16 in each of 20 epochs.
    assert!(part(&given, "average, training: 1260 steps of 16 samples") > 0.0, "{given}");
    assert_eq!(part(&given, "encoder, evaluation"), part(&listed, "encoder, evaluation"));
}

#[test]
fn textures_and_fine_tuning_are_counted_too() {
    let scene = Scene::new();
    let tuning = "{data: {batch_size: 4, num_workers: 1}, data_aug: {auto_augment: false}, finetune: {num_sample: 2, \
                  test_num_segment: 2, test_num_crop: 3, subset: 0.5}, optimization: {epochs: 2, warmup: 0.5}}";
    write(scene.0.path(), "tuning.yaml", tuning);
    let rows = "evaluations:
  - motion attentive
  - motion
  - {name: tuned, run: [finetune, --config, tuning.yaml, --data, train.csv, --val, val.csv]}
rows:
  - {name: plain}
";
    scene.table(rows);
    let told = json(&mut scene.ablate(&["--dry-run", "--json"]));
    let bills = &told["runs"][0]["evaluations"];
    let textures = bills["motion attentive, motion"]["parts"].to_string();
    assert!(textures.contains("encoder, 2600 clips") && textures.contains("1920 steps of 8 clips"), "{told}");
    let tuned = &bills["tuned"];
    let parts = tuned["parts"].as_array().unwrap();
    // One for each draw.
    assert_eq!(
        parts.iter().filter(|part| part["what"].as_str().unwrap().starts_with("training: ")).count(),
        3,
        "{tuned}"
    );
    assert!(
        parts.last().unwrap()["what"].as_str().unwrap().starts_with("test: 20 videos x 2 clips x 3 crops, 3 times"),
        "{tuned}"
    );
    assert!(parts.iter().all(|part| part["flops"].as_f64().unwrap() > 0.0), "{tuned}");
    scene.table(&rows.replace("train.csv", "absent.csv"));
    let told = json(&mut scene.ablate(&["--dry-run", "--json"]));
    let tuned = told["runs"][0]["evaluations"]["tuned"]["not_counted"].to_string();
    assert!(tuned.contains("absent.csv is not here") && tuned.contains("number is not known"), "{tuned}");
}

#[test]
fn the_tables_of_the_repository_are_read() {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/ablations")).unwrap() {
        let path = entry.unwrap().path();
        let table = vjepa_recipe::ablation::Ablation::from_file(&path).unwrap_or_else(|error| panic!("{error}"));
        table.check().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The files that its evaluations name are read too, and are this repository's.
        for words in table.commands.values() {
            let Some(at) = words.iter().position(|word| word == "--config") else { continue };
            let named = Path::new(env!("CARGO_MANIFEST_DIR")).join(&words[at + 1]);
            assert!(named.is_file(), "{} of {}", named.display(), path.display());
        }
    }
}

#[test]
fn the_full_scale_recipes_of_fine_tuning_are_the_papers() {
    let model = ["model.model_name=vit_large".to_owned()];
    for (name, epochs, lr, views) in [("k400", 35, 3e-4, (5, 3)), ("ssv2", 20, 1e-4, (2, 3))] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/finetune_{name}.yaml"));
        let config = Config::finetuning(&path, &[], &model).unwrap_or_else(|error| panic!("{error}"));
        let (finetune, optimization) = (config.finetune.as_ref().unwrap(), &config.optimization);
        assert_eq!((optimization.epochs, optimization.lr, optimization.groups()), (epochs, lr, 8));
        assert_eq!((finetune.test_num_segment, finetune.test_num_crop), views);
        assert_eq!((config.data.batch_size, finetune.layer_decay, optimization.weight_decay), (8, 0.8, 0.05));
        assert_eq!(config.data_aug.horizontal_flip, name == "k400");
    }
}
