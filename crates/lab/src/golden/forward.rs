//! Every activation of a training configuration's first batch, through compiled graphs.

use std::collections::BTreeMap;

use super::check::{Check, GoldenError, Limit};
use super::run::{FORWARD, index, run_once, stored, values};
use super::sampled::Compare;
use super::training::Training;
use vjepa_graphs::JepaLoss;
use vjepa_programs as compile;
use vjepa_recipe::config::Positions;
use vjepa_runtime::plan::HostTensor;

/// Compares every tensor of `forward.safetensors` but its inputs.
pub(super) fn check(training: &Training) -> Result<Vec<Check>, GoldenError> {
    let computed = compute(training)?;
    let mut checks = Vec::new();
    for name in stored(&training.forward, "") {
        if name == "clip_u8" || name.starts_with("mask_") {
            continue;
        }
        let limit = if name.ends_with("pos_embed") { Limit::MaxAbs(1e-6) } else { FORWARD };
        checks.push(match computed.get(name) {
            Some(values) => training.forward.compare(name, values, limit)?.under("forward"),
            None => Check::unsupported(format!("forward.{name}"), "this program knows no rule for such a tensor"),
        });
    }
    Ok(checks)
}

fn compute(training: &Training) -> Result<BTreeMap<String, Vec<f32>>, GoldenError> {
    let mut params = training.params()?;
    let execution = training.execution;
    let mut computed = BTreeMap::from([("clip_norm_b0_t0".to_owned(), training.clip.first_frame().values)]);
    if training.encoder.positions == Positions::Table {
        computed.insert("encoder_pos_embed".to_owned(), training.encoder.position_table());
        computed.insert("predictor_pos_embed".to_owned(), training.predictor.position_table());
    }
    let clip = || ("clip", training.clip.host());

    let sample = ("clip", training.clip.first_sample().host());
    let layers = run_once(execution, &compile::layers(&training.encoder, "encoder.")?, &mut params, vec![sample])?;
    for (golden, output) in
        [("patch_embed", "patch_embed"), ("after_block0_b0", "after_block0"), ("out_layers_first_b0", "layer_0")]
    {
        computed.insert(golden.to_owned(), values(&layers, output)?);
    }
    for turned in ["block0_q_rot", "block0_k_rot"].into_iter().filter(|name| layers.contains_key(*name)) {
        computed.insert(format!("{turned}_b0"), values(&layers, turned)?);
    }
    let whole = run_once(execution, &compile::encoder(&training.encoder, "encoder.")?, &mut params, vec![clip()])?;
    computed.insert("encoder_out".to_owned(), values(&whole, "encoder_out")?);
    let targets = compile::monitored(&training.objective(JepaLoss::default()))?;
    let targets = run_once(execution, &targets, &mut params, vec![clip()])?;
    let targets = values(&targets, "features")?;

    let mut masked = execution.plan(&compile::encoder_masked(&training.encoder, "encoder.")?)?;
    let tokens = training.encoder.tokens();
    for generator in 0..training.generators {
        let mask_enc = index(&training.forward, &format!("mask_enc.{generator}"), tokens)?;
        let mask_pred = index(&training.forward, &format!("mask_pred.{generator}"), tokens)?;
        let mut context = masked.run(&mut params, vec![clip(), ("mask_enc", mask_enc.clone())])?;
        computed.insert(format!("encoder_out_masked.{generator}"), values(&context, "encoder_out")?);
        let Some(context) = context.remove("encoder_out") else { continue };

        computed.insert(format!("target_gathered.{generator}"), gather(training, &targets, &mask_pred));
        let graph = compile::predictor(&training.predictor, training.mask_token(generator))?;
        let inputs = vec![("context", context), ("mask_enc", mask_enc), ("mask_pred", mask_pred)];
        let predicted = run_once(execution, &graph, &mut params, inputs)?;
        computed.insert(format!("predictor_out.{generator}"), values(&predicted, "predictor_out")?);
    }
    Ok(computed)
}

/// Rows of targets `[B, N, D]` at indices `[B, K]`; an index out of range gives no row, and the comparison then says so.
fn gather(training: &Training, targets: &[f32], mask: &HostTensor) -> Vec<f32> {
    let (tokens, dim) = (training.encoder.tokens(), training.encoder.embed_dim);
    let HostTensor::I32 { shape, data } = mask else { return Vec::new() };
    let kept = shape.last().copied().unwrap_or(0).max(1);
    let samples = data.chunks_exact(kept).zip(targets.chunks_exact(tokens * dim));
    let rows = samples.flat_map(|(indices, sample)| {
        indices.iter().filter_map(move |&i| sample.chunks_exact(dim).nth(usize::try_from(i).ok()?))
    });
    rows.flatten().copied().collect()
}
