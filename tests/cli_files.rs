//! `vjepa frames`, `inspect` and `doctor`.

mod support;

use std::path::Path;

use support::{TINY, pytorch, refused, texture, tiny, vjepa, write};

fn json(command: &mut assert_cmd::Command) -> serde_json::Value {
    serde_json::from_slice(&command.arg("--json").assert().success().get_output().stdout).unwrap()
}

/// Size and RGB pixels of a PNG.
fn png(path: &Path) -> (u32, u32, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(info.buffer_size());
    (info.width, info.height, pixels)
}

#[test]
fn frames_are_written_in_the_order_asked_for() {
    for video in ["t0_d0_s0.mp4", "t0_d0_s1.webm"] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new/frames");
        vjepa().arg("frames").arg(texture(video)).args(["--indices", "7,2,5,2", "--out"]).arg(&out).assert().success();
        let mut names: Vec<String> =
            std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let wanted = ["000_frame000007.png", "001_frame000002.png", "002_frame000005.png", "003_frame000002.png"];
        assert_eq!(names, wanted);
        // Pixels are those of the decoder, whatever was decoded before.
        let mut clip = vjepa_video::open(texture(video)).unwrap();
        for (name, index) in names.iter().zip([7, 2, 5, 2]) {
            let frame = clip.frames(&[index]).unwrap().remove(0);
            assert_eq!(png(&out.join(name)), (48, 48, frame.rgb()), "{video} {name}");
        }
    }
}

#[test]
fn pictures_are_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = write(folder.path(), "000_frame000002.png", "earlier");
    std::fs::hard_link(&earlier, folder.path().join("kept.png")).unwrap();
    let mut command = vjepa();
    command.arg("frames").arg(texture("t0_d0_s0.mp4")).args(["--indices", "2", "--out"]).arg(folder.path());
    command.assert().success();
    assert_eq!(png(&earlier).0, 48);
    assert_eq!(std::fs::read_to_string(folder.path().join("kept.png")).unwrap(), "earlier");
}

#[test]
fn frames_that_do_not_exist_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let frames = |file: &Path, indices: &str| {
        let mut command = vjepa();
        command.arg("frames").arg(file).args(["--indices", indices, "--out"]).arg(folder.path().join("out"));
        command
    };
    let message = refused(&mut frames(&texture("t0_d0_s0.mp4"), "0,8"));
    assert!(message.contains("frame 8 asked for, but the clip has 8 frames"), "{message}");
    assert!(!folder.path().join("out").exists());
    assert!(refused(&mut frames(&tiny("config.json"), "0")).contains("not a video"));
    assert!(refused(&mut frames(Path::new("/no/such.mp4"), "0")).contains("no such file"));
    frames(&texture("t0_d0_s0.mp4"), "1,x").assert().code(2);
    frames(&texture("t0_d0_s0.mp4"), "-1").assert().code(2);
}

#[test]
fn inspect_tells_what_a_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let inspect = |file: &Path| {
        let mut command = vjepa();
        command.arg("inspect").arg(file);
        command
    };
    let video = json(&mut inspect(&texture("t0_d0_s1.webm")));
    assert_eq!((&video["kind"], &video["codec"], &video["frames"]), (&"video".into(), &"VP9".into(), &8.into()));

    let stored = json(&mut inspect(&tiny("weights.safetensors")));
    assert_eq!(stored["format"], "safetensors");
    assert_eq!(stored["holds"]["encoder"]["parameters"], 489_408);
    assert!(stored["note"].as_str().unwrap().contains("--config"));

    let tensors = vjepa_weights::load(&tiny("weights.safetensors")).unwrap().all().unwrap();
    let archive = write(folder.path(), "jepa.pth.tar", pytorch::official(&tensors, "module.backbone."));
    let pickled = json(&mut inspect(&archive));
    assert_eq!(pickled["format"], "PyTorch");
    assert_eq!(pickled["holds"], stored["holds"]);

    let config = write(folder.path(), "tiny.yaml", TINY);
    let (text, binary) = (folder.path().join("encoder.ir"), folder.path().join("encoder.vjg"));
    for (emit, out) in [("ir", &text), ("vjg", &binary)] {
        let mut command = vjepa();
        command.args(["graph", "encoder", "--emit", emit, "--config"]).arg(&config).arg("--out").arg(out);
        command.assert().success();
    }
    let graph = json(&mut inspect(&text));
    assert_eq!((&graph["kind"], &graph["name"]), (&"graph".into(), &"encoder".into()));
    assert_eq!(graph["inputs"], serde_json::json!(["clip f32[B, 3, 8, 64, 64]"]));
    // The file holds the same graph, and its plan and record.
    let mut compiled = json(&mut inspect(&binary));
    assert_eq!(compiled["kind"], "compiled graph");
    assert_eq!(compiled["compiled_for"]["model.embed_dim"], "96");
    compiled["kind"] = graph["kind"].clone();
    for only in ["plan", "compiled_for"] {
        assert!(compiled.as_object_mut().unwrap().remove(only).is_some());
    }
    assert_eq!(compiled, graph);

    inspect(&texture("t0_d0_s0.mp4")).assert().success().stdout(predicates::str::contains("H.264"));
}

