//! The library behind the `vjepa` command: data, masks, training, probing, evaluation, checkpoints, export.

#![warn(missing_docs)]

pub mod cli;
pub mod compile;
pub mod config;
pub mod data;
pub mod frozen;
pub mod golden;
pub mod masks;
pub mod rng;
pub mod schedules;
pub mod weights;
