//! A thousand changed copies of each kind of file: an error at the worst, never a panic, a hang, or memory that the file does
//! not justify. The files of the checkpoint matrix are the corpus.

use std::cell::Cell;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vjepa_weights::{WeightsError, fuzz};

/// Longest that a copy may take.
const LONGEST: Duration = Duration::from_secs(10);
/// What the process may take at its highest: the largest file of the corpus has 25 kB, the process itself 8 MiB.
const MOST_MEMORY_KIB: u64 = 64 << 10;
/// Changed copies of each kind of file.
const COPIES: u32 = 1000;

fn corpus(fits: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    files("tests/checkpoints", fits)
}

fn files(folder: &str, fits: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            (path.is_file() && fits(&name)).then(|| (name, std::fs::read(&path).unwrap()))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The most memory that the process has had, in KiB; 0 where that cannot be told.
fn peak_kib() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Reads changed copies of files.
fn mutate(files: Vec<(String, Vec<u8>)>, read: fn(&[u8]) -> Result<usize, WeightsError>) {
    for (name, bytes) in &files {
        // What is in the corpus to be refused is refused by its name, in the matrix.
        assert!(name.starts_with("refused") || read(bytes).is_ok(), "{name}");
    }
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..6u8);
    let case = (any::<prop::sample::Index>(), prop::collection::vec(change, 1..8));
    let mut runner = TestRunner::new(ProptestConfig { cases: COPIES, failure_persistence: None, ..Default::default() });
    let (refused, accepted) = (Cell::new(0), Cell::new(0));
    runner
        .run(&case, |(which, changes)| {
            let (name, mut bytes) = files[which.index(files.len())].clone();
            for (place, byte, kind) in changes {
                let place = place.index(bytes.len().max(1));
                match kind {
                    0 if place < bytes.len() => bytes[place] = byte,
                    1 if place < bytes.len() => bytes[place] ^= 1 << (byte % 8),
                    2 => bytes.insert(place.min(bytes.len()), byte),
                    3 if byte < 32 => bytes.truncate(place),
                    // A run of equal bytes: sizes and places of 4 and 8 bytes become large at once.
                    4 => {
                        let end = (place + 1 + usize::from(byte % 8)).min(bytes.len());
                        bytes.get_mut(place..end).unwrap_or_default().fill(byte | 0x70);
                    }
                    5 if byte < 64 => {
                        let end = (place + usize::from(byte)).min(bytes.len());
                        drop(bytes.drain(place.min(end)..end));
                    }
                    _ => {}
                }
            }
            let (tell, told) = mpsc::channel();
            let length = bytes.len();
            // A thread that hangs is left behind; the test fails at once.
            std::thread::spawn(move || tell.send(read(&bytes).map_err(|error| error.to_string())));
            match told.recv_timeout(LONGEST) {
                Ok(Ok(_)) => accepted.set(accepted.get() + 1),
                Ok(Err(message)) => {
                    refused.set(refused.get() + 1);
                    prop_assert!(message.contains("input") && message.len() < 1000, "{name}: {message}");
                }
                Err(error) => prop_assert!(false, "{name}, {length} bytes: {error}"),
            }
            prop_assert!(peak_kib() < MOST_MEMORY_KIB, "{name}: {} KiB", peak_kib());
            Ok(())
        })
        .unwrap();
    let (refused, accepted) = (refused.get(), accepted.get());
    assert!(refused > 0 && accepted > 0, "{refused} were refused, {accepted} read: the changes test nothing");
}

#[test]
fn pytorch_archives() {
    let legacy = |name: &str| name.contains("legacy");
    let ending = |name: &str| [".pt", ".tar", ".ckpt", ".bin"].iter().any(|end| name.ends_with(end));
    mutate(corpus(|name| ending(name) && !legacy(name)), fuzz::pytorch);
}

#[test]
fn pytorch_streams() {
    mutate(corpus(|name| name.contains("legacy")), fuzz::pytorch);
}

#[test]
fn safetensors() {
    mutate(corpus(|name| name.ends_with(".safetensors")), fuzz::safetensors);
}

#[test]
fn indices_of_shards() {
    mutate(corpus(|name| name.ends_with(".index.json")), fuzz::index);
}

#[test]
fn tables() {
    mutate(files("tests/rows", |name| name.ends_with(".parquet")), fuzz::parquet);
}
