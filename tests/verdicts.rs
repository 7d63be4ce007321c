//! How a run says what became of it: resumed with other settings, collapsed, diverged, short.

mod support;

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use support::{train, vjepa};
use vjepa_train::{Change, Checkpoint, CheckpointRecord};

fn record(folder: &Path) -> CheckpointRecord {
    Checkpoint::new(folder, "jepa").load().unwrap().1
}

/// The last line of a run's JSON, which sums it up.
fn summary(command: &mut Command, code: i32) -> Value {
    let output = command.arg("--json").assert().code(code).get_output().stdout.clone();
    serde_json::from_str(String::from_utf8(output).unwrap().lines().last().unwrap()).unwrap()
}

fn stderr(command: &mut Command, success: bool) -> String {
    let assert = command.assert();
    let assert = if success { assert.success() } else { assert.code(1) };
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

#[test]
fn another_model_or_other_clips_are_not_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &["--stop-at", "2"]).assert().success();
    let before = std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap();
    for (set, words) in [
        ("data.normalization=imagenet", &["`data.normalization` per_clip (now imagenet)"][..]),
        ("data.grayscale=false", &["`data.grayscale` true (now false)"]),
        ("data.sampling_rate=2", &["`data.sampling_rate` 1 (now 2)"]),
        ("data.num_frames=4", &["`data.num_frames` 8 (now 4)"]),
        ("model.depth=1", &["`model.depth` 2 (now 1)"]),
        ("model.pred_num_heads=1", &["`model.pred_num_heads` 2 (now 1)"]),
        ("mask.0.num_blocks=3", &["`mask.0.num_blocks` 4 (now 3)"]),
    ] {
        let error = stderr(&mut train(folder.path(), &["--resume", "--set", set]), false);
        let common = ["jepa-latest.safetensors", "resume with that value", "meta.read_checkpoint"];
        assert!(words.iter().chain(&common).all(|word| error.contains(word)), "{set}: {error}");
    }
    assert_eq!(before, std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap());
}

#[test]
fn other_changes_are_said_and_kept_in_the_record() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &["--stop-at", "2"]).assert().success();
    assert!(record(folder.path()).history.is_empty());
    let changed = ["--resume", "--stop-at", "4", "--set", "optimization.lr=1e-4", "--set", "data.batch_size=3"];
    let notes = stderr(&mut train(folder.path(), &changed), true);
    let lines: Vec<&str> = notes.lines().filter(|line| line.starts_with("note: resumed")).collect();
    assert_eq!(lines.len(), 2, "{notes}");
    assert!(lines[0].contains("after step 2") && lines[0].contains("data.batch_size: 3, was 4"), "{notes}");
    assert!(lines[1].contains("optimization.lr: 0.0001, was 0.002"), "{notes}");
    // Back again: the record tells of both.
    let notes = stderr(&mut train(folder.path(), &["--resume"]), true);
    assert!(notes.contains("optimization.lr: 0.002, was 0.0001"), "{notes}");
    let history = record(folder.path()).history;
    assert_eq!(history.iter().map(|part| part.from).collect::<Vec<_>>(), [2, 4]);
    let lr = |was: &str, now: &str| Change { key: "optimization.lr".into(), was: was.into(), now: now.into() };
    assert_eq!(history[0].changed[1], lr("0.002", "0.0001"));
    assert_eq!(history[1].changed[1], lr("0.0001", "0.002"));
    // Also of how many groups a step is made.
    let fewer = ["--resume", "--stop-at", "6", "--set", "optimization.steps=8", "--set", "optimization.groups=2"];
    let notes = stderr(&mut train(folder.path(), &fewer), true);
    assert!(notes.contains("changed setting: optimization.groups: 2, was "), "{notes}");
    // Nothing to say where nothing changed, but the continuation is in the record.
    train(folder.path(), &["--stop-at", "4"]).assert().failure();
    let same = stderr(&mut train(folder.path(), &["--resume"]), true);
    assert!(!same.contains("note: resumed"), "{same}");
}

