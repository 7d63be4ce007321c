//! What recordings of augmentations are written in: numbers to their last bit, boxes, drawn operations, frames.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use vjepa_data::augment::{Op, OpKind, Policy, Step};
use vjepa_data::transforms::CropBox;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit};
use super::wrong;

/// A number as it was written. `serde_json`'s own reading of fractions may be off by the last bit, which decides where an
/// operation truncates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exact(pub(super) f64);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Fraction(String),
            Whole(i64),
        }
        match Written::deserialize(from)? {
            Written::Fraction(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
            Written::Whole(number) => Ok(Self(number as f64)),
        }
    }
}

/// Reads a JSON file whose numbers are [`Exact`] or integers.
pub(super) fn read_exact<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, GoldenError> {
    let text = std::fs::read_to_string(path).map_err(|source| GoldenError::Read { path: path.into(), source })?;
    serde_json::from_str(&fractions_as_texts(&text)).map_err(|source| GoldenError::Json { path: path.into(), source })
}

/// JSON with quotes around every number that is not whole.
fn fractions_as_texts(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    let mut rest = json;
    while let Some(start) = rest.chars().next() {
        let len = match start {
            '"' => string_len(rest),
            '0'..='9' | '-' => {
                rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len())
            }
            _ => start.len_utf8(),
        };
        let (token, after) = rest.split_at(len);
        match start != '"' && token.contains(['.', 'e', 'E']) && token.len() > 1 {
            true => out.extend(["\"", token, "\""]),
            false => out.push_str(token),
        }
        rest = after;
    }
    out
}

/// Bytes of the string that a text starts with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// A box as `[top, left, height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Corners([usize; 4]);

impl From<Corners> for CropBox {
    fn from(Corners([top, left, height, width]): Corners) -> Self {
        Self { top, left, height, width }
    }
}

/// An operation that was drawn.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Drawn {
    pub(super) op: String,
    /// Absent where operations are recorded alone, which are applied.
    #[serde(default = "yes")]
    applied: bool,
    #[serde(default)]
    args: Option<Vec<Exact>>,
}

fn yes() -> bool {
    true
}

impl Drawn {
    /// With its argument; none where it was skipped.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Op>, GoldenError> {
        if !self.applied {
            return Ok(None);
        }
        let named = named(&self.op);
        let Exact(argument) = self.args.iter().flatten().next().copied().unwrap_or(Exact(f64::NAN));
        let whole = argument as u32;
        let (op, given) = match named {
            "AutoContrast" => return Ok(Some(Op::AutoContrast)),
            "Equalize" => return Ok(Some(Op::Equalize)),
            "Invert" => return Ok(Some(Op::Invert)),
            "Rotate" => (Op::Rotate(argument), argument),
            "Posterize" => (Op::Posterize(whole), f64::from(whole)),
            "Solarize" => (Op::Solarize(whole), f64::from(whole)),
            "SolarizeAdd" => (Op::SolarizeAdd(whole), f64::from(whole)),
            "Color" => (Op::Color(argument), argument),
            "Contrast" => (Op::Contrast(argument), argument),
            "Brightness" => (Op::Brightness(argument), argument),
            "Sharpness" => (Op::Sharpness(argument), argument),
            "ShearX" => (Op::ShearX(argument), argument),
            "ShearY" => (Op::ShearY(argument), argument),
            "TranslateX" => (Op::TranslateX(argument), argument),
            "TranslateY" => (Op::TranslateY(argument), argument),
            _ => return Err(wrong(path, format!("`{}` is not a known operation", self.op))),
        };
        match given == argument {
            true => Ok(Some(op)),
            false => Err(wrong(path, format!("`{}` needs one argument that fits it", self.op))),
        }
    }
}

/// The name of an operation without the form of its level.
pub(super) fn named(op: &str) -> &str {
    ["Increasing", "Original", "Rel"].iter().fold(op, |name, form| name.strip_suffix(form).unwrap_or(name))
}

/// Applies operations to frames as a clip's or a picture's.
pub(super) fn apply(
    ops: impl IntoIterator<Item = Op>,
    frames: &mut [Vec<u8>],
    size: (usize, usize),
    path: &Path,
) -> Result<(), GoldenError> {
    // Which operation a step is called does not matter where it has one.
    let steps: Vec<Step> = ops.into_iter().map(|op| Step { kind: OpKind::Invert, op: Some(op) }).collect();
    Policy::apply(&steps, frames, size, Policy::CLIP_FILL).map_err(|error| wrong(path, error))
}

