//! The rules between values: divisibility, ranges, and what this program does not support.

use super::error::ConfigError;
use super::{Config, Generation, InitType, ModelConfig, ObjectiveName, Positions, Rotary};
use crate::text;

mod data;
mod training;

pub(super) use training::beginning;

type Checked = Result<(), ConfigError>;

fn must(holds: bool, key: &str, rule: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(ConfigError::rule(key, rule())) }
}

fn within(key: &str, value: usize, low: usize, high: usize) -> Checked {
    must((low..=high).contains(&value), key, || format!("is {value}; it must lie between {low} and {high}"))
}

/// Everything that can be checked without touching a file.
pub(super) fn check(config: &Config) -> Checked {
    data::data(&config.data)?;
    data::bytes(config)?;
    data::lengths(&config.data)?;
    model(&config.model, config.data.grid())?;
    official_keys(config)?;
    data::augment(&config.data_aug, config.data.dataset_type)?;
    training::loss(&config.loss)?;
    training::optimization(&config.optimization)?;
    training::meta(&config.meta)?;
    let logging = &config.logging;
    must(logging.metrics_every > 0, "logging.metrics_every", || "is 0; it must be at least 1 step".into())?;
    for (key, value) in
        [("checkpoint_every", logging.checkpoint_every), ("diagnostics_every", logging.diagnostics_every)]
    {
        must(value != Some(0), &format!("logging.{key}"), || "is 0; give steps, or null".into())?;
    }
    must(logging.keep_last > 0, "logging.keep_last", || "is 0; it must be at least 1, the latest".into())?;
    must(logging.keep_every != Some(0), "logging.keep_every", || "is 0; give steps, or null".into())?;
    let tag = &logging.write_tag;
    must(!tag.is_empty() && !tag.contains(['/', '\\', '\0']), "logging.write_tag", || {
        format!(
            "is \"{}\"; it becomes part of file names, so it must not be empty or contain a slash",
            text::short(tag, 80)
        )
    })?;
    if let Some(finetune) = &config.finetune {
        return training::finetuning(config, finetune);
    }
    for frames in config.data.lengths() {
        config.mask.check("mask", config.data.geometry_of(frames))?;
    }
    data::images(config)
}

/// What only official files of V-JEPA 2 and 2.1 have.
fn official_keys(config: &Config) -> Checked {
    let Config { model, loss, optimization, .. } = config;
    let generation = model.generation;
    let rotary = generation != Generation::V1;
    must(model.use_rope.is_none_or(|asked| asked == rotary), "model.use_rope", || {
        format!("is {}, but model.generation is {}", !rotary, generation.name())
    })?;
    let later = generation == Generation::V21;
    must(model.modality_embedding.is_none_or(|asked| asked == later), "model.modality_embedding", || {
        format!("is {}, but model.generation is {}", !later, generation.name())
    })?;
    must(model.img_temporal_dim_size.is_none_or(|size| size == 1 && later), "model.img_temporal_dim_size", || {
        "must be 1, and is for model.generation vjepa2_1 only; leave it out".into()
    })?;
    must(!later || loss.objective == ObjectiveName::Jepa, "loss.objective", || {
        format!(
            "is {}; models of V-JEPA 2.1, which predict several levels, are trained with jepa",
            loss.objective.name()
        )
    })?;
    must(loss.predict_all.is_none_or(|asked| !asked || later), "loss.predict_all", || {
        format!("is for V-JEPA 2.1, but model.generation is {}; leave it out", generation.name())
    })?;
    let weights = [("lambda_value_vid", model.lambda_value_vid), ("lambda_value_img", model.lambda_value_img)];
    for (key, weight) in weights {
        must(weight >= 0.0, &format!("model.{key}"), || format!("is {weight}; it must be 0 or more"))?;
    }
    let unsupported = [
        ("model.use_silu", model.use_silu, "no released recipe has gated MLPs; write false"),
        ("model.use_pred_silu", model.use_pred_silu, "no released recipe has gated MLPs; write false"),
        ("model.normalize_predictor", model.normalize_predictor, "it fails in the official code; write false"),
        ("model.is_causal", model.is_causal, "no released recipe uses it; write false"),
        ("model.pred_is_causal", model.pred_is_causal, "no released recipe uses it; write false"),
        ("model.n_registers", model.n_registers > 0, "the official encoder makes no such tokens; write 0"),
        ("model.n_registers_predictor", model.n_registers_predictor > 0, "the official predictor makes none; write 0"),
        ("model.has_cls_first", model.has_cls_first, "the official encoder makes no such token; write false"),
        ("model.init_type", model.init_type != InitType::Default, "write default, and see model.init"),
        ("loss.offset_context_loss", loss.offset_context_loss, "no released recipe uses it; write false"),
        ("loss.shift_by_n", loss.shift_by_n.is_some_and(|n| n != 0), "no released recipe uses it; write null"),
        ("optimization.use_radamw", optimization.use_radamw, "it fails in the official code; write false"),
        (
            "optimization.loss_reg_std_mult",
            optimization.loss_reg_std_mult.is_some(),
            "no released recipe uses it; write null",
        ),
    ];
    match unsupported.into_iter().find(|(_, asked, _)| *asked) {
        Some((key, _, why)) => Err(ConfigError::unsupported(key, why)),
        None => Ok(()),
    }
}

