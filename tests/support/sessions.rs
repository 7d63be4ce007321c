//! The runtimes that exported models are tested on.

use std::path::Path;

use vjepa_export::Target;
use vjepa_runtime::library::Search;
use vjepa_runtime::{Options, Runtime, Session};

/// The sessions a file is checked on.
pub fn sessions(path: &Path, target: Target) -> Vec<Session> {
    let open = |runtime| Session::open(path, &Options { runtime, ..Options::default() }).unwrap();
    let mut sessions = Vec::new();
    if target != Target::OrtCpu {
        sessions.push(open(Runtime::Tract));
    }
    match Runtime::discover(&Search::default()) {
        Ok(_) if target != Target::Tract => sessions.push(open(Runtime::Ort)),
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        _ => {}
    }
    sessions
}
