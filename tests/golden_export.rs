//! Exported models against the official code's numbers, on tract, on ONNX Runtime where there is one, and on the plan.

#[path = "support/sessions.rs"]
mod sessions;
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use sessions::sessions;
use vjepa_compiler::trace::{TraceError, trace};
use vjepa_export::{OnnxOptions, Precision, Target, Weights, to_onnx};
use vjepa_graphs::{
    AttentiveClassifier, Encoder, EncoderConfig, ParameterVisitor, ProbeConfig, averaged_views, joined_segments,
    visit_parameters,
};
use vjepa_programs as compile;
use vjepa_runtime::{ClipBatch, NamedOutput, Options, Session, Tolerance, compare};
use vjepa_weights::TensorFile as Stored;

/// What f32 results may be apart from the official model's.
const LIMIT: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-5 };

fn golden(file: &str) -> Stored {
    Stored::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)).unwrap()
}

/// Clips as the model takes them: bytes `[.., 3, T, H, W]` by the ImageNet statistics.
fn prepared(bytes: &[u8], plane: usize) -> Vec<f32> {
    let (mean, std) = ([0.485f32, 0.456, 0.406], [0.229f32, 0.224, 0.225]);
    let value = |(i, byte): (usize, &u8)| {
        let channel = i / plane % 3;
        (f32::from(*byte) - 255.0 * mean[channel]) / (255.0 * std[channel])
    };
    bytes.iter().enumerate().map(value).collect()
}

fn output(name: &str, shape: &[usize], data: Vec<f32>) -> NamedOutput {
    NamedOutput { name: name.to_owned(), shape: shape.to_vec(), data }
}

/// Every target's file of `vjepa compile --checkpoint .. --head tokens`, and the compiled plan.
#[test]
fn exported_encoders_give_the_official_tokens() {
    let forward = golden("tiny/forward.safetensors");
    let shape: [usize; 5] = forward.shape("clip_u8").unwrap().try_into().unwrap();
    let clips = prepared(forward.u8("clip_u8").unwrap(), shape[2] * shape[3] * shape[4]);
    let clips = ClipBatch::new(shape, &clips).unwrap();
    let expected = [output("encoder_out", forward.shape("encoder_out").unwrap(), forward.f32("encoder_out").unwrap())];
    let folder = tempfile::tempdir().unwrap();
    for (name, target) in [("portable", Target::Portable), ("ort-cpu", Target::OrtCpu), ("tract", Target::Tract)] {
        let path = folder.path().join(format!("{name}.onnx"));
        let mut command = support::compile(folder.path(), "onnx", &path);
        command.args(["--head", "tokens", "--target", name, "--no-verify"]).assert().success();
        for session in sessions(&path, target) {
            compare(&session, &clips, &expected, LIMIT)
                .unwrap_or_else(|error| panic!("{name} on {}: {error}", session.runtime()));
        }
    }
    let path = folder.path().join("model.vjg");
    support::compile(folder.path(), "plan", &path).args(["--head", "tokens"]).assert().success();
    compare(&Session::open(&path, &Options::default()).unwrap(), &clips, &expected, LIMIT).unwrap();
}

/// SHA-256 of the f32 files that the official weights of `tiny` are exported to. A change that is meant puts the new ones here,
/// and says in CHANGELOG.md why files differ.
const EXPORTED: [(&str, &str); 4] = [
    ("portable", "d0c73f8d9d30f96852be47ffc6ba6aa04444f43576d9f4b692ce1848507ddbe5"),
    ("ort-cpu", "46c726aedade77ddc467a1b4c53dedb80f06c7debdbf1886fa2e1a3323aefb00"),
    ("tract", "60e0bc032b28cc85a3273d46a4efef9a3d149fce19ec15d4b8c54e7c410cc34d"),
    ("tensorrt", "336b0117212b7bf12e826211c435df92e96539a6eb4080ff7b253a903aa05ecd"),
];

#[test]
fn exported_files_are_those_of_earlier_versions_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let written = EXPORTED.map(|(target, _)| {
        let path = folder.path().join(format!("{target}.onnx"));
        let mut command = support::compile(folder.path(), "onnx", &path);
        let flags = ["--head", "tokens", "--target", target, "--precision", "f32", "--no-verify"];
        command.args(flags).assert().success();
        (target, vjepa_runtime::files::sha256(&path).unwrap())
    });
    let expected = EXPORTED.map(|(target, digest)| (target, digest.to_owned()));
    assert_eq!(written, expected);
}

