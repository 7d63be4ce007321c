//! Damaged and hostile PyTorch files: an error at the worst, never a panic, never memory beyond what the file justifies.

mod support;

use std::path::Path;

use proptest::prelude::*;
use support::pytorch::{self, Value};
use vjepa_weights as weights;

/// What the process may take at its highest: values of a pickle have a bound of their own, a file's bytes another.
const MOST_MEMORY_KIB: u64 = 700 << 10;

fn model() -> Vec<(String, Value)> {
    let tensor = |shape: &[usize], order: &[usize]| {
        let data: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        Value::permuted(shape, &data, order)
    };
    let entries = vec![
        ("module.backbone.pos_embed".to_owned(), tensor(&[1, 4, 6], &[0, 1, 2])),
        ("module.backbone.patch_embed.proj.weight".to_owned(), tensor(&[6, 3, 2, 2, 2], &[0, 2, 3, 4, 1])),
        ("module.backbone.norm.weight".to_owned(), tensor(&[6], &[0])),
    ];
    vec![("loss".to_owned(), Value::numpy_scalar()), ("encoder".to_owned(), Value::Dict(entries))]
}

/// Opens a file and reads all that it holds.
fn read(path: &Path, bytes: &[u8]) -> Result<(), String> {
    std::fs::write(path, bytes).unwrap();
    let weights = weights::load(path).map_err(|error| error.to_string())?;
    weights.all().map_err(|error| error.to_string())?;
    let _ = vjepa_programs::describe(&weights, None).map_err(|error| error.to_string())?;
    Ok(())
}

fn peak_kib() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_never_panic(
        stream in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..8),
    ) {
        let mut bytes = if stream { pytorch::stream(&model()) } else { pytorch::checkpoint(&model()) };
        for (place, byte, kind) in changes {
            let place = place.index(bytes.len().max(1));
            match kind {
                0 if place < bytes.len() => bytes[place] = byte,
                1 if place < bytes.len() => bytes[place] ^= 1 << (byte % 8),
                2 => bytes.insert(place.min(bytes.len()), byte),
                3 if byte < 32 => bytes.truncate(place),
                _ => {}
            }
        }
        let folder = tempfile::tempdir().unwrap();
        if let Err(message) = read(&folder.path().join("m.pt"), &bytes) {
            prop_assert!(message.len() < 1000, "{} characters: {message}", message.len());
        }
        prop_assert!(peak_kib() < MOST_MEMORY_KIB, "{} KiB", peak_kib());
    }

    /// Any opcodes at all after the header of a pickle.
    #[test]
    fn any_pickle_is_an_error_at_worst(opcodes in prop::collection::vec(any::<u8>(), 0..400)) {
        let root = Value::Raw(opcodes);
        let folder = tempfile::tempdir().unwrap();
        let _ = read(&folder.path().join("m.pt"), &pytorch::saved(&root));
        let _ = read(&folder.path().join("s.pt"), &pytorch::stream(&[("encoder".to_owned(), root)]));
        prop_assert!(peak_kib() < MOST_MEMORY_KIB, "{} KiB", peak_kib());
    }
}

#[test]
fn bombs_do_not_go_off() {
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str, opcodes: Vec<u8>| {
        let bytes = pytorch::checkpoint(&[("encoder".to_owned(), Value::Raw(opcodes))]);
        read(&folder.path().join(name), &bytes).err().unwrap_or_default()
    };
    // Lists of the same list twice, 60 deep: 2^60 places.
    let mut doubling = b"]q\x000".to_vec();
    for level in 0..60u8 {
        doubling.extend([b']', b'q', level + 1, b'(', b'h', level, b'h', level, b'e', b'0']);
    }
    doubling.extend([b'h', 60]);
    assert!(told("doubling.pt", doubling).contains("too many Python objects"));
    // A million lists inside each other.
    let deep = [b"]".repeat(1_000_000), b"a".repeat(999_999)].concat();
    assert!(!told("deep.pt", deep).is_empty());
    // Lengths that the file does not have.
    for claim in [
        b"X\xff\xff\xff\x7f".as_slice(),
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8e\0\0\0\0\0\0\0\x80",
    ] {
        assert!(!told("claim.pt", claim.to_vec()).is_empty());
    }
    // More opcodes than any checkpoint has.
    let many = [b"(".to_vec(), b"N".repeat(9_000_000), b"t".to_vec()].concat();
    assert!(told("many.pt", many).contains("too many Python objects"));
    // Ten thousand tensors that repeat one number a million times each.
    let repeated = |count: usize| -> Vec<(String, Value)> {
        let view = |i: usize| {
            let view = Value::View { shape: vec![250_000], strides: vec![0], offset: 0, storage: vec![1.0] };
            (format!("blocks.{i}.norm1.weight"), view)
        };
        (0..count).map(view).collect()
    };
    let bytes = pytorch::checkpoint(&[("encoder".to_owned(), Value::Dict(repeated(10_000)))]);
    assert!(read(&folder.path().join("views.pt"), &bytes).err().unwrap().contains("too short"));
    let alone = pytorch::checkpoint(&[("encoder".to_owned(), Value::Dict(repeated(2)))]);
    std::fs::write(folder.path().join("two.pt"), alone).unwrap();
    assert_eq!(weights::load(&folder.path().join("two.pt")).unwrap().all().unwrap().len(), 2);
    assert!(peak_kib() < MOST_MEMORY_KIB, "{} KiB", peak_kib());
}

#[test]
fn a_cut_file_says_so_and_a_changed_one_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    for bytes in [pytorch::checkpoint(&model()), pytorch::stream(&model())] {
        for part in [2, 3, 5, 9] {
            let message = read(&path, &bytes[..bytes.len() - bytes.len() / part]).err().unwrap();
            assert!(message.contains("cut off"), "{message}");
        }
    }
    // A bit of a tensor in an archive: its storage has a checksum.
    let mut bytes = pytorch::checkpoint(&model());
    let place = bytes.windows(4).position(|window| window == 17f32.to_le_bytes()).unwrap();
    bytes[place] ^= 1;
    assert!(read(&path, &bytes).err().unwrap().contains("checksum"));
}
