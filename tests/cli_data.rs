//! `vjepa data`: lists from annotation files, as a user makes them.

use std::path::Path;
use std::process::{Command, Output};

fn vjepa(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vjepa")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// UCF101 as it comes, of two classes; one of the training clips has no file.
fn ucf101() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("classInd.txt", "1 Archery\r\n2 Bowling\r\n");
    write(
        "trainlist01.txt",
        "Archery/v_Archery_g01_c01.avi 1\nArchery/v_Archery_g02_c01.avi 1\nBowling/v_Bowling_g01_c01.avi 2\nBowling/v_Bowling_g09_c01.avi 2\n",
    );
    for clip in ["Archery/v_Archery_g01_c01", "Archery/v_Archery_g02_c01", "Bowling/v_Bowling_g01_c01"] {
        write(&format!("clips/{clip}.mp4"), "a name is all that is looked for");
    }
    folder
}

#[test]
fn annotations_become_a_list_with_names_and_counts() {
    let folder = ucf101();
    let arguments = "data list ucf101 trainlist01.txt --classes classInd.txt --videos clips --out train.csv";
    let output = vjepa(&arguments.split(' ').collect::<Vec<_>>(), folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("3 samples of 2 classes; 1 left out"), "{said}");
    assert!(said.contains("v_Bowling_g09_c01"), "{said}");
    let list = std::fs::read_to_string(folder.path().join("train.csv")).unwrap();
    let labels: Vec<&str> = list.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(labels, ["0", "0", "1"], "{list}");
    assert_eq!(std::fs::read_to_string(folder.path().join("train.names.txt")).unwrap(), "Archery\nBowling\n");

    let output = vjepa(&["data", "subset", "train.csv", "--share", "5%", "--out", "few.csv"], folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let list = std::fs::read_to_string(folder.path().join("few.csv")).unwrap();
    let labels: Vec<&str> = list.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(labels, ["0", "1"], "one of each class stays: {list}");
}

#[test]
fn what_is_missing_is_asked_for_in_a_sentence() {
    let folder = ucf101();
    for (arguments, remedy) in [
        ("data list ucf101 trainlist01.txt --videos clips --out t.csv", "ucf101 needs --classes"),
        ("data list ucf101 trainlist01.txt --classes classInd.txt --out t.csv", "needs --videos"),
        ("data list kinetics classInd.txt --videos clips --out t.csv", "classInd.txt"),
        ("data subset trainlist01.txt --share 500% --out t.csv", "at most 100%"),
    ] {
        let output = vjepa(&arguments.split(' ').collect::<Vec<_>>(), folder.path());
        assert!(!output.status.success(), "{arguments}");
        let said = text(&output.stderr);
        assert!(said.contains(remedy) && said.len() < 1000, "{arguments}: {said}");
        assert!(!folder.path().join("t.csv").exists(), "{arguments}");
    }
}

/// What is written is never what is read, however its path is spelled.
#[test]
fn no_input_is_overwritten() {
    let folder = ucf101();
    let list = "clips/Archery/v_Archery_g01_c01.mp4 0\nclips/Bowling/v_Bowling_g01_c01.mp4 1\n";
    for name in ["l.csv", "s.good.csv", "c.names.txt"] {
        std::fs::write(folder.path().join(name), list).unwrap();
    }
    for arguments in [
        "data split l.csv --share 50% --train l.csv --val v.csv",
        "data split l.csv --share 50% --train t.csv --val ./clips/../l.csv",
        "data subset l.csv --share 50% --out ./l.csv",
        "data overlap l.csv s.good.csv --out l.csv",
        "data overlap s.good.csv l.csv --out l.csv",
        "data scan s.good.csv --out s",
        "data list named l.csv --out l.csv",
        "data list named l.csv --classes c.names.txt --out c.csv",
    ] {
        let output = vjepa(&arguments.split(' ').collect::<Vec<_>>(), folder.path());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {said}");
        assert!(said.contains("would overwrite") && said.lines().count() == 1, "{arguments}: {said}");
    }
    for name in ["l.csv", "s.good.csv", "c.names.txt"] {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), list, "{name}");
    }
    let output =
        vjepa(&["data", "split", "l.csv", "--share", "50%", "--train", "t.csv", "--val", "./t.csv"], folder.path());
    assert!(text(&output.stderr).contains("name the same file") && !folder.path().join("t.csv").exists());
}

/// Four of the carried videos in two class folders, and a file that is no video.
fn class_folders() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (class, name) in [("a", "t0_d0_s0.mp4"), ("a", "t0_d1_s1.mp4"), ("b", "t0_d2_s0.mp4"), ("b", "t0_d3_s1.mp4")] {
        std::fs::create_dir_all(folder.path().join("videos").join(class)).unwrap();
        let carried = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures").join(name);
        std::fs::copy(carried, folder.path().join("videos").join(class).join(name)).unwrap();
    }
    std::fs::write(folder.path().join("videos/b/text.mp4"), "no video ".repeat(200)).unwrap();
    folder
}

#[test]
fn a_folder_is_listed_scanned_split_compared_and_packed() {
    let folder = class_folders();
    let run = |line: &str| {
        let output = vjepa(&line.split(' ').collect::<Vec<_>>(), folder.path());
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let lines = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap().lines().count();
    run("data list classes videos --out all.csv");
    assert_eq!((lines("all.csv"), lines("all.names.txt")), (5, 2));
    let said = run("data scan all.csv --out scan");
    assert!(said.contains("good") && said.contains("bad: not a video file"), "{said}");
    assert_eq!((lines("scan.jsonl"), lines("scan.good.csv"), lines("scan.bad.csv")), (5, 4, 2));
    run("data split scan.good.csv --share 50% --train train.csv --val val.csv");
    assert_eq!((lines("train.csv"), lines("val.csv")), (2, 2));
    let said = run("data overlap scan.good.csv val.csv --out clean.csv");
    assert_eq!((said.lines().count(), lines("clean.csv")), (2, 2));
    assert!(said.contains("by name and frames"), "{said}");
    let said = run("data pack scan.good.csv --out shards --copy --json");
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((report["samples"].as_u64(), report["left_out"].as_u64()), (Some(4), Some(0)), "{said}");
    std::fs::remove_file(folder.path().join("shards/shard-000000.tar.index")).unwrap();
    let said = run("data index shards/shard-000000.tar");
    assert!(said.contains("4 samples, 4 with labels"), "{said}");
    let said = run("data scan shards --out packed --json");
    assert_eq!(said.lines().count(), 4);
    assert_eq!(lines("packed.good.csv"), 4);
    let output = vjepa(&["data", "pack", "shards", "--out", "shards", "--copy"], folder.path());
    assert!(text(&output.stderr).contains("holds shards that are read"), "{}", text(&output.stderr));
    let output = vjepa(&["data", "pack", "all.csv", "--out", "x"], folder.path());
    assert_eq!(output.status.code(), Some(2), "encoding or copying is to be chosen");
}
