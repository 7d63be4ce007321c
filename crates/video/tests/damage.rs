//! Damaged bytes never panic through, never hang, and never make the crate allocate out of proportion.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vjepa_video::{Decoder, fuzz};

/// Records the largest single allocation.
struct Watch;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(ptr, layout, size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static WATCH: Watch = Watch;

#[cfg(feature = "ffmpeg")]
const DECODERS: &[Decoder] = &[Decoder::Auto, Decoder::Ffmpeg];
#[cfg(not(feature = "ffmpeg"))]
const DECODERS: &[Decoder] = &[Decoder::Pure];

/// Change bytes, perhaps cut the end off, then open and read some frames; any outcome but a panic or a hang will do.
fn survive(name: &str, flips: &[(usize, u8)], keep: Option<usize>) {
    let mut bytes = std::fs::read(common::clip(name)).unwrap();
    for &(at, xor) in flips {
        let n = bytes.len();
        bytes[at % n] ^= xor;
    }
    if let Some(keep) = keep {
        let n = bytes.len();
        bytes.truncate(keep % n);
    }
    let start = Instant::now();
    for decoder in DECODERS {
        for error in fuzz::read(&bytes, *decoder).unwrap() {
            assert!(error.to_string().contains(fuzz::NAME), "{error} does not name the file");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{name}: {flips:?} {keep:?} took {:?}", start.elapsed());
    // Planes are 16 bits in one decoder; a damaged header may claim up to MAX_AREA pixels.
    let limit = 4 * vjepa_video::MAX_AREA;
    assert!(LARGEST.load(Ordering::Relaxed) < limit, "{name}: {flips:?} {keep:?} allocated too much");
}

/// Where the tables of a clip are: damage there is the most interesting.
fn tables(name: &str) -> std::ops::Range<usize> {
    let bytes = std::fs::read(common::clip(name)).unwrap();
    match bytes.windows(4).position(|w| w == b"moov") {
        Some(at) => at - 4..bytes.len(),
        None => 0..700,
    }
}

fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        // Contained panics are expected here; those of the test itself are not.
        std::panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|l| l.file().contains("video/tests")) {
                hook(info);
            }
        }));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mp4_tables(at in any::<prop::sample::Index>(), xor in 1u8.., more in any::<[prop::sample::Index; 3]>()) {
        quiet();
        let range = tables("short_20f.mp4");
        let flips: Vec<_> = [at].iter().chain(&more).map(|i| (range.start + i.index(range.len()), xor)).collect();
        survive("short_20f.mp4", &flips[..1], None);
        survive("short_20f.mp4", &flips, None);
    }

    #[test]
    fn webm_headers(at in any::<prop::sample::Index>(), xor in 1u8.., keep in any::<Option<u16>>()) {
        quiet();
        let range = tables("vp9_ssv2.webm");
        survive("vp9_ssv2.webm", &[(at.index(range.len()), xor)], keep.map(usize::from));
    }

    #[test]
    fn anywhere(at in any::<[usize; 4]>(), xor in 1u8.., keep in any::<Option<usize>>()) {
        quiet();
        let flips = at.map(|at| (at, xor));
        survive("one_frame.mp4", &flips, keep);
        survive("short_20f.mp4", &flips, keep);
    }
}

/// One file for each container and for each way in which the index looks into the stream.
const CONTAINERS: [&str; 13] = [
    "../data/og_cut.mkv",
    "../data/og_cut_frag.mp4",
    "../data/remux.mp4",
    "../data/two_entries.mp4",
    "../data/gdr_cut.mkv",
    "../data/lossless.mp4",
    "../data/cover.mov",
    "../data/vp9_nokey.webm",
    // Without FFmpeg these are refused at once.
    "../data/mpeg4.avi",
    "../data/mpeg2.ts",
    "../data/mpeg2.mpg",
    "../data/hevc.mp4",
    "../data/av1.webm",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two copies in each of 500 cases: a thousand of every file.
    #[test]
    fn a_thousand_copies_of_every_container(at in any::<[usize; 6]>(), xor in 1u8.., keep in any::<Option<usize>>()) {
        quiet();
        for name in CONTAINERS {
            survive(name, &at.map(|at| (at, xor)), keep);
            survive(name, &[(tables(name).start + at[0] % 600, xor)], None);
        }
    }
}

#[test]
fn every_length_of_a_small_file() {
    quiet();
    let n = std::fs::metadata(common::clip("one_frame.mp4")).unwrap().len() as usize;
    for keep in (0..n).step_by(37).chain(0..64) {
        survive("one_frame.mp4", &[], Some(keep));
    }
}

/// What fuzzing found, made small; each ended the process once.
#[test]
fn what_fuzzing_found() {
    quiet();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzzed");
    for entry in std::fs::read_dir(folder).unwrap() {
        survive(entry.unwrap().path().to_str().unwrap(), &[], None);
    }
}
