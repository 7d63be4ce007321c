//! The numbers of evaluations, as pure functions of scores, labels and boxes.
//!
//! | module | numbers |
//! |---|---|
//! | [`ranking`] | top-1 and top-k accuracy, the largest class, softmax |
//! | [`aggregate`] | the prediction of a video out of those of its clips and views |
//! | [`confusion`] | confusion matrix, per-class accuracy and their mean |
//! | [`recall`] | class-mean recall at k, as EPIC-KITCHENS-100 reports it |
//! | [`knn`] | nearest neighbours by cosine and their votes |
//! | [`ava`] | mean average precision on AVA, in the orders of the three evaluation codes in use |
//! | [`figure`] | means over draws and seeds with their standard errors |
//!
//! Nothing here reads a file, knows a model or allocates more than its result needs. Scores that are not numbers never
//! count as right.

#![warn(missing_docs)]

pub mod aggregate;
pub mod ava;
pub mod confusion;
pub mod figure;
pub mod knn;
pub mod ranking;
pub mod recall;

pub use confusion::Confusion;
pub use figure::Figure;
pub use ranking::{argmax, in_top, softmax, top_k};

/// Numbers that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Another number of values than the sizes say.
    #[error("{what}: {got} values where {expected} are expected")]
    Size {
        /// What was counted.
        what: &'static str,
        /// Values there are.
        got: usize,
        /// Values there should be.
        expected: usize,
    },
    /// A label outside the classes.
    #[error("label {label} (sample {sample}) is not in 0..{classes}: labels count from 0")]
    Label {
        /// The label.
        label: usize,
        /// Its sample, from 0.
        sample: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A size or setting of zero.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// A table that cannot be written.
    #[error("the table cannot be written: {0}")]
    Write(String),
}

/// Checks a number of values.
fn sized(what: &'static str, got: usize, expected: usize) -> Result<(), MetricError> {
    if got == expected { Ok(()) } else { Err(MetricError::Size { what, got, expected }) }
}
