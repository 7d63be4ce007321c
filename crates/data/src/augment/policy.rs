//! RandAugment by its policy string and AutoAugment `original`, as timm and the official video code draw them.

use std::str::FromStr;

use super::draws::Draws;
use super::ops::{Canvas, Op, OpKind};
use super::{AugmentError, TransformError};

/// Magnitudes go from 0 to this.
const MOST: f64 = 10.0;

/// What an augmentation policy string means.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// `rand-m7-n4-mstd0.5-inc1` and the like.
    Rand(RandAugment),
    /// `original`: one of the 25 pairs of the AutoAugment paper (Cubuk et al. 2019) for ImageNet.
    Original,
}

/// RandAugment (Cubuk et al. 2020) in timm's form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandAugment {
    /// `m`: magnitude, 0 to 10.
    pub magnitude: f64,
    /// `n`: operations drawn, with replacement; each is skipped with probability 1/2.
    pub count: usize,
    /// `mstd`: deviation of the magnitude.
    pub deviation: f64,
    /// `inc`: operations get stronger with the magnitude throughout.
    pub increasing: bool,
}

impl RandAugment {
    /// The video probe's `rand-m7-n4-mstd0.5-inc1`.
    pub const OFFICIAL: Self = Self { magnitude: 7.0, count: 4, deviation: 0.5, increasing: true };
}

/// One operation that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Which.
    pub kind: OpKind,
    /// With its argument; none where it was skipped.
    pub op: Option<Op>,
}

impl FromStr for Policy {
    type Err = AugmentError;

    /// Reads `original` or `rand-m7-n4-mstd0.5-inc1`, where every part after `rand` may be left out (m 10, n 2, mstd 0, no
    /// inc). As in the official code any `inc` switches it on, `inc0` too.
    fn from_str(text: &str) -> Result<Self, AugmentError> {
        let fail = |why: String| AugmentError::Policy { policy: text.into(), why };
        let mut parts = text.split('-');
        match parts.next() {
            Some("original") if parts.next().is_none() => return Ok(Self::Original),
            Some("rand") => {}
            _ => return Err(fail("is not known: write `original` or one like `rand-m7-n4-mstd0.5-inc1`".into())),
        }
        let mut rand = RandAugment { magnitude: MOST, count: 2, deviation: 0.0, increasing: false };
        for part in parts {
            let at = part.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(part.len());
            let (name, value) = part.split_at(at);
            let number = |most: f64| match value.parse::<f64>() {
                Ok(number) if (0.0..=most).contains(&number) => Ok(number),
                _ => Err(fail(format!("has `{part}`: `{name}` must be followed by a number from 0 to {most}"))),
            };
            match name {
                "m" => rand.magnitude = number(MOST)?,
                "n" => {
                    rand.count = match number(64.0)? {
                        count if count.fract() == 0.0 => count as usize,
                        _ => return Err(fail(format!("has `{part}`: the number of operations must be whole"))),
                    };
                }
                "mstd" => rand.deviation = number(MOST)?,
                "inc" => {
                    number(f64::MAX)?;
                    rand.increasing = true;
                }
                "w" => return Err(fail(format!("has `{part}`: weighted choices are not read; leave it out"))),
                _ => return Err(fail(format!("has `{part}`: parts are m, n, mstd and inc, each with a number"))),
            }
        }
        Ok(Self::Rand(rand))
    }
}

impl Policy {
    /// What frames are filled with where an operation leaves them bare: grey in videos, the mean colour in pictures.
    pub const CLIP_FILL: [u8; 3] = [128; 3];
    /// See [`Policy::CLIP_FILL`].
    pub const PICTURE_FILL: [u8; 3] = [124, 116, 104];

    /// Draws the operations of one clip or picture.
    pub fn draw(&self, draws: &mut impl Draws) -> Vec<Step> {
        match self {
            Self::Rand(rand) => rand.draw(draws),
            Self::Original => original(draws),
        }
    }

    /// Applies drawn operations to frames of interleaved RGB bytes, all alike.
    ///
    /// # Errors
    /// [`TransformError::Empty`], [`TransformError::FrameSize`].
    pub fn apply(
        steps: &[Step],
        frames: &mut [Vec<u8>],
        (height, width): (usize, usize),
        fill: [u8; 3],
    ) -> Result<(), TransformError> {
        crate::transforms::Frames::new(frames, height, width)?;
        let mut canvas = Canvas { frames, height, width, fill, spare: Vec::new() };
        steps.iter().filter_map(|step| step.op).for_each(|op| op.apply(&mut canvas));
        Ok(())
    }
}

/// The operations of RandAugment, in timm's order.
const RAND_OPS: [OpKind; 15] = [
    OpKind::AutoContrast,
    OpKind::Equalize,
    OpKind::Invert,
    OpKind::Rotate,
    OpKind::Posterize,
    OpKind::Solarize,
    OpKind::SolarizeAdd,
    OpKind::Color,
    OpKind::Contrast,
    OpKind::Brightness,
    OpKind::Sharpness,
    OpKind::ShearX,
    OpKind::ShearY,
    OpKind::TranslateX,
    OpKind::TranslateY,
];

/// Which of timm's forms an operation's argument has.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Rand { increasing: bool },
    Original,
}

impl RandAugment {
    fn draw(&self, draws: &mut impl Draws) -> Vec<Step> {
        // All operations are chosen before any of their arguments.
        let kinds: Vec<OpKind> =
            (0..self.count).filter_map(|_| RAND_OPS.get(draws.operation(RAND_OPS.len())).copied()).collect();
        let form = Form::Rand { increasing: self.increasing };
        kinds.into_iter().map(|kind| Step { kind, op: self.argue(kind, form, draws) }).collect()
    }

