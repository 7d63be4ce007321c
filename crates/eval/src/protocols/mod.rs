//! Evaluations as a whole: what is encoded, what is trained on it, what is reported.

pub mod finetuned;
pub mod textures;
pub mod videos;
