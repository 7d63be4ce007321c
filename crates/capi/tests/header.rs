//! `include/vjepa.h` is what the crate's code says; C and C++ compilers take it without a warning.

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_header_is_current() {
    // The modules are found from there; naming them too would declare every function twice.
    let builder = cbindgen::Builder::new().with_src(folder().join("src/lib.rs"));
    let config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    builder.with_config(config).generate().unwrap().write(&mut made);
    let place = folder().join("include/vjepa.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&place, &made).unwrap();
    }
    let made = String::from_utf8(made).unwrap();
    assert_eq!(std::fs::read_to_string(&place).unwrap(), made, "UPDATE_HEADER=1 writes the header again");
    assert_eq!(made.matches("int32_t vjepa_run(").count(), 1);
}

#[test]
fn compilers_take_the_header() {
    let scratch = tempfile::tempdir().unwrap();
    for (compiler, file, standard) in [("cc", "a.c", "-std=c99"), ("c++", "a.cpp", "-std=c++11")] {
        let source = scratch.path().join(file);
        std::fs::write(&source, "#include \"vjepa.h\"\n#include <vjepa.h>\n").unwrap();
        let output = Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"])
            .arg(folder().join("include"))
            .arg(&source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
