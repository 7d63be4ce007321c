//! The library behind the `vjepa` command: data, masks, training, probing, evaluation, checkpoints, export.

#![warn(missing_docs)]

pub mod bench;
pub mod cli;
mod clips;
pub mod compile;
pub mod config;
mod cores;
pub mod data;
mod deploy;
pub mod eval;
pub mod frozen;
pub mod golden;
pub mod masks;
pub mod quickstart;
pub mod rng;
pub mod schedules;
mod text;
pub mod train;
pub mod weights;
