//! V-JEPA 2 and 2.1 exported as ONNX, on tract and, where there is one, on ONNX Runtime, against the official code's numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_compiler::ir::Graph;
use vjepa_export::{OnnxOptions, Precision, Target, Weights, to_onnx};
use vjepa_graphs::{BlocksOn, EncoderConfig, ProbeConfig};
use vjepa_programs::{self as programs, Probe};
use vjepa_recipe::config::Generation;
use vjepa_runtime::library::Search;
use vjepa_runtime::{ClipBatch, NamedOutput, Normalization, Options, Runtime, Session, Tolerance, compare};
use vjepa_weights::TensorFile;

/// What f32 results may be apart from the official model's.
const LIMIT: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-5 };

/// A file of golden data, carried or beside the repository; none where it is too large to carry and not there.
fn golden(file: &str) -> Option<TensorFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = ["tests/golden", "../shared/golden"].map(|place| root.join(place).join(file));
    let found = places.iter().find(|path| path.is_file());
    if found.is_none() {
        println!("{file} is not here: not compared");
    }
    found.map(|path| TensorFile::read(path).unwrap())
}

/// The sessions a file is checked on.
fn sessions(path: &Path, target: Target) -> Vec<Session> {
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

/// Tensors under a prefix, under another one.
fn stored(tensors: &TensorFile, from: &str, to: &str) -> Weights {
    let named = tensors.names().filter_map(|name| Some((name, name.strip_prefix(from)?)));
    let tensor = |name: &str| (tensors.shape(name).unwrap().to_vec(), tensors.f32(name).unwrap());
    named.map(|(name, rest)| (format!("{to}{rest}"), tensor(name))).collect::<BTreeMap<_, _>>()
}

/// Exports a traced graph for each target and compares every session's results on clips and on their first one alone.
fn verify(what: &str, traced: &Graph, weights: &Weights, (shape, clips): ([usize; 5], &[f32]), expected: &NamedOutput) {
    let graph = programs::optimised(traced).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for target in [Target::Portable, Target::OrtCpu, Target::Tract] {
        let path: PathBuf = folder.path().join(format!("{target:?}.onnx"));
        to_onnx(&graph, weights, &OnnxOptions::new(target, Precision::F32)).unwrap().write(&path).unwrap();
        for session in sessions(&path, target) {
            for batch in [shape[0], 1] {
                let [_, rest @ ..] = shape;
                let clip: usize = rest.iter().product();
                let part = &clips[..batch * clip];
                let input = ClipBatch::new([batch, rest[0], rest[1], rest[2], rest[3]], part).unwrap();
                let one = expected.data.len() / shape[0];
                let wanted = NamedOutput {
                    name: expected.name.clone(),
                    shape: [&[batch], &expected.shape[1..]].concat(),
                    data: expected.data[..batch * one].to_vec(),
                };
                compare(&session, &input, &[wanted], LIMIT).unwrap_or_else(|error| {
                    panic!("{what}, {target:?} on {}, batch {batch}: {error}", session.runtime())
                });
            }
        }
    }
}

fn output(name: &str, tensors: &TensorFile, stored: &str) -> NamedOutput {
    let shape = tensors.shape(stored).unwrap().to_vec();
    NamedOutput { name: name.to_owned(), shape, data: tensors.f32(stored).unwrap() }
}

fn clips(tensors: &TensorFile, name: &str) -> ([usize; 5], Vec<f32>) {
    (tensors.shape(name).unwrap().try_into().unwrap(), tensors.f32(name).unwrap())
}

/// Bytes by the ImageNet statistics.
fn prepared(tensors: &TensorFile, name: &str) -> ([usize; 5], Vec<f32>) {
    let shape: [usize; 5] = tensors.shape(name).unwrap().try_into().unwrap();
    let one: usize = shape[1..].iter().product();
    let samples = tensors.u8(name).unwrap().chunks_exact(one);
    (shape, samples.flat_map(|sample| Normalization::Imagenet.of_planes(sample)).collect())
}

/// A square and a non-square clip, and a probe of depth 2 on the first.
#[test]
fn exported_models_with_rotary_positions_give_the_official_numbers() {
    let (Some(io), Some(weights)) = (golden("vjepa2_tiny/io.safetensors"), golden("vjepa2_tiny/weights.safetensors"))
    else {
        return;
    };
    let config = EncoderConfig { embed_dim: 96, depth: 3, num_heads: 3, ..EncoderConfig::tiny().with_clip(8, 64, 64) };
    let config = config.of(Generation::V2).unwrap();
    let named = stored(&weights, "encoder.", "encoder.");
    let graph = programs::encoder(&config, "encoder.").unwrap();
    let (shape, values) = clips(&io, "clip_f16");
    verify("square", &graph, &named, (shape, &values), &output("encoder_out", &io, "encoder_out"));

    let mut with_probe = named.clone();
    with_probe.extend(stored(&weights, "clf.", "probe."));
    let probe = ProbeConfig { depth: 2, blocks_on: BlocksOn::Features, ..ProbeConfig::sized(96, 3, 5) };
    let graph = programs::frozen(&config, Some(&Probe::Attentive(probe))).unwrap();
    verify("probe", &graph, &with_probe, (shape, &values), &output("logits", &io, "clf_depth2_logits"));

    let (shape, values) = clips(&io, "clip_nonsquare_f16");
    let other = config.with_clip(shape[2], shape[3], shape[4]);
    let graph = programs::encoder(&other, "encoder.").unwrap();
    verify("not square", &graph, &named, (shape, &values), &output("encoder_out", &io, "encoder_out_nonsquare"));
}

/// Videos, images and a non-square clip, last level and all levels.
#[test]
fn exported_models_with_levels_give_the_official_numbers() {
    let folder = "vjepa21_tiny";
    let files = ["forward", "weights"].map(|file| golden(&format!("{folder}/{file}.safetensors")));
    let [Some(io), Some(weights)] = files else { return };
    let config = EncoderConfig { embed_dim: 64, depth: 12, num_heads: 2, ..EncoderConfig::tiny().with_clip(8, 64, 64) };
    let config = config.of(Generation::V21).unwrap();
    let named = stored(&weights, "encoder.", "encoder.");
    for (clip, name) in [("clip_u8", "encoder_out"), ("image_u8", "encoder_out_image")] {
        let (shape, values) = prepared(&io, clip);
        let config = config.clone().with_clip(shape[2], shape[3], shape[4]);
        let graph = programs::encoder(&config, "encoder.").unwrap();
        verify(name, &graph, &named, (shape, &values), &output("encoder_out", &io, name));
    }
    let (shape, values) = prepared(&io, "nonsquare_u8");
    let other = config.with_clip(shape[2], shape[3], shape[4]);
    let graph = programs::levels(&other, "encoder.", false).unwrap();
    let expected = output("encoder_levels", &io, "encoder_levels_nonsquare");
    verify("levels", &graph, &named, (shape, &values), &expected);
}