#[test]
fn other_videos_under_the_same_name_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let videos = folder.path().join("videos");
    std::fs::create_dir(&videos).unwrap();
    let add = |name: &str| std::fs::copy(support::texture("t0_d0_s0.mp4"), videos.join(name)).unwrap();
    assert_eq!(["a.mp4", "b.mp4", "c.mp4", "d.mp4"].map(add).len(), 4);
    let run = folder.path().join("run");
    let data = format!("data.datasets=[{}]", videos.display());
    let set = ["--set", "data.dataset_type=VideoDataset", "--set", &data];
    train(&run, &set).args(["--stop-at", "2"]).assert().success();
    assert_eq!(record(&run).contents.unwrap().videos, 4);
    std::fs::rename(videos.join("a.mp4"), videos.join("e.mp4")).unwrap();
    let notes = stderr(train(&run, &set).args(["--resume", "--stop-at", "3"]), true);
    assert!(
        notes.contains("the data sets' contents: 4 videos, of which some have other paths, was 4 videos"),
        "{notes}"
    );
    add("f.mp4");
    let notes = stderr(train(&run, &set).args(["--resume", "--stop-at", "4"]), true);
    assert!(notes.contains("the data sets' contents: 5 videos, was 4 videos"), "{notes}");
    let other = ["--set", "data.dataset_type=DriftingTextures", "--set", "data.datasets=[]"];
    let error = stderr(train(&run, &other).arg("--resume"), false);
    assert!(error.contains("`data.dataset_type` VideoDataset (now DriftingTextures)"), "{error}");
}

/// One sentence with a remedy. Root may write everywhere: the run is then another user's, where that user can read the program.
#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_to_is_named_with_what_to_do() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    for run in [closed.clone(), closed.join("run")] {
        let usual = train(&run, &[]);
        let mut command = std::process::Command::new(usual.get_program());
        command.args(usual.get_args()).current_dir(folder.path());
        if std::fs::metadata(folder.path()).unwrap().uid() == 0 {
            command.uid(65534).gid(65534);
        }
        let Ok(output) = command.output() else {
            println!("skipped: the other user cannot read the program");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("quickstart.yaml") {
            println!("skipped: the other user cannot read the configuration");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        let words =
            ["error: ", "closed", "cannot be written to", "Permission denied", "choose another `logging.folder`"];
        assert!(words.iter().all(|word| last.contains(word)) && said.matches("error: ").count() == 1, "{said}");
    }
    // A file where the folder should be.
    let file = support::write(folder.path(), "file", "");
    let said = stderr(&mut train(&file, &[]), false);
    assert!(said.contains("cannot be written to") && said.contains("`logging.folder`"), "{said}");
}

#[test]
fn short_runs_are_saved_at_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = train(folder.path(), &["--set", "logging.checkpoint_every=null"]);
    // The checkpoint of every step, as a watcher sees it: none but the last exists.
    let wild = ["--set", "optimization.lr=1e30", "--set", "optimization.start_lr=1e30"];
    let error = stderr(command.args(wild), false);
    assert!(error.contains("nothing was saved"), "{error}");
    assert!(!folder.path().join("jepa-latest.safetensors").exists());
    train(folder.path(), &["--set", "logging.checkpoint_every=null"]).assert().success();
    assert_eq!(record(folder.path()).step, 6);
}

#[test]
fn a_run_that_diverges_is_named_with_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &["--stop-at", "3"]).assert().success();
    let wild = ["--resume", "--set", "optimization.lr=1e30", "--set", "optimization.start_lr=1e30"];
    let error = stderr(&mut train(folder.path(), &wild), false);
    let last = error.lines().last().unwrap();
    assert!(last.starts_with("error: the ") && last.contains("at step"), "{error}");
    // A loss that is a number is not said to be none.
    assert!(["is NaN", "is infinite"].iter().any(|word| last.contains(word)), "{error}");
    for word in ["jepa-latest.safetensors stays as it was after 3 steps", "--resume", "`optimization.lr` (here"] {
        assert!(last.contains(word), "{word}: {error}");
    }
}

/// A run that collapses within seconds: a learning rate far too high, and a target that follows at once.
const COLLAPSES: [&str; 10] = [
    "--set",
    "optimization.steps=300",
    "--set",
    "optimization.lr=0.3",
    "--set",
    "optimization.start_lr=0.3",
    "--set",
    "optimization.ema=[0.0, 0.0]",
    "--set",
    "optimization.weight_decay=0.0",
];

