//! The modules against the official code's golden data: forwards, losses and gradients of encoder and predictor.
//!
//! Tolerances are those of the golden set's README. `VJEPA_GOLDEN=<dir>` runs against a full set.

mod common;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use common::*;
use vjepa_graphs::layers::gather_tokens;
use vjepa_graphs::{
    JepaLoss, NamedTensors, Predictor, gradients, load_parameters, normalised_targets, parameter_names, parameters,
};

#[test]
fn names_and_shapes_are_the_official_state_dict() {
    for set in ["tiny", "rect"] {
        let Some(golden) = golden(set, &Device::flex()) else { continue };
        for (prefix, found) in
            [("encoder.", parameters(&golden.encoder)), ("predictor.", parameters(&golden.predictor))]
        {
            let official = part(&golden.weights, prefix);
            assert_eq!(shapes(&found), shapes(&official));
            assert_eq!(found, official, "values survive the way in and out");
        }
        assert_eq!(parameter_names(&golden.encoder).len(), golden.encoder.config().parameter_shapes().len());
    }
}

#[test]
fn forwards() {
    for set in ["tiny", "rect"] {
        let device = Device::flex();
        let Some(golden) = golden(set, &device) else { continue };
        let mut worst = Worst::new(if set == "tiny" { "tiny forward" } else { "rect forward" });
        let g = &golden.forward;
        let mut check = |name: &str, got: Vec<f32>| worst.forward(name, &got, &g[name].1);

        let first = golden.clip.clone().narrow(0, 0, 1); // [1, C, T, H, W]
        let frame = first.clone().narrow(2, 0, 1);
        check("clip_norm_b0_t0", values(frame));
        check("patch_embed", values(golden.encoder.patch_embed.forward(first.clone())));
        let embedded = golden.encoder.embed(first.clone(), None).unwrap();
        check("after_block0_b0", values(golden.encoder.blocks[0].forward(embedded.tokens, embedded.angles.as_ref())));
        let layers = golden.encoder.forward_layers(first, None).unwrap();
        assert_eq!(layers.len(), 1);
        check("out_layers_first_b0", values(layers[0].clone()));
        check("encoder_out", values(golden.encoder.forward(golden.clip.clone(), None).unwrap()));
        let targets = normalised_targets(&golden.encoder, golden.clip.clone()).unwrap();
        for (i, pair) in golden.pairs.iter().enumerate() {
            let context = golden.encoder.forward(golden.clip.clone(), Some(pair.context.clone())).unwrap();
            check(&format!("encoder_out_masked.{i}"), values(context.clone()));
            let z = golden.predictor.forward(context, pair.context.clone(), pair.target.clone(), i).unwrap();
            check(&format!("predictor_out.{i}"), values(z));
            check(&format!("target_gathered.{i}"), values(gather_tokens(targets.clone(), pair.target.clone())));
        }
        for (name, table) in [
            ("encoder_pos_embed", golden.encoder.config().position_table()),
            ("predictor_pos_embed", golden.predictor.config().position_table()),
        ] {
            let difference = max_abs(&table, &g[name].1);
            assert!(difference <= 1e-6, "{name}: {difference:e}");
        }
    }
}

/// The predictor of `rect`, whose biases, norms and mask tokens are all different from their first values.
#[test]
fn perturbed_predictor() {
    let device = Device::flex();
    let full = path("rect/weights.safetensors").exists();
    let (weights, forward) = if full { ("weights", "forward") } else { ("predictor_weights", "predictor_forward") };
    let weights = read(&format!("rect/{weights}.safetensors"));
    let forward = read(&format!("rect/{forward}.safetensors"));
    let (_, config) = configs("rect");
    let predictor = Predictor::empty(&config, &device).unwrap();
    let predictor = load_parameters(predictor, part(&weights, "predictor.")).unwrap();
    let mut worst = Worst::new("rect predictor");
    for i in 0..2 {
        let context = tensor::<3>(&forward, &format!("encoder_out_masked.{i}"), &device);
        let [mask_context, mask_target] =
            ["enc", "pred"].map(|kind| index(&forward, &format!("mask_{kind}.{i}"), &device));
        let z = predictor.forward(context.clone(), mask_context.clone(), mask_target.clone(), i).unwrap();
        let name = format!("predictor_out.{i}");
        worst.forward(&name, &values(z.clone()), &forward[&name].1);
        // The index of the mask token wraps, as in the official code.
        let wrapped = predictor.forward(context.clone(), mask_context.clone(), mask_target.clone(), i + 2).unwrap();
        assert_eq!(values(wrapped), values(z.clone()));
        let other = predictor.forward(context, mask_context, mask_target, i + 1).unwrap();
        assert!(rel_l2(&values(other), &values(z)) > 1e-3);
    }
    let table = max_abs(&config.position_table(), &weights["predictor.predictor_pos_embed"].1);
    assert!(table <= 1e-6, "{table:e}");
}

const VARIANTS: [(&str, f64, f64); 4] =
    [("exp1_reg0", 1.0, 0.0), ("exp1_reg0.5", 1.0, 0.5), ("exp2_reg0", 2.0, 0.0), ("exp2_reg0.5", 2.0, 0.5)];