    fn argue(&self, kind: OpKind, form: Form, draws: &mut impl Draws) -> Option<Op> {
        if draws.unit() > 0.5 {
            return None;
        }
        // Drawn for operations without a level, too.
        let magnitude = match self.deviation > 0.0 {
            true => draws.normal(self.magnitude, self.deviation).clamp(0.0, MOST),
            false => self.magnitude,
        };
        Some(argue(kind, magnitude, form, draws))
    }
}

/// An operation with the argument that a magnitude gives it.
fn argue(kind: OpKind, magnitude: f64, form: Form, draws: &mut impl Draws) -> Op {
    let level = magnitude / MOST;
    let increasing = form == Form::Rand { increasing: true };
    let mut signed = |value: f64| if draws.unit() > 0.5 { -value } else { value };
    let mut factor = || if increasing { 1.0 + signed(level * 0.9) } else { level * 1.8 + 0.1 };
    match kind {
        OpKind::AutoContrast => Op::AutoContrast,
        OpKind::Equalize => Op::Equalize,
        OpKind::Invert => Op::Invert,
        OpKind::Rotate => Op::Rotate(signed(level * 30.0)),
        OpKind::Posterize => {
            let bits = (level * 4.0) as u32;
            Op::Posterize(match form {
                Form::Rand { increasing: true } => 4u32.saturating_sub(bits),
                Form::Rand { increasing: false } => bits,
                Form::Original => bits + 4,
            })
        }
        OpKind::Solarize => {
            let threshold = (level * 256.0) as u32;
            Op::Solarize(if increasing { 256u32.saturating_sub(threshold) } else { threshold })
        }
        OpKind::SolarizeAdd => Op::SolarizeAdd(((level * 110.0) as u32).min(128)),
        OpKind::Color => Op::Color(factor()),
        OpKind::Contrast => Op::Contrast(factor()),
        OpKind::Brightness => Op::Brightness(factor()),
        OpKind::Sharpness => Op::Sharpness(factor()),
        OpKind::ShearX => Op::ShearX(signed(level * 0.3)),
        OpKind::ShearY => Op::ShearY(signed(level * 0.3)),
        OpKind::TranslateX => Op::TranslateX(signed(level * 0.45)),
        OpKind::TranslateY => Op::TranslateY(signed(level * 0.45)),
    }
}

/// An operation of the AutoAugment policy: its probability and magnitude.
pub type Entry = (OpKind, f64, f64);

/// The ImageNet policy of the AutoAugment paper, as timm's `original` has it.
#[rustfmt::skip]
pub const ORIGINAL: [[Entry; 2]; 25] = {
    use OpKind::{AutoContrast, Color, Contrast, Equalize, Invert, Posterize, Rotate, Sharpness, ShearX, Solarize};
    [
        [(Posterize, 0.4, 8.0), (Rotate, 0.6, 9.0)],
        [(Solarize, 0.6, 5.0), (AutoContrast, 0.6, 5.0)],
        [(Equalize, 0.8, 8.0), (Equalize, 0.6, 3.0)],
        [(Posterize, 0.6, 7.0), (Posterize, 0.6, 6.0)],
        [(Equalize, 0.4, 7.0), (Solarize, 0.2, 4.0)],
        [(Equalize, 0.4, 4.0), (Rotate, 0.8, 8.0)],
        [(Solarize, 0.6, 3.0), (Equalize, 0.6, 7.0)],
        [(Posterize, 0.8, 5.0), (Equalize, 1.0, 2.0)],
        [(Rotate, 0.2, 3.0), (Solarize, 0.6, 8.0)],
        [(Equalize, 0.6, 8.0), (Posterize, 0.4, 6.0)],
        [(Rotate, 0.8, 8.0), (Color, 0.4, 0.0)],
        [(Rotate, 0.4, 9.0), (Equalize, 0.6, 2.0)],
        [(Equalize, 0.0, 7.0), (Equalize, 0.8, 8.0)],
        [(Invert, 0.6, 4.0), (Equalize, 1.0, 8.0)],
        [(Color, 0.6, 4.0), (Contrast, 1.0, 8.0)],
        [(Rotate, 0.8, 8.0), (Color, 1.0, 2.0)],
        [(Color, 0.8, 8.0), (Solarize, 0.8, 7.0)],
        [(Sharpness, 0.4, 7.0), (Invert, 0.6, 8.0)],
        [(ShearX, 0.6, 5.0), (Equalize, 1.0, 9.0)],
        [(Color, 0.4, 0.0), (Equalize, 0.6, 3.0)],
        [(Equalize, 0.4, 7.0), (Solarize, 0.2, 4.0)],
        [(Solarize, 0.6, 5.0), (AutoContrast, 0.6, 5.0)],
        [(Invert, 0.6, 4.0), (Equalize, 1.0, 8.0)],
        [(Color, 0.6, 4.0), (Contrast, 1.0, 8.0)],
        [(Equalize, 0.8, 8.0), (Equalize, 0.6, 3.0)],
    ]
};

fn original(draws: &mut impl Draws) -> Vec<Step> {
    let pair = ORIGINAL.get(draws.entry(ORIGINAL.len())).copied().unwrap_or(ORIGINAL[0]);
    let step = |(kind, probability, magnitude): Entry| {
        // Certain operations take no number.
        let skipped = probability < 1.0 && draws.unit() > probability;
        Step { kind, op: (!skipped).then(|| argue(kind, magnitude, Form::Original, draws)) }
    };
    pair.into_iter().map(step).collect()
}
