//! The rules between values: divisibility, ranges, and what this program does not support.

use super::data::{AugmentConfig, DataConfig, DatasetType, Normalization};
use super::error::ConfigError;
use super::training::{Dtype, LossConfig, MetaConfig, ObjectiveName, OptimizationConfig};
use super::{Config, FinetuneConfig, Generation, InitType, ModelConfig, Positions, Rotary, TestSampling};
use crate::text;

type Checked = Result<(), ConfigError>;

fn must(holds: bool, key: &str, rule: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(ConfigError::rule(key, rule())) }
}

fn within(key: &str, value: usize, low: usize, high: usize) -> Checked {
    must((low..=high).contains(&value), key, || format!("is {value}; it must lie between {low} and {high}"))
}

/// Everything that can be checked without touching a file.
pub(super) fn check(config: &Config) -> Checked {
    data(&config.data)?;
    lengths(&config.data)?;
    model(&config.model, config.data.grid())?;
    official_keys(config)?;
    augment(&config.data_aug, config.data.dataset_type)?;
    loss(&config.loss)?;
    optimization(&config.optimization)?;
    meta(&config.meta)?;
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
        return finetuning(config, finetune);
    }
    for frames in config.data.lengths() {
        config.mask.check("mask", config.data.geometry_of(frames))?;
    }
    images(config)
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

fn images(config: &Config) -> Checked {
    let Some(images) = &config.img_data else {
        return must(config.img_mask.is_none(), "img_mask", || {
            "is for the images of `img_data`, which is missing".into()
        });
    };
    must(config.model.generation == Generation::V21, "img_data", || {
        format!("is for V-JEPA 2.1, but model.generation is {}", config.model.generation.name())
    })?;
    within("img_data.batch_size", images.batch_size, 1, 1 << 20)?;
    within("img_data.crop_size", images.crop_size, 1, 1 << 13)?;
    within("img_data.num_workers", images.num_workers, 0, 1 << 10)?;
    let patch = config.data.patch_size;
    must(images.crop_size.is_multiple_of(patch), "img_data.crop_size", || {
        format!("is {}; it must be a multiple of data.patch_size, {patch}", images.crop_size)
    })?;
    must(images.rank_ratio > 0.0 && images.rank_ratio < 1.0, "img_data.rank_ratio", || {
        format!("is {}; it must lie between 0 and 1", images.rank_ratio)
    })?;
    must(images.dataset_fpcs.iter().flatten().all(|frames| *frames == 1), "img_data.dataset_fpcs", || {
        "must be 1 for every data set: an image is one frame".into()
    })?;
    weights("img_data", images.datasets_weights.as_deref(), images.datasets.len())?;
    match (&config.img_mask, config.image_geometry()) {
        (Some(mask), Some(image)) => mask.check("img_mask", image),
        _ => Ok(()),
    }
}

/// Weights of data sets.
fn weights(section: &str, weights: Option<&[f64]>, datasets: usize) -> Checked {
    let Some(weights) = weights else { return Ok(()) };
    let key = format!("{section}.datasets_weights");
    must(weights.len() == datasets, &key, || {
        format!("lists {} weights for {datasets} entries of {section}.datasets", weights.len())
    })?;
    must(weights.iter().all(|&w| w >= 0.0) && weights.iter().any(|&w| w > 0.0), &key, || {
        "must be 0 or more, and not all 0".into()
    })
}

/// The lengths of V-JEPA 2's clips, and their frames a second.
fn lengths(data: &DataConfig) -> Checked {
    if let Some(fps) = data.fps {
        must(fps > 0.0, "data.fps", || format!("is {fps}; it must be above 0 frames a second"))?;
        must(data.clip_duration.is_none(), "data.fps", || {
            "and data.clip_duration exclude each other: give one".into()
        })?;
    }
    let Some(lengths) = &data.dataset_fpcs else { return Ok(()) };
    let key = "data.dataset_fpcs";
    must(data.datasets.is_empty() || data.datasets.len() == lengths.len(), key, || {
        format!("lists {} lengths for {} entries of data.datasets", lengths.len(), data.datasets.len())
    })?;
    for &frames in lengths {
        within(key, frames, 2, 1 << 12)?;
        must(frames.is_multiple_of(data.tubelet_size), key, || {
            format!("lists {frames}; it must be a multiple of data.tubelet_size, {}", data.tubelet_size)
        })?;
    }
    must(lengths.iter().max() == Some(&data.num_frames), "data.num_frames", || {
        format!("is {}, but the longest clip of {key} is another; leave it out", data.num_frames)
    })
}

