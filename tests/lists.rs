//! Lists, folders, labels and class names as people have them: read where they leave no doubt, and otherwise refused in a
//! sentence that says what was misread.

#[path = "lists/scene.rs"]
mod scene;
#[path = "lists/shards.rs"]
mod shards;
mod support;
#[path = "lists/written.rs"]
mod written;

use std::path::Path;

use scene::{CONFIG, Scene, VIDEOS, assert_words, entries, said};
use support::{refused, write};
use vjepa_data::{read_list, survey};
use vjepa_recipe::config::Config;

#[test]
fn lists_that_leave_no_doubt_are_read_and_it_is_said() {
    let scene = Scene::new();
    let wanted: Vec<_> = Scene::names().zip(VIDEOS).map(|(path, (_, label))| (path, Some(label as i64))).collect();
    // The same labels in every way of writing them.
    for (name, list) in [
        ("plain", scene.list("plain.csv", |path, _, label| format!("{path} {label}"))),
        ("double colons", scene.list("colons.csv", |path, _, label| format!("{path}::{label}"))),
        ("quotes", scene.list("quotes.csv", |path, _, label| format!("\"{path}\",\"{label}\""))),
        ("header", scene.list("header.csv", |path, _, label| format!("{path}\t{label}"))),
    ] {
        if name == "header" {
            let text = std::fs::read_to_string(&list).unwrap();
            std::fs::write(&list, format!("file\tclass\n{text}")).unwrap();
        }
        assert_eq!(entries(&scene, &list), wanted, "{name}");
    }
    let plain = std::fs::read_to_string(scene.path("plain.csv")).unwrap();
    let windows = format!("\u{feff}{}", plain.replace('\n', "\r\n"));
    let utf16: Vec<u8> = windows.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [windows.into_bytes(), utf16] {
        assert_eq!(entries(&scene, &write(scene.0.path(), "windows.csv", bytes)), wanted);
    }
    assert_words(&said(&mut scene.train("windows.csv")), &["6 videos", "read as UTF-16"]);
    std::fs::remove_dir_all(scene.path("run")).unwrap();
    assert_words(&said(&mut scene.train("colons.csv")), &["6 videos", "`path::label`", "V-JEPA 2"]);
    std::fs::remove_dir_all(scene.path("run")).unwrap();
    scene.list("tilde.csv", |path, _, label| format!("~/{path} {label}"));
    assert_words(&said(scene.train("tilde.csv").env("HOME", scene.0.path())), &["6 videos", "`~`", "6 paths"]);
}

/// Lists as data-frame libraries write them, with an index and columns in any order.
#[test]
fn columns_are_read_by_the_names_of_the_first_line() {
    let scene = Scene::new();
    let wanted: Vec<_> = Scene::names().zip(VIDEOS).map(|(path, (_, label))| (path, Some(label as i64))).collect();
    let index = std::cell::Cell::new(0);
    let next = || index.replace(index.get() + 1);
    for (name, header, line) in [
        (
            "pandas",
            ",path,label",
            &(|p: &str, _: &str, l: usize| format!("{},{p},{l}", next())) as &dyn Fn(&str, &str, usize) -> String,
        ),
        ("quoted", "\"\",\"path\",\"label\"", &|p, _, l| format!("\"{}\",\"{p}\",\"{l}\"", next())),
        ("tabs", "\tvideo_path\tframes\ttarget", &|p, _, l| format!("{}\t{p}\t25\t{l}", next())),
        ("turned", "label,path", &|p, _, l| format!("{l},{p}")),
        ("classes", "Class,Name,File", &|p, c, l| format!("{l},{c},{p}")),
    ] {
        let list = scene.list(&format!("{name}.csv"), line);
        let text = std::fs::read_to_string(&list).unwrap();
        std::fs::write(&list, format!("{header}\r\n{}", text.replace('\n', "\r\n"))).unwrap();
        assert_eq!(entries(&scene, &list), wanted, "{name}");
        let notes = read_list(&list).unwrap().notes.join("; ");
        assert_words(&notes, &["columns", "as its first line names them"]);
    }
    // A column of paths and none of labels: frames are no labels.
    let list = scene.list("frames.csv", |path, _, _| format!("{path},25"));
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("path,frames\n{text}")).unwrap();
    assert!(entries(&scene, &list).iter().all(|(_, label)| label.is_none()));
    assert_words(&read_list(&list).unwrap().notes.join("; "), &["`path` is read and none as label"]);
    // Without such a line an index may be another label; what is named and cannot be read is an error with its line.
    for (text, words) in [
        ("0,my videos/dots_0.mp4,0\n1,my videos/dots_1.mp4,0\n", &["line 1 has 3 columns", "`index,path,label`"][..]),
        (",path,label\n0,my videos/dots_0.mp4,dots\n", &["line 2", "`dots` is a name", "vjepa data list named"]),
        (",path,label\n0,my videos/dots_0.mp4,1.0\n", &["line 2", "without a fraction"]),
        (",path,label\n0,my videos/dots_0.mp4,\n", &["line 2", "label is empty"]),
        (",path,label\n0,my, videos/dots_0.mp4,1\n", &["line 2 has 4 columns", "first line names 3", "double quotes"]),
    ] {
        let list = write(scene.0.path(), "wrong.csv", text);
        assert_words(&refused(&mut scene.probe(&list)), words);
    }
}

