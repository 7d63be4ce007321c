use super::*;

fn record(normalization: Normalization) -> Preprocessing {
    Preprocessing {
        num_frames: 2,
        sampling_rate: 4,
        sampling: Sampling::Vjepa,
        crop_size: 28,
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
