//! Lists written otherwise than as `path label`: what is said of them, what is missing and not made up, and where paths begin.

use super::scene::{Scene, assert_words, said};
use super::support::write;
use vjepa_data::read_list;

#[test]
fn one_note_says_all_that_is_written_otherwise() {
    let scene = Scene::new();
    scene.list("plain.csv", |path, _, label| format!("{path} {label}"));
    scene.list("quotes.csv", |path, _, label| format!("\"{path}\",\"{label}\""));
    scene.list("header.csv", |path, _, label| format!("{path}\t{label}"));
    let noted = |list: &str| read_list(&scene.path(list)).unwrap().notes;
    assert!(noted("plain.csv").is_empty());
    assert_eq!(noted("quotes.csv"), ["it is read with commas between path and label; quotes"]);
    assert_eq!(noted("header.csv").first().unwrap(), "it is read with tabs between path and label");
    let odd = "\u{feff}\"my videos/dots_0.mp4\", 0\rmy videos/dots_1.mp4\t0\r\nmy videos/lines_2.mp4 1\n";
    write(scene.0.path(), "odd.csv", odd);
    let note = noted("odd.csv");
    assert_eq!(note.len(), 1, "{note:?}");
    assert_words(
        &note[0],
        &["byte order mark", "mixed ends of lines", "spaces and tabs and commas", "not the same", "quotes"],
    );
}

#[test]
fn what_is_missing_is_not_made_up() {
    let scene = Scene::new();
    for (text, words) in [
        ("\"my videos/dots_0.mp4 0\nmy videos/dots_1.mp4 1\n", ["line 1", "quote (`\"`) that is not closed"]),
        ("my videos/dots_0.mp4 0\nmy videos/dots_1.mp4\", 1\n", ["line 2", "quote (`\"`) that is not closed"]),
        ("path,label,x\nmy videos/dots_0.mp4,\"0,1\n", ["line 2", "quote (`\"`) that is not closed"]),
        ("my videos/dots_0.mp4,0\nmy videos/dots_1.mp4,\n", ["line 2", "its label is empty"]),
        ("my videos/dots_0.mp4,\nmy videos/dots_1.mp4,1\n", ["line 1", "its label is empty"]),
        ("path,label\nmy videos/dots_0.mp4,\"\"\n", ["line 2", "its label is empty"]),
    ] {
        let list = write(scene.0.path(), "gaps.csv", text);
        assert_words(&read_list(&list).unwrap_err().to_string(), &words);
    }
    // As names of classes, too.
    let list = write(scene.0.path(), "names.csv", "my videos/dots_0.mp4,\nmy videos/dots_1.mp4,dots\n");
    let mut command = scene.command("data");
    command.args(["list", "named", "--out", "new.csv"]).arg(list);
    assert_words(&super::support::refused(&mut command), &["line 1", "path class"]);
}

#[test]
fn relative_paths_begin_in_the_lists_folder_or_else_here() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("lists")).unwrap();
    let here = scene.list("lists/here.csv", |path, _, label| format!("{path} {label}"));
    let note = said(&mut scene.train("lists/here.csv"));
    assert_words(&note, &["6 videos", "relative to the current directory", "dots_0.mp4 exists"]);
    // Beside its videos a list is read from anywhere; away from both there is nothing to go by.
    let up = scene.list("lists/up.csv", |path, _, label| format!("../{path} {label}"));
    assert!(read_list(&up).unwrap().notes.is_empty());
    let error = read_list(&here).unwrap().check_found().unwrap_err().to_string();
    assert_words(&error, &["none of its 6 videos exists", "line 1 was read as the path", "list's own folder"]);
}
