//! Masks over a clip.

use super::{FRAME, Sheet, ShownClip};
use crate::canvas::{Canvas, Rgb, ink};
use vjepa_recipe::masks::MaskPair;

/// Which tokens a mask generator shows and asks for in one clip.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownMask<'a> {
    /// Name of the generator.
    pub name: String,
    /// Tokens the encoder sees.
    pub context: &'a [i32],
    /// Tokens the predictor predicts.
    pub target: &'a [i32],
}

impl<'a> ShownMask<'a> {
    /// The masks of a clip, one of each generator, by number.
    pub fn of(pairs: &'a [MaskPair]) -> Vec<Self> {
        let shown = |(number, pair): (usize, &'a MaskPair)| Self {
            name: format!("generator {number}"),
            context: &pair.context.indices,
            target: &pair.target.indices,
        };
        pairs.iter().enumerate().map(shown).collect()
    }
}

/// A clip with what each mask generator hides: one column a time step; per generator a row of what the encoder sees and a
/// row of what the predictor has to predict. Tokens that are hidden are dark and hatched.
pub fn masks(clip: ShownClip<'_>, tubelet: usize, patch: usize, generators: &[ShownMask<'_>]) -> Canvas {
    let [_, frames, height, width] = clip.shape;
    let steps = (frames / tubelet.max(1)).max(1);
    let grid = [steps, height / patch.max(1), width / patch.max(1)];
    let tokens = grid.iter().product::<usize>();
    let scale = (FRAME / width.max(1)).max(1);
    let title = "What the encoder sees and what the predictor predicts";
    let mut sheet = Sheet::new(title, 1 + 2 * generators.len(), steps, (width * scale, height * scale));
    let rows: Vec<(&str, &str, &[i32], Rgb)> = std::iter::once(("clip", "", [].as_slice(), ink::DARK))
        .chain(generators.iter().flat_map(|g| {
            [(g.name.as_str(), "context", g.context, ink::BLUE), (g.name.as_str(), "targets", g.target, ink::ORANGE)]
        }))
        .collect();
    for (row, (name, kind, shown, colour)) in rows.iter().enumerate() {
        let count = match row {
            0 => format!("{tokens} tokens"),
            _ => format!("{} of {tokens} tokens", shown.len()),
        };
        if row == 0 {
            sheet.name(row, name, &[&format!("{frames} frames"), &count], *colour);
        } else {
            sheet.name(row, kind, &[name, &count], *colour);
        }
        let mut visible = vec![row == 0; tokens];
        for token in shown.iter() {
            if let Some(slot) = usize::try_from(*token).ok().and_then(|token| visible.get_mut(token)) {
                *slot = true;
            }
        }
        for step in 0..steps {
            let (x, y) = sheet.at(row, step);
            let picture = clip.frame((step * tubelet).min(frames.saturating_sub(1)));
            sheet.canvas.image(x, y, &picture.rgb, picture.width, scale);
            let side = patch * scale;
            for cell in 0..grid[1] * grid[2] {
                let (cx, cy) = (x + cell % grid[2] * side, y + cell / grid[2] * side);
                if row > 0 && visible.get(step * grid[1] * grid[2] + cell) == Some(&false) {
                    sheet.canvas.tint(cx, cy, side, side, ink::NIGHT, 0.86);
                    sheet.canvas.hatch(cx, cy, side, side, 8, [96, 104, 120], 0.5);
                } else if row > 0 {
                    sheet.canvas.frame(cx, cy, side, side, 1, *colour);
                }
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
    fn hidden_tokens_are_dark_and_targets_are_framed() {
        let clip = texture(0);
        let context: Vec<i32> = (0..72).collect();
        let target: Vec<i32> = (72..144).collect();
        let mask = ShownMask { name: "generator 1".into(), context: &context, target: &target };
        let canvas =
            masks(shown(&clip), 2, 8, &[mask, ShownMask { name: "odd".into(), context: &[-1, 999], target: &[] }]);
        let sheet = Sheet { canvas: canvas.clone(), frame: (144, 144) };
        let brightness = |row, column| {
            let (x, y) = sheet.at(row, column);
            let sum: usize = (0..144 * 144).map(|i| usize::from(canvas.get(x + i % 144, y + i / 144)[0])).sum();
            sum / (144 * 144)
        };
        assert!(brightness(1, 0) > 90 && brightness(1, 3) < 80, "{} {}", brightness(1, 0), brightness(1, 3));
        assert!(brightness(2, 0) < 80 && brightness(2, 3) > 80);
        let (x, y) = sheet.at(2, 3);
        assert_eq!(canvas.get(x, y), ink::ORANGE);
    }
}
