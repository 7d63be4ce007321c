//! `vjepa features` over folders, windows and layers, and `vjepa neighbours` over what it writes.

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{TINY, refused, texture, tiny, vjepa, write};
use vjepa_weights::TensorFile;
use vjepa_weights::rows::RowsFile;

/// A folder of three videos, and one that is broken.
fn videos(folder: &Path) -> PathBuf {
    let videos = folder.join("videos");
    std::fs::create_dir(&videos).unwrap();
    for name in ["t0_d0_s0.mp4", "t0_d0_s1.webm", "t1_d0_s1.mp4"] {
        std::fs::copy(texture(name), videos.join(name)).unwrap();
    }
    write(&videos, "u_broken.mp4", vec![7; 4000]);
    videos
}

fn features(folder: &Path, input: &Path, out: &str, more: &[&str]) -> (Value, PathBuf) {
    let config = write(folder, "tiny.yaml", TINY);
    let out = folder.join(out);
    let mut command = vjepa();
    command.arg("features").arg("--checkpoint").arg(tiny("weights.safetensors")).arg("--config").arg(config);
    command.arg("--input").arg(input).arg("--out").arg(&out).arg("--json").args(more);
    let output = command.assert().success().get_output().stdout.clone();
    (serde_json::from_slice(&output).unwrap(), out)
}

fn picture(path: &Path, value: usize) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), 80, 70);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> = (0..80 * 70 * 3).map(|i| ((i + 7 * value) % 251) as u8).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

#[test]
fn a_folder_gives_a_row_for_each_window_whatever_the_workers() {
    let folder = tempfile::tempdir().unwrap();
    let videos = folder.path().join("videos");
    // 20 frames at 30 a second; the second lacks one, the third is shorter than a window.
    for (name, frames) in [("a", 20), ("b", 20), ("c", 5)] {
        std::fs::create_dir_all(videos.join(name)).unwrap();
        let kept = (0..frames).filter(|frame| name != "b" || *frame != 9);
        kept.for_each(|frame| picture(&videos.join(name).join(format!("{frame:03}.png")), frame));
    }
    let how = ["--folders-hold", "frames", "--set", "data.sampling_rate=1", "--every", "0.2", "--pool", "mean"];
    let (said, out) = features(folder.path(), &videos, "all.safetensors", &how);
    // From frames 0, 6 and 12, and one of the short video.
    assert_eq!((&said["videos"], &said["bad"], &said["features"]), (&3.into(), &1.into(), &serde_json::json!([4, 96])));
    let bad = std::fs::read_to_string(folder.path().join("all.safetensors.bad.jsonl")).unwrap();
    assert!(bad.contains("lacks a frame after number 8") && bad.lines().count() == 1, "{bad}");
    let table = RowsFile::read(&out, None).unwrap();
    let places: Vec<(usize, usize)> = table.places.iter().map(|place| (place.video, place.window)).collect();
    assert_eq!((table.paths.len(), places), (3, vec![(0, 0), (0, 1), (0, 2), (2, 0)]));
    assert!(table.places[..3].iter().all(|place| (place.time - 0.2 * place.window as f64).abs() < 1e-9));
    let (_, other) = features(folder.path(), &videos, "one.safetensors", &[&how[..], &["--workers", "1"]].concat());
    assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(other).unwrap());
}

#[test]
fn poolings_are_means_of_the_tokens_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let video = texture("t0_d0_s0.mp4");
    let (said, out) = features(folder.path(), &video, "tokens.safetensors", &[]);
    assert_eq!(said["encoder_out"], serde_json::json!([1, 64, 96]));
    let tokens = TensorFile::read(&out).unwrap().f32("encoder_out").unwrap();
    let mean = |tokens: &[f32], at: usize| {
        let sum: f64 = tokens.chunks_exact(96).map(|token| f64::from(token[at])).sum();
        (sum / (tokens.len() / 96) as f64) as f32
    };
    let close = |a: f32, b: f32| (a - b).abs() < 1e-4;
    let (_, out) = features(folder.path(), &video, "mean.npy", &["--pool", "mean"]);
    let pooled = RowsFile::read(&out, None).unwrap();
    assert!(pooled.shape == [96] && (0..96).all(|at| close(pooled.values[at], mean(&tokens, at))));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("mean.csv")).unwrap(),
        format!("path,window,time\n{},0,0\n", video.display())
    );
    let (said, out) = features(folder.path(), &video, "frames.safetensors", &["--pool", "frames"]);
    assert_eq!(said["frames"], serde_json::json!([1, 4, 96]));
    let frames = RowsFile::read(&out, None).unwrap();
    assert!(
        (0..4)
            .all(|t| (0..96).all(|at| close(frames.values[t * 96 + at], mean(&tokens[t * 16 * 96..][..16 * 96], at))))
    );
    let layers = ["--pool", "mean", "--layers", "2,0"];
    let (said, out) = features(folder.path(), &video, "layers.safetensors", &layers);
    assert_eq!((&said["layer_0"], &said["layer_2"]), (&serde_json::json!([1, 96]), &serde_json::json!([1, 96])));
    let last = RowsFile::read(&out, Some("layer_2")).unwrap();
    assert!((0..96).all(|at| close(last.values[at], pooled.values[at])), "the last block is what is taken by default");
    let (_, out) = features(folder.path(), &video, "layers.parquet", &layers);
    assert_eq!(RowsFile::read(&out, Some("layer_2")).unwrap(), last);
}

