//! Drifting textures: an endless labelled stream on which V-JEPA measurably learns.
//!
//! A clip shows one of 8 textures drifting in one of 8 directions at one of 2 speeds. Everything else is drawn afresh for
//! each clip: wavelength, orientation, phases, centre, contrast, polarity, the exact speed and direction, and pixel noise.
//! It is grey, and each clip is standardised, since colour and brightness are shortcuts that a predictor falls for. With
//! a wavelength of about three patches, neighbouring patches predict each other, which learning needs.
//!
//! With time t' from the clip's middle, velocity v and centre c, `X = x - cx - vx t'`, `Y = y - cy - vy t'` and
//! `A = (cos φ X + sin φ Y) 2π/λ + p0`, `B = (-sin φ X + cos φ Y) 2π/λ + p1`, the textures s are those of [`TEXTURES`] and a
//! pixel is `clamp(.5 ± contrast · s + .1 · N(0, 1), 0, 1)`.
//!
//! Harder streams ([`Difficulty`]): textures that turn once, at any frame between .35 and .65 of the clip, rectangles that
//! move in front of them, more noise. What is drawn for those does not touch what is drawn for the rest.
//!
//! A clip is a function of (seed, index), the same to the bit on every machine.

use std::ops::Range;

use super::occluders::Occluder;
use super::source::{ClipSource, DataError, SampleInfo, SampleKey, check_out};
use super::texture_math::{asin, exp_small, normals, sin_cos, sin_cos_f64, tanh};
use vjepa_recipe::config::{DataConfig, Normalization};
use vjepa_recipe::counter::CounterRng;
use vjepa_runtime::preprocess::standardise;

/// The textures, by label.
pub const TEXTURES: [&str; 8] = [
    ".8 sin A + .4 sin(B/2)",
    "1.4 sin A sin B",
    "tanh(3((cos A + cos B)/2 - .35))",
    "tanh(4(max(cos A, cos B) - .75))",
    "sin(A + 1.6 asin(.98 sin .8B))",
    "(cos A + cos(-A/2 + .866B) + cos(-A/2 - .866B))/1.5",
    "sin(2A + sin B)",
    "sin A sign(sin(B/2))",
];

/// Drift directions, 45 degrees apart; label `m` is `45 m` degrees, x to the right and y down. Of textures that turn, `90 (m /
/// 2)` degrees before, and 90 degrees more (`m` even) or less (odd) after.
pub const DIRECTIONS: usize = 8;

/// What makes a stream harder than the plain one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difficulty {
    /// Whether textures turn by a right angle within the clip.
    pub turns: bool,
    /// Rectangles in front.
    pub occluders: u32,
    /// Deviation of the noise on pixels in 0 to 1.
    pub noise: f32,
}

impl Difficulty {
    /// The quickstart's.
    pub const PLAIN: Self = Self { turns: false, occluders: 0, noise: 0.1 };
}

/// The labels of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextureLabels {
    /// Index into [`TEXTURES`].
    pub texture: usize,
    /// 0 to 7, one of [`DIRECTIONS`]: the motion label.
    pub direction: usize,
    /// 0: about 2.5 pixels per frame; 1: twice that.
    pub speed: usize,
}

/// The stream of clips of one size.
#[derive(Debug, Clone)]
pub struct DriftingTextures {
    frames: usize,
    size: usize,
    normalization: Normalization,
    difficulty: Difficulty,
}

impl DriftingTextures {
    /// Clips of `frames` frames of `size` by `size` pixels; the recipe has 8 of 48, standardised per clip.
    pub fn new(frames: usize, size: usize, normalization: Normalization) -> Self {
        Self { frames, size, normalization, difficulty: Difficulty::PLAIN }
    }

    /// The stream of a configuration.
    pub fn of(data: &DataConfig) -> Self {
        let DataConfig { texture_turns: turns, texture_occluders: occluders, texture_noise, .. } = *data;
        let difficulty = Difficulty { turns, occluders, noise: texture_noise as f32 };
        Self { difficulty, ..Self::new(data.num_frames, data.crop_size, data.normalization) }
    }

