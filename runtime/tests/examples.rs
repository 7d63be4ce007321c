//! The example programs on raw frames: what they print is what a session gives for the same clips.
#![cfg(feature = "tract")]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;
// For the tests in it: examples' own are not run.
#[path = "../examples/sliding_window/window.rs"]
#[allow(dead_code)]
mod window;

use fixtures::{Head, Model, Sizes, Split};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use vjepa_export::{OnnxOptions, to_onnx};
use vjepa_runtime::{Options, Session};

const HEIGHT: usize = 36;
const WIDTH: usize = 44;
const SIZE: usize = HEIGHT * WIDTH * 3;
/// Frames of the stream; a clip of the model spans 7.
const COUNT: usize = 12;

fn model(folder: &Path, batch: Option<usize>) -> PathBuf {
    let record = r#"{"num_frames":4,"sampling_rate":2,"sampling":"exact","crop_size":32,"patch_size":16,"tubelet_size":2,
        "normalization":"imagenet","grayscale":false}"#;
    let metadata = BTreeMap::from([("vjepa.preprocessing".to_owned(), record.to_owned())]);
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    let options = OnnxOptions { metadata, batch, ..OnnxOptions::default() };
    let path = folder.join("model.onnx");
    to_onnx(&model.graph, &model.weights, &options).unwrap().write(&path).unwrap();
    path
}

/// A frame of noise.
fn frame(number: usize) -> Vec<u8> {
    let mut random = number as u64 + 1;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    (0..SIZE).map(|_| next()).collect()
}

/// Probability and class of the clip that starts at a frame, as the programs print them.
fn expected(model: &Path, start: usize) -> String {
    let session = Session::open(model, &Options::default()).unwrap();
    let frames: Vec<Vec<u8>> = (0..4).map(|i| frame(start + 2 * i)).collect();
    let best = session.classify(&frames, HEIGHT, WIDTH).unwrap().remove(0);
    format!("{:.6}\tclass {}", best.probability, best.class)
}

/// An example that was built with this test.
fn example(name: &str) -> Command {
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join("examples").join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.is_file(), "{} is not built; test without --test, or build the examples first", program.display());
    Command::new(program)
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn slide(model: &Path, stream: &[u8], stride: &str) -> Output {
    let mut program = example("sliding_window");
    program.arg(model).args(["--width", "44", "--height", "36", "--fps", "10", "--stride", stride]);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stream).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_stream_is_classified_every_stride_frames() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), None);
    let stream: Vec<u8> = (0..COUNT).flat_map(frame).collect();
    let printed = text(&slide(&model, &stream, "2"));
    let lines = [0, 2, 4].map(|start| format!("{:.3}\t{}\t0\n", (start + 6) as f64 / 10.0, expected(&model, start)));
    assert_eq!(printed, lines.concat());
    let cut = slide(&model, &stream[..stream.len() - 5], "2");
    assert!(!cut.status.success());
    assert!(String::from_utf8_lossy(&cut.stderr).contains("of a frame of 4752"), "{cut:?}");
}

fn write_png(path: &Path, pixels: &[u8]) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
}

#[test]
fn a_folder_is_classified_in_batches() {
    for fixed in [None, Some(2)] {
        let folder = tempfile::tempdir().unwrap();
        let model = model(folder.path(), fixed);
        let clips = folder.path().join("clips");
        std::fs::create_dir_all(clips.join("b")).unwrap();
        for number in 0..7 {
            write_png(&clips.join(format!("b/{number:05}.png")), &frame(number + 1));
        }
        let raw = |start: usize| (start..start + 7).flat_map(frame).collect::<Vec<u8>>();
        std::fs::write(clips.join("a_44x36.rgb"), raw(0)).unwrap();
        std::fs::write(clips.join("c_44x36.rgb"), raw(2)).unwrap();
        let run = || example("batch_folder").arg(&model).arg(&clips).args(["--batch", "2"]).output().unwrap();
        let names = ["a_44x36.rgb", "b", "c_44x36.rgb"];
        let lines =
            names.iter().enumerate().map(|(start, name)| format!("{name}\t{}\n", expected_of(&model, fixed, start)));
        let lines: String = lines.collect();
        assert_eq!(text(&run()), lines, "batch {fixed:?}");

        // What cannot be used is told, the rest is done.
        std::fs::write(clips.join("d_44x36.rgb"), &raw(0)[..SIZE]).unwrap();
        std::fs::write(clips.join("notes.txt"), "nothing").unwrap();
        std::fs::create_dir(clips.join("e")).unwrap();
        std::fs::write(clips.join("f_99999999x99999999.rgb"), "x").unwrap();
        let output = run();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stdout), lines);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(told.lines().count(), 4, "{told}");
        assert!(told.contains("it has 1 frames, a clip spans 7") && told.contains("NAME_WIDTHxHEIGHT.rgb"), "{told}");
    }
}

/// A session for a fixed batch classifies no single clip: the clip is repeated.
fn expected_of(model: &Path, fixed: Option<usize>, start: usize) -> String {
    let Some(batch) = fixed else { return expected(model, start) };
    let session = Session::open(model, &Options::default()).unwrap();
    let frames: Vec<Vec<u8>> = (0..4).map(|i| frame(start + 2 * i)).collect();
    let clip = session.preprocessing().unwrap().prepare(&frames, HEIGHT, WIDTH).unwrap();
    let clips = clip.repeat(batch);
    let clips = vjepa_runtime::ClipBatch::new([batch, 3, 4, 32, 32], &clips).unwrap();
    let logits = &session.run(&clips).unwrap()[0].data;
    let best = vjepa_runtime::top(&logits[..logits.len() / batch], &[], 1).remove(0);
    format!("{:.6}\tclass {}", best.probability, best.class)
}
