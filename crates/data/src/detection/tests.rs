use std::path::Path;

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Info {
    keyframes: Vec<KeyFrame>,
    boxes: Vec<Frame>,
}

#[derive(Deserialize)]
struct KeyFrame {
    sec: u32,
    frames: usize,
    step: usize,
    total: usize,
    indices: Vec<usize>,
}

#[derive(Deserialize)]
struct Frame {
    image_hw: (usize, usize),
    boxes01: Vec<[f64; 4]>,
    clipped: Vec<[f64; 4]>,
    test_image_hw: (usize, usize),
    test: Vec<[f64; 4]>,
    flipped_at_test_size: Vec<[f64; 4]>,
}

fn files() -> Vec<Info> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden/eval_detection/info.json");
    assert!(carried.is_file(), "{} is part of the repository", carried.display());
    let beside = root.join("../shared/golden/eval_detection/info.json");
    let read = |path: &std::path::PathBuf| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    [carried, beside].iter().filter(|path| path.is_file()).map(read).collect()
}

fn close(got: [f64; 4], want: [f64; 4]) {
    assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-9), "{got:?} is not {want:?}");
}

#[test]
fn clips_around_key_frames() {
    for row in files().iter().flat_map(|file| &file.keyframes) {
        let got = key_frame_clip(row.sec, row.frames, row.step, row.total).unwrap();
        assert_eq!(got, row.indices, "second {} of {} frames", row.sec, row.total);
    }
    assert_eq!(key_frame_clip(902, 16, 4, 0), Err(SamplingError::Empty));
    assert_eq!(key_frame_clip(902, 16, 0, 9), Err(SamplingError::Zero("sampling_rate")));
    let before = key_frame_clip(2, 16, 4, 9).unwrap_err().to_string();
    assert!(before.contains("second 2") && before.contains("900"), "{before}");
}

#[test]
fn boxes_after_every_step() {
    for frame in files().iter().flat_map(|file| &file.boxes) {
        assert_eq!(resized(frame.image_hw, TEST_SIDE), frame.test_image_hw);
        for (number, shares) in frame.boxes01.iter().enumerate() {
            let pixels = to_pixels(*shares, frame.image_hw);
            close(pixels, frame.clipped[number]);
            let test = resized_box(pixels, frame.image_hw, TEST_SIDE);
            close(test, frame.test[number]);
            close(flipped_box(test, frame.test_image_hw.1), frame.flipped_at_test_size[number]);
        }
    }
}

#[test]
fn boxes_in_a_crop() {
    let crop = CropBox { top: 10, left: 20, height: 30, width: 40 };
    assert_eq!(cropped_box([25.0, 5.0, 70.0, 35.5], crop), [5.0, 0.0, 39.0, 25.5]);
}
