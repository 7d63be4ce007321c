//! Comparison of a session with results known from elsewhere.

use crate::clips::{ClipBatch, NamedInput, NamedOutput};
use crate::error::SessionError;
use crate::session::Session;
use std::fmt;

/// How far results may be from the expected ones. Both limits hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Largest difference of any two values.
    pub absolute: f64,
    /// Largest length of the difference relative to the length of the expected values (L2).
    pub relative: f64,
}

impl Default for Tolerance {
    /// The tolerance that an `f32` model meets on any runtime.
    fn default() -> Self {
        Self { absolute: 1e-4, relative: 1e-5 }
    }
}

/// How far an output is from what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The output.
    pub name: String,
    /// Largest difference of two values.
    pub absolute: f64,
    /// Length of the difference relative to that of the expected values.
    pub relative: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: rel-L2 {:.2e}, max-abs {:.2e}", self.name, self.relative, self.absolute)
    }
}

/// A session does not give what was expected.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// It could not be run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// An output is missing or of another shape.
    #[error("the output `{name}` should be {expected:?} but is {got}")]
    Shape {
        /// The output.
        name: String,
        /// Expected shape.
        expected: Vec<usize>,
        /// What there is.
        got: String,
    },
    /// The numbers differ.
    #[error(
        "`{}` differs by {:.2e} (rel-L2) and {:.2e} (max-abs); {:.0e} and {:.0e} are allowed",
        difference.name, difference.relative, difference.absolute, tolerance.relative, tolerance.absolute
    )]
    TooFar {
        /// How far.
        difference: Difference,
        /// What was allowed.
        tolerance: Tolerance,
    },
}

/// Runs `clips` and compares each expected output; gives the differences.
///
/// # Errors
/// [`CompareError`] names the first output that is missing or too far; NaN is always too far.
pub fn compare(
    session: &Session,
    clips: &ClipBatch<'_>,
    expected: &[NamedOutput],
    tolerance: Tolerance,
) -> Result<Vec<Difference>, CompareError> {
    differences(&session.run(clips)?, expected, tolerance)
}

/// As [`compare`], of a model of any inputs.
///
/// # Errors
/// As [`compare`].
pub fn compare_named(
    session: &Session,
    inputs: &[NamedInput<'_>],
    expected: &[NamedOutput],
    tolerance: Tolerance,
) -> Result<Vec<Difference>, CompareError> {
    differences(&session.run_named(inputs)?, expected, tolerance)
}

fn differences(
    results: &[NamedOutput],
    expected: &[NamedOutput],
    tolerance: Tolerance,
) -> Result<Vec<Difference>, CompareError> {
    let one = |wanted: &NamedOutput| {
        let found = results.iter().find(|output| output.name == wanted.name);
        let shape =
            |got: String| CompareError::Shape { name: wanted.name.clone(), expected: wanted.shape.clone(), got };
        let found = found.ok_or_else(|| shape("missing".to_owned()))?;
        if found.shape != wanted.shape || found.data.len() != wanted.data.len() {
            return Err(shape(format!("{:?}", found.shape)));
        }
        let difference = difference(&wanted.name, &found.data, &wanted.data);
        // Written so that NaN fails.
        if difference.absolute <= tolerance.absolute && difference.relative <= tolerance.relative {
            Ok(difference)
        } else {
            Err(CompareError::TooFar { difference, tolerance })
        }
    };
    expected.iter().map(one).collect()
}

fn difference(name: &str, got: &[f32], wanted: &[f32]) -> Difference {
    let (mut absolute, mut squares, mut length) = (0.0f64, 0.0, 0.0);
    for (got, wanted) in got.iter().zip(wanted) {
        let (got, wanted) = (f64::from(*got), f64::from(*wanted));
        let apart = (got - wanted).abs();
        absolute = if apart.is_nan() || absolute.is_nan() { f64::NAN } else { absolute.max(apart) };
        squares += apart * apart;
        length += wanted * wanted;
    }
    let relative = if squares == 0.0 { 0.0 } else { (squares / length).sqrt() };
    Difference { name: name.to_owned(), absolute, relative }
}