/// Keys that only some generations have.
fn generation(model: &ModelConfig) -> Checked {
    let rotary = model.generation != Generation::V1;
    let levels = model.generation == Generation::V21;
    for (key, given, honoured, by) in [
        ("model.interpolate_rope", model.interpolate_rope.is_some(), rotary, "V-JEPA 2 and 2.1"),
        ("model.pred_interpolate_rope", model.pred_interpolate_rope.is_some(), rotary, "V-JEPA 2 and 2.1"),
        ("model.levels_predictor", model.levels_predictor.is_some(), levels, "V-JEPA 2.1"),
        ("model.teacher_embed_dim", model.teacher_embed_dim.is_some(), levels, "V-JEPA 2.1"),
    ] {
        must(honoured || !given, key, || {
            format!("is for {by}, but model.generation is {}; leave it out", model.generation.name())
        })?;
    }
    model.encoder_levels().map(|_| ())
}

fn model(model: &ModelConfig, grid: [usize; 3]) -> Checked {
    let encoder = model.sizes()?;
    generation(model)?;
    // A configuration may describe an encoder alone; whatever needs the predictor asks for its sizes.
    let described = model.pred_embed_dim.is_some() || model.pred_depth.is_some() || model.model_name.is_some();
    let predictor = described.then(|| model.predictor_sizes()).transpose()?;
    within("model.embed_dim", encoder.embed_dim, 6, 1 << 15)?;
    within("model.depth", encoder.depth, 1, 1 << 10)?;
    within("model.num_heads", encoder.num_heads, 1, 1 << 15)?;
    if let Some(predictor) = predictor {
        within("model.pred_embed_dim", predictor.embed_dim, 6, 1 << 15)?;
        within("model.pred_depth", predictor.depth, 1, 1 << 10)?;
        within("model.pred_num_heads", predictor.num_heads, 1, 1 << 15)?;
    }
    must(encoder.mlp_ratio > 0.0 && encoder.mlp_ratio <= 64.0 && encoder.mlp_dim() > 0, "model.mlp_ratio", || {
        format!("is {}; it must be above 0 and at most 64", encoder.mlp_ratio)
    })?;
    must(encoder.embed_dim.is_multiple_of(encoder.num_heads), "model.num_heads", || {
        format!("is {}; it must divide the encoder width (embed_dim), {}", encoder.num_heads, encoder.embed_dim)
    })?;
    if let Some(predictor) = predictor {
        must(predictor.embed_dim.is_multiple_of(predictor.num_heads), "model.pred_num_heads", || {
            format!(
                "is {} (the encoder's number unless given); it must divide model.pred_embed_dim, {}",
                predictor.num_heads, predictor.embed_dim
            )
        })?;
    }
    // The sines and cosines of an axis come in pairs; without `uniform_power` the height and width get a quarter each.
    let even = if model.uniform_power { 2 } else { 8 };
    let widths =
        [("model.embed_dim", Some(encoder.embed_dim)), ("model.pred_embed_dim", predictor.map(|p| p.embed_dim))];
    let table = model.positions() == Positions::Table;
    for (key, width) in widths.into_iter().filter_map(|(key, width)| Some((key, width?))).filter(|_| table) {
        must(width.is_multiple_of(even), key, || format!("is {width}; the position table needs a multiple of {even}"))?;
    }
    // A rotation needs two channels along each of three axes.
    let heads = [
        ("model.num_heads", Some((encoder.embed_dim, encoder.num_heads))),
        ("model.pred_num_heads", predictor.map(|p| (p.embed_dim, p.num_heads))),
    ];
    for (key, (width, heads)) in heads.into_iter().filter_map(|(key, sizes)| Some((key, sizes?))).filter(|_| !table) {
        must(width / heads >= 6, key, || {
            format!("is {heads}, which leaves {} channels a head; rotary positions need 6 or more", width / heads)
        })?;
    }
    let [_, height, width] = grid;
    let interpolated = |positions| matches!(positions, Positions::Rotary(Rotary { interpolate: true, .. }));
    let squeezed = interpolated(model.positions()) || interpolated(model.predictor_positions());
    must(!squeezed || height.min(width) >= 2, "data.crop_size", || {
        "is one patch a side, which rotary positions mapped to a grid of 16 cannot be (model.interpolate_rope)".into()
    })?;
    model.encoder_levels()?;
    if !model.use_mask_tokens {
        return Err(ConfigError::unsupported(
            "model.use_mask_tokens",
            "the predictor always uses mask tokens, as in every released recipe; write true",
        ));
    }
    Ok(())
}