/// Frames as bytes `[H, W, 3]`, with their height and width.
pub(super) type Frames = (Vec<Vec<u8>>, (usize, usize));

/// A tensor `u8[T, H, W, 3]` or `u8[H, W, 3]` as frames, with their height and width.
pub(super) fn frames(file: &TensorFile, name: &str) -> Result<Frames, GoldenError> {
    let &[.., height, width, 3] = file.shape(name)? else {
        return Err(wrong(file.path(), format!("`{name}` should end in height, width and 3 channels")));
    };
    let frames = file.u8(name)?.chunks_exact((height * width * 3).max(1)).map(<[u8]>::to_vec).collect::<Vec<_>>();
    match frames.is_empty() {
        true => Err(wrong(file.path(), format!("`{name}` is empty"))),
        false => Ok((frames, (height, width))),
    }
}

/// One picture of a file.
pub(super) fn picture(file: &TensorFile, name: &str) -> Result<(Vec<u8>, (usize, usize)), GoldenError> {
    let (frames, size) = frames(file, name)?;
    Ok((frames.into_iter().next().unwrap_or_default(), size))
}

/// Numbers that must not differ in a bit.
pub(super) fn same_number(name: impl Into<String>, got: f64, Exact(want): Exact) -> Check {
    let off = (got - want).abs();
    Check::measured(name, off, off, Limit::Exact)
}

/// Bytes that must be equal.
pub(super) fn same_bytes(
    name: impl Into<String>,
    got: &[u8],
    file: &TensorFile,
    stored: &str,
) -> Result<Check, GoldenError> {
    Ok(Check::exact(name, got, file.u8(stored)?))
}

/// Values `[.., side, side]` compared inside a box and outside it.
pub(super) fn around(
    name: &str,
    got: &[f32],
    want: &[f32],
    side: usize,
    erased: Option<CropBox>,
    checks: &mut Vec<Check>,
) {
    let Some(area) = erased.filter(|_| got.len() == want.len()) else {
        checks.push(Check::max_abs(name, got, want, OUTSIDE));
        return;
    };
    let inside = |index: usize| {
        let (y, x) = (index / side.max(1) % side.max(1), index % side.max(1));
        (area.top..area.top + area.height).contains(&y) && (area.left..area.left + area.width).contains(&x)
    };
    for (part, wanted, limit) in [("outside", false, OUTSIDE), ("erased", true, NOISE)] {
        let chosen = |values: &[f32]| -> Vec<f32> {
            values.iter().enumerate().filter(|(index, _)| inside(*index) == wanted).map(|(_, value)| *value).collect()
        };
        checks.push(Check::max_abs(format!("{name}.{part}"), &chosen(got), &chosen(want), limit));
    }
}

/// Values outside an erased box, and the noise in it.
const OUTSIDE: f64 = 1e-5;
pub(super) const NOISE: f64 = 1e-4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_keep_their_last_bit_and_strings_stay() {
        let json = r#"{"a 1.5 \" 2.5": [1, -2, 0.1, 1e-7, -3.25E+2], "b": "0.5", "c": null}"#;
        let want = r#"{"a 1.5 \" 2.5": [1, -2, "0.1", "1e-7", "-3.25E+2"], "b": "0.5", "c": null}"#;
        assert_eq!(fractions_as_texts(json), want);
        let read: Vec<Exact> = serde_json::from_str(&fractions_as_texts("[3, 0.30331272607892745]")).unwrap();
        assert_eq!(read, [Exact(3.0), Exact(0.30331272607892745)]);
    }

    #[test]
    fn operations_are_read_strictly() {
        let read = |json: &str| {
            let drawn: Drawn = serde_json::from_str(&fractions_as_texts(json)).unwrap();
            drawn.read(Path::new("x.json")).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"op": "PosterizeIncreasing", "args": [2]}"#), Ok(Some(Op::Posterize(2))));
        assert_eq!(read(r#"{"op": "TranslateXRel", "applied": true, "args": [0.25]}"#), Ok(Some(Op::TranslateX(0.25))));
        assert_eq!(read(r#"{"op": "Rotate", "applied": false, "args": null}"#), Ok(None));
        assert!(read(r#"{"op": "Solarize", "args": [2.5]}"#).unwrap_err().contains("one argument"));
        assert!(read(r#"{"op": "Rotate", "args": []}"#).unwrap_err().contains("one argument"));
        assert!(read(r#"{"op": "Blur", "args": []}"#).unwrap_err().contains("`Blur`"));
    }
}
