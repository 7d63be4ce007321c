//! `VJEPA_SIMD`: which instruction set the CPU's kernels use, what is said of it, and that every path gives the official numbers.

mod support;

use std::io::Write;

use support::{refused, tiny, vjepa};
use vjepa_runtime::plan::InstructionSet;

const VARIABLE: &str = "VJEPA_SIMD";

/// The instruction sets of this machine; for each of the others a line past the test harness, which keeps what passing
/// tests print.
fn available() -> Vec<InstructionSet> {
    let available = InstructionSet::available();
    for set in InstructionSet::ALL.into_iter().filter(|set| !available.contains(set)) {
        let _ = writeln!(std::io::stderr(), "not tested under {VARIABLE}={set}: not in this processor or build");
    }
    available
}

fn json(output: &[u8]) -> serde_json::Value {
    serde_json::from_slice(output).unwrap()
}

#[test]
fn golden_data_pass_under_every_cap() {
    for set in available() {
        let mut command = vjepa();
        command.args(["verify", "golden"]).arg(tiny("")).arg("--json").env(VARIABLE, set.name());
        let output = command.assert().success().get_output().stdout.clone();
        let lines: Vec<_> = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(json).collect();
        assert!(lines.len() > 5 && lines.iter().all(|line| line["pass"] == true), "under {set}: {lines:?}");
    }
}

#[test]
fn doctor_and_bench_say_which_path_runs() {
    let best = InstructionSet::available().last().unwrap().name();
    let doctor = |cap: Option<&str>| {
        let mut command = vjepa();
        command.args(["doctor", "--json"]).env_remove(VARIABLE);
        cap.map(|cap| command.env(VARIABLE, cap));
        json(&command.assert().success().get_output().stdout)["simd"].clone()
    };
    for cap in [None, Some("")] {
        let simd = doctor(cap);
        assert_eq!(simd["kernels"], best, "{simd}");
        assert_eq!(simd["processor"], InstructionSet::best_of_processor().name());
    }
    for set in available() {
        let simd = doctor(Some(set.name()));
        assert_eq!((simd["kernels"].as_str(), simd["products"].as_str()), (Some(set.name()), Some(best)), "{simd}");
        assert_eq!(simd["remedy"].is_string(), set.name() != best, "{simd}");
    }
    let mut command = vjepa();
    command.args(["bench", "infer", "--model", "tiny", "--frames", "2", "--size", "112", "--batch", "1", "--no-burn"]);
    command.args(["--rounds", "1", "--warmup", "0", "--json"]).env(VARIABLE, "scalar");
    let figures = json(&command.assert().success().get_output().stdout);
    assert_eq!(figures["simd"]["kernels"], "scalar", "{figures}");
    assert_eq!(figures["simd"]["products"], best);
}

#[test]
fn kernels_are_measured_beside_products_and_copies() {
    let mut command = vjepa();
    command.args(["bench", "kernels", "--rounds", "1", "--json"]).env(VARIABLE, "");
    if InstructionSet::available().len() > 1 {
        command.env(VARIABLE, InstructionSet::available().last().unwrap().name());
    }
    let tables = json(&command.assert().success().get_output().stdout);
    let speeds = tables[0]["speeds"].as_array().unwrap();
    for op in ["linear", "gelu", "gelu_grad", "layer_norm", "layer_norm_grad", "packed_attention_grad"] {
        let of = |speed: &&serde_json::Value| speed["name"].as_str().unwrap().split(' ').next() == Some(op);
        let speed = speeds.iter().find(of).unwrap_or_else(|| panic!("{op} is not in {tables}"));
        assert!(speed["speed"].as_f64().unwrap() > 0.0 && speed["share"].as_f64().unwrap() > 0.0, "{speed}");
    }
}

#[test]
fn a_cap_that_is_not_there_ends_every_command_at_once() {
    let nowhere = tiny("no such file");
    let commands: [&[&str]; 4] = [&["doctor"], &["train", "--config"], &["verify", "golden"], &["inspect"]];
    for (cap, command) in ["sse2", "AVX2", "fastest", "1"].into_iter().zip(commands) {
        let mut program = vjepa();
        program.args(command).env(VARIABLE, cap);
        if command != ["doctor"] {
            program.arg(&nowhere);
        }
        let said = refused(&mut program);
        assert!(said.contains(&format!("{VARIABLE}={cap} is not a valid instruction set")), "{said}");
        assert!(said.contains("write one of scalar") && said.len() < 300, "{said}");
    }
    for set in InstructionSet::ALL.into_iter().filter(|set| !InstructionSet::available().contains(set)) {
        let said = refused(vjepa().arg("doctor").env(VARIABLE, set.name()));
        assert!(said.contains(set.name()) && said.contains("unset it"), "{said}");
    }
}
