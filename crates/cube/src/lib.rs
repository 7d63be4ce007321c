//! GPU back ends for plans, all through CubeCL.
//!
//! A back end is a CubeCL runtime that implements `Gpu`: which devices it has, what they can do, and how operations run on
//! them. The kernels of Burn's operations are compiled here, once a back end, by the non-generic functions of its `Gpu`;
//! the runtime above calls them through boxes, so that changing it compiles no kernel. Without the features `cuda` and
//! `wgpu` this crate is empty.
//!
//! A device's own thread swallows panics, after which results are whatever its memory held: `watch` remembers them, and
//! whoever runs something asks `failure` afterwards.

#![warn(missing_docs)]
#![cfg(feature = "cube")]

#[cfg(feature = "cuda")]
mod cublaslt;
#[cfg(feature = "cuda")]
mod cuda;
mod gpu;
mod kernels;
#[cfg(feature = "cuda")]
mod pools;
mod watch;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use burn_cubecl::CubeBackend;
/// Launches that compile and do not execute, for tests.
pub use burn_cubecl::cubecl::dry_run;
#[cfg(feature = "cuda")]
pub use cuda::CudaRuntime;

pub use gpu::{Found, Gpu, OpenError, failure, largest_buffer, memory, reserved, too_few_units, without};
pub use kernels::rules::chooses;
#[cfg(feature = "wgpu")]
pub use wgpu::{WgpuRuntime, lose};
