//! V-JEPA 2 and 2.1 exported as ONNX, on tract and, where there is one, on ONNX Runtime, against the official code's numbers.

mod support;

use support::{clips, golden, output, prepared, stored, verify};
use vjepa_graphs::{BlocksOn, EncoderConfig, ProbeConfig};
use vjepa_programs::{self as programs, Probe};
use vjepa_recipe::config::Generation;

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

/// The encoder that the official training begins with, and the probe of depth 4 that is trained on it.
#[test]
fn exported_models_of_the_training_give_the_official_numbers() {
    let files = ["vjepa2_train/weights", "vjepa2_train/forward", "vjepa2_probe/weights_initial", "vjepa2_probe/io"];
    let files = files.map(|file| golden(&format!("{file}.safetensors")));
    let [Some(weights), Some(forward), Some(head), Some(io)] = files else { return };
    let config = EncoderConfig { embed_dim: 96, depth: 3, num_heads: 3, ..EncoderConfig::tiny().with_clip(8, 64, 64) };
    let config = config.of(Generation::V2).unwrap();
    let mut named = stored(&weights, "encoder.", "encoder.");
    let (shape, values) = prepared(&forward, "clip_u8");
    let graph = programs::encoder(&config, "encoder.").unwrap();
    verify("encoder", &graph, &named, (shape, &values), &output("encoder_out", &forward, "encoder_out"));
    named.extend(stored(&head, "clf.", "probe."));
    let probe = ProbeConfig { depth: 4, blocks_on: BlocksOn::Features, ..ProbeConfig::sized(96, 4, 5) };
    let graph = programs::frozen(&config, Some(&Probe::Attentive(probe))).unwrap();
    verify("probe", &graph, &named, (shape, &values), &output("logits", &io, "logits0"));
}