fn data(data: &DataConfig) -> Checked {
    // Upper bounds keep every product of sizes inside 64 bits and refuse typos before they ask for terabytes.
    within("data.batch_size", data.batch_size, 1, 1 << 20)?;
    within("data.num_frames", data.num_frames, 1, 1 << 12)?;
    within("data.tubelet_size", data.tubelet_size, 1, 1 << 12)?;
    within("data.sampling_rate", data.sampling_rate, 1, 1 << 16)?;
    within("data.crop_size", data.crop_size, 1, 1 << 13)?;
    within("data.patch_size", data.patch_size, 1, 1 << 13)?;
    within("data.num_workers", data.num_workers.unwrap_or(0), 0, 1 << 10)?;
    within("data.num_clips", data.num_clips, 1, 1 << 8)?;
    let DataConfig { num_frames, tubelet_size, crop_size, patch_size, .. } = *data;
    if num_frames == 1 {
        return Err(ConfigError::unsupported(
            "data.num_frames",
            "image models (1 frame) cannot be trained; use 2 or more",
        ));
    }
    must(num_frames.is_multiple_of(tubelet_size), "data.num_frames", || {
        format!("is {num_frames}; it must be a multiple of data.tubelet_size, {tubelet_size}")
    })?;
    must(crop_size.is_multiple_of(patch_size), "data.crop_size", || {
        format!("is {crop_size}; it must be a multiple of data.patch_size, {patch_size}")
    })?;
    let [time, height, width] = data.grid();
    must(time * height * width <= 1 << 20, "data.crop_size", || {
        format!("and data.num_frames give {time} x {height} x {width} tokens; at most 2^20 are allowed")
    })?;
    must(data.num_clips == 1 || data.dataset_type == DatasetType::Video, "data.num_clips", || {
        format!("is {}; drifting textures give one clip each: write 1", data.num_clips)
    })?;
    for (key, value) in [("data.frame_rate", data.frame_rate), ("data.cache_gib", data.cache_gib)] {
        must(value > 0.0 && value <= 1e6, key, || format!("is {value}; it must be above 0 and at most 1e6"))?;
    }
    must(data.max_bad_fraction > 0.0 && data.max_bad_fraction <= 1.0, "data.max_bad_fraction", || {
        format!("is {}; it must be above 0 and at most 1", data.max_bad_fraction)
    })?;
    if let Some(seconds) = data.clip_duration {
        must(seconds > 0.0, "data.clip_duration", || format!("is {seconds}; it must be above 0 seconds"))?;
    }
    if let Normalization::Custom { std, mean } = data.normalization {
        must(
            std.iter().all(|&s| s.is_finite() && s > 0.0) && mean.iter().all(|m| m.is_finite()),
            "data.normalization",
            || "must have finite means and deviations above 0".into(),
        )?;
    }
    weights("data", data.datasets_weights.as_deref(), data.datasets.len())?;
    if data.dataset_type == DatasetType::DriftingTextures && !data.datasets.is_empty() {
        return Err(ConfigError::rule(
            "data.datasets",
            "must be left out with dataset_type DriftingTextures, which reads no files",
        ));
    }
    textures(data)
}

