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