#[test]
fn comments_are_left_out_and_said() {
    let scene = Scene::new();
    let wanted: Vec<_> = Scene::names().zip(VIDEOS).map(|(path, (_, label))| (path, Some(label as i64))).collect();
    let list = scene.list("comments.csv", |path, class, label| format!("# {class}\n{path} {label} # {class} 7"));
    assert_eq!(entries(&scene, &list), wanted);
    assert_words(&read_list(&list).unwrap().notes.join("; "), &["12 lines with `#` are read as comments"]);
    // Files may have such names.
    for name in ["#1.mp4", "a 1 #2.mp4"] {
        std::fs::copy(scene.path("my videos/dots_0.mp4"), scene.path(name)).unwrap();
        let list = write(scene.0.path(), "odd.csv", format!("{name} 1\n"));
        assert_eq!(entries(&scene, &list), [(name.to_owned(), Some(1))]);
        assert!(read_list(&list).unwrap().notes.is_empty());
    }
}

#[test]
fn a_video_with_two_labels_is_named_and_one_listed_again_is_said() {
    let scene = Scene::new();
    let twice = scene.list("twice.csv", |path, _, label| format!("{path} {label}\n{path} {label}"));
    assert_words(
        &said(&mut scene.probe(&twice)),
        &["6 lines repeat a video", "`my videos/dots_0.mp4` in lines 1 and 2"],
    );
    let mut text = std::fs::read_to_string(&twice).unwrap();
    text.push_str("my videos/dots_0.mp4 2\n");
    let list = write(scene.0.path(), "two.csv", text);
    let wanted = &["line 1 gives `my videos/dots_0.mp4` the label 0, but line 13 the label 2"];
    assert_words(&refused(&mut scene.probe(&list)), wanted);
    // Training needs no labels.
    assert_words(&said(&mut scene.train("two.csv")), &["7 lines repeat a video", "some with another label"]);
}

#[test]
fn class_names_are_numbered_on_request() {
    let scene = Scene::new();
    let wanted: Vec<_> = Scene::names().zip(VIDEOS).map(|(path, (_, label))| (path, Some(label as i64))).collect();
    let spaced = scene.list("spaced.csv", |path, class, _| format!("{path} Apply {class}"));
    let table = scene.list("table.csv", |path, class, _| format!("Apply {class},{path}"));
    let text = std::fs::read_to_string(&table).unwrap();
    std::fs::write(&table, format!("class,path\n{text}")).unwrap();
    let named = |list: &Path, more: &[&str]| {
        let mut command = scene.command("data");
        command.args(["list", "named"]).arg(list).args(["--out", "new.csv"]).args(more);
        command
    };
    for list in [&spaced, &table] {
        named(list, &[]).assert().success();
        assert_eq!(entries(&scene, &scene.path("new.csv")), wanted);
        let names = std::fs::read_to_string(scene.path("new.names.txt")).unwrap();
        assert_eq!(names, "Apply dots\nApply lines\nApply waves\n");
    }
    // In an order of one's own.
    write(scene.0.path(), "order.txt", "Apply waves\nApply dots\nApply lines\n");
    named(&spaced, &["--classes", "order.txt"]).assert().success();
    let labels: Vec<_> = entries(&scene, &scene.path("new.csv")).into_iter().map(|(_, label)| label.unwrap()).collect();
    assert_eq!(labels, [1, 1, 2, 2, 0, 0]);
    write(scene.0.path(), "few.txt", "Apply waves\nApply dots\n");
    assert_words(&refused(&mut named(&spaced, &["--classes", "few.txt"])), &["line 3", "`Apply lines`", "--classes"]);
    let plain = scene.list("plain.csv", |path, _, label| format!("{path} {label}"));
    assert_words(&refused(&mut named(&plain, &[])), &["numbers for labels already"]);
    assert_words(&refused(&mut named(&write(scene.0.path(), "odd.csv", "what is this\nand that\n"), &[])), &["line 2"]);
}

