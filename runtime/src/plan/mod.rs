//! Executes a compiled graph on a Burn back end.
//!
//! An [`Executor`] walks the plan node by node. A back end that has a kernel for an operation runs it
//! ([`PlanBackend::kernel`]; `flex/` holds the CPU's); what is left is lowered to Burn's own tensor operations
//! (`lower.rs`), semantic operations through their decomposition in the IR. Parameters live in a [`Params`] store that
//! several executors share: training step, encoder and diagnostics all read the same tensors without a copy.

mod backend;
mod executor;
mod flex;
mod host;
mod lower;
mod params;

pub use backend::{Operand, PlanBackend};
pub use executor::{Executor, NodeTime, RunError};
pub use flex::square_product;
pub use host::HostTensor;
pub use params::Params;

/// The CPU back end plans run on by default.
pub type Cpu = burn_flex::Flex;
