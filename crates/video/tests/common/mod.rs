//! Reads the barcode that every test clip carries: its own frame number in the top tenth of each picture, as 16 blocks:
//! white, black, 12 bits (least significant first), white, black.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use vjepa_video::{Decoder, Frame, open_with};

/// The small clips that live beside the tests.
pub fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clips").join(name)
}

/// The number in the picture as coded (before rotation), or `None` where the frame of the barcode is not seen.
pub fn barcode(frame: &Frame) -> Option<usize> {
    let row = frame.height / 20;
    let bit = |block: usize| {
        let x = (2 * block + 1) * frame.width / 32;
        frame.y[row * frame.width + x] > 128
    };
    read(bit)
}

/// The number in the displayed RGB picture, turned back by the frame's orientation.
pub fn barcode_rgb(frame: &Frame) -> Option<usize> {
    let rgb = frame.rgb();
    let (w, h) = (frame.display_width(), frame.display_height());
    assert_eq!(rgb.len(), w * h * 3);
    let bit = |block: usize| {
        let along = |n: usize| (2 * block + 1) * n / 32;
        let (x, y) = match frame.orientation.quarter_turns {
            0 => (along(w), h / 20),
            1 => (w - 1 - w / 20, along(h)),
            2 => (w - 1 - along(w), h - 1 - h / 20),
            _ => (w / 20, h - 1 - along(h)),
        };
        rgb[(y * w + x) * 3 + 1] > 128
    };
    read(bit)
}

fn read(bit: impl Fn(usize) -> bool) -> Option<usize> {
    let framed = bit(0) && !bit(1) && bit(14) && !bit(15);
    framed.then(|| (0..12).map(|i| usize::from(bit(2 + i)) << i).sum())
}

/// The checkout's folder of large test clips, where it is there.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    path.exists().then_some(path)
}

/// FNV-1a over the planes.
pub fn hash(frame: &Frame) -> String {
    let bytes = frame.y.iter().chain(&frame.u).chain(&frame.v);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// The hash of each frame that ffmpeg shows of a file in `tests/data`.
pub fn expected(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(clip("../data/expected.txt")).unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("{name}"));
    line.split(' ').skip(1).map(str::to_owned).collect()
}

/// A small deterministic sequence of numbers (xorshift).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// All frames in order, one call; and then at random, in small calls; the second must repeat the first bit for bit.
pub fn assert_random_access_is_sequential(path: &Path, calls: usize) -> Vec<Frame> {
    assert_random_access_with(path, calls, Decoder::Auto)
}

pub fn assert_random_access_with(path: &Path, calls: usize, decoder: Decoder) -> Vec<Frame> {
    let mut clip = open_with(path, decoder).unwrap_or_else(|e| panic!("{e}"));
    let n = clip.info().intact_frames;
    let all = clip.frames(&(0..n).collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{e}"));
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    for call in 0..calls {
        let indices: Vec<usize> = (0..1 + call % 4).map(|_| numbers.below(n)).collect();
        // A fresh decoder every other call: nothing may depend on what came before.
        if call % 2 == 0 {
            clip = open_with(path, decoder).unwrap();
        }
        let got = clip.frames(&indices).unwrap_or_else(|e| panic!("{indices:?}: {e}"));
        for (i, frame) in indices.iter().zip(&got) {
            assert!(*frame == all[*i], "{}: frame {i} of {indices:?} differs from sequential decoding", path.display());
        }
    }
    all
}