#[test]
fn a_picture_is_a_clip_and_what_cannot_be_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let still = folder.path().join("p.png");
    picture(&still, 0);
    let (said, _) = features(folder.path(), &still, "p.safetensors", &["--every", "1"]);
    assert_eq!(said["encoder_out"], serde_json::json!([1, 64, 96]));
    let config = write(folder.path(), "tiny.yaml", TINY);
    let refuse = |out: &str, more: &[&str]| {
        let mut command = vjepa();
        command.arg("features").arg("--checkpoint").arg(tiny("weights.safetensors")).arg("--config").arg(&config);
        refused(
            command.arg("--input").arg(texture("t0_d0_s0.mp4")).arg("--out").arg(folder.path().join(out)).args(more),
        )
    };
    assert!(refuse("a.csv", &[]).contains("its name must end in"));
    assert!(refuse("a.npy", &["--layers", "0,1"]).contains("one array"));
    assert!(refuse("a.npy", &["--layers", "7"]).contains("--layers 7: the encoder has 3 blocks, numbered 0 to 2"));
}

#[test]
fn a_table_of_a_labelled_list_trains_a_probe() {
    let folder = tempfile::tempdir().unwrap();
    let labelled: Vec<String> = ["t0_d0_s0.mp4", "t1_d0_s1.mp4", "t0_d1_s0.webm", "t1_d6_s1.mp4"]
        .iter()
        .map(|name| format!("{} {}", texture(name).display(), &name[1..2]))
        .collect();
    let list = write(folder.path(), "list.csv", labelled.join("\n"));
    for (name, how, kind) in [("m", "mean", "linear"), ("t", "tokens", "attentive"), ("f", "frames", "average")] {
        let (_, table) = features(folder.path(), &list, &format!("{name}.safetensors"), &["--pool", how]);
        let mut probe = vjepa();
        probe.args(["probe", "--kind", kind, "--probe-heads", "4", "--json", "--features"]).arg(&table);
        let said = probe.arg("--out").arg(folder.path().join("probe.safetensors")).assert().success();
        let said: Value = serde_json::from_slice(&said.get_output().stdout).unwrap();
        assert_eq!((&said["classes"], &said["train"]["videos"]), (&2.into(), &4.into()), "{said}");
    }
    // Without labels there is nothing to learn.
    let (_, table) = features(folder.path(), &texture("t0_d0_s0.mp4"), "one.safetensors", &[]);
    let mut probe = vjepa();
    probe.args(["probe", "--features"]).arg(&table).arg("--out").arg(folder.path().join("probe.safetensors"));
    assert!(refused(&mut probe).contains("give `vjepa features` a list with labels"));
}

#[test]
fn neighbours_are_found_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let videos = videos(folder.path());
    // The same picture again, under another name.
    std::fs::copy(videos.join("t1_d0_s1.mp4"), videos.join("a_copy.mp4")).unwrap();
    let (_, table) = features(folder.path(), &videos, "t.safetensors", &["--every", "0.2", "--pool", "mean"]);
    let sheet = folder.path().join("sheet.png");
    let mut command = vjepa();
    command.arg("neighbours").arg(&table).args(["--query", "a_copy.mp4", "-k", "2", "--json", "--out"]).arg(&sheet);
    let output = command.assert().success().get_output().stdout.clone();
    let lines: Vec<Value> =
        output.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert!(!lines.is_empty());
    for line in &lines {
        let (query, near) = (&line["query"], line["neighbours"].as_array().unwrap());
        assert!(query["path"].as_str().unwrap().ends_with("a_copy.mp4") && near.len() == 2, "{line}");
        assert!(near[0]["path"].as_str().unwrap().ends_with("t1_d0_s1.mp4"), "{line}");
        assert_eq!(near[0]["window"], query["window"]);
        assert!((near[0]["cosine"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    }
    let drawn = std::fs::read(&sheet).unwrap();
    assert!(drawn.starts_with(b"\x89PNG"));
    for ending in ["npy", "parquet"] {
        let out = format!("t.{ending}");
        let (_, table) = features(folder.path(), &videos, &out, &["--every", "0.2", "--pool", "mean"]);
        let mut command = vjepa();
        command.arg("neighbours").arg(&table).args(["--query", "a_copy.mp4", "-k", "2", "--json"]);
        // NumPy's format does not say how clips are cut.
        if ending == "parquet" {
            command.arg("--out").arg(&sheet);
        }
        assert_eq!(command.assert().success().get_output().stdout, output, "{ending}");
        assert_eq!(std::fs::read(&sheet).unwrap(), drawn);
    }
    let said = refused(vjepa().arg("neighbours").arg(&table).args(["--query", "no.mp4"]));
    assert!(said.contains("no row of") && said.contains("`no.mp4`"), "{said}");
    assert!(refused(vjepa().arg("neighbours").arg(tiny("weights.safetensors"))).contains("vjepa features"));
}
