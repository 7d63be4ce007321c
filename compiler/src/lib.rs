//! vjepa's compiler: a small typed IR and the functions from graph to graph that turn a traced forward pass into a
//! training step and an optimised plan.
//!
//! The crate does no file I/O, knows no device and no model by name.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod accumulate;
pub mod grad;
pub mod interp;
pub mod ir;
pub mod ops;
pub mod optimizer;
pub mod passes;
pub mod plan;
pub mod serialize;
pub mod text;
#[cfg(feature = "trace")]
pub mod trace;
pub mod verify;

#[cfg(test)]
mod testing;
