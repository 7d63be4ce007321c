//! Laboratory equipment: comparisons with numbers of the official code, and benchmarks. No library depends on it.

#![warn(missing_docs)]

pub mod bench;
pub mod golden;
