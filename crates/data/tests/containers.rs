//! Folders of videos in containers that only FFmpeg reads: a word on what reads them, or, with the feature `ffmpeg`, their
//! frames.

use std::path::Path;

use vjepa_data::{VideoList, read_list};

/// AVI and MPEG-TS files are passed over with a word, or, with the feature `ffmpeg`, read like any other.
#[test]
fn other_containers_are_read_with_ffmpeg() {
    let clips = Path::new(env!("CARGO_MANIFEST_DIR")).join("../video/tests/data");
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in [("mpeg4.avi", "a.avi"), ("mpeg2.ts", "b.TS"), ("mpeg2.mpg", "c.mpg"), ("idr.mp4", "d.mp4")] {
        std::fs::copy(clips.join(from), folder.path().join(to)).unwrap();
    }
    let list = read_list(folder.path()).unwrap();
    let extra = if cfg!(feature = "ffmpeg") { 3 } else { 0 };
    assert_eq!((list.entries.len(), list.left_out.len()), (1 + extra, 3 - extra), "{:?}", list.left_out);
    every_frame_decodes(&list);
}

/// UCF101 and HMDB51 as they are distributed, where the checkout has such a folder.
#[test]
fn a_folder_of_xvid_in_avi() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    if !cases.exists() {
        return;
    }
    let (avi, mixed) = (cases.join("avi_xvid/videos"), cases.join("folder_mostly_avi/mixed"));
    if cfg!(feature = "ffmpeg") {
        for (folder, videos) in [(avi, 24), (mixed, 28)] {
            let list = read_list(&folder).unwrap();
            assert_eq!((list.entries.len(), list.left_out.len()), (videos, 0));
            every_frame_decodes(&list);
        }
    } else {
        let error = read_list(&avi).unwrap_err().to_string();
        assert!(error.contains("24 .avi") && error.contains("--features ffmpeg"), "{error}");
        let list = read_list(&mixed).unwrap();
        assert_eq!((list.entries.len(), list.left_out.values().next().map(|(count, _)| *count)), (4, Some(24)));
    }
}

fn every_frame_decodes(list: &VideoList) {
    for entry in &list.entries {
        let mut clip = vjepa_video::open(&entry.path).unwrap();
        let frames: Vec<usize> = (0..clip.info().frames).collect();
        assert_eq!(clip.frames(&frames).unwrap().len(), frames.len());
        assert!(frames.len() > 1, "{}", entry.path.display());
    }
}
