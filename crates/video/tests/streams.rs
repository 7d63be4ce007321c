//! Streams and containers as other tools leave them: cut without re-encoding, remuxed, with lost packets, with tracks and
//! sample entries around the film. `data/expected.txt` holds what ffmpeg (PyAV) shows of each file: one hash per frame.

mod common;

use std::path::PathBuf;

use common::{assert_random_access_is_sequential, clip, expected, hash};
use vjepa_video::{Decoder, VideoError, open, open_with, probe};

fn data(name: &str) -> PathBuf {
    clip("../data").join(name)
}

/// Every frame is the one that ffmpeg shows there, in sequence, at random and one by one.
fn exact(name: &str) {
    let expected = expected(name);
    let all = assert_random_access_is_sequential(&data(name), 12);
    assert_eq!(all.iter().map(hash).collect::<Vec<_>>(), expected, "{name}");
    for i in (0..all.len()).rev() {
        let frame = open(data(name)).unwrap().frames(&[i]).unwrap().remove(0);
        assert!(frame == all[i], "{name}: frame {i} alone");
    }
    assert!(all.windows(2).all(|w| w[0].time <= w[1].time), "{name}: times ascend");
}

#[test]
fn pictures_that_lack_their_references_are_not_shown() {
    for (name, left_out) in [
        ("og_cut.mkv", 3),
        ("og_cut_frag.mp4", 3),
        ("og_cut_noedit.mp4", 3),
        ("og_cut_edit.mp4", 3),
        // Two levels of B pictures, four references.
        ("og2_cut.mp4", 5),
        // The first key frame is missing.
        ("nokey.mkv", 11),
        ("nokey.mp4", 11),
        // Gradual refresh, no key frame at all.
        ("gdr_cut.mkv", 11),
    ] {
        exact(name);
        assert_eq!(probe(data(name)).unwrap().left_out, left_out, "{name}");
    }
    assert_eq!(probe(data("idr.mp4")).unwrap().left_out, 0);
}

#[test]
fn vp9_before_the_first_key_frame_is_not_shown() {
    let all = assert_random_access_is_sequential(&data("vp9_nokey.webm"), 12);
    assert_eq!(all.iter().map(hash).collect::<Vec<_>>(), expected("vp9.webm")[15..]);
    assert_eq!((all[0].index, all[0].time), (0, 0.0));
    assert_eq!(probe(data("vp9_nokey.webm")).unwrap().left_out, 11);
}

#[test]
fn the_bitstream_orders_what_timestamps_do_not() {
    // Put into mp4 without timestamps; without reordering offsets; without any time; with tables that end early.
    for name in ["remux.mp4", "no_ctts.mp4", "ties.mp4", "short_ctts.mp4", "short_stts.mp4"] {
        exact(name);
    }
}

#[test]
fn the_first_decodable_track_is_the_film() {
    // Before it: a cover picture; a lossless film; a film in 4:2:2.
    for name in ["cover.mkv", "cover.mov", "other.mkv", "other.mp4"] {
        exact(name);
        assert_eq!(expected(name), expected("idr.mp4"));
    }
}

#[test]
fn sample_entries_of_all_names_and_numbers() {
    for name in ["avc3.mp4", "avc3_frag.mp4", "inband.mp4", "two_entries.mp4"] {
        exact(name);
    }
}

#[test]
fn empty_samples_are_skipped() {
    for name in ["empty_first.mp4", "empty_middle.mp4", "empty_end.mp4", "empty_several.mp4"] {
        exact(name);
    }
}

#[test]
fn tools_no_decoder_has_are_named_when_the_file_is_opened() {
    for (name, tool) in [
        ("lossless.mp4", "H.264 lossless (transform bypass)"),
        ("lossless.mkv", "H.264 lossless (transform bypass)"),
        ("h264_422.mkv", "H.264 4:2:2"),
        ("vp9_444.webm", "VP9 profile 1, not 4:2:0"),
        ("vp9_10.webm", "VP9 profile 2, 10 or 12 bits"),
    ] {
        let error = open_with(data(name), Decoder::Pure).err().expect(name);
        assert!(matches!(&error, VideoError::UnsupportedCodec { codec, .. } if codec == tool), "{error}");
    }
}

#[test]
fn containers_of_others_are_named_with_the_codec_inside() {
    for (name, what) in [("mpeg2.ts", "MPEG-2 in MPEG-TS"), ("mpeg2.mpg", "MPEG-2 in MPEG-PS")] {
        let error = open_with(data(name), Decoder::Pure).err().expect(name);
        assert!(matches!(&error, VideoError::UnsupportedCodec { codec, .. } if codec == what), "{error}");
    }
}

#[test]
fn an_avi_file_is_named_with_its_codec_and_what_to_do() {
    let mut bytes = b"RIFF\0\0\0\0AVI LIST\0\0\0\0hdrlstrh\x38\0\0\0vidsxvid".to_vec();
    bytes.extend_from_slice(&[0; 48]);
    bytes.extend_from_slice(b"strf\x28\0\0\0");
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(b"XVID");
    let path = std::env::temp_dir().join(format!("vjepa-video-{}.avi", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let error = open_with(&path, Decoder::Pure).err().unwrap().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(cfg!(feature = "ffmpeg") || error.contains("build with `--features ffmpeg`"), "{error}");
    assert!(error.contains("(codec MPEG-4 part 2 (XVID) in AVI)"), "{error}");
    assert!(error.contains("ffmpeg -i") && error.contains("-c:v libx264") && error.len() < 1000, "{error}");
}

/// Frames in `bad` are errors that name `first`; all others are what they are without the damage.
fn damaged(name: &str, bad: std::ops::Range<usize>, first: usize, truth: &[String]) {
    let mut clip = open(data(name)).unwrap();
    assert_eq!(clip.info().frames, truth.len(), "{name}");
    let forwards = 0..truth.len();
    for i in forwards.clone().chain(forwards.rev()) {
        match clip.frames(&[i]) {
            Ok(frames) => {
                assert!(!bad.contains(&i), "{name}: frame {i} depends on what is missing");
                assert_eq!(hash(&frames[0]), truth[i], "{name}: frame {i}");
            }
            Err(error) => {
                assert!(bad.contains(&i), "{name}: frame {i} is intact: {error}");
                assert!(matches!(error, VideoError::Corrupt { frame: Some(frame), .. } if frame == first), "{error}");
            }
        }
    }
}

#[test]
fn frames_after_a_lost_picture_are_errors_up_to_the_next_key_frame() {
    for name in ["lost.mp4", "lost.mkv"] {
        damaged(name, 5..14, 5, &expected("lost.mp4"));
    }
    damaged("lost_b.mp4", 16..23, 16, &expected("lost_b.mp4"));
}

#[test]
fn vp9_frames_that_fail_checks_are_errors_up_to_the_next_key_frame() {
    // No frame marker; a compressed header of ones.
    damaged("vp9_marker.webm", 5..15, 5, &expected("vp9.webm"));
    damaged("vp9_data.webm", 20..30, 20, &expected("vp9.webm"));
}