/// The carried clips of several segments, through an encoder with official weights.
#[test]
fn an_exported_encoder_gives_the_official_tokens_of_every_segment() {
    let (io, weights) = (golden("probe/io.safetensors"), golden("probe/weights.safetensors"));
    let &[segments, views, batch, channels, frames, height, width] = io.shape("multiclip.clips_u8").unwrap() else {
        panic!("no seven sizes")
    };
    let clips = prepared(io.u8("multiclip.clips_u8").unwrap(), frames * height * width);
    let graph = compile::optimised(&compile::encoder(&encoder_config(), "encoder.").unwrap()).unwrap();
    let clip = channels * frames * height * width;
    let shape = io.shape("multiclip.attend.feat_view0").unwrap().to_vec(); // [B, segments · N, D]
    let wanted = io.f32("multiclip.attend.feat_view0").unwrap();
    let tokens = shape[1] / segments * shape[2];
    for target in [Target::Portable, Target::OrtCpu, Target::Tract] {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), &graph, &stored(&weights, "encoder.", "encoder."), target);
        for session in sessions(&path, target) {
            for segment in 0..segments {
                let start = segment * views * batch * clip; // the first view
                let clips = ClipBatch::new([batch, channels, frames, height, width], &clips[start..][..batch * clip]);
                let of = |b: usize| &wanted[(b * segments + segment) * tokens..][..tokens];
                let expected = output("encoder_out", &[batch, 64, 96], (0..batch).flat_map(of).copied().collect());
                compare(&session, &clips.unwrap(), &[expected], LIMIT)
                    .unwrap_or_else(|error| panic!("segment {segment} on {}: {error}", session.runtime()));
            }
        }
    }
}

/// Probes of one and two blocks on the official features: the folded query, the whole block, the stack.
#[test]
fn exported_probes_give_the_official_logits() {
    let (io, weights) = (golden("probe/io.safetensors"), golden("probe/weights.safetensors"));
    let features = io.f32("features").unwrap();
    // A session takes clips: 64 tokens of 96 values are as many as a clip of this shape has.
    let clips = ClipBatch::new([3, 3, 8, 16, 16], &features).unwrap();
    for (name, depth, complete_block) in [("clf_depth1_incomplete", 1, false), ("clf_depth2", 2, true)] {
        let config = ProbeConfig { depth, complete_block, ..ProbeConfig::for_encoder(&encoder_config(), 7) };
        let graph = trace("probe", &["B"], |scope| {
            let model = AttentiveClassifier::empty(&config, scope.device()).map_err(failed)?;
            declare(scope, &model, "probe.")?;
            let batch = scope.size("B");
            let clip: burn::tensor::Tensor<5> = scope.input("clip", [batch, 3, 8, 16, 16])?;
            let logits = model.forward(clip.reshape([batch, 64, 96])).map_err(failed)?;
            scope.output("logits", &logits)
        });
        let graph = compile::optimised(&graph.unwrap()).unwrap();
        let wanted = io.f32(&format!("{name}.logits")).unwrap();
        for target in [Target::Portable, Target::OrtCpu, Target::Tract] {
            let folder = tempfile::tempdir().unwrap();
            let path = written(folder.path(), &graph, &stored(&weights, &format!("{name}."), "probe."), target);
            for session in sessions(&path, target) {
                let expected = output("logits", &[3, 7], wanted.clone());
                compare(&session, &clips, &[expected], LIMIT)
                    .unwrap_or_else(|error| panic!("{name} on {}: {error}", session.runtime()));
            }
        }
    }
}

