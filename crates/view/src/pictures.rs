//! The pictures a person wants to see: masks over a clip, features as colours, nearest neighbours, training curves.

use super::canvas::{Canvas, Rgb, ink};
use super::chart::{Chart, Panel, Series};
use vjepa_eval::linalg::{mean_row, principal_axes};
use vjepa_recipe::config::Normalization;
use vjepa_train::DiagnosticsReport;

/// A clip as it was fed to an encoder, to be shown again.
#[derive(Clone, Copy, Debug)]
pub struct ShownClip<'a> {
    /// `[C, T, H, W]`, normalised.
    pub values: &'a [f32],
    /// Its shape; the first is 3.
    pub shape: [usize; 4],
    /// How it was normalised.
    pub normalization: Normalization,
}

/// RGB bytes of one frame.
#[derive(Clone, Debug, PartialEq)]
struct Picture {
    width: usize,
    rgb: Vec<u8>,
}

impl ShownClip<'_> {
    /// One frame with its normalisation undone; what was standardised is shown at a fixed contrast around grey.
    fn frame(&self, t: usize) -> Picture {
        let [_, frames, height, width] = self.shape;
        let plane = height * width;
        let (mean, std) = self.normalization.statistics().unwrap_or(([0.5; 3], [0.22; 3]));
        let value = |c: usize, pixel: usize| {
            let x = self.values.get((c * frames + t) * plane + pixel).copied().unwrap_or(0.0);
            ((x * std[c] + mean[c]) * 255.0).round().clamp(0.0, 255.0) as u8
        };
        let rgb = (0..plane).flat_map(|pixel| [0, 1, 2].map(|c| value(c, pixel))).collect();
        Picture { width, rgb }
    }

    /// The frame in the middle of each of `count` equal parts of the clip.
    fn spread(&self, count: usize) -> Vec<Picture> {
        let frames = self.shape[1];
        (0..count.min(frames)).map(|i| self.frame((2 * i + 1) * frames / (2 * count.min(frames)))).collect()
    }
}

impl Picture {
    /// Every block of `by` by `by` pixels becomes its mean.
    fn shrunk(&self, by: usize) -> Self {
        let (by, height) = (by.max(1), self.rgb.len() / (self.width * 3).max(1));
        let (width, rows) = (self.width / by, height / by);
        let mean = |x: usize, y: usize, c: usize| {
            let block = (0..by * by).map(|i| ((y * by + i / by) * self.width + x * by + i % by) * 3 + c);
            let sum: usize = block.map(|at| self.rgb.get(at).copied().map_or(0, usize::from)).sum();
            (sum / (by * by)) as u8
        };
        let cells = (0..rows).flat_map(|y| (0..width).map(move |x| (x, y)));
        Self { width, rgb: cells.flat_map(|(x, y)| [0, 1, 2].map(|c| mean(x, y, c))).collect() }
    }

    /// Shrunk or to be enlarged by a whole factor, to a side of about `side` pixels.
    fn fitted(&self, side: usize) -> (Self, usize) {
        match side / self.width.max(1) {
            0 => (self.shrunk(self.width.div_ceil(side.max(1))), 1),
            scale => (self.clone(), scale),
        }
    }
}

/// Which tokens a mask generator shows and asks for in one clip.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownMask<'a> {
    /// Name of the generator.
    pub name: &'a str,
    /// Tokens the encoder sees.
    pub context: &'a [i32],
    /// Tokens the predictor predicts.
    pub target: &'a [i32],
}

/// Pixels of a frame in the pictures of masks and features, about.
const FRAME: usize = 152;
/// Space between frames.
const GAP: usize = 8;
/// Space for the names of rows.
const NAMES: usize = 216;
/// Space around everything, and above the first row.
const EDGE: usize = 24;
const HEAD: usize = 64;

/// A sheet of rows of frames.
struct Sheet {
    canvas: Canvas,
    frame: (usize, usize),
}

