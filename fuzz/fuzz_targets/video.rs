//! Containers and codecs of the pure-Rust decoders.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vjepa_video::{Decoder, fuzz};

fuzz_target!(init: vjepa_fuzz::contain_foreign_panics(), |bytes: &[u8]| {
    for error in fuzz::read(bytes, Decoder::Pure).expect("the temporary file can be written") {
        assert!(error.to_string().contains(fuzz::NAME), "{error} does not name the file");
    }
});
