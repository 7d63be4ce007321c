//! What tests of exported models share: golden data, the sessions a file is checked on, the comparison.
#![allow(dead_code)] // Each test program uses its own part.

// The repository's tests have it, too.
#[path = "../../../../tests/support/sessions.rs"]
mod of_runtimes;

pub use of_runtimes::sessions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_compiler::ir::Graph;
use vjepa_export::{OnnxOptions, Precision, Target, Weights, to_onnx};
use vjepa_programs as programs;
use vjepa_runtime::{ClipBatch, NamedOutput, Normalization, Session, Tolerance, compare};
use vjepa_weights::TensorFile;

/// What f32 results may be apart from the official model's.
pub const LIMIT: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-5 };

/// Clips `f32[B, C, T, H, W]` with their shape.
pub type ShapedClips = ([usize; 5], Vec<f32>);

/// A path of golden data, carried or beside the repository; none where it is too large to carry and not there.
pub fn golden_path(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = ["tests/golden", "../shared/golden"].map(|place| root.join(place).join(name));
    let found = places.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("{name} is not here: not compared");
    }
    found
}

/// A file of golden data, as [`golden_path`].
pub fn golden(file: &str) -> Option<TensorFile> {
    golden_path(file).map(|path| TensorFile::read(path).unwrap())
}

/// Tensors under a prefix, under another one.
pub fn stored(tensors: &TensorFile, from: &str, to: &str) -> Weights {
    let named = tensors.names().filter_map(|name| Some((name, name.strip_prefix(from)?)));
    let tensor = |name: &str| (tensors.shape(name).unwrap().to_vec(), tensors.f32(name).unwrap());
    named.map(|(name, rest)| (format!("{to}{rest}"), tensor(name))).collect::<BTreeMap<_, _>>()
}

/// A session gives what is expected of all clips, of the first one alone, and of more than there are.
pub fn agrees(what: &str, session: &Session, (shape, clips): ([usize; 5], &[f32]), expected: &NamedOutput) {
    let [count, rest @ ..] = shape;
    let (clip, one) = (rest.iter().product::<usize>(), expected.data.len() / count);
    for batch in [count, 1, count + 2] {
        let part: Vec<f32> = clips.iter().copied().cycle().take(batch * clip).collect();
        let input = ClipBatch::new([batch, rest[0], rest[1], rest[2], rest[3]], &part).unwrap();
        let wanted = NamedOutput {
            name: expected.name.clone(),
            shape: [&[batch], &expected.shape[1..]].concat(),
            data: expected.data.iter().copied().cycle().take(batch * one).collect(),
        };
        compare(session, &input, &[wanted], LIMIT)
            .unwrap_or_else(|error| panic!("{what} on {}, batch {batch}: {error}", session.runtime()));
    }
}

/// Exports a traced graph for each target and compares every session's results, as [`agrees`].
pub fn verify(
    what: &str,
    traced: &Graph,
    weights: &Weights,
    (shape, clips): ([usize; 5], &[f32]),
    expected: &NamedOutput,
) {
    let graph = programs::optimised(traced).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for target in [Target::Portable, Target::OrtCpu, Target::Tract] {
        let path: PathBuf = folder.path().join(format!("{target:?}.onnx"));
        to_onnx(&graph, weights, &OnnxOptions::new(target, Precision::F32)).unwrap().write(&path).unwrap();
        for session in sessions(&path, target) {
            agrees(&format!("{what}, {target:?}"), &session, (shape, clips), expected);
        }
    }
}

pub fn output(name: &str, tensors: &TensorFile, stored: &str) -> NamedOutput {
    let shape = tensors.shape(stored).unwrap().to_vec();
    NamedOutput { name: name.to_owned(), shape, data: tensors.f32(stored).unwrap() }
}

pub fn clips(tensors: &TensorFile, name: &str) -> ShapedClips {
    (tensors.shape(name).unwrap().try_into().unwrap(), tensors.f32(name).unwrap())
}

/// Bytes by the ImageNet statistics.
pub fn prepared(tensors: &TensorFile, name: &str) -> ShapedClips {
    let shape: [usize; 5] = tensors.shape(name).unwrap().try_into().unwrap();
    let one: usize = shape[1..].iter().product();
    let samples = tensors.u8(name).unwrap().chunks_exact(one);
    (shape, samples.flat_map(|sample| Normalization::Imagenet.of_planes(sample)).collect())
}
