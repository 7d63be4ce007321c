use super::*;

fn record(normalization: Normalization) -> Preprocessing {
    Preprocessing {
        num_frames: 2,
        sampling_rate: 4,
        sampling: Sampling::Vjepa,
        crop_size: 28,
        crop_width: None,
        patch_size: 14,
        tubelet_size: 2,
        normalization,
        grayscale: false,
        framing: Framing::Centre,
    }
}

#[test]
fn json_survives_and_is_what_the_training_config_writes() {
    let custom = Normalization::Custom { mean: [0.5; 3], std: [0.25, 0.5, 1.0] };
    for normalization in [Normalization::Imagenet, Normalization::PerClip, custom] {
        let record = record(normalization);
        assert_eq!(Preprocessing::from_json(&record.to_json()).unwrap(), record);
    }
    let written = r#"{"num_frames":16,"sampling_rate":4,"sampling":"vjepa","crop_size":224,"patch_size":16,
        "tubelet_size":2,"normalization":"imagenet","grayscale":false}"#;
    assert_eq!(Preprocessing::from_json(written).unwrap().crop_size, 224);
}

#[test]
fn malformed_records_are_errors() {
    let good = record(Normalization::Imagenet).to_json();
    for (from, to) in [
        ("imagenet", "other"),
        ("28", "0"),
        ("28", "99999999"),
        ("28", "16384"),
        (":4,", ":0,"),
        ("\"num_frames\":2,", ""),
    ] {
        assert!(Preprocessing::from_json(&good.replace(from, to)).is_err(), "{to}");
    }
    let std = r#"{"mean":[0,0,0],"std":[0,1,1]}"#;
    assert!(Preprocessing::from_json(&good.replace("\"imagenet\"", std)).is_err());
}

#[test]
fn one_colour_stays_one_colour() {
    let frame = [128u8, 64, 255].repeat(40 * 50);
    let clip = record(Normalization::Imagenet).prepare(&[&frame, &frame], 40, 50).unwrap();
    assert_eq!(clip.len(), 3 * 2 * 28 * 28);
    for (c, byte) in [(0, 128.0f32), (1, 64.0), (2, 255.0)] {
        let (mean, std) = ([0.485, 0.456, 0.406][c], [0.229, 0.224, 0.225][c]);
        let channel = &clip[c * 2 * 28 * 28..][..2 * 28 * 28];
        assert!(channel.iter().all(|v| (v - (byte / 255.0 - mean) / std).abs() < 1e-5));
    }
    let clip = record(Normalization::PerClip).prepare(&[&[9; 6300], &[9; 6300]], 42, 50).unwrap();
    assert!(clip.iter().all(|v| *v == 0.0));
}

#[test]
fn per_clip_statistics_and_luma() {
    let frame: Vec<u8> = (0..32 * 40 * 3).map(|i| (i * 31 % 251) as u8).collect();
    let preprocessing = Preprocessing { grayscale: true, ..record(Normalization::PerClip) };
    let clip = preprocessing.prepare(&[&frame, &frame], 32, 40).unwrap();
    let mean = clip.iter().map(|v| f64::from(*v)).sum::<f64>() / clip.len() as f64;
    let square = clip.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / clip.len() as f64;
    assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-5, "{mean} {square}");
    let channel = clip.len() / 3;
    assert_eq!(clip[..channel], clip[channel..2 * channel]);
}

#[test]
fn a_frame_of_the_resized_size_is_cut_only() {
    // Short side 28 * 256 / 224 = 32: the centre starts at (2, 6).
    let frame: Vec<u8> = (0..32 * 40).flat_map(|i| [(i % 251) as u8; 3]).collect();
    let unit = Normalization::Custom { mean: [0.0; 3], std: [1.0 / 255.0; 3] };
    let clip = record(unit).prepare(&[&frame, &frame], 32, 40).unwrap();
    assert!((clip[0] - 86.0f32).abs() < 1e-3, "{}", clip[0]);
}

