//! No command writes over what it reads, however the path is spelled, and none over a file of another kind.

use std::path::Path;

use super::support::{self, TINY, refused, texture, tiny, vjepa, write};

/// A folder of files that commands read; where nothing is computed, a name is all that is needed.
fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["results", "actions", "hf"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    let weights = std::fs::read(tiny("weights.safetensors")).unwrap();
    for name in ["k.safetensors", "actions/encoder.onnx", "hf/model.safetensors", "k.png"] {
        write(folder.path(), name, &weights);
    }
    let video = std::fs::read(texture("t0_d0_s0.mp4")).unwrap();
    write(folder.path(), "v.mp4", video);
    write(folder.path(), "c.yaml", TINY);
    write(folder.path(), "run.yaml", std::fs::read(support::recipe()).unwrap());
    for name in ["l.csv", "results/heads.csv", "results/confusion.csv", "p.png", "l.png", "t.png", "m.onnx", "p.html"] {
        write(folder.path(), name, "a.mp4 0\nb.mp4 1\n");
    }
    for name in ["p.safetensors", "b.safetensors", "b-split-1.safetensors", "n.safetensors"] {
        write(folder.path(), name, "boxes, labels, anything");
    }
    folder
}

fn run(folder: &Path, line: &str) -> String {
    refused(vjepa().current_dir(folder).args(line.split(' ')))
}

fn contents(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => files.extend(contents(&entry)),
            false => files.push((entry.clone(), std::fs::read(&entry).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn no_command_overwrites_what_it_reads() {
    let folder = scene();
    let before = contents(folder.path());
    for line in [
        "features --checkpoint k.safetensors --input v.mp4 --out k.safetensors",
        "features --checkpoint k.safetensors --input v.mp4 --out ./results/../k.safetensors",
        "features --checkpoint k.safetensors --input v.mp4 --pool attentive --probe p.safetensors --out p.safetensors",
        "probe --checkpoint k.safetensors --data l.csv --out k.safetensors",
        "probe --features p.safetensors --out ./p.safetensors",
        "probe --checkpoint k.safetensors --data l.csv --names n.safetensors --out n.safetensors",
        "probe --checkpoint k.safetensors --data results/heads.csv --out new.safetensors --results results",
        "eval --checkpoint k.safetensors --probe p.safetensors --data results/confusion.csv --results results",
        "convert k.safetensors k.safetensors",
        "convert k.safetensors ./k.safetensors --weights-only",
        "convert hf/model.safetensors hf --to hf",
        "visualize masks --config p.png --input v.mp4 --out p.png",
        "visualize features --checkpoint k.safetensors --input v.mp4 --out v.mp4",
        "visualize features --checkpoint k.png --input v.mp4 --out k.png",
        "visualize attention --checkpoint k.safetensors --probe p.png --input v.mp4 --out p.png",
        "visualize neighbours --checkpoint k.safetensors --data l.png --out l.png",
        "neighbours t.png --out t.png",
        "detect train --checkpoint k.safetensors --boxes b.safetensors --videos . --out b.safetensors",
        "detect train --checkpoint k.safetensors --boxes l.csv --videos . --out k.safetensors",
        "detect train --checkpoint k.safetensors --boxes b-split-1.safetensors --videos . --subset 50% --out b.safetensors",
        "detect run --detector p.safetensors --checkpoint k.safetensors --videos . --people l.csv --out l.csv",
        "detect eval --detector p.safetensors --checkpoint k.safetensors --videos . --boxes l.csv --out l.csv",
        "anticipate train --checkpoint k.safetensors --train l.csv --videos . --out k.safetensors",
        "frames v.mp4 --indices 0 --out v.mp4",
        "graph step --config c.yaml --out c.yaml",
        "compile --export onnx --checkpoint k.safetensors --config c.yaml --out c.yaml",
        "compile --export tensorrt --checkpoint k.safetensors --config c.yaml --out k.safetensors",
        "compile --export action --checkpoint actions/encoder.onnx --out actions",
        "train --config run.yaml --profile run.yaml",
        "train --config run.yaml --plan l.csv --profile l.csv",
        "report run --probe p.html --out p.html",
        "bench step --config c.yaml --out c.yaml",
        "bench step --config c.yaml --profile c.yaml",
        "bench infer m.onnx --out m.onnx",
        "bench infer --onnx tract=m.onnx --out m.onnx",
        "bench decode v.mp4 --out v.mp4",
        "bench loader l.csv --out l.csv",
    ] {
        let told = run(folder.path(), line);
        assert!(
            told.contains(" would overwrite ") && told.contains("which is an input; give another "),
            "{line}: {told}"
        );
    }
    assert!(before == contents(folder.path()));
    let told = run(folder.path(), "features --checkpoint k.safetensors --input v.mp4 --out k.safetensors");
    assert_eq!(
        told,
        "error: --out k.safetensors would overwrite k.safetensors, which is an input; give another --out\n"
    );
}

/// What is read by its ending is written with it, so that nothing else is taken its place.
#[test]
fn outputs_have_the_ending_by_which_they_are_read() {
    let folder = scene();
    let before = contents(folder.path());
    for (line, ending) in [
        ("probe --checkpoint k.safetensors --data l.csv --out m.onnx", ".safetensors"),
        ("probe --checkpoint k.safetensors --data l.csv --out probe", ".safetensors"),
        ("detect train --checkpoint k.safetensors --boxes l.csv --videos . --out m.onnx", ".safetensors"),
        ("anticipate train --checkpoint k.safetensors --train l.csv --videos . --out m.onnx", ".safetensors"),
        ("report run --out k.safetensors", ".html"),
    ] {
        let told = run(folder.path(), line);
        assert!(told.contains(&format!("give a name that ends in {ending}")), "{line}: {told}");
    }
    assert!(before == contents(folder.path()));
}

/// `vjepa ablate` names its results itself.
#[test]
fn an_ablations_results_spare_its_table() {
    let folder = scene();
    let table = format!("name: x\nbase: {}\nevaluations: [texture]\nrows:\n  - {{name: a}}\n", "../run.yaml");
    write(folder.path(), "results/ablation.csv", &table);
    let told = run(folder.path(), "ablate results/ablation.csv --out results");
    assert!(told.contains("--out results would overwrite results/ablation.csv"), "{told}");
    assert_eq!(std::fs::read_to_string(folder.path().join("results/ablation.csv")).unwrap(), table);
}