#[test]
fn lists_of_other_programs_are_refused_by_what_they_look_like() {
    let scene = Scene::new();
    /// A line of path, class name and label.
    type Line<'a> = &'a dyn Fn(&str, &str, usize) -> String;
    let cases: [(&str, Line, &[&str]); 11] = [
        ("mmaction2", &|path, _, label| format!("{path} 25 {label}"), &["line 1 has 3 columns", "mmaction2", "awk"]),
        ("videomae", &|path, _, _| format!("{path} 0 -1"), &["line 1 has 3 columns", "VideoMAE v2", "only the paths"]),
        ("commas", &|path, _, label| format!("{path},25,{label}"), &["3 columns", "awk -F,"]),
        ("many", &|path, _, label| format!("{path} 1 2 {label}"), &["4 columns", "keep the path and the label"]),
        ("names", &|path, class, _| format!("{path} {class}"), &["line 1", "class name `dots`", "3 names in all"]),
        (
            "spaced",
            &|path, class, _| format!("{path},Apply {class}"),
            &["class name `Apply dots`", "vjepa data list named"],
        ),
        ("semicolon", &|path, _, label| format!("{path};{label}"), &["separated by `;`"]),
        ("fraction", &|path, _, label| format!("{path} {label}.0"), &["`0.0` without a fraction"]),
        ("huge", &|path, _, _| format!("{path} 99999999999999999999"), &["too large"]),
        ("json", &|path, _, label| format!("{{\"{path}\": {label}}}"), &["JSON"]),
        ("swapped", &|path, _, label| format!("{label} {}", path.replace(' ', "_")), &["label", "before the path"]),
    ];
    for (name, line, words) in cases {
        let list = scene.list(&format!("{name}.csv"), line);
        let error = refused(&mut scene.probe(&list));
        assert_words(&error, words);
        assert_words(&error, &[name]);
    }
    // One line that is written otherwise decides nothing for the others.
    let mixed = "my videos/dots_0.mp4::0\nmy videos/dots_1.mp4 0\n";
    let error = refused(&mut scene.probe(&write(scene.0.path(), "mixed.csv", mixed)));
    assert_words(&error, &["line 1", "path::label", "line 2 is not"]);
    // Paths that lead nowhere say why, where their looks do.
    for (path, word) in [
        ("https://example.org/a.mp4", "not fetched"),
        ("$DATA/a.mp4", "variables"),
        ("~somebody/a.mp4", "home folder"),
        ("my videos\\dots_0.mp4", "write `/`"),
        ("my videos/dots_0", "dots_0.mp4 exists"),
        ("/nowhere/a.mp4", "this machine"),
    ] {
        let list = write(scene.0.path(), "odd.csv", format!("{path} 0\n{path}x 1\n"));
        let error = refused(&mut scene.train("odd.csv"));
        assert_words(&error, &["none of its 2 videos exists", "and the label 0", word]);
        assert_words(&refused(&mut scene.probe(&list)), &[word]);
    }
}

#[test]
#[cfg_attr(feature = "ffmpeg", ignore = "AVI is read in this build")]
fn what_a_data_set_leaves_out_is_counted_before_training() {
    let scene = Scene::new();
    let folder = scene.path("my videos");
    for (name, bytes) in [
        ("a.avi", &b"RIFF"[..]),
        ("b.AVI", b"RIFF"),
        ("c.wmv", b"x"),
        ("frame.jpg", b"x"),
        ("labels.csv", b"x"),
        ("._dots_0.mp4", b"x"),
        ("riff.mp4", &[b"RIFF____AVI LIST".as_slice(), &[0; 2000]].concat()),
        ("tiny.mp4", b"x"),
    ] {
        write(&folder, name, bytes);
    }
    let error = said(&mut scene.train("my videos"));
    let line = error.lines().find(|line| line.starts_with("data set")).unwrap();
    assert_words(
        line,
        &["my videos: 8 videos, of which 2 cannot be used", "of unknown name in AVI, which is not decoded", "1 KiB"],
    );
    assert_words(
        line,
        &["6 files left out", "2 .avi", "convert to .mp4", "1 .wmv", "1 .jpg", "1 .csv", "1 hidden .mp4"],
    );

    std::fs::remove_dir_all(scene.path("run")).unwrap();
    let output = scene.train("my videos").arg("--json").assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let data = &summary["data"][0];
    assert_eq!((data["videos"].as_u64(), data["opened"].as_u64()), (Some(8), Some(8)), "{data}");
    assert_eq!((data["left_out"][0]["count"].as_u64(), data["unreadable"][0]["count"].as_u64()), (Some(2), Some(1)));

    // A list says the same of the files it names.
    let list = scene.list("gone.csv", |path, _, label| format!("{} {label}", path.replace("waves", "gone")));
    let mut config = Config::from_yaml(CONFIG, "", &[]).unwrap();
    config.data.datasets = vec![list.display().to_string()];
    let found = survey(&config.data).unwrap();
    assert!(found[0].to_string().contains("6 videos, of which 2 cannot be used: 2 not found"), "{}", found[0]);
    // Only containers that are not read: the error names them.
    std::fs::create_dir(scene.path("old")).unwrap();
    write(&scene.path("old"), "a.avi", "x");
    assert_words(&refused(&mut scene.train("old")), &["holds no videos", "1 .avi", "convert to .mp4"]);
}

