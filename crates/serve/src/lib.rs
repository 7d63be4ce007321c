//! Serves one model: the Open Inference Protocol (version 2) over HTTP and gRPC, and an endpoint for video files.
//!
//! ```text
//! listen ─► http (v2, classify, page, metrics) ─┐
//!        └► grpc ───────────────────────────────┴► core ─► queue ─► instance: one thread, one engine (a Session)
//! ```
//!
//! [`Server::start`] takes a [`Model`] and [`Settings`]. Nothing that a client sends may bring down the server: bodies, heads,
//! connections, queued requests and their time are bounded, and a panic in a runtime fails only its request. This crate
//! depends on neither Burn nor a video library; videos are read by a function it is given.

#![warn(missing_docs)]

mod activity;
mod coding;
mod connection;
mod error;
mod grpc;
mod guard;
mod health;
mod http;
mod instance;
mod listen;
mod metrics;
mod model;
mod protocol;
mod queue;
mod readiness;
mod server;
mod settings;
mod sniff;
mod state;
mod tls;
mod web;
mod wire;

pub use crate::state::VideoReader;
pub use error::{InferError, ServeError};
pub use grpc::proto;
pub use model::{BatchShape, BatchSizes, Model, ModelInfo, ServingEngine};
pub use server::{Handle, Server};
pub use settings::{Batching, Limits, Security, Settings, Token};
pub use tls::Tls;
pub use web::Web;
