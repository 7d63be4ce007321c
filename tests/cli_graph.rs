//! `vjepa graph`, and `vjepa train --dry-run`: what a step is and needs, without running it.

mod support;

use support::{TINY, refused, train, vjepa, write};

fn lines(output: &[u8]) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn graphs_are_shown_as_text_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    for graph in ["encoder", "predictor", "probe", "step"] {
        let mut command = vjepa();
        command.args(["graph", graph, "--emit", "ir", "--config"]).arg(&config);
        let text = String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap();
        let parsed = vjepa_compiler::text::parse(&text).unwrap();
        assert_eq!(vjepa_compiler::text::print(&parsed), text);
        let mut command = vjepa();
        command.args(["graph", graph, "--json", "--config"]).arg(&config);
        let report = lines(&command.assert().success().get_output().stdout).remove(0);
        for key in ["flops", "bytes", "parameters", "peak_memory"] {
            assert!(report[key].as_u64().unwrap() > 0, "{graph} {key}");
        }
        assert_eq!(report["sizes"]["B"], 4);
    }
}

/// `vjepa compile --graph`, as `vjepa graph` was spelled before: the same output, and one line about the new name.
#[test]
fn the_old_spelling_of_graph_still_works() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let run = |words: &[&str]| {
        let output = vjepa().args(words).arg("--config").arg(&config).assert().success().get_output().clone();
        (output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    for flags in [&["--emit", "ir"][..], &["--json"], &["--emit", "plan", "--set", "data.batch_size=2"]] {
        let (new, silent) = run(&[&["graph", "encoder"], flags].concat());
        assert_eq!(silent, "");
        for old in [&["compile", "--graph", "encoder"][..], &["compile", "--graph=encoder"]] {
            let (same, note) = run(&[old, flags].concat());
            assert!(same == new, "{flags:?}");
            assert_eq!(note, "note: `vjepa compile --graph encoder` is called `vjepa graph encoder` now\n");
        }
    }
    let help = vjepa().args(["compile", "--help"]).assert().success().get_output().stdout.clone();
    assert!(!String::from_utf8(help).unwrap().contains("--graph"));
}

#[test]
fn a_step_is_estimated_for_an_accelerator_and_the_estimate_is_not_called_a_measurement() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let graph = |extra: &[&str]| {
        let mut command = vjepa();
        command.args(["graph", "step", "--config"]).arg(&config).args(extra);
        command
    };
    let [h200, a100] = ["h200", "a100-80g"].map(|name| {
        let output = graph(&["--estimate", name, "--json"]).assert().success().get_output().stdout.clone();
        lines(&output).remove(0)["estimate"].clone()
    });
    assert_eq!((&h200["measured"], &h200["fits"]), (&false.into(), &true.into()));
    let ms = |estimate: &serde_json::Value| estimate["total"]["ms"].as_f64().unwrap();
    assert!(ms(&h200) > 0.0 && ms(&h200) <= ms(&a100));
    graph(&["--estimate", "h200"]).assert().success().stdout(predicates::str::contains("nothing was measured"));
    let said = refused(&mut graph(&["--estimate", "h200", "--emit", "ir"]));
    assert!(said.contains("--estimate goes with the report"), "{said}");
}

#[test]
fn a_dry_run_says_what_a_step_needs_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), &["--dry-run", "--json"]).assert().success().get_output().stdout.clone();
    let summary = lines(&output).remove(0);
    assert_eq!((&summary["steps"], &summary["batch"], &summary["fits"]), (&6.into(), &4.into(), &true.into()));
    assert!(summary["peak_memory"].as_u64().unwrap() > 10_000);
    // Groups add gradients up, whose sums are held beside everything else.
    let groups = ["--dry-run", "--json", "--set", "optimization.groups=2"];
    let output = train(folder.path(), &groups).assert().success().get_output().stdout.clone();
    let sums = lines(&output).remove(0);
    assert_eq!(sums["groups"], 2);
    assert!(sums["peak_memory"].as_u64().unwrap() > summary["peak_memory"].as_u64().unwrap());
    let said = predicates::str::contains("6 steps of 4 clips");
    train(folder.path(), &["--dry-run"]).assert().success().stdout(said);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What is said to fit does fit, and one clip more does not.
#[test]
fn what_does_not_fit_says_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let estimated = |batch: u64| {
        let mut command = vjepa();
        command.args(["graph", "step", "--estimate", "a100-80g", "--json", "--config"]).arg(&config);
        command.args(["--set", "data.num_frames=64", "--set", "data.crop_size=256", "--set"]);
        command.arg(format!("data.batch_size={batch}"));
        lines(&command.assert().success().get_output().stdout).remove(0)
    };
    let most = 80_000_000_000 / 100 * 95;
    let large = estimated(1_000);
    assert_eq!(large["estimate"]["fits"], false);
    assert!(large["largest_peak_memory"].as_u64().unwrap() >= large["peak_memory"].as_u64().unwrap());
    let fits = large["fits_with"]["batch_size"].as_u64().unwrap();
    let needs = |batch: u64| estimated(batch)["largest_peak_memory"].as_u64().unwrap();
    assert!(fits < 1_000 && needs(fits) <= most && needs(fits + 1) > most, "{large}");
    assert!(estimated(2)["fits_with"].is_null());
    // The step as a device fuses it.
    let operations = large["operations"].as_array().unwrap();
    assert!(operations.iter().any(|of| of["op"] == "adamw_ema_all"), "{large}");
}

/// The largest masks are padded like those of average size.
#[test]
fn mask_buckets_count_in_the_largest_peak() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let peaks = |multiple: &str| {
        let mut command = vjepa();
        command.args(["graph", "step", "--json", "--mask-buckets", multiple, "--config"]).arg(&config);
        let report = lines(&command.assert().success().get_output().stdout).remove(0);
        ["peak_memory", "largest_peak_memory"].map(|key| report[key].as_u64().unwrap())
    };
    // Of lists that are all one bucket long, the average is the largest.
    let [mean, largest] = peaks("1024");
    assert_eq!(mean, largest);
    assert!(largest > peaks("1")[1]);
}
