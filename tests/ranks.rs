//! Several ranks over MPI give what one rank gives with as many groups. Needs the feature `mpi` and `mpirun`.
#![cfg(feature = "mpi")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::ranks::{apart, on_ranks, tensors};
use support::{SMALL_RUN, losses_and_norms, recipe, train};

/// 20 steps, longer than the small run's 6.
const STEPS: [&str; 2] = ["--set", "optimization.steps=20"];

/// `mpirun -n RANKS vjepa train` of the small run, on however few cores there are.
fn mpirun(ranks: usize, folder: &Path, extra: &[&str]) -> Command {
    let mut command = on_ranks(ranks);
    command.args(["train", "--config"]).arg(recipe());
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
        assert!(tensors(again.path()) == tensors(many.path()), "{ranks} ranks gave two results");
        assert_eq!(losses_and_norms(again.path()), losses_and_norms(many.path()));
        keys_have_no_bias_to_learn(many.path());
    }
}

/// Fine-tuning of the small run's encoder, with all that it draws: mixing by group, drops by group and place.
const TUNING: &str = "
data: {batch_size: 2, num_workers: 1}
finetune: {mixup: 0.8, cutmix: 1.0, drop_path: 0.3, fc_drop_rate: 0.5, init_scale: 1.0, scale_lr: false}
optimization: {groups: 4, steps: 6, warmup_steps: 2, lr: 0.003}
logging: {write_tag: jepa, metrics_every: 1, checkpoint_every: 3}
meta: {seed: 3}
";

/// Mixup, cutmix, drop path and dropout are drawn by seed, step and group, whichever rank has the group: only the order of sums
/// differs.
#[test]
fn fine_tuning_over_ranks_gives_what_one_rank_gives() {
    let [home, one, two, four, again, parts] = [(); 6].map(|()| tempfile::tempdir().unwrap());
    train(home.path(), &["--stop-at", "1"]).assert().success();
    let textures = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures");
    let labels = std::fs::read_to_string(textures.join("labels.csv")).unwrap();
    let list: String =
        labels.lines().step_by(3).take(16).map(|line| format!("{}\n", textures.join(line).display())).collect();
    let list = support::write(home.path(), "train.csv", list);
    let config = support::write(home.path(), "tuning.yaml", TUNING);
    let tune = |ranks: usize, folder: &Path, extra: &[&str]| {
        let mut command = on_ranks(ranks);
        command.arg("finetune").arg("--config").arg(&config).arg("--data").arg(&list).arg("--checkpoint");
        command.arg(home.path().join("jepa-latest.safetensors")).arg("--set");
        command.arg(format!("logging.folder={}", folder.display())).args(extra);
        done(&mut command);
    };
    tune(1, one.path(), &[]);
    assert!(tensors(one.path()).contains_key("probe.head.weight"), "{:?}", tensors(one.path()).keys());
    for (ranks, many) in [(2, &two), (4, &four)] {
        tune(ranks, many.path(), &[]);
        let (loss, weights) = apart(many.path(), one.path());
        println!("fine-tuning, {ranks} ranks: losses {loss:.1e}, weights {weights:.1e}");
        assert!(loss <= 1e-6 && weights <= 1e-6, "{ranks} ranks: losses {loss:e}, weights {weights:e}");
    }
    // The same number of ranks gives the same bits, stopped and resumed as well.
    tune(2, again.path(), &[]);
    tune(2, parts.path(), &["--stop-at", "3"]);
    tune(2, parts.path(), &["--resume"]);
    for other in [&again, &parts] {
        assert!(tensors(other.path()) == tensors(two.path()), "two ranks gave two results");
        assert_eq!(losses_and_norms(other.path()), losses_and_norms(two.path()));
    }
}