#[test]
fn wrong_frames_are_errors() {
    let record = record(Normalization::Imagenet);
    assert!(matches!(record.prepare(&[[0u8; 12]], 2, 2), Err(PreprocessError::FrameCount { expected: 2, got: 1 })));
    assert!(matches!(record.prepare(&[[0u8; 12], [0; 12]], 2, 3), Err(PreprocessError::FrameSize { got: 12, .. })));
    let error = record.prepare(&[[0u8; 0], []], usize::MAX, 2).unwrap_err();
    assert!(matches!(error, PreprocessError::FrameSides { .. }) && error.to_string().contains("1 to 16384"), "{error}");
}

#[test]
fn a_whole_frame_of_the_crops_size_is_left_as_it_is() {
    let frame: Vec<u8> = (0..28 * 28 * 3).map(|i| (i % 251) as u8).collect();
    let custom = Normalization::Custom { mean: [0.0; 3], std: [1.0 / 255.0; 3] };
    let record = Preprocessing { framing: Framing::Whole, ..record(custom) };
    let clip = record.prepare(&[&frame, &frame], 28, 28).unwrap();
    for (pixel, rgb) in frame.chunks_exact(3).enumerate() {
        assert!((clip[pixel] - f32::from(rgb[0])).abs() < 1e-3, "pixel {pixel}");
    }
}

#[test]
fn frames_of_a_clip_in_a_stream() {
    let clip = |sampling, num_frames, sampling_rate| {
        Preprocessing { sampling, num_frames, sampling_rate, ..record(Normalization::Imagenet) }.frame_offsets()
    };
    let official = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63];
    assert_eq!(clip(Sampling::Vjepa, 16, 4), official);
    assert_eq!(clip(Sampling::Exact, 4, 3), [0, 3, 6, 9]);
    assert_eq!((clip(Sampling::Vjepa, 1, 5), clip(Sampling::Exact, 1, 5)), (vec![0], vec![0]));
}

/// A frame whose pixel (y, x) is [y, x, y + x].
fn ramp(height: usize, width: usize) -> Vec<u8> {
    let pixel = |i: usize| [i / width, i % width, i / width + i % width];
    (0..height * width).flat_map(pixel).map(|x| x as u8).collect()
}

/// One view of a ramp as one frame of `size` by `size` unscaled pixels.
fn view_of_ramp(sides: [usize; 2], size: usize, framing: Framing, view: View) -> Vec<f32> {
    let normalization = Normalization::Custom { mean: [0.0; 3], std: [1.0 / 255.0; 3] };
    let record = Preprocessing { num_frames: 1, crop_size: size, framing, ..record(normalization) };
    let mut out = vec![f32::NAN; record.clip_len()];
    record.prepare_view(&[ramp(sides[0], sides[1])], sides[0], sides[1], view, &mut out).unwrap();
    out
}

#[test]
fn views_run_along_the_long_side() {
    for (index, first) in [(0, 0.0), (1, 3.0), (2, 6.0)] {
        let view = View { index, count: 3 };
        assert_eq!(view_of_ramp([4, 10], 4, Framing::Centre, view)[16], first);
        assert_eq!(view_of_ramp([10, 4], 4, Framing::Whole, view)[0], first);
    }
    let record = Preprocessing { num_frames: 1, crop_size: 4, ..record(Normalization::Imagenet) };
    let view = View { index: 3, count: 3 };
    let error = record.prepare_view(&[ramp(4, 4)], 4, 4, view, &mut [0.0; 48]).unwrap_err();
    assert!(matches!(error, PreprocessError::View { index: 3, count: 3 }), "{error}");
    let error = record.prepare_view(&[ramp(4, 4)], 4, 4, View::SINGLE, &mut [0.0; 47]).unwrap_err();
    assert!(matches!(error, PreprocessError::OutputSize { got: 47, want: 48 }), "{error}");
}

#[test]
fn the_centre_takes_seven_eighths_of_the_short_side() {
    let out = view_of_ramp([8, 12], 7, Framing::Centre, View::SINGLE);
    // Half a pixel goes to the even neighbour at the top (0), two and a half to 2 at the left.
    assert_eq!((out[0], out[49]), (0.0, 2.0));
}