impl Sheet {
    fn new(title: &str, rows: usize, columns: usize, frame: (usize, usize)) -> Self {
        let width = EDGE * 2 + NAMES + columns * (frame.0 + GAP);
        let width = width.max(EDGE * 2 + Canvas::text_width(title, 3));
        let mut canvas = Canvas::new(width, HEAD + rows * (frame.1 + GAP) + EDGE);
        canvas.text(EDGE, 22, title, 3, ink::DARK);
        Self { canvas, frame }
    }

    fn at(&self, row: usize, column: usize) -> (usize, usize) {
        (EDGE + NAMES + column * (self.frame.0 + GAP), HEAD + row * (self.frame.1 + GAP))
    }

    /// Names a row: one line in colour, the others muted.
    fn name(&mut self, row: usize, name: &str, notes: &[&str], colour: Rgb) {
        let y = self.at(row, 0).1 + self.frame.1 / 2;
        let top = y.saturating_sub(11 * (1 + notes.len()));
        self.canvas.text(EDGE, top, name, 2, colour);
        for (line, note) in notes.iter().enumerate() {
            self.canvas.text(EDGE, top + 22 * (line + 1), note, 2, ink::MUTED);
        }
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
        .chain(
            generators
                .iter()
                .flat_map(|g| [(g.name, "context", g.context, ink::BLUE), (g.name, "targets", g.target, ink::ORANGE)]),
        )
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

/// A clip in a picture of neighbours.
#[derive(Clone, Debug)]
pub struct Neighbour<'a> {
    /// The clip.
    pub clip: ShownClip<'a>,
    /// What stands below it: its file, and how near it is.
    pub caption: String,
}

/// Clips with their nearest neighbours: one row a query, which comes first.
pub fn neighbours(rows: &[Vec<Neighbour<'_>>]) -> Canvas {
    const SIDE: usize = 96;
    const FRAMES: usize = 3;
    const LETTERS: usize = FRAMES * SIDE / 6 - 1;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (cell, height) = (FRAMES * SIDE + 28, SIDE + 40);
    let title = "Nearest neighbours by mean features";
    let width = (EDGE * 2 + columns * cell).max(EDGE * 2 + Canvas::text_width(title, 3));
    let mut canvas = Canvas::new(width, HEAD + 24 + rows.len() * height + EDGE);
    canvas.text(EDGE, 22, title, 3, ink::DARK);
    for column in 0..columns {
        let name = if column == 0 { "query".to_owned() } else { format!("neighbour {column}") };
        canvas.text(EDGE + column * cell, HEAD, &name, 2, if column == 0 { ink::BLUE } else { ink::MUTED });
    }
    for (row, clips) in rows.iter().enumerate() {
        for (column, neighbour) in clips.iter().enumerate() {
            let (x, y) = (EDGE + column * cell, HEAD + 24 + row * height);
            for (place, frame) in neighbour.clip.spread(FRAMES).iter().enumerate() {
                let (picture, scale) = frame.fitted(SIDE);
                canvas.image(x + place * (SIDE + 2), y, &picture.rgb, picture.width, scale);
            }
            if column == 0 {
                canvas.fill(x.saturating_sub(10), y, 4, SIDE, ink::BLUE);
            }
            // The end of a long name says more than its beginning.
            let skip = neighbour.caption.chars().count().saturating_sub(LETTERS);
            let caption: String = neighbour.caption.chars().skip(skip).collect();
            canvas.text(x, y + SIDE + 8, &caption, 1, ink::MUTED);
        }
    }
    canvas
}

/// The loss beside its diagnostics: `losses` and `diagnostics` by step.
pub fn training(losses: &[(u64, f64)], diagnostics: &[(u64, DiagnosticsReport)]) -> Canvas {
    let of = |value: fn(&DiagnosticsReport) -> f64| {
        diagnostics.iter().map(|(step, report)| (*step as f64, value(report))).collect::<Vec<_>>()
    };
    let own = losses.iter().map(|(step, loss)| (*step as f64, *loss)).collect();
    let series = |name: &str, points| Series { name: name.into(), points };
    let mut loss = vec![series("training", own)];
    if !diagnostics.is_empty() {
        loss.push(series("held out", of(|r| r.loss)));
    }
    let mut panels = vec![
        Panel { title: "Loss".into(), note: "misleads alone: targets move".into(), series: loss },
        Panel::single(
            "Context gap, %",
            "extra loss with another clip's context; must grow",
            of(|r| 100.0 * r.context_gap),
        ),
        Panel::single("Effective rank", "of mean features; below 2 is collapse", of(|r| r.effective_rank)),
        Panel {
            title: "Deviation of targets".into(),
            note: "per dimension over tokens; 0 is collapse".into(),
            series: vec![series("mean", of(|r| r.deviation_mean)), series("least", of(|r| r.deviation_min))],
        },
    ];
    if diagnostics.iter().any(|(_, report)| report.knn.is_some()) {
        panels.push(Panel::single(
            "kNN accuracy",
            "of held-out clips, leave one out",
            of(|r| r.knn.unwrap_or(f64::NAN)),
        ));
    }
    Chart { title: "Loss and diagnostics".into(), x_label: "step".into(), panels }.draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_data::{ClipSource, DriftingTextures, SampleKey};

    fn texture(position: u64) -> Vec<f32> {
        let source = DriftingTextures::new(8, 48, Normalization::PerClip);
        let mut clip = vec![0f32; source.shape().iter().product()];
        source.sample(SampleKey { seed: 9, epoch: 0, position, retry: 0 }, &mut clip).unwrap();
        clip
    }

    fn shown(values: &[f32]) -> ShownClip<'_> {
        ShownClip { values, shape: [3, 8, 48, 48], normalization: Normalization::PerClip }
    }

    #[test]
    fn normalisation_is_undone() {
        let clip = ShownClip { values: &[0.0; 12], shape: [3, 1, 2, 2], normalization: Normalization::Imagenet };
        assert_eq!(clip.frame(0).rgb[..3], [124, 116, 104]);
        assert_eq!(clip.frame(7).rgb.len(), 12);
    }

    #[test]
    fn pictures_shrink_to_means() {
        let picture = Picture { width: 4, rgb: (0..48).collect() };
        let (small, scale) = picture.fitted(2);
        assert_eq!((small.width, scale, small.rgb.len()), (2, 1, 12));
        assert_eq!(small.rgb[0], (3 + 12 + 15) / 4);
        assert_eq!(picture.fitted(12).1, 3);
    }

    #[test]
    fn hidden_tokens_are_dark_and_targets_are_framed() {
        let clip = texture(0);
        let context: Vec<i32> = (0..72).collect();
        let target: Vec<i32> = (72..144).collect();
        let mask = ShownMask { name: "generator 1", context: &context, target: &target };
        let canvas = masks(shown(&clip), 2, 8, &[mask, ShownMask { name: "odd", context: &[-1, 999], target: &[] }]);
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

    #[test]
    fn features_become_colours_and_neighbours_rows() {
        let clips = [texture(0), texture(1)];
        let tokens: Vec<f32> = (0..2 * 144 * 8).map(|i| ((i * i) as f32 * 0.01).sin()).collect();
        let encoder = ShownFeatures { name: "pretrained", tokens: &tokens, dim: 8 };
        let canvas = features(&[shown(&clips[0]), shown(&clips[1])], 2, 8, &[encoder]);
        assert!(canvas.width() > 700 && canvas.height() > 600);
        assert_eq!(components(&[1.0; 16], 2).len(), 8);
        assert_eq!(components(&[], 0).len(), 0);
        let of = |clip, caption: &str| Neighbour { clip, caption: caption.into() };
        let rows = vec![vec![of(shown(&clips[0]), &"long/".repeat(40)), of(shown(&clips[1]), "0.93")]];
        assert!(neighbours(&rows).width() > 600);
        assert!(neighbours(&[]).width() > 100);
        assert!(training(&[], &[]).height() > 400);
    }
}
