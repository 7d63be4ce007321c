//! The rules of what is minimised and how: `loss`, `optimization`, `meta`, `finetune`.

use super::super::error::ConfigError;
use super::super::{
    Config, DatasetType, Dtype, FinetuneConfig, LossConfig, MetaConfig, ObjectiveName, OptimizationConfig, TestSampling,
};
use super::{Checked, must, within};

/// Fine-tuning: shares within 0 and 1, a batch that can be mixed, and no key of pre-training that it would not honour.
pub(super) fn finetuning(config: &Config, finetune: &FinetuneConfig) -> Checked {
    let FinetuneConfig { drop_path, fc_drop_rate, mixup_prob, mixup_switch_prob, smoothing, .. } = *finetune;
    must(finetune.subset.is_none_or(|share| share > 0.0 && share <= 1.0), "finetune.subset", || {
        format!("is {}; it is a share, above 0 and at most 1", finetune.subset.unwrap_or_default())
    })?;
    must((1..=1000).contains(&finetune.subset_splits), "finetune.subset_splits", || {
        format!("is {}; it must lie between 1 and 1000", finetune.subset_splits)
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

pub(super) fn loss(loss: &LossConfig) -> Checked {
    must(loss.loss_exp > 0.0, "loss.loss_exp", || format!("is {}; it must be above 0", loss.loss_exp))?;
    must(loss.reg_coeff >= 0.0, "loss.reg_coeff", || format!("is {}; it must be 0 or more", loss.reg_coeff))?;
    must(loss.teacher.is_none() || loss.objective == ObjectiveName::Teacher, "loss.teacher", || {
        format!("is for `loss.objective: teacher`, which is {}; leave it out", loss.objective.name())
    })?;
    must(loss.reg_coeff == 0.0 || loss.objective != ObjectiveName::Pixels, "loss.reg_coeff", || {
        format!("is {}; pixels cannot collapse and have no regulariser: leave it out", loss.reg_coeff)
    })
}

pub(super) fn optimization(o: &OptimizationConfig) -> Checked {
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
pub(in super::super) fn beginning(meta: &MetaConfig) -> Checked {
    must(!meta.load_checkpoint || meta.read_checkpoint.is_some(), "meta.load_checkpoint", || {
        "is true without a file: name one with meta.read_checkpoint, or write false and continue the run with --resume"
            .into()
    })
}

pub(super) fn meta(meta: &MetaConfig) -> Checked {
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
