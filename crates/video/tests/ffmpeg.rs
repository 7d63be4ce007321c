//! The FFmpeg path: the same frames as the pure-Rust decoders, and everything that those leave out.
#![cfg(feature = "ffmpeg")]

mod common;

use std::path::PathBuf;

use common::{assert_random_access_with, barcode, barcode_rgb, clip, expected, hash, shared};
use vjepa_video::{Decoder, Frame, VideoError, open, open_with};

fn data(name: &str) -> PathBuf {
    clip("../data").join(name)
}

fn all(path: &PathBuf, decoder: Decoder) -> Vec<Frame> {
    let mut clip = open_with(path, decoder).unwrap_or_else(|e| panic!("{e}"));
    let indices: Vec<usize> = (0..clip.info().intact_frames).collect();
    clip.frames(&indices).unwrap_or_else(|e| panic!("{e}"))
}

/// Frame `i` shows the barcode `i`, in sequence and at random.
fn barcodes(path: PathBuf, frames: usize) -> Vec<Frame> {
    let all = assert_random_access_with(&path, 10, Decoder::Ffmpeg);
    assert_eq!(all.len(), frames, "{}", path.display());
    for (i, frame) in all.iter().enumerate() {
        assert_eq!(barcode(frame), Some(i), "{}: frame {i}", path.display());
    }
    assert_eq!(barcode_rgb(&all[frames - 1]), Some(frames - 1), "{}: RGB", path.display());
    all
}

#[test]
fn small_clips_of_every_container_are_frame_exact() {
    // Made by tests/video/make_clips.py.
    for name in SMALL {
        barcodes(data(name), 24);
    }
}

/// 24 frames each.
const SMALL: [&str; 5] = ["mpeg4.avi", "mpeg2.ts", "mpeg2.mpg", "hevc.mp4", "av1.webm"];

#[test]
fn reading_in_order_continues() {
    for name in SMALL.into_iter().chain(["idr.mp4", "vp9.webm", "og_cut.mkv"]) {
        let path = data(name);
        let all = all(&path, Decoder::Ffmpeg);
        for step in [1, 3] {
            let mut clip = open_with(&path, Decoder::Ffmpeg).unwrap();
            for from in (0..all.len()).step_by(step) {
                let indices: Vec<usize> = (from..(from + step).min(all.len())).collect();
                let frames = clip.frames(&indices).unwrap();
                assert!(frames == all[from..from + indices.len()], "{name}: frames from {from} by {step}");
            }
            // Windows that overlap.
            for from in 0..all.len().saturating_sub(6) {
                assert!(clip.frames(&[from, from + 2, from + 5]).unwrap()[1] == all[from + 2], "{name}: window {from}");
            }
        }
    }
}

#[test]
fn streams_are_what_ffmpeg_shows() {
    let names = [
        "og_cut.mkv",
        "og_cut_frag.mp4",
        "og_cut_noedit.mp4",
        "og_cut_edit.mp4",
        "og2_cut.mp4",
        "nokey.mkv",
        "nokey.mp4",
        "gdr_cut.mkv",
        "remux.mp4",
        "no_ctts.mp4",
        "ties.mp4",
        "short_ctts.mp4",
        "short_stts.mp4",
        "cover.mkv",
        "cover.mov",
        "other.mkv",
        "other.mp4",
        "avc3.mp4",
        "avc3_frag.mp4",
        "inband.mp4",
        "two_entries.mp4",
        "empty_first.mp4",
        "empty_middle.mp4",
        "empty_end.mp4",
        "empty_several.mp4",
        "idr.mp4",
        "vp9.webm",
    ];
    for name in names {
        let frames = assert_random_access_with(&data(name), 12, Decoder::Ffmpeg);
        assert_eq!(frames.iter().map(hash).collect::<Vec<_>>(), expected(name), "{name}");
        let pure = all(&data(name), Decoder::Pure);
        assert!(frames == pure, "{name}: places, times or colours differ from the pure-Rust decoder's");
    }
}

#[test]
fn damage_is_an_error_or_does_not_matter() {
    for (name, bad, truth) in [
        ("lost.mp4", 5..14, "lost.mp4"),
        ("lost.mkv", 5..14, "lost.mp4"),
        ("lost_b.mp4", 16..23, "lost_b.mp4"),
        ("vp9_marker.webm", 5..15, "vp9.webm"),
    ] {
        let truth = expected(truth);
        let mut clip = open_with(data(name), Decoder::Ffmpeg).unwrap();
        for i in (0..truth.len()).chain((0..truth.len()).rev()) {
            match clip.frames(&[i]) {
                Ok(frames) => {
                    assert!(!bad.contains(&i), "{name}: frame {i} depends on what is missing");
                    assert_eq!(hash(&frames[0]), truth[i], "{name}: frame {i}");
                }
                Err(error) => assert!(bad.contains(&i), "{name}: frame {i} is intact: {error}"),
            }
        }
    }
}