/// The moments say how large gradients were: those of the keys' biases are rounding beside those of queries and values.
fn keys_have_no_bias_to_learn(folder: &Path) {
    for (name, (_, values)) in tensors(folder).iter().filter(|(name, _)| name.starts_with("adam.v.")) {
        let Some(layer) = name.strip_suffix("qkv.bias") else { continue };
        let third = values.len() / 3;
        let size = |part: &[f32]| (part.iter().map(|v| f64::from(*v)).sum::<f64>() / third as f64).sqrt();
        let [q, k, v] = [0, 1, 2].map(|part| size(&values[part * third..(part + 1) * third]));
        println!("{layer}: root mean square of the gradients' averages: q {q:.1e}, k {k:.1e}, v {v:.1e}");
        assert!(k < 1e-4 * q.min(v), "{layer}: q {q:e}, k {k:e}, v {v:e}");
    }
}

#[test]
fn sharing_the_optimiser_changes_no_bit() {
    let [whole, shared, parts, wide] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let groups = ["--set", "optimization.groups=4", "--set", "data.batch_size=2"];
    let sharing = ["--set", "optimization.shard_states=true"];
    let with = |more: &[&[&'static str]]| [&[&groups[..]], more].concat().concat();
    done(&mut mpirun(2, whole.path(), &groups));
    let output = done(&mut mpirun(2, shared.path(), &with(&[&sharing])));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let share = said.split("MB at most, ").nth(1).and_then(|rest| rest.split(' ').next()).map(str::parse::<f64>);
    println!("{said}");
    assert!(matches!(share, Some(Ok(share)) if (0.5..=0.55).contains(&share)), "{share:?}: {said}");
    assert!(tensors(shared.path()) == tensors(whole.path()), "weights, averages or moments differ");
    assert_eq!(losses_and_norms(shared.path()), losses_and_norms(whole.path()));
    // Stopped, and resumed with the switch the other way, each time: the checkpoint is the same.
    done(&mut mpirun(2, parts.path(), &with(&[&sharing, &["--stop-at", "2"]])));
    done(&mut mpirun(2, parts.path(), &with(&[&["--resume", "--stop-at", "4"]])));
    done(&mut mpirun(2, parts.path(), &with(&[&sharing, &["--resume"]])));
    assert!(tensors(parts.path()) == tensors(whole.path()), "weights, averages or moments differ after resuming");
    // Other numbers of ranks go on from a shared state's checkpoint.
    done(&mut mpirun(2, wide.path(), &with(&[&sharing, &["--stop-at", "2"]])));
    done(&mut mpirun(4, wide.path(), &with(&[&sharing, &["--resume", "--stop-at", "4"]])));
    train(wide.path(), &with(&[&sharing])).arg("--resume").assert().success();
    let (loss, weights) = apart(wide.path(), whole.path());
    assert!(loss <= 1e-6 && weights <= 1e-6, "losses {loss:e}, weights {weights:e}");
}

#[test]
fn overlapping_the_sums_changes_no_bit() {
    for ranks in [2, 4] {
        let [beside, after] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let groups = format!("optimization.groups={}", 2 * ranks);
        let extra =
            ["--set", &groups, "--set", "data.batch_size=1", "--set", "optimization.bucket_cap_mb=0.02", "--json"];
        let output = done(&mut mpirun(ranks, beside.path(), &extra));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        println!("{ranks} ranks: {}", summary["sums"]);
        assert!(summary["sums"]["buckets"].as_f64().is_some_and(|buckets| buckets >= 4.0), "{summary}");
        done(&mut mpirun(ranks, after.path(), &[&extra[..], &["--set", "optimization.overlap=false"]].concat()));
        assert!(tensors(beside.path()) == tensors(after.path()), "{ranks} ranks: weights, averages or moments differ");
        assert_eq!(losses_and_norms(beside.path()), losses_and_norms(after.path()));
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

    // Rank 1 is given another learning rate, or compiles the step with fewer passes.
    for (other, what) in [(["--set", "optimization.lr=0.5"], "configuration"), (["--stop-after", "none"], "plan")] {
        let mut command = mpirun(1, folder.path(), &["--set", "optimization.groups=2"]);
        command.args([":", "-n", "1", env!("CARGO_BIN_EXE_vjepa"), "train", "--config"]).arg(recipe());
        for set in SMALL_RUN {
            command.args(["--set", set]);
        }
        command.args(["--set", "optimization.groups=2", "--set"]);
        command.arg(format!("logging.folder={}", folder.path().display())).args(other);
        let said = failed(&mut command);
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        assert!(said.contains(&format!("rank 1 had another {what} than rank 0")), "{said}");
    }
}

/// Ranks on machines whose files differ: a list that is missing on one of them, and one that names other videos there.
#[test]
fn other_files_on_a_machine_are_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let machines = ["a", "b"].map(|name| folder.path().join(name));
    machines.iter().for_each(|machine| std::fs::create_dir(machine).unwrap());
    let list = |names: &[&str]| -> String {
        names.iter().map(|name| format!("{} 0\n", support::texture(name).display())).collect()
    };
    let all = ["t0_d0_s0.mp4", "t1_d1_s0.mp4", "t2_d0_s0.mp4", "t3_d1_s0.mp4"];
    std::fs::write(machines[0].join("clips.csv"), list(&all)).unwrap();
    for (other, words) in
        [(None, "there is no such file"), (Some(list(&all[..3])), "rank 1 had another data list than rank 0")]
    {
        if let Some(text) = other {
            std::fs::write(machines[1].join("clips.csv"), text).unwrap();
        }
        let run = folder.path().join("run");
        let extra = [
            "--set",
            "optimization.groups=2",
            "--set",
            "data.dataset_type=VideoDataset",
            "--set",
            "data.datasets=[clips.csv]",
        ];
        let usual = mpirun(1, &run, &extra);
        // Behind `--oversubscribe -n 1`.
        let program: Vec<_> = usual.get_args().skip(3).collect();
        let mut command = Command::new(usual.get_program());
        command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["--oversubscribe", "-wdir"]).arg(&machines[0]).args(["-n", "1"]).args(&program);
        command.args([":", "-wdir"]).arg(&machines[1]).args(["-n", "1"]).args(&program);
        let began = Instant::now();
        let said = failed(&mut command);
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        assert!(said.matches("error: ").count() == 1 && said.contains(words), "{said}");
    }
}

/// A run of two ranks of which one is killed, several times, ends with the bits of one that is left alone.
#[cfg(unix)]
#[test]
fn killing_a_rank_loses_nothing_but_time() {
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let long = ["--set", "optimization.groups=2", "--set", "optimization.steps=60", "--set", "data.batch_size=2"];
    let often = ["--set", "logging.checkpoint_every=4"];
    done(&mut mpirun(2, whole.path(), &[&long[..], &often].concat()));
    let metrics = parts.path().join("jepa-metrics.csv");
    let steps = || std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count());
    let mut kills = 0;
    for (number, rank) in [1, 0, 1].into_iter().enumerate() {
        let resume: &[&str] = if number == 0 { &[] } else { &["--resume"] };
        let mut command = mpirun(2, parts.path(), &[&long[..], &often, resume].concat());
        let mut job = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (began, seen) = (Instant::now(), steps());
        while steps() < seen + 9 && job.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < Duration::from_secs(120), "the run did not go on");
            std::thread::sleep(Duration::from_millis(5));
        }
        if job.try_wait().unwrap().is_none() {
            Command::new("kill").args(["-KILL", &rank_of(job.id(), rank).to_string()]).status().unwrap();
            kills += 1;
        }
        job.wait().unwrap();
    }
    assert!(kills > 0, "the run was over before anything was killed");
    done(&mut mpirun(2, parts.path(), &[&long[..], &often, &["--resume"]].concat()));
    assert!(tensors(parts.path()) == tensors(whole.path()), "weights, averages or moments differ after {kills} kills");
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
