//! Containers and codecs of FFmpeg, which is C and not instrumented: crashes are found, its branches are not followed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vjepa_video::{Decoder, fuzz};

fuzz_target!(init: vjepa_fuzz::contain_foreign_panics(), |bytes: &[u8]| {
    for error in fuzz::read(bytes, Decoder::Ffmpeg).expect("the temporary file can be written") {
        assert!(error.to_string().contains(fuzz::NAME), "{error} does not name the file");
    }
});
