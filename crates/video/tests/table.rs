//! The whole table of test clips, where the checkout has them beside it (`../shared/clips` from the workspace root).
//!
//! They are large, so a plain clone runs without them: see `clips.rs` for the ones that travel with the code.

mod common;

use std::path::PathBuf;

use common::{assert_random_access_is_sequential, barcode, barcode_rgb};
use vjepa_video::{Decoder, VideoError, open, open_with};

fn shared(name: &str) -> Option<PathBuf> {
    common::shared("clips").map(|folder| folder.join(name))
}

/// Frame `i` shows barcode `number(i)`, at random as in sequence.
fn exact(name: &str, frames: usize, number: impl Fn(usize) -> usize) {
    let Some(path) = shared(name) else { return };
    let all = assert_random_access_is_sequential(&path, 8);
    assert_eq!(all.len(), frames, "{name}");
    for (i, frame) in all.iter().enumerate() {
        assert_eq!(barcode(frame), Some(number(i)), "{name}: frame {i}");
    }
    let last = &all[frames - 1];
    assert_eq!(barcode_rgb(last), Some(number(frames - 1)), "{name}: RGB");
}

#[test]
fn h264() {
    for name in ["h264_gop250", "h264_gop12", "h264_gop250_nob", "h264_baseline", "anullsrc_av", "fast", "frag"] {
        exact(&format!("{name}.mp4"), 300, |i| i);
    }
}

#[test]
fn h264_open_gop_with_b_pyramid() {
    exact("h264_bpyr_opengop.mp4", 300, |i| i);
}

#[test]
fn h264_in_matroska() {
    exact("avi_like.mkv", 300, |i| i);
}

#[test]
fn vp9() {
    exact("vp9_10s.webm", 300, |i| i);
    exact("vp9_ssv2.webm", 48, |i| i);
    exact("odd_420_321x241.mkv", 150, |i| i);
}

#[test]
fn rotation_is_applied() {
    exact("rot90.mp4", 300, |i| i);
    let Some(path) = shared("rot90.mp4") else { return };
    let mut clip = open(path).unwrap();
    assert_eq!((clip.info().width(), clip.info().height()), (256, 340));
    let frame = clip.frames(&[5]).unwrap().remove(0);
    assert_eq!((frame.display_width(), frame.display_height()), (256, 340));
}

#[test]
fn pre_roll_is_not_shown() {
    let Some(path) = shared("editlist_cut.mp4") else { return };
    let all = assert_random_access_is_sequential(&path, 8);
    assert_eq!(all.len(), 152);
    for frame in &all {
        // Number 102 is the first frame after the cut, which lies between two frames; the last few numbers were lost
        // when the file was cut without re-encoding, so that time and not counting tells which is which.
        let number = 102.0 + ((frame.time - all[0].time) * 30.0).round();
        assert_eq!(barcode(frame), Some(number as usize), "frame {}", frame.index);
    }
    assert!(all[0].time < 1.0 / 30.0);
}

#[test]
fn variable_rate_follows_timestamps() {
    let Some(path) = shared("vfr.mp4") else { return };
    let all = assert_random_access_is_sequential(&path, 8);
    assert_eq!(all.len(), 192);
    for frame in &all {
        // The source ran at 30 frames per second before frames were dropped.
        let number = barcode(frame).unwrap();
        assert!((frame.time - number as f64 / 30.0).abs() < 1e-3, "frame {} at {}", frame.index, frame.time);
    }
}

#[test]
fn cut_files_are_exact_as_far_as_they_go() {
    for (name, whole) in [("trunc_faststart.mp4", 300), ("trunc.webm", 300)] {
        let Some(path) = shared(name) else { continue };
        let all = assert_random_access_is_sequential(&path, 4);
        assert!(all.len() > 100 && all.len() < whole, "{name}: {}", all.len());
        for (i, frame) in all.iter().enumerate() {
            assert_eq!(barcode(frame), Some(i), "{name}");
        }
        let mut clip = open(&path).unwrap();
        for beyond in [all.len(), whole - 1, whole] {
            let error = clip.frames(&[0, beyond]).unwrap_err();
            let first = matches!(error, VideoError::Truncated { first_bad_frame, .. } if first_bad_frame == all.len());
            assert!(first, "{name}: frame {beyond}: {error}");
        }
    }
}

#[test]
fn flipped_bits_are_an_error_or_do_not_matter() {
    let (Some(flipped), Some(good)) = (shared("bitflips.mp4"), shared("fast.mp4")) else { return };
    let reference = open(good).unwrap().frames(&(0..300).collect::<Vec<_>>()).unwrap();
    let mut errors = 0;
    for (i, wanted) in reference.iter().enumerate() {
        match open(&flipped).unwrap().frames(&[i]) {
            Ok(frames) => assert!(frames[0] == *wanted, "frame {i} is silent garbage"),
            Err(e) => {
                assert!(matches!(e, VideoError::Corrupt { .. } | VideoError::Panicked { .. }), "{e}");
                errors += 1;
            }
        }
    }
    assert!(errors > 0);
}

#[test]
fn everything_else_is_an_error_with_a_name() {
    let unsupported = ["tenbit.mp4", "odd_341x257.mp4", "av1.mp4", "hevc.mp4", "mpegts.ts"];
    let bad = ["trunc_tail_nomoov.mp4", "zero_byte.mp4", "text.mp4", "random_bytes.mp4", "audio_only.mp4"];
    for name in unsupported.into_iter().chain(bad) {
        let Some(path) = shared(name) else { continue };
        let error = open_with(&path, Decoder::Pure).err().expect(name);
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(matches!(error, VideoError::UnsupportedCodec { .. }), unsupported.contains(&name), "{error}");
        assert!(name != "mpegts.ts" || error.to_string().contains("codec H.264 in MPEG-TS"), "{error}");
    }
    // Random bytes in the tables: whatever still opens must not show a frame in the wrong place.
    let Some(path) = shared("moov_garbage.mp4") else { return };
    if let Ok(mut clip) = open(&path) {
        let n = clip.info().frames;
        assert!(clip.frames(&(0..n).collect::<Vec<_>>()).is_err());
    }
}
