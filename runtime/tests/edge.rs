//! What an edge build depends on: no Burn, no video library, no GPU library, and as many crates as `docs/edge.md` says.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Parts of names that no crate of an edge build has.
const ABSENT: [&str; 9] = ["burn", "cubecl", "cuda", "wgpu", "video", "h264", "vp9", "mkv", "mp4"];

fn tree(package: &str, features: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none"])
        .args(["-p", package, "--no-default-features", "--features", features])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let crates = lines.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?))
    });
    crates.filter(|name| !name.starts_with(package)).collect()
}

#[test]
fn an_edge_build_has_neither_burn_nor_video_nor_gpu() {
    let page = include_str!("../../docs/edge.md");
    for features in ["tract", "ort", "tract,ort"] {
        let crates = tree("vjepa-runtime", features);
        assert!(crates.len() > 10, "{crates:?}");
        for name in &crates {
            assert!(!ABSENT.iter().any(|part| name.contains(part)), "{features}: {name}");
        }
        // The page counts those of this platform.
        let row = format!("| `{}` | {} |", features.replace(',', "`, `"), crates.len());
        let counted = cfg!(all(target_os = "linux", target_arch = "x86_64"));
        assert!(!counted || page.contains(&row), "docs/edge.md does not say {row}");
        // The C library adds itself, nothing else.
        let library = tree("vjepa-capi", features);
        let added: Vec<&String> = library.difference(&crates).collect();
        assert!(matches!(added.as_slice(), [name] if name.starts_with("vjepa-runtime")), "{added:?}");
    }
}
