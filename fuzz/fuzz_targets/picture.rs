//! JPEG and PNG.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vjepa_data::fuzz;

fuzz_target!(|bytes: &[u8]| drop(fuzz::picture(bytes)));
