//! Tables of features as Parquet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vjepa_weights::fuzz;

fuzz_target!(|bytes: &[u8]| drop(fuzz::parquet(bytes)));
