//! Pictures and charts of masks, features and training curves.

#![warn(missing_docs)]

mod animation;
pub mod canvas;
pub mod chart;
mod error;
mod font;
pub mod pictures;

pub use animation::Animation;
pub use canvas::Canvas;
pub use error::ViewError;
