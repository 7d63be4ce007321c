//! Evaluations as a whole: what is encoded, what is trained on it, what is reported.

pub mod anticipation;
pub mod detection;
pub mod finetuned;
pub mod heads;
pub mod online;
pub mod textures;
pub mod videos;