    /// The same stream, harder.
    #[must_use]
    pub fn with(self, difficulty: Difficulty) -> Self {
        Self { difficulty, ..self }
    }

    /// The labels of a clip, without making it.
    pub fn labels(&self, seed: u64, index: u64) -> TextureLabels {
        Scene::draw_labels(&mut scene_rng(seed, index))
    }

    /// Renders a clip in [0, 1], `[T, H, W]`, before standardisation and in one channel; returns its labels.
    ///
    /// # Errors
    /// [`DataError::Setup`] when `out` is not of that size.
    pub fn render(&self, seed: u64, index: u64, out: &mut [f32]) -> Result<TextureLabels, DataError> {
        let labels = self.labels(seed, index);
        self.render_as(seed, index, labels, out)?;
        Ok(labels)
    }

    /// As [`DriftingTextures::render`], with given labels instead of the drawn ones.
    ///
    /// # Errors
    /// [`DataError::Setup`] when `out` is of the wrong size or a label out of range.
    pub fn render_as(&self, seed: u64, index: u64, labels: TextureLabels, out: &mut [f32]) -> Result<(), DataError> {
        check_out([1, self.frames, self.size, self.size], 1, out)?;
        if labels.texture >= TEXTURES.len() || labels.direction >= DIRECTIONS || labels.speed >= 2 {
            return Err(DataError::Setup(format!("there is no drifting texture with {labels:?}")));
        }
        if !out.is_empty() {
            self.draw(seed, index, labels, out);
            for number in 0..self.difficulty.occluders {
                let mut rng = CounterRng::new(&[seed, index, 3, u64::from(number)]);
                Occluder::draw(&mut rng, self.size).render([self.frames, self.size], out);
            }
            add_noise(seed, index, self.difficulty.noise, out);
        }
        Ok(())
    }
}

impl DriftingTextures {
    /// The texture, before anything stands in front of it.
    fn draw(&self, seed: u64, index: u64, labels: TextureLabels, out: &mut [f32]) {
        use std::f64::consts::FRAC_PI_4;
        let Self { frames, size, .. } = *self;
        let scene = |heading: f64| Scene::draw(seed, index, labels, heading, size);
        if !self.difficulty.turns {
            return scene(labels.direction as f64 * FRAC_PI_4).render(0..frames, frames, size, out);
        }
        let quarter = 2.0 * FRAC_PI_4;
        let first = (labels.direction / 2) as f64 * quarter;
        let second = if labels.direction.is_multiple_of(2) { first + quarter } else { first - quarter };
        let turn = turning_frame(seed, index, frames);
        let (before, after) = out.split_at_mut((turn * size * size).min(out.len()));
        let leg = scene(first);
        leg.render(0..turn, frames, size, before);
        // It turns in the middle between two frames.
        let time = turn as f64 - 0.5 - (frames as f64 - 1.0) / 2.0;
        scene(second).continuing(&leg, time).render(turn..frames, frames, size, after);
    }
}

/// The first frame that shows a texture on its second way.
fn turning_frame(seed: u64, index: u64, frames: usize) -> usize {
    let share = CounterRng::new(&[seed, index, 2]).uniform(0.35, 0.65);
    (share * frames as f64).round() as usize
}

impl ClipSource for DriftingTextures {
    fn len(&self) -> Option<u64> {
        None
    }

    fn shape(&self) -> [usize; 4] {
        [3, self.frames, self.size, self.size]
    }

    /// Clip `key.position` of stream `key.seed`, labelled by its texture. It never runs out of data.
    fn sample(&self, key: SampleKey, out: &mut [f32]) -> Result<SampleInfo, DataError> {
        check_out(self.shape(), 1, out)?;
        let plane = self.frames * self.size * self.size;
        let (grey, copies) = out.split_at_mut(plane);
        let labels = self.render(key.seed, key.position, grey)?;
        copies.chunks_exact_mut(plane.max(1)).for_each(|copy| copy.copy_from_slice(grey));
        match self.normalization.statistics() {
            // The three channels are equal, so one stands for all.
            None => {
                standardise(grey);
                copies.chunks_exact_mut(plane.max(1)).for_each(|copy| copy.copy_from_slice(grey));
            }
            Some((mean, std)) => {
                for ((channel, mean), std) in out.chunks_exact_mut(plane.max(1)).zip(mean).zip(std) {
                    channel.iter_mut().for_each(|v| *v = (*v - mean) / std);
                }
            }
        }
        Ok(SampleInfo { label: Some(labels.texture as i64), index: key.position, path: None })
    }
}

