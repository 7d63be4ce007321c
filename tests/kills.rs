//! Runs that are killed, told to end, or left without room: what is there afterwards goes on as if nothing had happened.
//!
//! `VJEPA_KILLS=200 cargo test --release --test kills -- --nocapture` kills as often; by default it is a few times.
#![cfg(unix)]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{SMALL_RUN, losses, losses_and_norms, recipe, train, vjepa};
use vjepa_recipe::counter::CounterRng;
use vjepa_train::Checkpoint;

/// Steps of the killed run, and how often it saves.
const LONG: [&str; 6] =
    ["--set", "optimization.steps=400", "--set", "logging.checkpoint_every=3", "--set", "logging.keep_last=3"];

fn start(folder: &Path, extra: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vjepa"));
    command.args(["train", "--config"]).arg(recipe());
    for set in SMALL_RUN {
        command.args(["--set", set]);
    }
    command.args(LONG).arg("--set").arg(format!("logging.folder={}", folder.display())).args(extra);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kills() -> u64 {
    std::env::var("VJEPA_KILLS").ok().map_or(6, |kills| kills.parse().expect("VJEPA_KILLS is a number"))
}

#[test]
fn killed_at_any_moment_a_run_ends_with_the_same_weights() {
    let [whole, killed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let began = Instant::now();
    train(whole.path(), &LONG).assert().success();
    let alone = began.elapsed();
    let files = Checkpoint::new(killed.path(), "jepa");
    let mut random = CounterRng::new(&[kills(), 7]);
    let (mut done, mut from_kept) = (0, 0);
    while done < kills() {
        let resume: &[&str] = if files.any().is_some() { &["--resume"] } else { &[] };
        let mut child = start(killed.path(), resume);
        // From before the first step to the end, so that starts, saves and ends are all hit.
        let longest = (alone.as_micros() as u64 / 3).max(1000);
        std::thread::sleep(Duration::from_micros(random.below(longest)));
        if child.try_wait().unwrap().is_some_and(|status| status.success()) {
            // It was done already: from the beginning.
            files.remove_all().unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        done += 1;
        if let Some(path) = files.any() {
            let found = files.newest().unwrap_or_else(|error| panic!("kill {done}: {error}"));
            assert!(found.passed_over.is_empty(), "kill {done}: {:?}", found.passed_over);
            from_kept += u32::from(found.path == path);
        }
    }
    println!("{done} kills, {from_kept} with a checkpoint");
    let resume: &[&str] = if files.any().is_some() { &["--resume"] } else { &[] };
    assert!(start(killed.path(), resume).wait().unwrap().success());
    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap();
    let ((a, record), (b, resumed)) = (load(whole.path()), load(killed.path()));
    assert_eq!((record.step, resumed.step), (400, 400));
    assert!(a == b, "weights, averages or moments differ after {done} kills");
    assert_eq!(losses_and_norms(whole.path()), losses_and_norms(killed.path()));
    let left = std::fs::read_dir(killed.path()).unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(left.filter(|name| name.ends_with(".part")).count(), 0, "half-written files are left");
}

#[test]
fn a_deleted_or_damaged_newest_checkpoint_is_said_and_passed_over() {
    let [whole, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    train(whole.path(), &[]).assert().success();
    let latest = folder.path().join("jepa-latest.safetensors");
    train(folder.path(), &["--set", "logging.checkpoint_every=1", "--stop-at", "4"]).assert().success();
    for (cut, words) in [(true, "cut off"), (false, "is gone")] {
        if cut {
            let bytes = std::fs::read(&latest).unwrap();
            std::fs::write(&latest, &bytes[..bytes.len() / 2]).unwrap();
        } else {
            std::fs::remove_file(&latest).unwrap();
        }
        let output =
            train(folder.path(), &["--resume", "--stop-at", "4"]).assert().success().get_output().stderr.clone();
        let said = String::from_utf8(output).unwrap();
        assert!(said.contains(words) && said.contains("resuming from") && said.contains("after step 3"), "{said}");
    }
    train(folder.path(), &["--resume"]).assert().success();
    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap().0;
    assert!(load(whole.path()) == load(folder.path()), "weights or moments differ");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = start(folder.path(), &["--set", "optimization.steps=100000"]);
    let began = Instant::now();
    while !folder.path().join("jepa-metrics.csv").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "the run did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = train(folder.path(), &["--resume"]).assert().code(1).get_output().stderr.clone();
    let said = String::from_utf8(output).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(said.contains(&format!("process {} of", first.id())) && said.contains("trains in this folder"), "{said}");
}

/// A limit on the size of files stands for a disk that is full.
#[test]
fn a_run_without_room_says_so_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &["--stop-at", "2"]).assert().success();
    let before = std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap();
    // The metrics fit, a checkpoint does not; without the handler the signal of the limit would end the program.
    let limit = before.len() / 2 / 1024;
    let mut words = vec![env!("CARGO_BIN_EXE_vjepa").to_owned(), "train".into(), "--config".into()];
    words.push(recipe().display().to_string());
    SMALL_RUN.iter().for_each(|set| words.extend(["--set".to_owned(), (*set).to_owned()]));
    words.extend(["--set".to_owned(), format!("logging.folder={}", folder.path().display()), "--resume".to_owned()]);
    words.extend(["--set".to_owned(), "logging.checkpoint_every=1".to_owned()]);
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\"");
    let output = Command::new("bash").args(["-c", &script, "bash"]).args(&words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("after step 3 could not be saved") && said.contains("training goes on"), "{said}");
    assert!(said.contains("the newest checkpoint is still"), "{said}");
    // All six steps were done; only their last state could not be kept, which is an error.
    assert_eq!(losses(folder.path()).len(), 6);
    assert!(!output.status.success() && said.contains("error: "), "{said}");
    assert_eq!(before, std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap());
    train(folder.path(), &["--resume"]).assert().success();
    let left =
        vjepa().args(["inspect", "--json"]).arg(folder.path().join("jepa-latest.safetensors")).assert().success();
    assert!(!left.get_output().stdout.is_empty());
}

#[test]
fn what_goes_first_is_named_with_its_clips() {
    // Whole steps, and steps whose gradients are added up over groups.
    for groups in ["optimization.groups=1", "optimization.groups=2"] {
        let folder = tempfile::tempdir().unwrap();
        train(folder.path(), &["--stop-at", "3", "--set", groups]).assert().success();
        let wild =
            ["--resume", "--set", groups, "--set", "optimization.lr=1e30", "--set", "optimization.start_lr=1e30"];
        let output = train(folder.path(), &wild).assert().failure().get_output().stderr.clone();
        let said = String::from_utf8(output).unwrap();
        assert!(said.contains("the first bad tensor is the ") && said.contains("of the batch clip "), "{said}");
        let found: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("jepa-diverged.json")).unwrap()).unwrap();
        assert_eq!(found["clips"].as_array().unwrap().len(), 4, "{found}");
        let tensor = found["first_bad_tensor"].as_str().unwrap_or_default();
        assert!(tensor.contains("that `") && !tensor.contains("grad/"), "{found}");
    }
}
