//! Mixup and cutmix of a batch, in batch mode, and the targets that go with it (timm's `Mixup` as VideoMAE uses it).
//!
//! The partner of a sample is the one at its place in the reversed batch. Cutmix pastes the same box into every frame.
//! timm's class itself must not be used on clips: on 5 dimensions its box cuts time and height.

use super::AugmentError;
use super::draws::Draws;
use crate::transforms::CropBox;

/// Settings of mixup, cutmix and label smoothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixing {
    /// alpha of mixup; 0 switches it off.
    pub mixup: f64,
    /// alpha of cutmix; 0 switches it off.
    pub cutmix: f64,
    /// Share of the batches that are mixed.
    pub probability: f64,
    /// Share of cutmix where both are on.
    pub switch: f64,
    /// Label smoothing.
    pub smoothing: f64,
}

impl Default for Mixing {
    /// Fine-tuning's values.
    fn default() -> Self {
        Self { mixup: 0.8, cutmix: 1.0, probability: 1.0, switch: 0.5, smoothing: 0.1 }
    }
}

/// How one batch is mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// Share of a sample's own label, after the correction for the box.
    pub lambda: f64,
    /// The box that comes from the partner; none for mixup.
    pub pasted: Option<CropBox>,
}

impl Mixing {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] naming the one that is out of range.
    pub fn check(&self) -> Result<(), AugmentError> {
        let alpha = |name: &str, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => Err(AugmentError::Setting(format!("`{name}` must be 0 or more, got {value}"))),
        };
        let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(AugmentError::Setting(format!("`{name}` must be between 0 and 1, got {value}"))),
        };
        alpha("mixup", self.mixup)?;
        alpha("cutmix", self.cutmix)?;
        share("mixup_prob", self.probability)?;
        share("mixup_switch_prob", self.switch)?;
        share("smoothing", self.smoothing)
    }

    /// Draws how a batch of `height` by `width` pixels is mixed.
    pub fn draw(&self, height: usize, width: usize, draws: &mut impl Draws) -> Mix {
        let whole = Mix { lambda: 1.0, pasted: None };
        if (self.mixup <= 0.0 && self.cutmix <= 0.0) || draws.mix_unit() >= self.probability {
            return whole;
        }
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => draws.mix_unit() < self.switch,
            (_, cut) => cut,
        };
        let lambda = draws.beta(if cut { self.cutmix } else { self.mixup });
        if cut { Self::cut(lambda, height, width, draws) } else { Mix { lambda, pasted: None } }
    }

    /// A box of about 1 - lambda of the frame around a random centre, clipped to the frame.
    fn cut(lambda: f64, height: usize, width: usize, draws: &mut impl Draws) -> Mix {
        let share = (1.0 - lambda).sqrt();
        let mut side = |len: usize| {
            let half = (len as f64 * share) as usize / 2;
            let centre = draws.mix_below(len);
            let start = centre.saturating_sub(half);
            (start, (centre + half).min(len) - start)
        };
        let ((top, box_height), (left, box_width)) = (side(height), side(width));
        let lambda = 1.0 - (box_height * box_width) as f64 / (height * width) as f64;
        Mix { lambda, pasted: Some(CropBox { top, left, height: box_height, width: box_width }) }
    }

    /// Soft targets `[B, classes]` of a mixed batch.
    ///
    /// # Errors
    /// [`AugmentError::Batch`] for a label outside `0..classes`.
    pub fn targets(&self, labels: &[i64], classes: usize, mix: Mix) -> Result<Vec<f32>, AugmentError> {
        let off = self.smoothing / classes as f64;
        let on = (1.0 - self.smoothing + off) as f32;
        let off = off as f32;
        let mut smooth = vec![off; labels.len() * classes];
        for (row, label) in smooth.chunks_exact_mut(classes.max(1)).zip(labels) {
            match usize::try_from(*label).ok().and_then(|label| row.get_mut(label)) {
                Some(value) => *value = on,
                None => {
                    let why = format!("label {label} is not in 0..{classes}: labels count from 0");
                    return Err(AugmentError::Batch(why));
                }
            }
        }
        let (own, other) = (mix.lambda as f32, (1.0 - mix.lambda) as f32);
        let mut mixed = smooth.clone();
        let rows = smooth.chunks_exact(classes.max(1)).rev();
        for (row, partner) in mixed.chunks_exact_mut(classes.max(1)).zip(rows) {
            row.iter_mut().zip(partner).for_each(|(value, partner)| *value = *value * own + partner * other);
        }
        Ok(mixed)
    }
}

impl Mix {
    /// Mixes a batch `[B, ..., H, W]` of `size` samples in place; the box is cut from every plane.
    ///
    /// # Errors
    /// [`AugmentError::Batch`] for an odd number of samples or another number of values.
    pub fn apply(&self, batch: &mut [f32], size: usize, (height, width): (usize, usize)) -> Result<(), AugmentError> {
        if size == 0 || !size.is_multiple_of(2) {
            let why = format!("mixup and cutmix need an even number of samples in a batch, got {size}");
            return Err(AugmentError::Batch(why));
        }
        let plane = height * width;
        if plane == 0 || !batch.len().is_multiple_of(size * plane) {
            let why = format!("a batch of {size} samples of {width}x{height} cannot hold {} values", batch.len());
            return Err(AugmentError::Batch(why));
        }
        if self.pasted.is_some_and(|area| !area.fits(height, width) && area.height * area.width > 0) {
            return Err(AugmentError::Batch("the box reaches outside the frame".into()));
        }
        let (front, back) = batch.split_at_mut(batch.len() / 2);
        let sample = front.len() * 2 / size;
        let (own, other) = (self.lambda as f32, (1.0 - self.lambda) as f32);
        for (first, last) in front.chunks_exact_mut(sample).zip(back.chunks_exact_mut(sample).rev()) {
            match self.pasted {
                None => first.iter_mut().zip(last).for_each(|(a, b)| {
                    (*a, *b) = (*a * own + *b * other, *b * own + *a * other);
                }),
                Some(area) => {
                    for (a, b) in first.chunks_exact_mut(plane).zip(last.chunks_exact_mut(plane)) {
                        for row in area.top..area.top + area.height {
                            let start = row * width + area.left;
                            a[start..][..area.width].swap_with_slice(&mut b[start..][..area.width]);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The mean over samples of -sum(target * log softmax(logits)), both `[B, classes]`.
///
/// # Errors
/// [`AugmentError::Batch`] for shapes that differ or are empty.
pub fn soft_cross_entropy(logits: &[f32], targets: &[f32], classes: usize) -> Result<f64, AugmentError> {
    if classes == 0 || logits.is_empty() || logits.len() != targets.len() || !logits.len().is_multiple_of(classes) {
        let why = format!("{} logits and {} targets do not fit {classes} classes", logits.len(), targets.len());
        return Err(AugmentError::Batch(why));
    }
    let loss = |(logits, targets): (&[f32], &[f32])| {
        let most = logits.iter().fold(f64::NEG_INFINITY, |most, &x| most.max(f64::from(x)));
        let log_sum = logits.iter().map(|&x| (f64::from(x) - most).exp()).sum::<f64>().ln() + most;
        logits.iter().zip(targets).map(|(&x, &t)| f64::from(t) * (log_sum - f64::from(x))).sum::<f64>()
    };
    let sum: f64 = logits.chunks_exact(classes).zip(targets.chunks_exact(classes)).map(loss).sum();
    Ok(sum / (logits.len() / classes) as f64)
}
