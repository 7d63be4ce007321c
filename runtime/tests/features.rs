//! Features of dependencies that decide how fast the program is, and that nothing else would miss.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Features of the crates that the program is built from, as cargo resolves them.
fn resolved(extra: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["tree", "--offline", "--locked", "-p", "vjepa", "-e", "normal", "--prefix", "none", "-f", "{p} {f}"])
        .args(extra)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut crates = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(_version), Some(features)) = (words.next(), words.next(), words.next()) else { continue };
        crates.insert(name.to_owned(), features.split(',').map(str::to_owned).collect());
    }
    crates
}

/// Vectors and threads: without one of these everything still runs, at a half or a tenth of its speed.
const NEEDED: [(&str, &[&str]); 6] = [
    ("pulp", &["x86-v3"]),
    ("gemm", &["std", "rayon"]),
    ("gemm-f32", &["std", "rayon"]),
    ("burn-flex", &["rayon", "simd"]),
    ("tract-linalg", &["multithread-mm"]),
    ("rustfft", &["avx", "neon"]),
];
/// What our feature `x86-v4` stands for.
const WIDE: [&str; 4] = ["pulp", "gemm", "gemm-common", "gemm-f32"];

fn assert_needed(crates: &BTreeMap<String, BTreeSet<String>>) {
    for (name, features) in NEEDED {
        // FFTs belong to tract, which may do without them some day.
        if name == "rustfft" && !crates.contains_key(name) {
            continue;
        }
        let have = crates.get(name).unwrap_or_else(|| panic!("{name} is not a dependency any more"));
        for feature in features {
            assert!(have.contains(*feature), "{name} is built without `{feature}`: it has {have:?}");
        }
    }
}

#[test]
fn dependencies_are_built_for_speed() {
    let crates = resolved(&[]);
    assert_needed(&crates);
    for name in WIDE {
        assert!(crates[name].contains("x86-v4"), "{name} is built without AVX-512: it has {:?}", crates[name]);
    }
}

#[test]
fn without_our_feature_nothing_uses_avx_512_but_all_else_stays() {
    let crates = resolved(&["--no-default-features"]);
    assert_needed(&crates);
    for name in WIDE {
        assert!(!crates[name].contains("x86-v4"), "{name} has AVX-512 all the same: {:?}", crates[name]);
    }
}
