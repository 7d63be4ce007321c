//! Executes a compiled graph on a Burn back end.
//!
//! An [`Executor`] walks the plan node by node. A back end that has a kernel for an operation runs it
//! ([`PlanBackend::kernel`]; `cpu/` holds the CPU's); what is left is lowered to Burn's own tensor operations
//! (`lower/`), or decomposed in the IR where Burn has none. Parameters live in a [`Params`] store that
//! several executors share: training step, encoder and diagnostics all read the same tensors without a copy.
//!
//! [`Device`] is what commands are given (`cpu`, `cuda:0`): it plans graphs and keeps parameters on the back end it names.

mod backend;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod executor;
mod finite;
mod host;
mod lower;
mod on_device;
mod params;
mod profile;

pub use backend::{Call, Kernel, KernelError, Operand, PlanBackend};
pub use cpu::{InstructionSet, SimdError, square_product};
pub use device::{Device, DeviceError};
pub use executor::{Executor, RunError};
pub use host::HostTensor;
pub use on_device::{DeviceExecutor, DeviceParams};
pub use params::Params;
pub use profile::{NodeTime, OpTime, Profile, RunTimes};

/// The CPU's back end.
pub type Cpu = burn_flex::Flex;
