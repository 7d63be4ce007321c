//! Several ranks over MPI give what one rank gives with as many groups. Needs the feature `mpi` and `mpirun`.
#![cfg(feature = "mpi")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{SMALL_RUN, losses, recipe, train};
use vjepa_train::Checkpoint;

/// 20 steps, longer than the small run's 6.
const STEPS: [&str; 2] = ["--set", "optimization.steps=20"];

/// `mpirun -n RANKS vjepa train` of the small run, on however few cores there are.
fn mpirun(ranks: usize, folder: &Path, extra: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    // Containers run as root, and CI has two cores.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.env("RAYON_NUM_THREADS", "1");
    command.args(["--oversubscribe", "-n", &ranks.to_string(), env!("CARGO_BIN_EXE_vjepa"), "train", "--config"]);
    command.arg(recipe());
    for set in SMALL_RUN {
        command.args(["--set", set]);
    }
    command.arg("--set").arg(format!("logging.folder={}", folder.display())).args(extra);
    command
}

fn done(command: &mut Command) -> Output {
    let output = command.output().expect("mpirun is installed (openmpi-bin)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn failed(command: &mut Command) -> String {
    let output = command.output().expect("mpirun is installed (openmpi-bin)");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The largest relative distance of losses, and of weights and moments, between two runs.
fn apart(a: &Path, b: &Path) -> (f64, f64) {
    let (x, y) = (losses(a), losses(b));
    assert_eq!(x.len(), y.len());
    let loss = x.iter().zip(&y).map(|(x, y)| (x - y).abs() / y.abs()).fold(0.0, f64::max);
    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap().0;
    let (x, y) = (load(a), load(b));
    assert_eq!(x.keys().collect::<Vec<_>>(), y.keys().collect::<Vec<_>>());
    let distance = |name: &String| {
        let (x, y) = (&x[name].1, &y[name].1);
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let norm = square(&mut y.iter().map(|v| f64::from(*v)));
        square(&mut x.iter().zip(y).map(|(x, y)| f64::from(x - y))) / norm.max(1e-12)
    };
    // AdamW divides the gradients of key biases, which are rounding only, by their own size.
    let weights = x.keys().filter(|name| !name.ends_with("qkv.bias")).map(distance).fold(0.0, f64::max);
    (loss, weights)
}

#[test]
fn ranks_give_what_groups_on_one_rank_give() {
    for ranks in [2, 4] {
        let [one, many, again] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let groups = format!("optimization.groups={ranks}");
        let extra = [&["--set", &groups, "--set", "data.batch_size=2"], &STEPS[..]].concat();
        train(one.path(), &extra).assert().success();
        let output = done(&mut mpirun(ranks, many.path(), &extra));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("{ranks} groups of 2 clips a step, one on each of {ranks} ranks")), "{said}");
        let (loss, weights) = apart(many.path(), one.path());
        println!("{ranks} ranks: losses {loss:.1e}, weights {weights:.1e}");
        assert!(loss <= 1e-6 && weights <= 1e-6, "{ranks} ranks: losses {loss:e}, weights {weights:e}");
        // The same number of ranks gives the same bits.
        done(&mut mpirun(ranks, again.path(), &extra));
        assert_eq!(apart(again.path(), many.path()), (0.0, 0.0));
    }
}

#[test]
fn a_run_resumes_with_another_number_of_ranks() {
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let groups = ["--set", "optimization.groups=4", "--set", "data.batch_size=2"];
    train(whole.path(), &groups).assert().success();
    done(&mut mpirun(2, parts.path(), &[&groups[..], &["--stop-at", "3"]].concat()));
    train(parts.path(), &groups).arg("--resume").assert().success();
    let (loss, weights) = apart(parts.path(), whole.path());
    assert!(loss <= 1e-6 && weights <= 1e-6, "losses {loss:e}, weights {weights:e}");
}

#[test]
fn what_cannot_go_together_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let said = failed(&mut mpirun(2, folder.path(), &["--set", "optimization.groups=3"]));
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.contains("3 groups of clips a step cannot be shared evenly by 2 ranks: start 1 or 3 ranks"), "{said}");

    // Rank 1 is given another learning rate.
    let mut command = mpirun(1, folder.path(), &["--set", "optimization.groups=2"]);
    command.args([":", "-n", "1", env!("CARGO_BIN_EXE_vjepa"), "train", "--config"]).arg(recipe());
    for set in SMALL_RUN {
        command.args(["--set", set]);
    }
    command.args(["--set", "optimization.groups=2", "--set", "optimization.lr=0.5", "--set"]);
    command.arg(format!("logging.folder={}", folder.path().display()));
    let said = failed(&mut command);
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    assert!(said.contains("rank 1 had another configuration than rank 0"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_rank_that_hangs_or_dies_ends_the_job_with_its_name() {
    for (signal, words) in [("-STOP", "rank 1 did not answer within 5 s"), ("-KILL", "rank 1")] {
        let folder = tempfile::tempdir().unwrap();
        let long = ["--set", "optimization.groups=2", "--set", "optimization.steps=100000", "--rank-timeout", "5"];
        let mut command = mpirun(2, folder.path(), &long);
        let began = Instant::now();
        let job = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let metrics = folder.path().join("jepa-metrics.csv");
        while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 3 {
            assert!(began.elapsed() < Duration::from_secs(120), "the run did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let second = rank_of(job.id(), 1);
        let struck = Instant::now();
        Command::new("kill").args([signal, &second.to_string()]).status().unwrap();
        let output = job.wait_with_output().unwrap();
        // A stopped process ignores the end of its job.
        Command::new("kill").args(["-KILL", &second.to_string()]).stderr(Stdio::null()).status().unwrap();
        assert!(!output.status.success() && struck.elapsed() < Duration::from_secs(60), "{:?}", struck.elapsed());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{signal}: {said}");
    }
}

/// The process of a rank among the children of mpirun.
fn rank_of(mpirun: u32, rank: usize) -> u32 {
    let entries =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let child = |process: &u32| {
        let read = |what: &str| std::fs::read(format!("/proc/{process}/{what}")).unwrap_or_default();
        let parent = format!("PPid:\t{mpirun}\n");
        let variable = format!("OMPI_COMM_WORLD_RANK={rank}\0");
        String::from_utf8_lossy(&read("status")).contains(&parent)
            && String::from_utf8_lossy(&read("environ")).contains(&variable)
    };
    entries.into_iter().find(child).expect("the rank runs on this machine")
}
