//! Probes, multi-view evaluation, position tables and interpolation against the official code's golden data.

mod common;

use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor, TensorData};
use common::*;
use vjepa_graphs::position::{interpolate_bicubic, resize_table, sincos_1d, sincos_2d, sincos_3d};
use vjepa_graphs::{
    AttentiveClassifier, Encoder, EncoderConfig, LinearProbe, NamedTensors, ProbeConfig, cross_entropy, gradients,
    init, load_parameters, mean_probabilities, one_hot, parameters, segment_features,
};

fn encoder_config() -> EncoderConfig {
    EncoderConfig { embed_dim: 96, depth: 3, num_heads: 3, ..EncoderConfig::tiny().with_clip(8, 64, 64) }
}

fn classifier(weights: &NamedTensors, name: &str, device: &Device) -> AttentiveClassifier {
    let config = ProbeConfig {
        depth: if name == "clf_depth2" { 2 } else { 1 },
        complete_block: name != "clf_depth1_incomplete",
        ..ProbeConfig::for_encoder(&encoder_config(), 7)
    };
    let probe = AttentiveClassifier::empty(&config, device).unwrap();
    load_parameters(probe, part(weights, &format!("{name}."))).unwrap()
}

#[test]
fn probe_forwards_and_names() {
    let device = Device::flex();
    let weights = read("probe/weights.safetensors");
    let io = read("probe/io.safetensors");
    let mut worst = Worst::new("probe forward");
    for name in ["clf_depth1", "clf_depth1_incomplete", "clf_depth2"] {
        let probe = classifier(&weights, name, &device);
        assert_eq!(shapes(&parameters(&probe)), shapes(&part(&weights, &format!("{name}."))));
        let features = tensor::<3>(&io, "features", &device);
        let pooled = format!("{name}.pooled");
        worst.forward(&pooled, &values(probe.pool(features.clone()).unwrap()), &io[&pooled].1);
        let logits = format!("{name}.logits");
        worst.forward(&logits, &values(probe.forward(features).unwrap()), &io[&logits].1);
    }
}

#[test]
fn probe_loss_and_gradients() {
    let device = Device::flex().autodiff();
    let probe = classifier(&read("probe/weights.safetensors"), "clf_depth1", &device);
    let io = read("probe/io.safetensors");
    let targets = one_hot(&[1, 4, 6], 7, &device).unwrap();
    let logits = probe.forward(tensor::<3>(&io, "features", &device)).unwrap();
    let loss = cross_entropy(logits, targets).unwrap();
    let expected = json("probe/info.json")["train"][0].clone();
    let mut worst = Worst::new("probe loss and gradients");
    let got = f64::from(values(loss.clone())[0]);
    worst.note("loss", (got / expected["loss"].as_f64().unwrap() - 1.0).abs(), 1e-5);

    let found = gradients(&probe, &loss.backward());
    let norm = found.values().flat_map(|(_, v)| v).map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    worst.note("gradient norm", (norm / expected["grad_norm"].as_f64().unwrap() - 1.0).abs(), 1e-4);
    let without: Vec<_> = parameters(&probe).into_keys().filter(|name| !found.contains_key(name)).collect();
    let unused = ["bias", "weight"].map(|kind| format!("pooler.cross_attention_block.xattn.proj.{kind}"));
    assert_eq!(without, unused);
    for (name, (_, expected)) in part(&io, "clf_depth1.grad0/") {
        let (name, sampled) = match name.split_once('#') {
            None => (name.as_str(), None),
            Some((name, "val")) => (name, Some(&io[&format!("clf_depth1.grad0/{name}#idx")].1)),
            Some(_) => continue,
        };
        let all = &found[name].1;
        let got = sampled.map_or(all.clone(), |index| index.iter().map(|&i| all[i as usize]).collect());
        // The key half of the kv bias has a gradient of zero but for rounding.
        let keep = if name.ends_with("kv.bias") { got.len() / 2.. } else { 0.. };
        worst.note(name, rel_l2(&got[keep.clone()], &expected[keep]), 1e-4);
    }
}

/// Clips of one view and segment, `[B, C, T, H, W]`.
fn clip(io: &NamedTensors, segment: usize, view: usize, device: &Device) -> Tensor<5> {
    let (shape, pixels) = &io["multiclip.clips_u8"]; // [segment, view, B, C, T, H, W]
    let size: usize = shape[2..].iter().product();
    let start = (segment * shape[1] + view) * size;
    let clip = normalise(shape, &pixels[start..start + size]);
    Tensor::from_data(TensorData::new(clip, shape[2..].to_vec()), device)
}

