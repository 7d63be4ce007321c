//! Pictures and charts of masks, features and training curves.

#![warn(missing_docs)]

pub mod canvas;
pub mod chart;
mod error;
mod font;
pub mod pictures;

pub use error::ViewError;
