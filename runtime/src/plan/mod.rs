//! Executes a compiled graph on a Burn back end.
//!
//! An [`Executor`] walks the plan node by node. A back end that has a kernel for an operation runs it
//! ([`PlanBackend::kernel`]; `cpu/` holds the CPU's, the crate `vjepa-cube` those of GPUs); what is left is lowered to Burn's
//! own tensor operations (`vjepa-lower`), or decomposed in the IR where Burn has none. Parameters live in a [`Params`] store that
//! several executors share: training step, encoder and diagnostics all read the same tensors without a copy.
//!
//! [`Device`] is what commands are given (`cpu`, `cuda:0`, `wgpu:0`): it plans graphs and keeps parameters on the back end it
//! names. `back_ends.rs` is the table of them; those on CubeCL share one implementation, `cube.rs`.

mod back_ends;
mod backend;
mod binding;
mod choice;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod device;
mod error;
mod executor;
mod failures;
mod finite;
mod host;
mod limits;
mod on_device;
mod outputs;
mod params;
mod profile;
mod ranks;
mod recording;

pub use backend::{Call, Kernel, KernelError, Lowering, Operand, PlanBackend};
pub use cpu::{InstructionSet, SimdError, square_product};
pub use device::{Device, DeviceError};
pub use error::RunError;
pub use executor::Executor;
pub use finite::FirstBad;
pub use host::{HostTensor, Pixels};
pub use on_device::{DeviceExecutor, DeviceParams};
pub use params::{Params, Shaped};
pub use profile::{NodeTime, OpTime, Profile, RunTimes};
pub use ranks::{Exchange, Resident};
pub use recording::{Address, Recorded};

/// The GPUs of a back end (`cuda`, `wgpu`) by the names [`Device::open`] takes, each with what it is and can do; `None` where
/// this build has no such back end.
pub fn gpus(back_end: &str) -> Option<Vec<(String, String)>> {
    #[cfg(feature = "cube")]
    let described = |found: Vec<vjepa_cube::Found>| {
        Some(found.into_iter().map(|found| (found.device.clone(), found.to_string())).collect())
    };
    match back_end {
        #[cfg(feature = "cuda-base")]
        "cuda" => described(<vjepa_cube::CudaRuntime as vjepa_cube::Gpu>::found()),
        #[cfg(feature = "wgpu-base")]
        "wgpu" => described(<vjepa_cube::WgpuRuntime as vjepa_cube::Gpu>::found()),
        _ => None,
    }
}

/// The CPU's back end.
pub type Cpu = burn_flex::Flex;
