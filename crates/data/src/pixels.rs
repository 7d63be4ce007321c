//! Pixels as targets, for the ablation of features against pixels: the two definitions in the field, and their loss.
//!
//! Tokens lie in t, h, w order; the values of one in dt, dy, dx, c order, the colour fastest. Sources: MCG-NJU/VideoMAE
//! `engine_for_pretraining.py` and facebookresearch/mae `models_mae.py`.

use crate::transforms::TransformError;

/// Added to a deviation (VideoMAE) or a variance (MAE).
const EPS: f64 = 1e-6;

/// How a token's pixels are normalised; both by unbiased deviations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelTarget {
    /// Each colour of a token by its own mean and deviation. Takes pixels in 0 to 1.
    Videomae,
    /// All values of a token by one mean and variance. Takes the clip as the encoder sees it.
    Mae,
}

/// Sizes of a clip `[3, T, H, W]` and its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenGrid {
    /// T, H, W.
    pub clip: [usize; 3],
    /// Frames per token.
    pub tubelet: usize,
    /// Height and width of a token in pixels.
    pub patch: usize,
}

impl TokenGrid {
    /// Tokens of a clip.
    pub fn tokens(&self) -> usize {
        self.steps().iter().product()
    }

    /// Values of a token.
    pub fn width(&self) -> usize {
        3 * self.tubelet * self.patch * self.patch
    }

    fn steps(&self) -> [usize; 3] {
        let [frames, height, width] = self.clip;
        let (tubelet, patch) = (self.tubelet.max(1), self.patch.max(1));
        [frames / tubelet, height / patch, width / patch]
    }

    fn check(&self, len: usize) -> Result<(), TransformError> {
        let [frames, height, width] = self.clip;
        let empty = self.tokens() * self.width() == 0;
        let uneven = !empty && self.tokens() * self.width() != 3 * frames * height * width;
        match empty || uneven {
            true => Err(TransformError::Empty { frames, height, width }),
            false if len != 3 * frames * height * width => {
                Err(TransformError::OutputSize { got: len, want: 3 * frames * height * width })
            }
            false => Ok(()),
        }
    }
}

/// Targets `[tokens, width]` of a clip `[3, T, H, W]`.
///
/// # Errors
/// [`TransformError`]: a clip of another size, or one that tokens do not divide.
pub fn pixel_targets(clip: &[f32], grid: TokenGrid, target: PixelTarget) -> Result<Vec<f32>, TransformError> {
    grid.check(clip.len())?;
    let mut out = Vec::with_capacity(clip.len());
    for token in 0..grid.tokens() {
        let mut values = token_values(clip, grid, token);
        match target {
            PixelTarget::Videomae => {
                (0..3).for_each(|c| normalise(&mut values, c, 3, |variance| variance.sqrt() + EPS))
            }
            PixelTarget::Mae => normalise(&mut values, 0, 1, |variance| (variance + EPS).sqrt()),
        }
        out.extend(values.into_iter().map(|value| value as f32));
    }
    Ok(out)
}

/// The pixels of one token.
fn token_values(clip: &[f32], grid: TokenGrid, token: usize) -> Vec<f64> {
    let [_, rows, columns] = grid.steps();
    let [frames, height, width] = grid.clip;
    let (t, y, x) = (token / (rows * columns), token / columns % rows, token % columns);
    let mut values = Vec::with_capacity(grid.width());
    for (dt, dy) in (0..grid.tubelet).flat_map(|dt| (0..grid.patch).map(move |dy| (dt, dy))) {
        let line = ((t * grid.tubelet + dt) * height + y * grid.patch + dy) * width + x * grid.patch;
        for dx in 0..grid.patch {
            values.extend((0..3).map(|c| f64::from(clip[c * frames * height * width + line + dx])));
        }
    }
    values
}

/// Subtracts the mean of every `step`-th value from `first` on and divides by what `scale` makes of their variance.
fn normalise(values: &mut [f64], first: usize, step: usize, scale: impl Fn(f64) -> f64) {
    let own = || (first..values.len()).step_by(step);
    let count = own().count() as f64;
    let mean = own().map(|i| values[i]).sum::<f64>() / count;
    let variance = own().map(|i| (values[i] - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let scale = scale(variance);
    values.iter_mut().skip(first).step_by(step).for_each(|value| *value = (*value - mean) / scale);
}

/// Mean of the squared differences between predictions `[masked, width]` and the targets `[tokens, width]` of these tokens.
///
/// # Errors
/// [`TransformError::OutputSize`] for predictions of another size or masked tokens that do not exist.
pub fn masked_squared_error(
    predictions: &[f32],
    targets: &[f32],
    width: usize,
    masked: &[usize],
) -> Result<f64, TransformError> {
    let want = masked.len() * width;
    if want == 0 || predictions.len() != want {
        return Err(TransformError::OutputSize { got: predictions.len(), want });
    }
    let mut sum = 0.0;
    for (prediction, token) in predictions.chunks_exact(width).zip(masked) {
        let size = TransformError::OutputSize { got: targets.len(), want: (token + 1) * width };
        let target = targets.get(token * width..(token + 1) * width).ok_or(size)?;
        sum += prediction.iter().zip(target).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    Ok(sum / want as f64)
}

#[cfg(test)]
mod tests;
