//! What the command line says to somebody who mistakes something: the flag, the file and what it is, the remedy.

#[path = "cli_words/spares.rs"]
mod spares;
mod support;

use std::path::Path;

use support::{TINY, refused, texture, tiny, vjepa, write};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01";

/// A folder with a checkpoint, a configuration, a list, and files that are nothing of what is read.
fn scene() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let textures = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures");
    write(folder.path(), "k.safetensors", std::fs::read(tiny("weights.safetensors")).unwrap());
    write(folder.path(), "tiny.yaml", TINY);
    let run = std::fs::read_to_string(support::recipe()).unwrap();
    write(folder.path(), "run.yaml", run.replace("folder: quickstart", "folder: run"));
    let lines = ["t0_d0_s0.mp4 0", "t1_d1_s0.mp4 1"].map(|line: &str| format!("{}\n", textures.join(line).display()));
    write(folder.path(), "l.csv", lines.concat());
    write(
        folder.path(),
        "swapped.csv",
        lines.map(|line| format!("cat,{}", line.replace(" 0", "").replace(" 1", ""))).concat(),
    );
    let video = std::fs::read(texture("t0_d0_s0.mp4")).unwrap();
    for name in ["v.mp4", "fake.onnx", "video.pt"] {
        write(folder.path(), name, &video);
    }
    for name in ["a.png", "png.pth.tar", "png.pt"] {
        write(folder.path(), name, PNG);
    }
    for name in ["text.pt", "notes"] {
        write(folder.path(), name, "some words\n");
    }
    std::fs::create_dir(folder.path().join("imgs")).unwrap();
    write(folder.path(), "imgs/a.png", PNG);
    std::fs::create_dir_all(folder.path().join("configs/evals")).unwrap();
    write(folder.path(), "configs/small.yaml", TINY);
    write(folder.path(), "configs/evals/probe.yaml", TINY);
    folder
}

const FEATURES: &str = "features --checkpoint k.safetensors --config tiny.yaml --out t.safetensors";

/// Runs each line among the files of [`scene`]: it fails, and says so much.
fn all_refused(lines: &[(&str, &str)]) {
    let folder = scene();
    for (line, said) in lines {
        let told = refused(vjepa().current_dir(folder.path()).args(line.split(' ')));
        assert!(told.contains(said), "{line}: {told}");
        if said.starts_with("--") {
            assert!(told.starts_with(&format!("error: {said}")), "{line}: {told}");
        }
    }
    assert!(!folder.path().join("run").exists() || !folder.path().join("run/jepa-latest.safetensors").exists());
}

/// With their flag, without advice for another command.
#[test]
fn paths_that_lead_to_nothing_are_named() {
    all_refused(&[
        (
            "probe --checkpoint k.safetensors --data l.csv --val nope.csv --out p.safetensors",
            "--val nope.csv: no such file or folder\n",
        ),
        (
            "probe --checkpoint k.safetensors --data nope.csv --out p.safetensors",
            "--data nope.csv: no such file or folder\n",
        ),
        ("eval --checkpoint k.safetensors --probe nope --data l.csv", "--probe nope: no such file or folder\n"),
        (
            "finetune --config run.yaml --checkpoint k.safetensors --data nope.csv",
            "--data nope.csv: no such file or folder\n",
        ),
        ("quickstart --videos nope --steps 2", "--videos nope: no such file or folder\n"),
        ("data scan nope.csv --out s", "data set nope.csv: there is no such file or folder\n"),
        (&format!("{FEATURES} --input nope.mp4"), "--input nope.mp4: no such file or folder\n"),
        (
            "train --config run.yaml --set data.dataset_type=VideoDataset --set data.datasets=[nope.csv]",
            "nope.csv: there is no such file or folder; name your own (in a configuration, or with --set data.datasets=",
        ),
    ]);
}

#[test]
fn lists_and_folders_of_another_kind_are_named_with_their_remedy() {
    all_refused(&[
        // A list whose columns are swapped.
        (
            "probe --checkpoint k.safetensors --data swapped.csv --out p.safetensors",
            "without a label; if the label comes first (`cat`), swap the columns: path label\n",
        ),
        // Pictures where videos are wanted.
        (&format!("{FEATURES} --input imgs"), "it holds 1 .png (pictures); give --folders-hold images or frames\n"),
        ("quickstart --videos imgs --steps 2", "it holds 1 .png (pictures); quickstart needs video files\n"),
        (
            "train --config run.yaml --set data.dataset_type=VideoDataset --set data.datasets=[imgs]",
            "(pictures); data.folders_hold says whether pictures are frames or images\n",
        ),
    ]);
}

