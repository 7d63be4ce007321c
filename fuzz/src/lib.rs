//! What targets share.

use std::panic;

/// Lets panics of other crates' decoders be contained, as `vjepa_video` contains them.
///
/// libFuzzer's hook ends the process at every panic, also at one that is caught. Those within this repository still end it
/// there, and one that nobody catches ends it at the target.
pub fn contain_foreign_panics() {
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        if panicked.location().is_none_or(|place| is_own(place.file())) {
            abort(panicked);
        }
    }));
}

/// Registries' sources lie elsewhere, whatever the repository's folder is called.
fn is_own(file: &str) -> bool {
    file.contains("crates/video/") || file.contains("fuzz_targets/")
}
