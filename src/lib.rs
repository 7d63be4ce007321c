//! The `vjepa` command: the command line, one file per command, and the quickstart. The libraries are in `crates/`.

#![warn(missing_docs)]

pub mod cli;
pub mod quickstart;
mod recording;
mod table;