#[test]
fn names_are_never_one_off() {
    let scene = Scene::new();
    let names = write(scene.0.path(), "names.txt", "dots\nlines\nwaves\n");
    let from_one = scene.list("one.csv", |path, _, label| format!("{path} {}", label + 1));
    let text = std::fs::read_to_string(&from_one).unwrap();
    let two_of_three: String = text.lines().take(4).map(|line| format!("{line}\n")).collect();
    let two_of_three = write(scene.0.path(), "two.csv", two_of_three);
    let named = |list: &Path, flag: &[&str]| {
        let mut command = scene.probe(list);
        command.arg("--names").arg(&names).args(flag);
        command
    };
    let error = refused(&mut named(&from_one, &[]));
    assert_words(&error, &["labels run from 1 to 3", "names.txt has 3 classes", "--labels-from 1", "`dots`"]);
    let error = refused(&mut named(&two_of_three, &[]));
    assert_words(&error, &["no video has the label 0", "--labels-from 1", "`dots`", "--labels-from 0", "`lines`"]);

    // On request the names are shifted, and eval knows it from the probe.
    let top1 = |command: &mut assert_cmd::Command| {
        let output = command.arg("--json").assert().success().get_output().stdout.clone();
        serde_json::from_slice::<serde_json::Value>(&output).unwrap()
    };
    let trained = top1(&mut named(&from_one, &["--labels-from", "1"]));
    assert_eq!(
        (trained["labels_from"].as_i64(), scene.labels()),
        (Some(1), vec!["dots".into(), "lines".into(), "waves".into()])
    );
    let zero = scene.list("zero.csv", |path, _, label| format!("{path} {label}"));
    let same = top1(&mut scene.eval(&from_one));
    assert_eq!((&same["top1"], same["labels_from"].as_i64()), (&trained["train"]["top1"], Some(1)));
    let error = refused(&mut scene.eval(&zero));
    assert_words(&error, &["line 1 has the label 0", "labels 1 to 3", "add --labels-from 0"]);
    assert_eq!(top1(scene.eval(&zero).args(["--labels-from", "0"]))["top1"], same["top1"]);
    let part = said(&mut scene.eval(&two_of_three));
    assert_words(&part, &["none of its videos has 1 of the 3 labels: 3 (`waves`)"]);

    // Names that carry their numbers say the numbering themselves, whatever wrote the file.
    let utf16: Vec<u8> = "\u{feff}1 dots\r\n2 lines\r\n3 waves\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let numbered = write(scene.0.path(), "classInd.txt", utf16);
    scene.probe(&two_of_three).arg("--names").arg(numbered).assert().success();
    assert_eq!(scene.labels(), ["dots", "lines", "waves"]);
}

#[test]
fn labels_that_do_not_count_from_zero_are_said() {
    let scene = Scene::new();
    let from_one = scene.list("one.csv", |path, _, label| format!("{path} {}", label + 1));
    assert_words(&said(&mut scene.probe(&from_one)), &["run from 1 to 3, not from 0", "--labels-from 1"]);
    assert_eq!(scene.labels(), ["1", "2", "3"]);
    let gaps = scene.list("gaps.csv", |path, _, label| format!("{path} {}", label * 50));
    assert_words(&said(&mut scene.probe(&gaps)), &["between 0 and 100, but only 3 of them occur"]);
    let negative = scene.list("negative.csv", |path, _, label| format!("{path} {}", label as i64 - 1));
    assert_words(&refused(&mut scene.probe(&negative)), &["line 1 has the label -1"]);

    // Lists of training and evaluation with other labels.
    let zero = scene.list("zero.csv", |path, _, label| format!("{path} {label}"));
    assert_words(
        &refused(scene.probe(&zero).arg("--val").arg(&from_one)),
        &["one.csv", "line 5 has the label 3", "0, 1, 2"],
    );
    let few = write(scene.0.path(), "few.csv", "my videos/dots_0.mp4 0\nmy videos/waves_4.mp4 2\n");
    assert_words(
        &said(scene.probe(&zero).arg("--val").arg(&few)),
        &["few.csv", "none of its videos has 1 of the 3 labels: 1"],
    );
    assert_words(&refused(&mut scene.eval(&from_one)), &["line 5 has the label 3"]);
    assert_words(&refused(scene.eval(&zero).args(["--labels-from", "1"])), &["named by their labels"]);
}

