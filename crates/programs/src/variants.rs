//! Steps of several kinds of samples: one gradient graph for each, over the same parameters.
//!
//! A *variant* is what one of a step's computations is compiled for: images, or clips of one length as one length bucket of
//! their group. Which clips a group has differs from step to step, and with it which variants run; the gradients of all are
//! added up in the same sums, and one update applies them.

use crate::sizes::{MaskSizes, in_buckets, mask_sizes};
use crate::{encoder_config, model_configs};
use vjepa_compiler::ir::Sizes;
use vjepa_graphs::objectives::open;
use vjepa_graphs::{AnyObjective, Models, PredictorConfig};
use vjepa_recipe::config::{Config, ConfigError, SampleKind};
use vjepa_recipe::masks::{MaskError, MaskGenerator};

/// One kind of computation within a step.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Whether it is of images.
    pub images: bool,
    /// Frames of its clips.
    pub frames: usize,
    /// Which length bucket of its group they are.
    pub bucket: usize,
    /// Most samples of it that a group has.
    pub batch: usize,
    /// What it minimises.
    pub objective: AnyObjective,
}

impl Variant {
    /// For people: `images`, `clips of 16 frames`, `clips of 64 frames as length bucket 1`.
    pub fn name(&self) -> String {
        match (self.images, self.bucket) {
            (true, _) => "images".to_owned(),
            (false, 0) => format!("clips of {} frames", self.frames),
            (false, bucket) => format!("clips of {} frames as length bucket {bucket}", self.frames),
        }
    }

    /// Sizes of its graph with all samples of a group.
    ///
    /// # Errors
    /// [`MaskError`] for masks that leave no context.
    pub fn sizes(&self, config: &Config, which: MaskSizes) -> Result<Sizes, MaskError> {
        let masks = self.masks(config)?;
        let sizes = mask_sizes(masks.as_ref(), config.meta.seed, self.batch, which)?;
        let mut sizes = in_buckets(sizes, config.optimization.mask_buckets);
        if !self.images {
            sizes.insert("B".to_owned(), self.batch * config.data.num_clips);
        }
        Ok(sizes)
    }

    /// What draws its masks.
    ///
    /// # Errors
    /// [`MaskError`] for masks that leave no context.
    pub fn masks(&self, config: &Config) -> Result<Box<dyn MaskGenerator>, MaskError> {
        match config.image_masks()? {
            Some(masks) if self.images => Ok(masks),
            _ => config.mask.build(config.data.geometry_of(self.frames)),
        }
    }
}

/// Every variant that steps of a configuration may have: of images first, then of clips by their length, in the order of the
/// length buckets, each as every bucket that it can be.
///
/// # Errors
/// [`ConfigError`] for sizes that do not fit together, or groups that cannot be shared out.
pub fn variants(config: &Config) -> Result<Vec<Variant>, ConfigError> {
    let models = model_configs(config)?;
    let mut variants = Vec::new();
    for SampleKind { images, batch, lengths, side, .. } in config.kinds()? {
        for (number, frames) in lengths.into_iter().enumerate() {
            for bucket in 0..=number {
                let objective = open(&config.loss, &sized(config, &models, (images, bucket), [frames, side, side])?);
                variants.push(Variant { images, frames, bucket, batch, objective });
            }
        }
    }
    Ok(variants)
}

/// The models for samples of another size: frames, height and width. Their parameters have the same shapes.
fn sized(
    config: &Config,
    models: &Models,
    (images, bucket): (bool, usize),
    [frames, height, width]: [usize; 3],
) -> Result<Models, ConfigError> {
    let encoder = encoder_config(config)?.with_clip(frames, height, width);
    let [time, ..] = models.predictor.grid;
    let [_, rows, columns] = encoder.grid();
    // Positions are those of the largest clip, with the rows and columns of these.
    let predictor = PredictorConfig { grid: [time, rows, columns], ..models.predictor.clone() };
    let generators = match &config.img_mask {
        Some(mask) if images => mask.len(),
        _ => models.generators,
    };
    let (context_weight, normalization) = (config.context_weight(images), config.data.normalization);
    Ok(Models { encoder, predictor, generators, context_weight, normalization, bucket })
}