#[test]
fn inspect_refuses_what_is_nothing_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in [
        ("empty.onnx", &b""[..]),
        ("broken.onnx", b"\x08\x07\x12\x99"),
        ("broken.vjg", b"\xff\xff\xff"),
        ("broken.ir", b"graph what is this"),
        ("broken.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff{"),
        ("broken.pt", b"PK\x03\x04"),
        ("notes.txt", b"hello"),
    ] {
        let path = write(folder.path(), name, contents);
        assert!(refused(vjepa().arg("inspect").arg(&path)).contains(name));
    }
    assert!(refused(vjepa().arg("inspect").arg("/no/such/file")).contains("/no/such/file"));
}

#[test]
fn doctor_says_what_there_is() {
    let found = json(vjepa().arg("doctor"));
    assert_eq!(found["processor"]["found"], true);
    for key in ["memory", "onnxruntime", "cuda", "tensorrt", "ffmpeg"] {
        assert!(found[key]["what"].is_string(), "{key}");
        // What is missing comes with the way to get it.
        assert!(key == "memory" || found[key]["found"] == true || found[key]["remedy"].is_string(), "{key}");
    }
    assert_eq!(found["ffmpeg"]["found"], cfg!(feature = "ffmpeg"));
    let library = if cfg!(feature = "ffmpeg") { "libavcodec " } else { "not in this build" };
    assert!(found["ffmpeg"]["what"].as_str().is_some_and(|what| what.starts_with(library)), "{}", found["ffmpeg"]);
    vjepa().arg("doctor").assert().success().stdout(predicates::str::contains("cores usable"));
}

#[test]
fn lists_that_are_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n";
    let page = "<html><body>Please sign in</body></html>";
    let config = write(folder.path(), "tiny.yaml", TINY);
    for (name, contents, words) in [("pointer.csv", pointer, "git lfs pull"), ("page.csv", page, "an HTML page")] {
        let list = write(folder.path(), name, contents);
        let good = write(folder.path(), "good.csv", "a.mp4 0\nb.mp4 1\n");
        let told = |command: &mut assert_cmd::Command| {
            let sentence = refused(command);
            assert!(sentence.contains(words) && sentence.contains(name), "{sentence}");
        };
        let checkpoint = tiny("weights.safetensors");
        let probe = |extra: &[(&str, &Path)]| {
            let mut command = vjepa();
            command
                .arg("probe")
                .arg("--checkpoint")
                .arg(&checkpoint)
                .arg("--out")
                .arg(folder.path().join("probe.safetensors"));
            for (flag, file) in extra {
                command.arg(flag).arg(file);
            }
            command
        };
        told(&mut probe(&[("--data", &list)]));
        told(&mut probe(&[("--data", &good), ("--val", &list)]));
        told(&mut probe(&[("--data", &good), ("--names", &list)]));
        let mut train = vjepa();
        train.args(["train", "--config"]).arg(&config).arg("--set");
        train.arg(format!("data.datasets=[{}]", list.display())).args([
            "--set",
            "optimization.steps=2",
            "--set",
            "meta.dtype=float32",
        ]);
        train.arg("--set").arg(format!("logging.folder={}", folder.path().join("run").display()));
        told(&mut train);
    }
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let commands: Vec<String> = vjepa::cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = vjepa().args(["completions", shell]).assert().success().get_output().stdout.clone();
        let script = String::from_utf8(script).unwrap();
        assert!(commands.iter().all(|command| script.contains(command.as_str())), "{shell}");
    }
    vjepa().args(["completions", "csh"]).assert().code(2);
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man1");
    vjepa().arg("man").arg(&pages).assert().success();
    for command in &commands {
        let page = std::fs::read_to_string(pages.join(format!("vjepa-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}");
    }
    assert!(pages.join("vjepa-bench-step.1").exists() && !pages.join("vjepa-bench-worker.1").exists());
    assert!(refused(vjepa().arg("man").arg(tiny("config.json"))).contains("cannot write manual pages to"));
}
