//! Where a probe's query looks.

use super::{FRAME, Sheet, ShownClip, heat};
use crate::canvas::{Canvas, ink};

/// How much of a token's colour lies over the picture.
const OVER: f32 = 0.62;
/// Rows of single heads.
const HEADS: usize = 6;

/// A clip above the attention that one query pays to its tokens, `weights` `[heads, tokens]`: the mean of the heads, then the
/// first few heads on their own. One column a time step; the colours of each row go from 0 to its largest weight, which is
/// written beside it as a multiple of what equal attention would be.
pub fn attention(clip: ShownClip<'_>, tubelet: usize, patch: usize, weights: &[f32]) -> Canvas {
    let [_, frames, height, width] = clip.shape;
    let (tubelet, patch) = (tubelet.max(1), patch.max(1));
    let (steps, columns, lines) = ((frames / tubelet).max(1), (width / patch).max(1), (height / patch).max(1));
    let tokens = steps * columns * lines;
    let heads: Vec<&[f32]> = weights.chunks_exact(tokens).collect();
    let mean: Vec<f32> = (0..tokens)
        .map(|token| heads.iter().filter_map(|head| head.get(token)).sum::<f32>() / heads.len().max(1) as f32)
        .collect();
    let mut rows: Vec<(String, &[f32])> = vec![("all heads".to_owned(), &mean)];
    if heads.len() > 1 {
        rows.extend(heads.iter().take(HEADS).enumerate().map(|(number, head)| (format!("head {number}"), *head)));
    }
    let scale = (FRAME / width.max(1)).max(1);
    let title = "Where the probe's query looks";
    let mut sheet = Sheet::new(title, 1 + rows.len(), steps, (width * scale, height * scale));
    sheet.name(0, "clip", &[&format!("{frames} frames"), &format!("{tokens} tokens")], ink::DARK);
    let largest = |row: &[f32]| row.iter().copied().fold(0.0f32, f32::max);
    for (row, (name, weights)) in rows.iter().enumerate() {
        let times = largest(weights) * tokens as f32;
        sheet.name(row + 1, name, &[&format!("at most {times:.1} times"), "the equal share"], ink::BLUE);
    }
    for step in 0..steps {
        let picture = clip.frame((step * tubelet).min(frames.saturating_sub(1)));
        for row in 0..=rows.len() {
            let (x, y) = sheet.at(row, step);
            sheet.canvas.image(x, y, &picture.rgb, picture.width, scale);
            let Some((_, weights)) = row.checked_sub(1).and_then(|row| rows.get(row)) else { continue };
            let side = patch * scale;
            for cell in 0..columns * lines {
                let weight = weights.get(step * columns * lines + cell).copied().unwrap_or(0.0);
                let colour = heat(weight / largest(weights).max(f32::MIN_POSITIVE));
                sheet.canvas.tint(x + cell % columns * side, y + cell / columns * side, side, side, colour, OVER);
            }
        }
    }
    sheet.canvas
}

#[cfg(test)]
mod tests {
    use super::super::tests::{shown, texture};
    use super::*;

    #[test]
    fn what_the_query_looks_at_is_bright() {
        let clip = texture(0);
        // 4 time steps of 6 by 6 tokens; two heads look at the first token, equally.
        let mut weights = vec![0.0; 2 * 144];
        (weights[0], weights[144]) = (1.0, 1.0);
        let canvas = attention(shown(&clip), 2, 8, &weights);
        let sheet = Sheet { canvas: canvas.clone(), frame: (144, 144) };
        let green = |row, column, token: usize| {
            let (x, y) = sheet.at(row, column);
            let sum: usize =
                (0..24 * 24).map(|i| usize::from(canvas.get(x + token * 24 + i % 24, y + i / 24)[1])).sum();
            sum / (24 * 24)
        };
        assert!(green(1, 0, 0) > green(1, 0, 1) + 60, "{} {}", green(1, 0, 0), green(1, 0, 1));
        assert!(green(3, 0, 0) > green(3, 3, 0) + 60);
        assert_ne!(heat(0.0), heat(1.0));
        assert!(attention(shown(&clip), 2, 8, &[]).height() > 200);
    }
}