#[test]
fn files_of_another_kind_are_named_with_what_they_are() {
    all_refused(&[
        (
            "eval --checkpoint k.safetensors --config tiny.yaml --probe text.pt --data l.csv",
            "text.pt is a text file, not a probe; give the file written by `vjepa probe`\n",
        ),
        (
            "eval --checkpoint k.safetensors --config tiny.yaml --probe png.pt --data l.csv",
            "png.pt is a PNG picture, not a probe;",
        ),
        (
            "features --checkpoint png.pth.tar --config tiny.yaml --out t.safetensors --input v.mp4",
            "png.pth.tar is a PNG picture, not a checkpoint; give a .safetensors, .pt or .pth.tar file\n",
        ),
        (
            "features --checkpoint video.pt --config tiny.yaml --out t.safetensors --input v.mp4",
            "video.pt is a video, not a checkpoint;",
        ),
        (
            "inspect a.png",
            "a.png is a PNG picture, not a file that inspect knows: a checkpoint, a video, an ONNX model or a graph (.ir, .vjg)\n",
        ),
        ("inspect notes", "notes is a text file, not a file that inspect knows:"),
        ("inspect png.pt", "png.pt is a PNG picture, not a checkpoint;"),
        ("run fake.onnx v.mp4", "fake.onnx is a video, not a model; give the model first, then the videos\n"),
        ("run a.png v.mp4", "a.png is a PNG picture, not a model; give the model first, then the videos\n"),
        (
            "serve k.safetensors",
            "k.safetensors is a checkpoint, not a model; export it with `vjepa compile --export onnx` or `--export plan`",
        ),
    ]);
}

#[test]
fn numbers_and_names_are_refused_with_a_remedy() {
    all_refused(&[
        (&format!("{FEATURES} --input v.mp4 --layers 12"), "--layers 12: the encoder has 3 blocks, numbered 0 to 2\n"),
        (
            "compile --export onnx --checkpoint k.safetensors --config tiny.yaml --out m.onnx --out-layers 0,7",
            "--out-layers 7: the encoder has 3 blocks, numbered 0 to 2\n",
        ),
        ("train --config run.yaml --resume", "nothing to resume in run; leave out --resume to start\n"),
        ("train --config run.yaml --stop-after 100", "; to stop after a step use --stop-at 100\n"),
        (
            "graph step --config tiny.yaml --memory-budget 1",
            "more than the memory budget of 1 byte; did you mean 1GiB?\n",
        ),
        ("graph step --config small.yaml", "; did you mean configs/small.yaml?\n"),
        ("train --config small", "; did you mean configs/small.yaml?\n"),
        ("ablate probe.yaml", "; did you mean configs/evals/probe.yaml?\n"),
        ("graph step --config other.yaml", "; it was looked for in "),
    ]);
}

/// Spellings of earlier versions.
#[test]
fn old_flags_still_work() {
    let folder = scene();
    let command = |line: &str| vjepa::cli::command().try_get_matches_from(line.split(' '));
    for line in [
        "vjepa train --config c --stop-after none",
        "vjepa train --config c --stop-after-pass none",
        "vjepa graph step --config c --stop-after none",
        "vjepa features --checkpoint k --input v --out t --encoder encoder",
        "vjepa features --checkpoint k --input v --out t --which target_encoder --out-layers 0,1",
        "vjepa compile --export onnx --checkpoint k --out m --layers 0,1",
        "vjepa export --export onnx --checkpoint k --out m --out-layers 0,1",
        "vjepa infer m.onnx v.mp4",
        "vjepa predict m.onnx v.mp4",
    ] {
        assert!(command(line).is_ok(), "{line}: {}", command(line).unwrap_err());
    }
    let mut old = vjepa();
    old.current_dir(folder.path())
        .args("features --checkpoint k.safetensors --config tiny.yaml --input v.mp4".split(' '));
    old.args(["--out", "t.safetensors", "--encoder", "encoder", "--json"]).assert().success();
}

#[test]
fn numbers_out_of_range_are_refused_in_words() {
    for (line, said) in [
        ("quickstart --steps 1", "'1' for '--steps <N>': at least 2"),
        ("probe --features f --out p --epochs 0", "'0' for '--epochs <EPOCHS>': at least 1"),
        ("data list hmdb51 a --out l --split 4", "'4' for '--split <N>': 1 to 3"),
        ("watch run --every 0", "'0' for '--every <SECONDS>': 1 to 3600"),
        ("neighbours t -k many", "a whole number, 1 to 1000"),
    ] {
        let output = vjepa().args(line.split(' ')).assert().code(2).get_output().stderr.clone();
        let told = String::from_utf8_lossy(&output);
        assert!(told.contains(said), "{line}: {told}");
    }
}