#[test]
fn a_collapsed_run_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, extra: &[&str]| {
        let mut command = train(&folder.path().join(name), &COLLAPSES);
        command.args(extra);
        command
    };
    let watched = ["--set", "logging.diagnostics_every=40"];
    let found = summary(&mut run("watched", &watched), 0);
    assert_eq!(found["collapsed"], true, "{found}");
    // Without diagnostics on the way the end is measured all the same, and the exit code is for scripts.
    let failed = run("plain", &["--fail-on-collapse"]).assert().code(3).get_output().clone();
    let text = String::from_utf8(failed.stdout).unwrap();
    assert!(text.starts_with("collapsed after 300 steps") && text.contains("effective rank"), "{text}");
    assert!(text.contains("`optimization.lr` (now 3.0e-1)"), "{text}");
}

/// The sentence comes with the first twentieth of a run's steps, as long as these are the twenty that it needs, with all that is
/// measured, and stands in the run's record, its events and on its page.
#[test]
fn the_first_verdict_comes_within_a_twentieth_and_is_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let long = ["optimization.steps=400", "optimization.warmup_steps=40", "logging.diagnostics_every=10"];
    let sets: Vec<&str> = long.iter().flat_map(|set| ["--set", set]).collect();
    let said = stderr(train(&run, &sets).args(["--stop-at", "21"]), true);
    let verdict =
        said.lines().find(|line| line.starts_with("verdict after step 20: no sign of collapse")).unwrap_or_default();
    for words in ["gradient norm", "context gap", "effective rank", "deviation 0.", "of the least dimension"] {
        assert!(verdict.contains(words), "{words}: {said}");
    }
    let record = std::fs::read_to_string(run.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["starts"][0]["verdicts"], serde_json::json!([{"step": 20, "sentence": verdict}]));
    support::vjepa().arg("report").arg(&run).assert().success();
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains(verdict), "{verdict}");
    // What is resumed keeps it.
    stderr(train(&run, &sets).args(["--resume", "--stop-at", "24"]), true);
    let record: Value = serde_json::from_str(&std::fs::read_to_string(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["starts"][0]["verdicts"][0]["step"], 20, "{}", record["starts"][0]["verdicts"]);
    assert!(record["starts"][1].get("verdicts").is_none(), "three steps are too few for another");
}

#[test]
fn sound_and_short_runs_are_not_called_collapsed() {
    let folder = tempfile::tempdir().unwrap();
    let sound = ["--set", "optimization.steps=60", "--set", "optimization.warmup_steps=6", "--fail-on-collapse"];
    let found = summary(&mut train(&folder.path().join("sound"), &sound), 0);
    assert_eq!(found["collapsed"], false, "{found}");
    let found = summary(&mut train(&folder.path().join("short"), &["--fail-on-collapse"]), 0);
    assert_eq!(found["collapsed"], Value::Null, "{found}");
    let stopped = summary(&mut train(&folder.path().join("none"), &["--stop-at", "0"]), 0);
    assert_eq!(stopped["collapsed"], Value::Null, "{stopped}");
}

#[test]
fn golden_data_of_other_kinds_are_unsupported_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let carried = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schedules/schedules.json");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    file("eval_map/expected.json", "{\"rows\": 3}");
    file("eval_map/info.json", "{}");
    file("eval_votes/info.json", "{}");
    file("eval_votes/io.safetensors", "");
    file("hf/config.json", "{\"config\": {\"model_type\": \"vjepa2\"}}");
    file("hub/config.json", "{\"files\": []}");
    file("notes/readme.md", "nothing");
    let verify = |dir: &Path| {
        let mut command = vjepa();
        command.args(["verify", "golden"]).arg(dir);
        command
    };
    // Nothing else there: nothing could be compared.
    let error = stderr(&mut verify(folder.path()), false);
    assert!(error.contains("0 passed, 0 failed, 4 unsupported") && error.contains("could be compared"), "{error}");
    std::fs::create_dir(folder.path().join("schedules")).unwrap();
    std::fs::copy(carried, folder.path().join("schedules/schedules.json")).unwrap();
    let output = verify(folder.path()).assert().success().get_output().clone();
    let (text, count) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for name in ["eval_map", "eval_votes", "hf", "hub"] {
        assert!(text.contains(&format!("skip {name}.")), "{name}: {text}");
    }
    assert!(count.contains(" 0 failed, 4 unsupported") && !text.contains("notes"), "{count}");
}
