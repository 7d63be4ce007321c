//! Behaviour on the small clips that live in `tests/clips`: exact frames, or an error with a name.

mod common;

use common::{assert_random_access_is_sequential, barcode, barcode_rgb, clip};
use vjepa_video::{Codec, Decoder, VideoError, open, open_with, probe};

#[test]
fn h264_in_mp4_is_frame_exact() {
    let frames = assert_random_access_is_sequential(&clip("short_20f.mp4"), 24);
    for (i, frame) in frames.iter().enumerate() {
        assert_eq!((barcode(frame), barcode_rgb(frame), frame.index), (Some(i), Some(i), i));
    }
    let info = probe(clip("short_20f.mp4")).unwrap();
    assert_eq!((info.codec, info.frames, info.intact_frames), (Codec::H264, 20, 20));
    assert_eq!((info.width(), info.height()), (340, 256));
    assert!((info.average_fps() - 30.0).abs() < 1e-6 && (info.duration - 20.0 / 30.0).abs() < 1e-6);
    assert!((info.timestamps[19] - 19.0 / 30.0).abs() < 1e-6);
}

#[test]
fn vp9_in_webm_is_frame_exact() {
    let frames = assert_random_access_is_sequential(&clip("vp9_ssv2.webm"), 12);
    assert_eq!(frames.len(), 48);
    for (i, frame) in frames.iter().enumerate() {
        assert_eq!((barcode(frame), barcode_rgb(frame)), (Some(i), Some(i)));
    }
    let info = probe(clip("vp9_ssv2.webm")).unwrap();
    assert_eq!((info.codec, info.width(), info.height()), (Codec::Vp9, 427, 240));
}

#[test]
fn odd_sizes_keep_their_last_row_and_column() {
    let mut c = open(clip("odd_420_321x241.mkv")).unwrap();
    let frames = c.frames(&[149, 0, 77, 0]).unwrap();
    assert_eq!(frames.iter().map(barcode).collect::<Vec<_>>(), [Some(149), Some(0), Some(77), Some(0)]);
    let f = &frames[0];
    assert_eq!((f.y.len(), f.u.len(), f.v.len(), f.rgb().len()), (321 * 241, 161 * 121, 161 * 121, 321 * 241 * 3));
    assert_eq!(frames[1], frames[3]);
}

#[test]
fn interlaced_h264_is_frame_exact() {
    let mut c = open(clip("interlaced.mp4")).unwrap();
    assert_eq!(c.info().frames, 120);
    let want = [119, 3, 4, 60];
    let got: Vec<_> = c.frames(&want).unwrap().iter().map(barcode).collect();
    assert_eq!(got, want.map(Some));
}

#[test]
fn one_frame_is_a_clip() {
    let mut c = open(clip("one_frame.mp4")).unwrap();
    assert_eq!(c.info().frames, 1);
    assert!(c.info().duration > 0.0);
    assert_eq!(c.frames(&[0, 0]).unwrap().len(), 2);
    assert!(c.frames(&[]).unwrap().is_empty());
    let error = c.frames(&[0, 1]).unwrap_err();
    assert!(matches!(error, VideoError::FrameOutOfRange { frame: 1, frames: 1, .. }), "{error}");
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let message = |name: &str| open_with(clip(name), Decoder::Pure).err().expect(name).to_string();
    let cases = [
        ("zero_byte.mp4", "empty"),
        ("text.mp4", "not a video file (it holds text)"),
        ("audio_only.m4a", "no video track"),
        ("tenbit.mp4", "(codec H.264 10-bit); "),
        ("tenbit.mp4", "re-encode to 8-bit H.264 in mp4: ffmpeg -i"),
        ("odd_341x257.mp4", "codec H.264 4:4:4"),
        ("no_such_file.mp4", "no such file"),
    ];
    for (name, words) in cases {
        let message = message(name);
        assert!(message.contains(name) && message.contains(words), "{message}");
    }
    assert!(matches!(open(clip("")), Err(VideoError::NotAVideo { .. })));
}

#[test]
#[cfg(not(feature = "ffmpeg"))]
fn without_ffmpeg_the_error_names_the_feature() {
    let error = open(clip("tenbit.mp4")).err().unwrap().to_string();
    assert!(
        error.contains("not supported by the pure-Rust decoder (codec H.264 10-bit); build with `--features ffmpeg`"),
        "{error}"
    );
    let error = open_with(clip("one_frame.mp4"), Decoder::Ffmpeg).err().unwrap();
    assert!(
        matches!(error, VideoError::NoSuchDecoder { .. }) && error.to_string().contains("--features ffmpeg"),
        "{error}"
    );
}

#[test]
fn a_clip_moves_to_another_thread() {
    let mut c = open(clip("one_frame.mp4")).unwrap();
    let n = std::thread::spawn(move || c.frames(&[0]).unwrap().len()).join().unwrap();
    assert_eq!(n, 1);
}
