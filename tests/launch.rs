//! The job files of examples/launch: scripts that the shell accepts and run as they should with a stand-in for their launcher,
//! manifests of the fields that the operators know, commands of this program that parse, ranks that divide the groups.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::write;

fn launch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/launch").join(name)
}

/// Checks the words of a command and returns the number of groups that it asks for.
fn groups(words: &[String]) -> u64 {
    let parsed = vjepa::cli::command().try_get_matches_from(words);
    assert!(parsed.is_ok(), "{}\n{}", words.join(" "), parsed.unwrap_err());
    let setting = words.iter().find_map(|word| word.strip_prefix("optimization.groups="));
    setting.unwrap_or_else(|| panic!("{words:?} names no groups")).parse().unwrap()
}

/// Runs a script of a job with programs that write down how they were called, and returns the words of the launcher's call.
fn called(script: &str, arguments: &[&Path], environment: &BTreeMap<&str, &str>, launcher: &str) -> Vec<String> {
    let path = launch(script);
    let checked = Command::new("bash").arg("-n").arg(&path).output().unwrap();
    assert!(checked.status.success(), "{script}: {}", String::from_utf8_lossy(&checked.stderr));
    let folder = tempfile::tempdir().unwrap();
    let call = folder.path().join("call");
    let program = format!(
        "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\n' \"$word\"; done >{0}\nenv >{0}.env\nexit 75\n",
        call.display()
    );
    let hostnames = format!(
        "#!/bin/sh\nif [ \"$1\" = show ]; then echo node7; echo node8; else echo \"$@\" >{}.again; fi\n",
        call.display()
    );
    for (name, text) in [(launcher, program), ("scontrol", hostnames)] {
        let program = write(folder.path(), name, text);
        let mut mode = std::fs::metadata(&program).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&program, mode).unwrap();
    }
    let search = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.arg(&path).args(arguments).envs(environment).env("PATH", search).current_dir(folder.path());
    command.env("RUN", folder.path().join("run"));
    let said = command.output().unwrap();
    assert_eq!(said.status.code(), Some(75), "{script}: {}", String::from_utf8_lossy(&said.stderr));
    let words = std::fs::read_to_string(&call).unwrap();
    let mut words: Vec<String> = words.lines().map(str::to_owned).collect();
    if launcher == "srun" {
        let again = std::fs::read_to_string(folder.path().join("call.again")).unwrap();
        assert_eq!(again.trim(), "requeue 4711", "{script}: code 75 is a reason to queue the job again");
        let environment = std::fs::read_to_string(folder.path().join("call.env")).unwrap();
        words.extend(environment.lines().filter(|line| line.starts_with("MASTER_")).map(str::to_owned));
    }
    words
}

/// The words from `vjepa` on.
fn ours(words: &[String]) -> Vec<String> {
    let first = words.iter().position(|word| word == "vjepa").unwrap();
    words[first..].iter().filter(|word| !word.starts_with("MASTER_")).cloned().collect()
}

/// The number that a batch script asks SLURM for.
fn asked(script: &str, option: &str) -> u64 {
    let text = std::fs::read_to_string(launch(script)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("#SBATCH --{option}="))).unwrap();
    line.parse().unwrap()
}

#[test]
fn scripts_of_slurm_start_a_run_and_queue_it_again() {
    let environment = BTreeMap::from([
        ("SLURM_JOB_ID", "4711"),
        ("SLURM_CPUS_PER_TASK", "24"),
        ("SLURM_SUBMIT_DIR", "/work"),
        ("SLURM_JOB_NODELIST", "node[7-8]"),
    ]);
    for script in ["slurm-cpu.sbatch", "slurm-gpu.sbatch"] {
        let words = called(script, &[], &environment, "srun");
        let ranks = asked(script, "nodes") * asked(script, "ntasks-per-node");
        assert_eq!(groups(&ours(&words)) % ranks, 0, "{script}: {words:?}");
        if script.contains("gpu") {
            let meet = ["MASTER_ADDR=node7", "MASTER_PORT=24711"].map(str::to_owned);
            assert!(meet.iter().all(|word| words.contains(word)), "{words:?}");
        }
    }
}

#[test]
fn ranks_over_ssh_are_those_of_the_file_of_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = write(folder.path(), "hosts", "# two machines\nnode1 slots=2\nnode2 slots=4\n\nnode3\n");
    let words = called("ssh.sh", &[&hosts], &BTreeMap::new(), "mpirun");
    let count = words.iter().position(|word| word == "-n").map(|at| words[at + 1].clone());
    assert_eq!((count.as_deref(), groups(&ours(&words))), (Some("7"), 7), "{words:?}");
    let empty = write(folder.path(), "none", "# nobody\n");
    let said = Command::new("bash").arg(launch("ssh.sh")).arg(empty).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("names no host"));
}

fn manifest(name: &str) -> Value {
    let text = std::fs::read_to_string(launch(name)).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

fn words_of(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn manifests_start_as_many_ranks_as_divide_the_groups() {
    let job = manifest("mpijob.yaml");
    assert_eq!((&job["apiVersion"], &job["kind"]), (&"kubeflow.org/v2beta1".into(), &"MPIJob".into()));
    assert_eq!(keys(&job["spec"]["mpiReplicaSpecs"]), ["Launcher", "Worker"]);
    let replicas = job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"].as_u64().unwrap();
    let ranks = replicas * job["spec"]["slotsPerWorker"].as_u64().unwrap();
    let launcher = &job["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0];
    assert_eq!(words_of(&launcher["command"]), ["bash", "-c"]);
    let script = launcher["args"][0].as_str().unwrap();
    assert!(Command::new("bash").args(["-n", "-c", script]).status().unwrap().success());
    let line = script.replace("\\\n", " ");
    let mut words: Vec<String> =
        line.split_whitespace().skip_while(|word| *word != "mpirun").map(|word| word.replace('"', "")).collect();
    words.retain(|word| word != "${resume[@]}");
    let count = words.iter().position(|word| word == "-n").map(|at| words[at + 1].clone());
    assert_eq!(count, Some(ranks.to_string()));
    assert_eq!(groups(&ours(&words)) % ranks, 0);

    let job = manifest("trainjob.yaml");
    assert_eq!((&job["apiVersion"], &job["kind"]), (&"trainer.kubeflow.org/v1alpha1".into(), &"TrainJob".into()));
    let trainer = &job["spec"]["trainer"];
    let known = ["args", "command", "image", "numNodes", "numProcPerNode", "resourcesPerNode"];
    assert!(keys(trainer).iter().all(|key| known.contains(key)), "{trainer}");
    // One process a node is what PET_* can say without torchrun.
    assert_eq!(trainer["numProcPerNode"], 1);
    let words = [words_of(&trainer["command"]), words_of(&trainer["args"])].concat();
    assert_eq!(groups(&words) % trainer["numNodes"].as_u64().unwrap(), 0);
}