/// Clips joined and views averaged inside the graph give what the parts give, put together outside.
#[test]
fn several_clips_and_views_are_what_their_parts_are() {
    let (io, weights) = (golden("probe/io.safetensors"), golden("probe/weights.safetensors"));
    let probe = ProbeConfig { depth: 2, ..ProbeConfig::for_encoder(&encoder_config(), 7) };
    let clip_views = vjepa_runtime::ClipViews { clips: 3, views: 2 };
    let graph =
        compile::deployed_views(&encoder_config(), &compile::Probe::Attentive(probe.clone()), clip_views).unwrap();
    let graph = compile::optimised(&graph).unwrap();
    let mut named = stored(&weights, "encoder.", "encoder.");
    named.extend(stored(&weights, "clf_depth2.", "probe."));

    // Two views of three clips of one video: the carried view, and its segments in the other order.
    let one = 3 * 8 * 64 * 64;
    let all = prepared(io.u8("multiclip.clips_u8").unwrap(), 8 * 64 * 64);
    let batch = io.shape("multiclip.clips_u8").unwrap()[2];
    let segment = |s: usize| &all[s * batch * one..][..one];
    let clips: Vec<f32> = [0, 1, 2, 2, 1, 0].into_iter().flat_map(segment).copied().collect();
    let device = burn::tensor::Device::flex();
    let of = |prefix: &str| stored(&weights, prefix, "");
    let encoder = Encoder::empty(&encoder_config(), &device).unwrap();
    let encoder = vjepa_graphs::load_parameters(encoder, of("encoder.")).unwrap();
    let classifier = AttentiveClassifier::empty(&probe, &device).unwrap();
    let classifier = vjepa_graphs::load_parameters(classifier, of("clf_depth2.")).unwrap();
    let data = burn::tensor::TensorData::new(clips.clone(), [6, 3, 8, 64, 64]);
    let tokens = encoder.forward(burn::tensor::Tensor::from_data(data, &device), None).unwrap();
    let logits = classifier.forward(joined_segments(tokens, 3).unwrap()).unwrap();
    let wanted = averaged_views(logits, 2).unwrap().into_data().try_into_vec::<f32>().unwrap();
    assert!((wanted.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{wanted:?}");

    for target in [Target::Portable, Target::OrtCpu, Target::Tract] {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), &graph, &named, target);
        for session in sessions(&path, target) {
            assert_eq!(session.views(), 6);
            let batch = ClipBatch::new([6, 3, 8, 64, 64], &clips).unwrap();
            compare(&session, &batch, &[output("probabilities", &[1, 7], wanted.clone())], LIMIT)
                .unwrap_or_else(|error| panic!("{}: {error}", session.runtime()));
            let five = ClipBatch::new([5, 3, 8, 64, 64], &clips[..5 * one]).unwrap();
            assert!(session.run(&five).unwrap_err().to_string().contains("6"));
        }
    }
}

fn encoder_config() -> EncoderConfig {
    EncoderConfig { embed_dim: 96, depth: 3, num_heads: 3, ..EncoderConfig::tiny().with_clip(8, 64, 64) }
}

/// Tensors under a prefix, under another one.
fn stored(tensors: &Stored, from: &str, to: &str) -> Weights {
    let named = tensors.names().filter_map(|name| Some((name, name.strip_prefix(from)?)));
    named
        .map(|(name, rest)| {
            (format!("{to}{rest}"), (tensors.shape(name).unwrap().to_vec(), tensors.f32(name).unwrap()))
        })
        .collect::<BTreeMap<_, _>>()
}

fn written(folder: &Path, graph: &vjepa_compiler::ir::Graph, weights: &Weights, target: Target) -> std::path::PathBuf {
    let path = folder.join("model.onnx");
    to_onnx(graph, weights, &OnnxOptions::new(target, Precision::F32)).unwrap().write(&path).unwrap();
    path
}

fn failed(error: impl std::fmt::Display) -> TraceError {
    TraceError::Traced(error.to_string())
}

/// Declares a module's parameters under their official names.
fn declare<M: burn::module::Module>(
    scope: &mut vjepa_compiler::trace::Scope<'_>,
    module: &M,
    prefix: &str,
) -> Result<(), TraceError> {
    struct Declare<'a, 'b>(&'a mut vjepa_compiler::trace::Scope<'b>, &'a str, Result<(), TraceError>);
    impl ParameterVisitor for Declare<'_, '_> {
        fn parameter<const D: usize>(&mut self, name: &str, parameter: &burn::module::Param<burn::tensor::Tensor<D>>) {
            if self.2.is_ok() {
                self.2 = self.0.param(&format!("{}{name}", self.1), &parameter.val());
            }
        }
    }
    let mut visitor = Declare(scope, prefix, Ok(()));
    visit_parameters(module, &mut visitor);
    visitor.2
}
