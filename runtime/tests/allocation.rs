//! What opening a damaged model allocates: bounded by the file, whatever the file says. A test binary of its own, since it
//! counts every allocation of the process.
#![cfg(feature = "tract")]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use vjepa_export::{OnnxOptions, to_onnx};
use vjepa_runtime::{Options, Runtime, Session};

/// Counts what is allocated now and the most there ever was.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: a pointer of `alloc` with its layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes allocated at most while `f` runs.
fn peak(f: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    f();
    MOST.load(Ordering::Relaxed) - before
}

fn open(path: &Path, bytes: &[u8]) -> bool {
    std::fs::write(path, bytes).unwrap();
    Session::open(path, &Options { runtime: Runtime::Tract, ..Options::default() }).is_ok()
}

#[test]
fn damaged_models_allocate_no_more_than_sound_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    let bytes = to_onnx(&model.graph, &model.weights, &OnnxOptions::default()).unwrap().to_bytes().unwrap();
    // What tract keeps for operators and kernels is there after the first time.
    assert!(open(&path, &bytes));
    let sound = peak(|| assert!(open(&path, &bytes)));
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut worst = 0;
    for round in 0..120 {
        let mut damaged = bytes.clone();
        if round % 3 == 0 {
            damaged.truncate(next(bytes.len()));
        }
        for _ in 0..1 + next(6) {
            let at = next(damaged.len().max(1));
            // Continued varints make numbers as large as they go.
            let value = [0xff, 0x7f, 0x80, next(256) as u8][next(4)];
            damaged.iter_mut().skip(at).take(1 + next(8)).for_each(|byte| *byte = value);
        }
        let allocated = peak(|| {
            open(&path, &damaged);
        });
        worst = worst.max(allocated);
    }
    println!("{} bytes: {sound} allocated for the sound model, at most {worst} for damaged ones", bytes.len());
    assert!(worst <= 2 * sound + (1 << 20), "{worst} bytes for a damaged model, {sound} for the sound one");
}
