//! What a run is, as pure values: its configuration, masks, schedules and random number generators.
//!
//! Nothing here knows Burn, a video or a device, and nothing but text files is read: the same recipe gives the same stream
//! of masks, rates and random numbers everywhere.

#![warn(missing_docs)]

pub mod ablation;
pub mod config;
pub mod counter;
pub mod draws;
pub mod finetune;
pub mod masks;
pub mod records;
pub mod rng;
pub mod schedules;
pub mod text;
mod yaml;