#[test]
fn losses_and_gradients() {
    for set in ["tiny", "rect"] {
        let device = Device::flex().autodiff();
        let Some(golden) = golden(set, &device) else { continue };
        let target = golden.encoder.clone().no_grad();
        let expected = &json(&format!("{set}/config.json"))["first_batch"]["losses"];
        let mut losses = Worst::new("losses");
        let mut grads = Worst::new("gradients");
        for (variant, loss_exp, reg_coeff) in VARIANTS {
            let expected = &expected[variant];
            let output = JepaLoss { loss_exp, reg_coeff }
                .forward(&golden.encoder, &golden.predictor, &target, golden.clip.clone(), &golden.pairs)
                .unwrap();
            for (key, got) in [("loss", &output.loss), ("loss_jepa", &output.loss_jepa), ("loss_reg", &output.loss_reg)]
            {
                let expected = expected[key].as_f64().unwrap();
                let got = f64::from(values(got.clone())[0]);
                losses.note(&format!("{set} {variant} {key}"), (got / expected - 1.0).abs(), 1e-5);
            }
            let backward = output.loss.backward();
            let found = [
                ("encoder", &gradients(&golden.encoder, &backward)),
                ("predictor", &gradients(&golden.predictor, &backward)),
            ];
            for ((model, found), key) in found.into_iter().zip(["enc_grad_norm", "pred_grad_norm"]) {
                let norm = found.values().flat_map(|(_, v)| v).map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                let expected = expected[key].as_f64().unwrap();
                grads.note(&format!("{set} {variant} {key}"), (norm / expected - 1.0).abs(), 1e-4);
                assert!(!found.keys().any(|name| name.ends_with("pos_embed")), "{model} position table has a gradient");
            }
            if loss_exp == 1.0 {
                let golden = read(&format!("{set}/grads_reg{reg_coeff}.safetensors"));
                for (model, found) in found {
                    compare_gradients(&part(&golden, &format!("grad/{model}.")), found, &mut grads);
                }
            }
        }
        assert!(gradients(&target, &golden_backward(&golden)).is_empty(), "the target encoder gets no gradient");
    }
}

fn golden_backward(golden: &Golden) -> burn::tensor::Gradients {
    let target = golden.encoder.clone().no_grad();
    JepaLoss::default()
        .forward(&golden.encoder, &golden.predictor, &target, golden.clip.clone(), &golden.pairs)
        .unwrap()
        .loss
        .backward()
}

/// Rel-L2 of every tensor (or of the sampled values of a large one) at most 1e-4.
fn compare_gradients(golden: &NamedTensors, found: &NamedTensors, worst: &mut Worst) {
    let names: std::collections::BTreeSet<&str> =
        golden.keys().map(|name| name.split('#').next().unwrap_or(name)).collect();
    assert_eq!(names, found.keys().map(String::as_str).collect(), "parameters that have a gradient");
    for name in names {
        let (_, found) = &found[name];
        let (got, expected): (Vec<f32>, &[f32]) = match golden.get(name) {
            Some((_, expected)) => (found.clone(), expected),
            None => {
                let index = &golden[&format!("{name}#idx")].1;
                let stat = &golden[&format!("{name}#stat")].1;
                let norm = found.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
                worst.note(&format!("norm of {name}"), (norm / f64::from(stat[0]) - 1.0).abs(), 1e-4);
                (index.iter().map(|&i| found[i as usize]).collect(), &golden[&format!("{name}#val")].1)
            }
        };
        // The gradient of the key third of a qkv bias is zero but for rounding.
        let third = got.len() / 3;
        let kept: Vec<usize> = (0..got.len()).filter(|i| !name.ends_with("qkv.bias") || i / third != 1).collect();
        let pick = |v: &[f32]| kept.iter().map(|&i| v[i]).collect::<Vec<_>>();
        let (got, expected) = (pick(&got), pick(expected));
        let norm = expected.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        if norm > 1e-8 {
            worst.note(name, rel_l2(&got, &expected), 1e-4);
        }
    }
}

#[test]
fn wrong_inputs_are_errors_not_panics() {
    let device = Device::flex();
    let golden = golden("tiny", &device).unwrap();
    let error = golden.encoder.forward(Tensor::zeros([1, 3, 8, 64, 80], &device), None).unwrap_err();
    assert!(error.to_string().starts_with("the clip must be [B, 3, 8, 64, 64]"), "{error}");
    let two = golden.clip.clone().narrow(0, 0, 2);
    let error = golden.encoder.forward(two.clone(), Some(golden.pairs[0].context.clone())).unwrap_err();
    assert_eq!(error.got, [4, 20]);
    let (encoder, predictor) = (&golden.encoder, &golden.predictor);
    assert!(JepaLoss::default().forward(encoder, predictor, encoder, two.clone(), &golden.pairs).is_err());
    assert!(JepaLoss::default().forward(encoder, predictor, encoder, two, &[]).is_err());
    let narrow = Tensor::zeros([4, 20, 95], &device);
    let pair = golden.pairs[0].clone();
    assert!(predictor.forward(narrow, pair.context, pair.target, 0).is_err());
}

#[test]
fn weights_that_do_not_fit_are_all_named() {
    let golden = golden("tiny", &Device::flex()).unwrap();
    let mut weights = part(&golden.weights, "encoder.");
    weights.remove("norm.bias");
    weights.remove("blocks.1.mlp.fc1.weight");
    weights.insert("head.weight".to_owned(), (vec![1], vec![0.0]));
    weights.insert("norm.weight".to_owned(), (vec![2, 48], vec![0.0; 96]));
    weights.get_mut("blocks.0.norm1.bias").unwrap().1.pop();
    let error = load_parameters(golden.encoder, weights).unwrap_err();
    assert_eq!(error.missing, ["blocks.1.mlp.fc1.weight", "norm.bias"]);
    assert_eq!(error.unexpected, ["head.weight"]);
    let names: Vec<&str> = error.misshapen.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["blocks.0.norm1.bias", "norm.weight"]);
    assert!(error.to_string().contains("norm.weight must be [96], got [2, 48] with 96 values"), "{error}");
}
