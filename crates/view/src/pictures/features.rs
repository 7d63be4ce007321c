//! Features as colours.

use std::time::Duration;

use super::{FRAME, Sheet, ShownClip};
use crate::Animation;
use crate::canvas::{Canvas, Rgb, ink};
use vjepa_linalg::{mean_row, principal_axes};

/// One encoder's tokens of some clips.
#[derive(Clone, Debug)]
pub struct ShownFeatures<'a> {
    /// Name of the encoder.
    pub name: &'a str,
    /// `[clips, tokens, dim]`: the shown clips first, then others that the components are found with, too. With 16 clips or
    /// more, what all clips have in common at a position is taken away before: else positions are all one sees.
    pub tokens: &'a [f32],
    /// Width of a token.
    pub dim: usize,
}

/// Clips above their features: the first three principal components of each encoder's tokens, over all clips together, as
/// red, green and blue, so that equal colours are similar features. One column a time step.
pub fn features(clips: &[ShownClip<'_>], tubelet: usize, patch: usize, encoders: &[ShownFeatures<'_>]) -> Canvas {
    let shape = clips.first().map_or([3, 1, 1, 1], |clip| clip.shape);
    let [_, frames, height, width] = shape;
    let (tubelet, patch) = (tubelet.max(1), patch.max(1));
    let (steps, columns) = ((frames / tubelet).max(1), width / patch);
    let cells = columns * (height / patch);
    let scale = (FRAME / width.max(1)).max(1);
    let rows = clips.len() * (1 + encoders.len());
    let title = "Features as colours: three principal components";
    let mut sheet = Sheet::new(title, rows, steps, (width * scale, height * scale));
    let colours: Vec<Vec<Rgb>> = encoders
        .iter()
        .map(|encoder| components(&without_positions(encoder.tokens, steps * cells * encoder.dim), encoder.dim))
        .collect();
    for (number, clip) in clips.iter().enumerate() {
        let row = number * (1 + encoders.len());
        sheet.name(row, &format!("clip {}", number + 1), &[], ink::DARK);
        for step in 0..steps {
            let (x, y) = sheet.at(row, step);
            let picture = clip.frame((step * tubelet).min(frames.saturating_sub(1)));
            sheet.canvas.image(x, y, &picture.rgb, picture.width, scale);
        }
        for (place, (encoder, colours)) in encoders.iter().zip(&colours).enumerate() {
            sheet.name(row + 1 + place, encoder.name, &[], ink::MUTED);
            for token in 0..steps * cells {
                let (x, y) = sheet.at(row + 1 + place, token / cells.max(1));
                let (cell, side) = (token % cells.max(1), patch * scale);
                let colour = colours.get(number * steps * cells + token).copied().unwrap_or(ink::FAINT);
                let corner = (x + cell % columns.max(1) * side, y + cell / columns.max(1) * side);
                sheet.canvas.fill(corner.0, corner.1, side, side, colour);
            }
        }
    }
    sheet.canvas
}

/// The first clip beside its features in colours, as [`features`] has them, frame by frame; `each` is the time of a frame.
/// Features of a time step stay for all its frames.
pub fn animated_features(
    clip: ShownClip<'_>,
    tubelet: usize,
    patch: usize,
    encoder: &ShownFeatures<'_>,
    each: Duration,
) -> Animation {
    /// Pixels of a side of the clip, about.
    const SIDE: usize = 288;
    let [_, frames, height, width] = clip.shape;
    let (tubelet, patch) = (tubelet.max(1), patch.max(1));
    let (columns, lines) = ((width / patch).max(1), (height / patch).max(1));
    let (steps, cells, scale) = ((frames / tubelet).max(1), columns * lines, (SIDE / width.max(1)).max(1));
    let colours = components(&without_positions(encoder.tokens, steps * cells * encoder.dim), encoder.dim);
    let draw = |t: usize| {
        let mut canvas = Canvas::new(2 * width * scale + 8, height * scale);
        let picture = clip.frame(t);
        canvas.image(0, 0, &picture.rgb, picture.width, scale);
        let (left, side) = (width * scale + 8, patch * scale);
        for cell in 0..cells {
            let token = (t / tubelet).min(steps - 1) * cells + cell;
            let colour = colours.get(token).copied().unwrap_or(ink::FAINT);
            canvas.fill(left + cell % columns * side, cell / columns * side, side, side, colour);
        }
        canvas
    };
    Animation { pictures: (0..frames).map(draw).collect(), each }
}

/// Fewer clips than this do not tell what positions have in common.
const CLIPS_FOR_POSITIONS: usize = 16;

/// Clips of `row` values each without the mean clip, where there are enough of them.
fn without_positions(tokens: &[f32], row: usize) -> Vec<f32> {
    let mut tokens = tokens.to_vec();
    if tokens.len() / row.max(1) >= CLIPS_FOR_POSITIONS {
        let mean = mean_row(&tokens, row);
        for clip in tokens.chunks_exact_mut(row.max(1)) {
            clip.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= *mean as f32);
        }
    }
    tokens
}

/// Three principal components of tokens as bytes, each stretched from its 2nd to its 98th percentile.
fn components(tokens: &[f32], dim: usize) -> Vec<Rgb> {
    let (axes, mean) = principal_axes(tokens, dim, 3);
    let rows = tokens.chunks_exact(dim.max(1));
    let along = |axis: &[f64]| -> Vec<f64> {
        let dot = |row: &[f32]| row.iter().zip(&mean).zip(axis).map(|((x, m), a)| (f64::from(*x) - m) * a).sum();
        rows.clone().map(dot).collect()
    };
    let bytes = |values: Vec<f64>| -> Vec<u8> {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted.get((share * sorted.len().saturating_sub(1) as f64) as usize).copied();
        let (low, high) = (at(0.02).unwrap_or(0.0), at(0.98).unwrap_or(1.0));
        let stretch = |value: f64| 20.0 + 220.0 * ((value - low) / (high - low).max(1e-12)).clamp(0.0, 1.0);
        values.into_iter().map(|value| stretch(value) as u8).collect()
    };
    let mut channels: Vec<Vec<u8>> = axes.chunks_exact(dim.max(1)).map(|axis| bytes(along(axis))).collect();
    channels.resize(3, vec![128; rows.len()]);
    let channel = |c: usize, i: usize| channels.get(c).and_then(|values| values.get(i)).copied().unwrap_or(128);
    (0..rows.len()).map(|i| [0, 1, 2].map(|c| channel(c, i))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shown, texture};
    use super::*;

    #[test]
    fn tokens_become_colours() {
        let clips = [texture(0), texture(1)];
        let tokens: Vec<f32> = (0..2 * 144 * 8).map(|i| ((i * i) as f32 * 0.01).sin()).collect();
        let encoder = ShownFeatures { name: "pretrained", tokens: &tokens, dim: 8 };
        let canvas = features(&[shown(&clips[0]), shown(&clips[1])], 2, 8, &[encoder]);
        assert!(canvas.width() > 700 && canvas.height() > 600);
        assert_eq!(components(&[1.0; 16], 2).len(), 8);
        let encoder = ShownFeatures { name: "", tokens: &tokens, dim: 8 };
        let moving = animated_features(shown(&clips[0]), 2, 8, &encoder, Duration::from_millis(100));
        let colour = |t: usize| moving.pictures[t].get(288 + 8 + 30, 30);
        assert_eq!((moving.pictures.len(), colour(0) == colour(1), colour(1) == colour(2)), (8, true, false));
        assert_eq!(components(&[], 0).len(), 0);
    }
}