#[test]
fn what_the_pure_decoders_refuse_is_read() {
    for (name, shift) in [("tenbit.mp4", (1, 1)), ("odd_341x257.mp4", (0, 0))] {
        let frames = barcodes(clip(name), open(clip(name)).unwrap().info().frames);
        assert_eq!(frames[0].chroma_shift, shift, "{name}");
    }
    for name in ["lossless.mp4", "lossless.mkv", "h264_422.mkv", "vp9_444.webm", "vp9_10.webm"] {
        assert!(!assert_random_access_with(&data(name), 8, Decoder::Auto).is_empty(), "{name}");
    }
}

#[test]
fn a_decoder_can_be_chosen_and_none_invented() {
    let path = clip("short_20f.mp4");
    assert!(all(&path, Decoder::Pure) == all(&path, Decoder::Ffmpeg));
    let error = open_with(clip("tenbit.mp4"), Decoder::Pure).err().unwrap();
    assert!(matches!(error, VideoError::UnsupportedCodec { pure: true, .. }), "{error}");
    // Not the libraries' fault.
    let said = error.to_string();
    assert!(said.contains("by the pure-Rust decoder") && said.contains("VJEPA_DECODER=pure is set"), "{said}");
    assert!(!said.contains("FFmpeg libraries"), "{said}");
    let version = vjepa_video::ffmpeg_version().unwrap();
    assert!(version.starts_with("libavcodec ") && !version.contains(" 0."), "{version}");
}

/// The table of `../shared/clips`, in parts: several hundred frames of each file are decoded many times.
#[test]
fn shared_clips_of_h264() {
    let Some(folder) = shared("clips") else { return };
    for name in ["h264_gop250", "h264_gop12", "h264_gop250_nob", "h264_baseline", "h264_bpyr_opengop"] {
        barcodes(folder.join(format!("{name}.mp4")), 300);
    }
    for name in ["anullsrc_av.mp4", "fast.mp4", "frag.mp4", "rot90.mp4", "mpegts.ts", "avi_like.mkv"] {
        barcodes(folder.join(name), 300);
    }
    for (name, frames) in [("short_20f.mp4", 20), ("one_frame.mp4", 1), ("interlaced.mp4", 120)] {
        barcodes(folder.join(name), frames);
    }
}

#[test]
fn a_shared_clip_in_high_definition() {
    let Some(folder) = shared("clips") else { return };
    let clip = || open_with(folder.join("h264_720p.mp4"), Decoder::Ffmpeg).unwrap();
    let (mut in_order, frames) = (clip(), 300);
    assert_eq!(in_order.info().frames, frames);
    // Twenty at a time: all of them take half a gigabyte.
    for group in (0..frames).collect::<Vec<_>>().chunks(20) {
        for (i, frame) in group.iter().zip(in_order.frames(group).unwrap()) {
            assert_eq!(barcode(&frame), Some(*i));
        }
    }
    for index in [299, 3, 150] {
        assert_eq!(barcode(&clip().frames(&[index]).unwrap()[0]), Some(index));
    }
}

#[test]
fn shared_clips_of_other_codecs() {
    let Some(folder) = shared("clips") else { return };
    let clips = [("vp9_ssv2.webm", 48), ("vp9_10s.webm", 300), ("odd_420_321x241.mkv", 150), ("av1.mp4", 300)];
    for (name, frames) in clips.into_iter().chain([("odd_341x257.mp4", 150), ("tenbit.mp4", 90), ("hevc.mp4", 150)]) {
        barcodes(folder.join(name), frames);
    }
}

#[test]
fn shared_clips_are_the_same_to_both_decoders() {
    let Some(folder) = shared("clips") else { return };
    for name in ["vfr.mp4", "editlist_cut.mp4", "trunc_faststart.mp4", "trunc.webm", "rot90.mp4", "interlaced.mp4"] {
        let path = folder.join(name);
        let same = assert_random_access_with(&path, 6, Decoder::Ffmpeg) == all(&path, Decoder::Pure);
        assert!(same, "{name}: the decoders differ");
    }
}

#[test]
fn shared_clips_without_video_are_refused() {
    let Some(folder) = shared("clips") else { return };
    for name in
        ["trunc_tail_nomoov.mp4", "zero_byte.mp4", "text.mp4", "random_bytes.mp4", "audio_only.mp4", "audio_only.m4a"]
    {
        for decoder in [Decoder::Auto, Decoder::Ffmpeg] {
            let error = open_with(folder.join(name), decoder).err().expect(name).to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

#[test]
fn flipped_bits_are_no_silent_garbage() {
    let Some(folder) = shared("clips") else { return };
    let reference = all(&folder.join("fast.mp4"), Decoder::Pure);
    let mut errors = 0;
    for (i, wanted) in reference.iter().enumerate() {
        match open_with(folder.join("bitflips.mp4"), Decoder::Ffmpeg).unwrap().frames(&[i]) {
            Ok(frames) => assert!(frames[0] == *wanted, "frame {i} is silent garbage"),
            Err(error) => {
                assert!(error.to_string().contains("bitflips.mp4"), "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 0);
    if let Ok(mut clip) = open_with(folder.join("moov_garbage.mp4"), Decoder::Ffmpeg) {
        let indices: Vec<usize> = (0..clip.info().frames).collect();
        assert!(clip.frames(&indices).is_err());
    }
}