fn scene_rng(seed: u64, index: u64) -> CounterRng {
    CounterRng::new(&[seed, index, 0])
}

fn add_noise(seed: u64, index: u64, deviation: f32, out: &mut [f32]) {
    let mut rng = CounterRng::new(&[seed, index, 1]);
    let mut noise = [0f32; 512];
    for chunk in out.chunks_mut(noise.len()) {
        normals(&mut rng, &mut noise);
        chunk.iter_mut().zip(&noise).for_each(|(v, n)| *v = (*v + deviation * n).clamp(0.0, 1.0));
    }
}

/// An affine function of x, y and t': a phase in radians.
#[derive(Clone, Copy)]
struct Phase {
    x: f64,
    y: f64,
    t: f64,
    at_origin: f64,
}

impl Phase {
    /// `a · self + b · other`.
    fn combine(self, a: f64, other: Self, b: f64) -> Self {
        Self {
            x: a * self.x + b * other.x,
            y: a * self.y + b * other.y,
            t: a * self.t + b * other.t,
            at_origin: a * self.at_origin + b * other.at_origin,
        }
    }

    fn times(self, a: f64) -> Self {
        self.combine(a, self, 0.0)
    }
}

/// Everything drawn for a clip except the noise.
struct Scene {
    texture: usize,
    a: Phase,
    b: Phase,
    amplitude: f32,
}

impl Scene {
    fn draw_labels(rng: &mut CounterRng) -> TextureLabels {
        TextureLabels {
            texture: rng.below(TEXTURES.len() as u64) as usize,
            direction: rng.below(DIRECTIONS as u64) as usize,
            speed: rng.below(2) as usize,
        }
    }

    /// A texture that drifts in a direction of `heading` radians, more or less.
    fn draw(seed: u64, index: u64, labels: TextureLabels, heading: f64, size: usize) -> Self {
        use std::f64::consts::TAU;
        let mut rng = scene_rng(seed, index);
        Self::draw_labels(&mut rng);
        let wavelength = 24.0 * exp_small(rng.uniform(-0.15, 0.15));
        let (sin_phi, cos_phi) = sin_cos_f64(rng.uniform(0.0, TAU));
        let p0 = rng.uniform(0.0, TAU);
        let p1 = rng.uniform(0.0, 2.0 * TAU);
        let cx = size as f64 / 2.0 + rng.uniform(-4.8, 4.8);
        let cy = size as f64 / 2.0 + rng.uniform(-4.8, 4.8);
        let contrast = rng.uniform(0.22, 0.35);
        let polarity = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        let pace = (1.0 + labels.speed as f64) * rng.uniform(0.85, 1.15) * 2.5;
        let angle = heading + rng.uniform(-0.2, 0.2);
        let (sin_v, cos_v) = sin_cos_f64(angle);
        let (vx, vy) = (pace * cos_v, pace * sin_v);
        let phase = |gx: f64, gy: f64, p: f64| {
            let k = TAU / wavelength;
            Phase { x: k * gx, y: k * gy, t: -k * (gx * vx + gy * vy), at_origin: p - k * (gx * cx + gy * cy) }
        };
        Self {
            texture: labels.texture,
            a: phase(cos_phi, sin_phi, p0),
            b: phase(-sin_phi, cos_phi, p1),
            amplitude: (contrast * polarity) as f32,
        }
    }

    /// The scene that is where `before` is at a time t'.
    fn continuing(self, before: &Self, time: f64) -> Self {
        let from = |own: Phase, other: Phase| Phase { at_origin: other.at_origin + (other.t - own.t) * time, ..own };
        Self { a: from(self.a, before.a), b: from(self.b, before.b), ..self }
    }

