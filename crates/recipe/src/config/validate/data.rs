//! The rules of clips: `data`, `img_data`, `data_aug`.

use super::super::data::{AugmentConfig, DataConfig, DatasetType, Normalization};
use super::super::error::ConfigError;
use super::super::{Config, Generation};
use super::{Checked, must, within};

/// Clips as bytes: nothing that needs other values than pixels may be done to them on the way.
pub(super) fn bytes(config: &Config) -> Checked {
    let Config { data, data_aug, finetune, .. } = config;
    let reasons = [
        (data.dataset_type == DatasetType::DriftingTextures, "drifting textures are made as floats"),
        (data.normalization == Normalization::PerClip, "`data.normalization: per_clip` needs the values themselves"),
        (data_aug.reprob > 0.0, "`data_aug.reprob` erases with values that are not pixels"),
        (finetune.is_some(), "fine-tuning mixes clips before the step"),
    ];
    match reasons.into_iter().find(|(holds, _)| data.clip_bytes && *holds) {
        Some((_, why)) => Err(ConfigError::unsupported("data.clip_bytes", format!("{why}; write false"))),
        None => Ok(()),
    }
}

pub(super) fn images(config: &Config) -> Checked {
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
pub(super) fn lengths(data: &DataConfig) -> Checked {
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

pub(super) fn data(data: &DataConfig) -> Checked {
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

pub(super) fn augment(aug: &AugmentConfig, source: DatasetType) -> Checked {
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
