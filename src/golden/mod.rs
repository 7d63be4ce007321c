//! `vjepa verify golden`: compares this program with data recorded from the official code.

pub mod check;
pub mod data;
pub mod masks;
pub mod schedules;
pub mod tensors;
