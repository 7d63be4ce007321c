//! The index of a shard, against an archive that it may not be of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vjepa_data::fuzz;

const ARCHIVE: &[u8] = include_bytes!("../../crates/data/tests/corpus/plain.tar");

fuzz_target!(|bytes: &[u8]| drop(fuzz::index(bytes, ARCHIVE)));
