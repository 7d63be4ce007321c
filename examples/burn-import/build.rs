//! Turns the bundle's model into Rust code and puts its weights and its parity clips where the program includes them.

use burn_onnx::{LoadStrategy, ModelGen};
use std::path::{Path, PathBuf};

const MAKE_ONE: &str = "make a bundle with `vjepa compile --export bundle` (see README.md) and set VJEPA_BUNDLE to it";

fn main() {
    println!("cargo:rerun-if-env-changed=VJEPA_BUNDLE");
    let bundle = std::env::var_os("VJEPA_BUNDLE").map_or_else(|| PathBuf::from("bundle"), PathBuf::from);
    let model = bundle.join("model.onnx");
    let parity = bundle.join("parity.safetensors");
    for file in [&model, &parity] {
        println!("cargo:rerun-if-changed={}", file.display());
        assert!(file.is_file(), "{} is not there; {MAKE_ONE}", file.display());
    }
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).expect("cargo sets OUT_DIR");
    std::fs::copy(&parity, Path::new(&out).join("parity.safetensors")).expect("OUT_DIR can be written");
    let model = model.to_str().expect("the bundle's path is UTF-8");
    ModelGen::new().input(model).out_dir("model").load_strategy(LoadStrategy::Embedded).run_from_script();
}