/// What drifting textures show, and that nothing else is asked to.
fn textures(data: &DataConfig) -> Checked {
    let DataConfig { texture_turns, texture_occluders, texture_noise, .. } = *data;
    must(texture_occluders <= 16, "data.texture_occluders", || {
        format!("is {texture_occluders}; at most 16 fit into a frame")
    })?;
    must((0.0..=1.0).contains(&texture_noise), "data.texture_noise", || {
        format!("is {texture_noise}; it is the noise's deviation where pixels lie in 0 to 1")
    })?;
    let drifting = data.dataset_type == DatasetType::DriftingTextures;
    let default = DataConfig::default();
    for (key, given) in [
        ("data.texture_turns", texture_turns),
        ("data.texture_occluders", texture_occluders != default.texture_occluders),
        ("data.texture_noise", texture_noise != default.texture_noise),
    ] {
        must(drifting || !given, key, || "is for dataset_type DriftingTextures; leave it out".into())?;
    }
    Ok(())
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

fn augment(aug: &AugmentConfig, source: DatasetType) -> Checked {
    if source == DatasetType::DriftingTextures {
        for (key, on) in [("data_aug.auto_augment", aug.auto_augment), ("data_aug.reprob", aug.reprob > 0.0)] {
            if on {
                let why = "drifting textures are made as they are trained on; leave it out";
                return Err(ConfigError::unsupported(key, why));
            }
        }
    }
    must((0.0..=1.0).contains(&aug.reprob), "data_aug.reprob", || {
        format!("is {}; it is a probability, from 0 to 1", aug.reprob)
    })?;
    let [low, high] = aug.random_resize_scale;
    must(low > 0.0 && low <= high && high <= 1.0, "data_aug.random_resize_scale", || {
        format!("is [{low}, {high}]; it must be [low, high] with 0 < low <= high <= 1")
    })?;
    let [low, high] = aug.random_resize_aspect_ratio;
    must(low > 0.0 && low <= high, "data_aug.random_resize_aspect_ratio", || {
        format!("is [{low}, {high}]; it must be [low, high] with 0 < low <= high")
    })
}

/// Fine-tuning: shares within 0 and 1, a batch that can be mixed, and no key of pre-training that it would not honour.
fn finetuning(config: &Config, finetune: &FinetuneConfig) -> Checked {
    let FinetuneConfig { drop_path, fc_drop_rate, mixup_prob, mixup_switch_prob, smoothing, .. } = *finetune;
    must(finetune.subset.is_none_or(|share| share > 0.0 && share <= 1.0), "finetune.subset", || {
        format!("is {}; it is a share, above 0 and at most 1", finetune.subset.unwrap_or_default())
    })?;
    for (key, value) in [("drop_path", drop_path), ("fc_drop_rate", fc_drop_rate)] {
        must((0.0..1.0).contains(&value), &format!("finetune.{key}"), || {
            format!("is {value}; it must be at least 0 and below 1")
        })?;
    }
    for (key, value) in [("mixup_prob", mixup_prob), ("mixup_switch_prob", mixup_switch_prob), ("smoothing", smoothing)]
    {
        must((0.0..=1.0).contains(&value), &format!("finetune.{key}"), || {
            format!("is {value}; it must lie between 0 and 1")
        })?;
    }
    for (key, value) in [("mixup", finetune.mixup), ("cutmix", finetune.cutmix), ("init_scale", finetune.init_scale)] {
        must(value >= 0.0, &format!("finetune.{key}"), || format!("is {value}; it must be 0 or more"))?;
    }
    must(finetune.layer_decay > 0.0 && finetune.layer_decay <= 1.0, "finetune.layer_decay", || {
        format!("is {}; it must be above 0 and at most 1", finetune.layer_decay)
    })?;
    must((1..=16).contains(&finetune.num_sample), "finetune.num_sample", || {
        format!("is {}; it must lie between 1 and 16", finetune.num_sample)
    })?;
    within("finetune.test_num_segment", finetune.test_num_segment, 1, 1 << 8)?;
    within("finetune.test_num_crop", finetune.test_num_crop, 1, 1 << 8)?;
    must(
        finetune.test_sampling != TestSampling::Dealt || finetune.test_num_segment == 2,
        "finetune.test_num_segment",
        || format!("is {}; `test_sampling: dealt` makes 2 clips of a video", finetune.test_num_segment),
    )?;
    let (batch, repeats) = (config.data.batch_size, finetune.num_sample as usize);
    let mixes = finetune.mixup_prob > 0.0 && (finetune.mixup > 0.0 || finetune.cutmix > 0.0);
    must(!mixes || (batch * repeats).is_multiple_of(2), "data.batch_size", || {
        format!("is {batch}; mixup and cutmix need an even number of clips in a batch (or finetune.num_sample: 2)")
    })?;
    must(config.data.dataset_type == DatasetType::Video, "data.dataset_type", || {
        "is not VideoDataset: fine-tuning needs lists of labelled videos".into()
    })?;
    must(config.data.num_clips == 1, "data.num_clips", || {
        format!(
            "is {}; fine-tuning takes one clip of a video, which finetune.num_sample repeats",
            config.data.num_clips
        )
    })?;
    must(!config.data_aug.motion_shift, "data_aug.motion_shift", || "is not part of fine-tuning; write false".into())?;
    must(config.img_data.is_none(), "img_data", || "is for pre-training; leave it out".into())
}

fn loss(loss: &LossConfig) -> Checked {
    must(loss.loss_exp > 0.0, "loss.loss_exp", || format!("is {}; it must be above 0", loss.loss_exp))?;
    must(loss.reg_coeff >= 0.0, "loss.reg_coeff", || format!("is {}; it must be 0 or more", loss.reg_coeff))?;
    must(loss.teacher.is_none() || loss.objective == ObjectiveName::Teacher, "loss.teacher", || {
        format!("is for `loss.objective: teacher`, which is {}; leave it out", loss.objective.name())
    })?;
    must(loss.reg_coeff == 0.0 || loss.objective != ObjectiveName::Pixels, "loss.reg_coeff", || {
        format!("is {}; pixels cannot collapse and have no regulariser: leave it out", loss.reg_coeff)
    })
}

fn optimization(o: &OptimizationConfig) -> Checked {
    let count = |key: &str, value: Option<u64>| {
        let fits = value.is_none_or(|n| (1..=1 << 40).contains(&n));
        must(fits, &format!("optimization.{key}"), || "must lie between 1 and 2^40".into())
    };
    count("ipe", o.ipe)?;
    count("steps", o.steps)?;
    count("epochs", Some(o.epochs))?;
    must(o.groups.is_none_or(|n| (1..=1 << 16).contains(&n)), "optimization.groups", || {
        format!("is {}; it must lie between 1 and 65536", o.groups())
    })?;
    must(o.mask_buckets.is_none_or(|multiple| (1..=4096).contains(&multiple)), "optimization.mask_buckets", || {
        format!("is {}; it must lie between 1 and 4096", o.mask_buckets.unwrap_or_default())
    })?;
    must(o.bucket_cap_mb > 0.0 && o.bucket_cap_mb <= 4096.0, "optimization.bucket_cap_mb", || {
        format!("is {}; it must lie above 0 and up to 4096 MiB", o.bucket_cap_mb)
    })?;
    must(o.skip_above.is_none_or(|loss| loss > 0.0), "optimization.skip_above", || {
        "must be a loss above 0, or null to skip none".into()
    })?;
    must(o.ipe_scale > 0.0 && o.ipe_scale <= 1e6, "optimization.ipe_scale", || {
        format!("is {}; it must be above 0 and at most 1e6", o.ipe_scale)
    })?;
    for (key, value) in [
        ("warmup", o.warmup),
        ("start_lr", o.start_lr),
        ("lr", o.lr),
        ("final_lr", o.final_lr),
        ("weight_decay", o.weight_decay),
        ("final_weight_decay", o.final_weight_decay),
    ] {
        must(value >= 0.0, &format!("optimization.{key}"), || format!("is {value}; it must be 0 or more"))?;
    }
    if let Some(norm) = o.clip_grad {
        must(norm > 0.0, "optimization.clip_grad", || {
            format!("is {norm}; it must be above 0, or null for no clipping")
        })?;
    }
    must(o.eps > 0.0, "optimization.eps", || format!("is {}; it must be above 0", o.eps))?;
    must(o.betas.iter().all(|b| (0.0..1.0).contains(b)), "optimization.betas", || {
        format!("are {:?}; both must be at least 0 and below 1", o.betas)
    })?;
    must(!o.is_anneal || o.warmup == 0.0 && o.warmup_steps.unwrap_or(0) == 0, "optimization.warmup", || {
        "must be 0 with is_anneal: a cool-down has no warm-up".into()
    })?;
    must(o.is_anneal || o.anneal_ckpt.is_none(), "optimization.anneal_ckpt", || {
        "names a checkpoint for a cool-down, but is_anneal is false".into()
    })?;
    must(o.ema.iter().all(|m| (0.0..=1.0).contains(m)), "optimization.ema", || {
        format!("is {:?}; both must lie between 0 and 1", o.ema)
    })?;
    // Where the data set decides the length of an epoch, the plan is checked when it is known.
    if o.steps.is_some() || o.ipe.is_some() {
        o.plan(None)?;
    }
    Ok(())
}

/// Checked for runs only: stored configurations from before this rule still describe their model.
pub(super) fn beginning(meta: &MetaConfig) -> Checked {
    must(!meta.load_checkpoint || meta.read_checkpoint.is_some(), "meta.load_checkpoint", || {
        "is true without a file: name one with meta.read_checkpoint, or write false and continue the run with --resume"
            .into()
    })
}

fn meta(meta: &MetaConfig) -> Checked {
    if meta.dtype == Dtype::Float16 {
        return Err(ConfigError::unsupported(
            "meta.dtype",
            "float16 needs loss scaling, which is not implemented; use bfloat16 or float32",
        ));
    }
    if meta.read_checkpoint.is_some() && !meta.load_checkpoint {
        return Err(ConfigError::rule("meta.read_checkpoint", "names a checkpoint, but meta.load_checkpoint is false"));
    }
    Ok(())
}
