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

/// The golden file holds `clf_depth1` as five training steps left it, so its logits are those after them; the pooled token
/// and the logits of the two others are from their weights.
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
        let logits = values(probe.forward(features.clone()).unwrap());
        if name == "clf_depth1" {
            worst.forward("clf_depth1.after5.logits", &logits, &io["clf_depth1.after5.logits"].1);
            continue;
        }
        worst.forward(name, &logits, &io[&format!("{name}.logits")].1);
        let pooled = format!("{name}.pooled");
        worst.forward(&pooled, &values(probe.pool(features).unwrap()), &io[&pooled].1);
    }
}

/// Loss of the first training step from its logits, and from it the gradients of the last linear layer.
#[test]
fn cross_entropy_and_its_gradient() {
    let device = Device::flex().autodiff();
    let io = read("probe/io.safetensors");
    let logits = tensor::<2>(&io, "clf_depth1.logits", &device).require_grad();
    let loss = cross_entropy(logits.clone(), one_hot(&[1, 4, 6], 7, &device).unwrap()).unwrap();
    let expected = json("probe/info.json")["train"][0]["loss"].as_f64().unwrap();
    let mut worst = Worst::new("probe loss and gradients");
    worst.note("loss", (f64::from(values(loss.clone())[0]) / expected - 1.0).abs(), 1e-5);

    let gradient = logits.grad(&loss.backward()).unwrap(); // [B, classes]
    let bias = values(gradient.clone().sum_dim(0));
    worst.note("linear.bias", rel_l2(&bias, &io["clf_depth1.grad0/linear.bias"].1), 1e-4);
    let pooled = tensor::<3>(&io, "clf_depth1.pooled", &device.inner()).squeeze_dim::<2>(1); // [B, D]
    let weight = values(gradient.transpose().matmul(pooled)); // [classes, D]
    worst.note("linear.weight", rel_l2(&weight, &io["clf_depth1.grad0/linear.weight"].1), 1e-4);
}

/// All parameters get a gradient but the projection that the official code never applies.
#[test]
fn the_unused_projection_gets_no_gradient() {
    let device = Device::flex().autodiff();
    let probe = classifier(&read("probe/weights.safetensors"), "clf_depth1", &device);
    let features = tensor::<3>(&read("probe/io.safetensors"), "features", &device);
    let targets = one_hot(&[1, 4, 6], 7, &device).unwrap();
    let loss = cross_entropy(probe.forward(features).unwrap(), targets).unwrap();
    let found = gradients(&probe, &loss.backward());
    let without: Vec<_> = parameters(&probe).into_keys().filter(|name| !found.contains_key(name)).collect();
    let unused = ["bias", "weight"].map(|kind| format!("pooler.cross_attention_block.xattn.proj.{kind}"));
    assert_eq!(without, unused);
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
    let mut worst = Worst::new("multi-clip");

    // Tokens of all segments joined. The repository holds the pixels of the first view only.
    for view in 0..io["multiclip.clips_u8"].0[1] {
        let name = format!("multiclip.attend.feat_view{view}");
        let features = segment_features(&encoder, (0..3).map(|s| clip(&io, s, view, &device)).collect()).unwrap();
        worst.forward(&name, &values(features), &io[&name].1);
    }
    // The prediction is the mean of the views' probabilities; without attention across segments, of segments' too.
    for kind in ["attend", "noattend"] {
        let (shape, logits) = &io[&format!("multiclip.{kind}.logits")]; // [views, (segments,) B, classes]
        let [batch, classes] = [shape[shape.len() - 2], shape[shape.len() - 1]];
        let views = logits
            .chunks_exact(batch * classes)
            .map(|view| Tensor::from_data(TensorData::new(view.to_vec(), [batch, classes]), &device))
            .collect();
        let name = format!("multiclip.{kind}.probs");
        worst.forward(&name, &values(mean_probabilities(views).unwrap()), &io[&name].1);
    }

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
