//! A thousand changed copies of tar shards, index files, lists and pictures: an error at the worst, never a panic, a hang, or
//! memory that the file does not justify. The corpus is in `tests/corpus`; `UPDATE_CORPUS=1` makes its shards anew.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vjepa_data::fuzz;

/// Longest that a copy may take.
const LONGEST: Duration = Duration::from_secs(10);
/// What the process may take at its highest; the largest file of the corpus has 12 kB.
const MOST_MEMORY_KIB: u64 = 96 << 10;
/// Changed copies of each kind of file.
const COPIES: u32 = 1000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn corpus(ending: &str) -> Vec<(String, Vec<u8>)> {
    let paths = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, Vec<u8>)> = paths
        .filter(|path| path.extension().is_some_and(|own| own == ending))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .{ending} in the corpus");
    files
}

/// The most memory that the process has had, in KiB; 0 where that cannot be told.
fn peak_kib() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

fn mutate(files: Vec<(String, Vec<u8>)>, read: fn(&[u8]) -> Result<usize, String>) {
    for (name, bytes) in &files {
        assert!(read(bytes).is_ok_and(|samples| samples > 0), "{name}: {:?}", read(bytes));
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
                    // A digit: sizes and places are written in digits, in archives as in indices.
                    4 if place < bytes.len() => bytes[place] = b'0' + byte % 10,
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
            std::thread::spawn(move || tell.send(read(&bytes)));
            match told.recv_timeout(LONGEST) {
                Ok(Ok(_)) => accepted.set(accepted.get() + 1),
                Ok(Err(message)) => {
                    refused.set(refused.get() + 1);
                    prop_assert!(message.contains("input") && message.len() < 2000, "{name}: {message}");
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

/// Archives with short and long names, labels and other members.
fn made() -> Vec<(&'static str, Vec<u8>)> {
    let archive = |format: fn() -> tar::Header, members: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = format();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let long = format!("{}/clip.mp4", "a-long-folder-name".repeat(8));
    vec![
        (
            "plain.tar",
            archive(
                tar::Header::new_ustar,
                &[("0.mp4", b"abc"), ("0.cls", b"3"), ("1.webm", &[7; 600]), ("1.cls", b"4")],
            ),
        ),
        (
            "gnu.tar",
            archive(
                tar::Header::new_gnu,
                &[(&long, b"abc"), ("b/c.png", b"x"), ("b/c.json", br#"{"label": 1}"#), ("b/c.txt", b"t")],
            ),
        ),
    ]
}

#[test]
fn the_corpus_is_what_the_code_makes() {
    for (name, bytes) in made() {
        let path = folder().join(name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            vjepa_data::shards::index_shard(&path).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
        let indexed = vjepa_data::shards::index_archive(std::io::Cursor::new(&bytes), bytes.len() as u64).unwrap();
        let index = std::fs::read_to_string(vjepa_data::shards::index_path(&path)).unwrap();
        assert_eq!(index, indexed.index.to_text(), "{name}");
    }
}

#[test]
fn archives() {
    mutate(corpus("tar"), fuzz::archive);
}

#[test]
fn indices() {
    mutate(corpus("index"), |bytes| {
        // The archive is that of the one or the other; either has to stand whatever the index says.
        let samples =
            made().iter().map(|(_, archive)| fuzz::index(bytes, archive)).collect::<Result<Vec<usize>, String>>();
        samples.map(|samples| samples.iter().sum())
    });
}

#[test]
fn lists() {
    mutate(corpus("csv"), fuzz::list);
}

#[test]
fn pictures() {
    mutate([corpus("jpg"), corpus("png")].concat(), fuzz::picture);
}