#[test]
fn a_whole_frame_is_cut_on_its_long_side_only() {
    let out = view_of_ramp([8, 8], 8, Framing::Whole, View::SINGLE);
    assert_eq!((out[0], out[63], out[64 + 7]), (0.0, 7.0, 7.0));
    let out = view_of_ramp([8, 12], 8, Framing::Whole, View::SINGLE);
    assert_eq!((out[64], out[64 + 7]), (2.0, 9.0));
}

#[test]
fn clips_that_are_not_square_are_cut_from_a_frame_that_covers_them() {
    let mut record = Preprocessing { num_frames: 1, framing: Framing::Whole, ..record(Normalization::PerClip) };
    record.normalization = Normalization::Custom { mean: [0.0; 3], std: [1.0 / 255.0; 3] };
    record.set_size([4, 12]);
    let first = |frame: [usize; 2], view: View| {
        let mut out = vec![f32::NAN; record.clip_len()];
        record.prepare_view(&[ramp(frame[0], frame[1])], frame[0], frame[1], view, &mut out).unwrap();
        [out[0], out[48]]
    };
    // Rows are left over in the first frame, columns in the second, nothing in the third.
    assert_eq!(first([8, 12], View::SINGLE), [2.0, 0.0]);
    assert_eq!(first([4, 18], View::SINGLE), [0.0, 3.0]);
    assert_eq!(first([4, 12], View::SINGLE), [0.0, 0.0]);
    for (index, start) in [(0, 0.0), (1, 2.0), (2, 4.0)] {
        assert_eq!(first([8, 12], View { index, count: 3 }), [start, 0.0]);
        assert_eq!(first([4, 16], View { index, count: 3 }), [0.0, start]);
    }
    let json = record.to_json();
    assert_eq!(Preprocessing::from_json(&json).unwrap(), record, "{json}");
    record.set_size([4, 4]);
    assert!(!record.to_json().contains("crop_width"));
    assert!(Preprocessing::from_json(&json.replace("\"crop_width\":12", "\"crop_width\":0")).is_err());
}

#[test]
fn any_view_of_any_frame_stays_within_its_values() {
    for height in 1..20 {
        for width in 1..20 {
            for (size, count) in [(1, 1), (3, 2), (7, 3), (11, 1)] {
                for index in 0..count {
                    let out = view_of_ramp([height, width], size, Framing::Centre, View { index, count });
                    let most = (height + width) as f32;
                    assert!(out.iter().all(|x| (-1e-3..=most).contains(x)), "{height}x{width}, {index} of {count}");
                }
            }
        }
    }
}

#[test]
fn stored_and_decoded_clips_are_scaled_alike() {
    // One colour per frame: resizing changes nothing, so the two differ in rounding alone.
    let frame: Vec<u8> = [200, 100, 50].repeat(40 * 40);
    let planes: Vec<u8> = [[200; 2 * 28 * 28], [100; 2 * 28 * 28], [50; 2 * 28 * 28]].concat();
    for (normalization, grayscale) in
        [(Normalization::Imagenet, false), (Normalization::Imagenet, true), (Normalization::PerClip, false)]
    {
        let record = Preprocessing { grayscale, ..record(normalization) };
        let (stored, decoded) = (record.prepare_stored(&planes), record.prepare(&[&frame, &frame], 40, 40).unwrap());
        assert_eq!(stored.len(), decoded.len());
        assert!(stored.iter().zip(&decoded).all(|(a, b)| (a - b).abs() < 1e-5), "{record:?}");
    }
    assert!(record(Normalization::Imagenet).prepare_stored(&[]).is_empty());
}

#[test]
fn luma_keeps_grey() {
    let mut rgb = vec![7, 7, 7, 255, 255, 255, 255, 0, 0];
    to_luma(&mut rgb);
    assert_eq!(rgb, [7, 7, 7, 255, 255, 255, 77, 77, 77]);
}