#[test]
fn configurations_are_read_from_any_editor_and_others_recognised() {
    let scene = Scene::new();
    let windows = format!("\u{feff}{}", CONFIG.replace('\n', "\r\n"));
    let utf16: Vec<u8> = windows.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [windows.clone().into_bytes(), utf16, CONFIG.replace('\n', "\r").into_bytes()] {
        let config = Config::from_file(&write(scene.0.path(), "any.yaml", bytes), &[]).unwrap();
        assert_eq!(config, Config::from_yaml(CONFIG, "", &[]).unwrap());
    }
    let latin = CONFIG.replace("logging", "# Gr\u{fc}n\nlogging").chars().map(|c| c as u8).collect::<Vec<u8>>();
    let said = Config::from_file(&write(scene.0.path(), "latin.yaml", latin), &[]).unwrap_err().to_string();
    assert_words(&said, &["latin.yaml", "not UTF-8 text (line 5)"]);
    // Mistakes still name their line.
    let wrong = write(scene.0.path(), "wrong.yaml", windows.replace("warmup_steps", "warmup_step"));
    assert_words(&Config::from_file(&wrong, &[]).unwrap_err().to_string(), &["line 4", "did you mean `warmup_steps`"]);

    for (text, words) in [
        (
            "eval_name: video_classification_frozen\ndata: {dataset_train: a.csv, dataset_val: b.csv, num_segments: 2, \
             num_views_per_segment: 3}\npretrain: {folder: run/, checkpoint: jepa-latest.pth.tar}\n",
            &["official evaluation", "vjepa probe --config FILE", "vjepa eval --config FILE"][..],
        ),
        (
            "eval_name: image_classification_frozen\ndata: {dataset_name: IN1K}\n",
            &["official evaluation", "vjepa probe --config FILE"],
        ),
        (
            "folder: /x\nexperiment: {data: {dataset_train: a.csv, dataset_val: b.csv}}\nmodel_kwargs: {checkpoint: c.pt}\n",
            &["official evaluation", "vjepa probe --config FILE", "vjepa eval --config FILE"],
        ),
        (
            "app: vjepa_droid\nmodel: {model_name: vit_giant_xformers}\n",
            &["V-JEPA 2-AC", "vjepa_droid", "not supported"],
        ),
    ] {
        write(scene.0.path(), "official.yaml", text);
        let mut train = scene.command("train");
        assert_words(&refused(train.args(["--config", "official.yaml"])), words);
    }
}

#[test]
fn settings_are_changed_wherever_a_configuration_is_read() {
    let scene = Scene::new();
    let list = scene.list("plain.csv", |path, _, label| format!("{path} {label}"));
    scene.probe(&list).args(["--set", "data.grayscale=true"]).assert().success();
    scene.eval(&list).args(["--set", "data.grayscale=true"]).assert().success();
    let features = || {
        let mut command = scene.command("features");
        command.args(["--checkpoint", "encoder.safetensors", "--config", "run.yaml", "--json"]);
        command.args(["--input", "my videos/dots_0.mp4", "--out", "f.safetensors"]);
        command
    };
    let output = features().args(["--set", "data.grayscale=true"]).assert().success().get_output().stdout.clone();
    let summary: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(summary["preprocessing"]["grayscale"], true);
    for mut command in [scene.probe(&list), scene.eval(&list), features()] {
        let error = refused(command.args(["--set", "data.greyscale=true"]));
        assert_words(&error, &["--set data.greyscale=true", "did you mean `data.grayscale`"]);
    }
    // What only an encoder needs is all that must be described.
    let text = CONFIG.replace("pred_embed_dim: 12, pred_depth: 1, ", "");
    write(scene.0.path(), "run.yaml", text);
    features().assert().success();
    assert_words(&refused(&mut scene.train("plain.csv")), &["`model.pred_embed_dim` is missing"]);
}