    /// Writes `.5 ± contrast · s` of these frames of a clip of `frames` into `out`, `[T, H, W]`.
    fn render(&self, shown: Range<usize>, frames: usize, size: usize, out: &mut [f32]) {
        let (a, b) = (self.a, self.b);
        let m = self.amplitude;
        let view = View { first: shown.start, middle: (frames as f64 - 1.0) / 2.0, size };
        let pixel = move |s: f32| 0.5 + m * s;
        let two = |p: Phase, q: Phase| [Wave::new(p, size), Wave::new(q, size)];
        // One loop a texture, so that each is a plain loop over a row.
        match self.texture {
            0 => each(two(a, b.times(0.5)), &view, out, |[a, h]| pixel(0.8 * a.sin + 0.4 * h.sin)),
            1 => each(two(a, b), &view, out, |[a, b]| pixel(1.4 * a.sin * b.sin)),
            2 => each(two(a, b), &view, out, |[a, b]| pixel(tanh(3.0 * ((a.cos + b.cos) / 2.0 - 0.35)))),
            3 => each(two(a, b), &view, out, |[a, b]| pixel(tanh(4.0 * (a.cos.max(b.cos) - 0.75)))),
            4 => each(two(a, b.times(0.8)), &view, out, |[a, w]| {
                let (sin, cos) = sin_cos(1.6 * asin(0.98 * w.sin));
                pixel(a.sin * cos + a.cos * sin)
            }),
            5 => {
                let waves = [a, a.combine(-0.5, b, 0.866), a.combine(-0.5, b, -0.866)].map(|p| Wave::new(p, size));
                each(waves, &view, out, |[a, p, q]| pixel((a.cos + p.cos + q.cos) / 1.5));
            }
            6 => each(two(a.times(2.0), b), &view, out, |[a, b]| {
                let (sin, cos) = sin_cos(b.sin);
                pixel(a.sin * cos + a.cos * sin)
            }),
            _ => each(two(a, b.times(0.5)), &view, out, |[a, h]| pixel(a.sin.copysign(a.sin * h.sin))),
        }
    }
}

/// Sine and cosine of a phase at a pixel.
#[derive(Clone, Copy)]
struct Point {
    sin: f32,
    cos: f32,
}

/// Sine and cosine of a phase over the image: those of its x part are tabled once, and a row needs only the angle addition
/// formulas.
struct Wave {
    phase: Phase,
    columns: Vec<Point>,
}

impl Wave {
    fn new(phase: Phase, size: usize) -> Self {
        let columns = (0..size).map(|x| point(phase.x * x as f64)).collect();
        Self { phase, columns }
    }
}

fn point(angle: f64) -> Point {
    let (sin, cos) = sin_cos_f64(angle);
    Point { sin: sin as f32, cos: cos as f32 }
}

/// Frames that are rendered.
struct View {
    /// The first of them.
    first: usize,
    /// The clip's middle, in frames.
    middle: f64,
    /// Height and width.
    size: usize,
}

/// Fills `out`, `[T, H, W]`, with `pixel` of the waves' sines and cosines.
fn each<const N: usize>(
    waves: [Wave; N],
    &View { first, middle, size }: &View,
    out: &mut [f32],
    pixel: impl Fn([Point; N]) -> f32,
) {
    let columns: Vec<[Point; N]> = (0..size)
        .filter_map(|x| {
            let at = |wave: &Wave| wave.columns.get(x).copied();
            let list: Option<Vec<Point>> = waves.iter().map(at).collect();
            list?.try_into().ok()
        })
        .collect();
    for (row, line) in out.chunks_exact_mut(size.max(1)).enumerate() {
        let (t, y) = ((first + row / size) as f64 - middle, (row % size) as f64);
        let rows = waves.each_ref().map(|w| point(w.phase.y * y + w.phase.t * t + w.phase.at_origin));
        for (value, column) in line.iter_mut().zip(&columns) {
            let mut points = *column;
            for (p, r) in points.iter_mut().zip(&rows) {
                *p = Point { sin: p.sin * r.cos + p.cos * r.sin, cos: p.cos * r.cos - p.sin * r.sin };
            }
            *value = pixel(points);
        }
    }
}

#[cfg(test)]
#[path = "texture_tests.rs"]
mod tests;