#[test]
fn several_segments_and_views() {
    let device = Device::flex();
    let weights = read("probe/weights.safetensors");
    let io = read("probe/io.safetensors");
    let encoder = Encoder::empty(&encoder_config(), &device).unwrap();
    let encoder = load_parameters(encoder, part(&weights, "encoder.")).unwrap();
    let probe = classifier(&weights, "clf_depth1", &device);
    let mut worst = Worst::new("multi-clip");

    // Attention across segments. The repository holds the pixels of the first view only.
    let stored = io["multiclip.clips_u8"].0[1];
    let mut views = Vec::new();
    for view in 0..2 {
        let name = format!("multiclip.attend.feat_view{view}");
        let mut features = tensor::<3>(&io, &name, &device);
        if view < stored {
            features = segment_features(&encoder, (0..3).map(|s| clip(&io, s, view, &device)).collect()).unwrap();
            worst.forward(&name, &values(features.clone()), &io[&name].1);
        }
        let logits = probe.forward(features).unwrap();
        worst.forward(
            "multiclip.attend.logits",
            &values(logits.clone()),
            view_of(&io["multiclip.attend.logits"], view),
        );
        views.push(logits);
    }
    let probabilities = values(mean_probabilities(views).unwrap());
    worst.forward("multiclip.attend.probs", &probabilities, &io["multiclip.attend.probs"].1);

    // Each segment by itself: logits [view, segment, B, classes], or the two first axes the other way round.
    let mut all = Vec::new();
    for view in 0..2 {
        let joined = tensor::<3>(&io, &format!("multiclip.attend.feat_view{view}"), &device);
        all.extend((0..3).map(|s| probe.forward(joined.clone().narrow(1, s * 64, 64)).unwrap()));
    }
    let logits: Vec<f32> = all.iter().flat_map(|l| values(l.clone())).collect();
    worst.forward("multiclip.noattend.logits", &logits, &io["multiclip.noattend.logits"].1);
    let probabilities = values(mean_probabilities(all).unwrap());
    worst.forward("multiclip.noattend.probs", &probabilities, &io["multiclip.noattend.probs"].1);

    // Positions of the segments in their video, which no released evaluation uses.
    let plain = &io["multiclip.attend.feat_view0"].1;
    let (_, indices) = &io["multiclip.clip_indices"]; // [segment, B, T]
    let mut positioned = plain.clone();
    for (row, token) in positioned.chunks_exact_mut(96).enumerate() {
        let (sample, token_index) = (row / 192, row % 192);
        let (segment, frame) = (token_index / 64, token_index % 64 / 16);
        let table = sincos_1d(96, &[f64::from(indices[(segment * 2 + sample) * 8 + 2 * frame])]);
        token.iter_mut().zip(table).for_each(|(value, position)| *value += position);
    }
    let name = "multiclip.attend_posembed.feat_view0";
    worst.forward(name, &positioned, &io[name].1);

    // A still image, repeated.
    let still = clip(&io, 0, 0, &device).narrow(0, 0, 1).narrow(2, 0, 1).expand([1, 3, 8, 64, 64]);
    worst.forward("image.enc_out", &values(encoder.forward(still, None).unwrap()), &io["image.enc_out"].1);
}

/// One entry of the first axis.
fn view_of((shape, values): &(Vec<usize>, Vec<f32>), view: usize) -> &[f32] {
    let size: usize = shape[1..].iter().product();
    &values[view * size..(view + 1) * size]
}

#[test]
fn linear_probe_reads_the_mean_token() {
    let device = Device::flex();
    let probe = load_parameters(LinearProbe::empty(96, 7, &device), init::linear_probe(96, 7, 5)).unwrap();
    let features = tensor::<3>(&read("probe/io.safetensors"), "features", &device);
    let shuffled = Tensor::cat(vec![features.clone().narrow(1, 32, 32), features.clone().narrow(1, 0, 32)], 1);
    let logits = probe.forward(features).unwrap();
    assert_eq!(logits.dims(), [3, 7]);
    assert!(max_abs(&values(probe.forward(shuffled).unwrap()), &values(logits)) < 1e-6);
}

#[test]
fn position_tables_and_interpolation() {
    let extra = read("extra/extra.safetensors");
    let mut worst = Worst::new("position tables, absolute");
    let mut check = |name: &str, table: &[f32]| worst.note(name, max_abs(table, &extra[name].1), 1e-6);
    let positions: Vec<f64> = (0..7).map(f64::from).collect();
    check("pos1d.dim32.n7", &sincos_1d(32, &positions));
    check("pos2d.dim96.grid3", &sincos_2d(96, [3, 3]));
    for (dim, grid, depth, uniform) in [
        (64, 3, 2, true),
        (100, 3, 4, true),
        (384, 2, 3, true),
        (1024, 2, 3, true),
        (1280, 2, 3, true),
        (192, 4, 3, false),
        (768, 2, 2, false),
    ] {
        let name = format!("pos3d.dim{dim}.grid{grid}.depth{depth}.uniform{}", u8::from(uniform));
        check(&name, &sincos_3d(dim, [depth, grid, grid], uniform));
    }
    for [t, h, w] in [[12, 96, 80], [16, 32, 48], [4, 64, 64], [8, 112, 112]] {
        let name = format!("interp_pos.64x8_to_T{t}_H{h}_W{w}.dim48");
        let mut table = (vec![1, 64, 48], sincos_3d(48, [4, 4, 4], true));
        resize_table(&mut table, [4, 4, 4], [t / 2, h / 16, w / 16]).unwrap();
        assert_eq!(table.0, extra[&name].0);
        check(&name, &table.1);
    }
    let table = sincos_2d(48, [4, 4]);
    check("image_interp_pos.64_to_96.dim48", &interpolate_bicubic(&table, 48, [4, 4], [6, 6]));
}

#[test]
fn gelu_is_the_exact_one() {
    let extra = read("extra/extra.safetensors");
    let device = Device::flex();
    let got = values(gelu(tensor::<1>(&extra, "gelu.x", &device)));
    let difference = max_abs(&got, &extra["gelu.y"].1);
    println!("gelu: {difference:e}");
    assert!(difference <= 1e-6, "{difference:e}");
}
