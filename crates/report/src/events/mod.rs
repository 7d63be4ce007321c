//! TensorBoard's event files.
//!
//! A file is a row of records ([`frame`]), each a protocol buffer ([`proto`]). Messages, tag numbers and framing are those of
//! TensorFlow's `event.proto`, `summary.proto`, `tensor.proto` and `record_writer.cc`.

mod frame;
mod proto;
mod writer;

pub use writer::EventWriter;
