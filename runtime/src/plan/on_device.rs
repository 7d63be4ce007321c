//! Parameters and plans on the device a command was given: which back end that is, is asked once a call.

use super::device::{Device, DeviceError};
use super::profile::Profile;
use super::{Cpu, Executor, HostTensor, Params, RunError};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::Plan;

#[cfg(feature = "cuda")]
use super::cuda::{self, Cuda};

/// Named tensors on a [`Device`]; see [`Params`].
pub struct DeviceParams {
    device: Device,
    store: Store,
}

enum Store {
    Cpu(Params<Cpu>),
    #[cfg(feature = "cuda")]
    Cuda(Params<Cuda>),
}

/// A graph planned for a [`Device`]; see [`Executor`].
pub struct DeviceExecutor {
    device: Device,
    plan: Planned,
}

// Both are large, and there are a handful of either.
#[allow(clippy::large_enum_variant)]
enum Planned {
    Cpu(Executor<Cpu>),
    #[cfg(feature = "cuda")]
    Cuda(Executor<Cuda>),
}

macro_rules! each {
    ($of:ident, $value:expr, $inner:ident => $body:expr) => {
        match $value {
            $of::Cpu($inner) => $body,
            #[cfg(feature = "cuda")]
            $of::Cuda($inner) => $body,
        }
    };
}

impl DeviceParams {
    pub(super) fn cpu(device: Device, params: Params<Cpu>) -> Self {
        Self { device, store: Store::Cpu(params) }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn cuda(device: Device, params: Params<Cuda>) -> Self {
        Self { device, store: Store::Cuda(params) }
    }

    /// The device the tensors live on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Sets a tensor, replacing one of that name.
    pub fn set(&mut self, name: &str, tensor: HostTensor) {
        each!(Store, &mut self.store, params => params.set(name, tensor));
    }

    /// Sets a tensor of zeros, made on the device; one of that name is given back first.
    pub fn zeros(&mut self, name: &str, shape: &[usize]) {
        each!(Store, &mut self.store, params => params.zeros(name, shape));
    }

    /// Gives a tensor back; false when there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        each!(Store, &mut self.store, params => params.remove(name))
    }

    /// A copy of the floats of a tensor on the host, with its shape (scalars as `[1]`); `None` for a tensor that is not
    /// there, or that the device lost.
    pub fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        each!(Store, &self.store, params => params.get(name))
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        each!(Store, &self.store, params => Box::new(params.names()))
    }

    /// Makes `to` another name of the tensor called `from`; false when there is none.
    pub fn alias(&mut self, from: &str, to: &str) -> bool {
        each!(Store, &mut self.store, params => params.alias(from, to))
    }

    /// Bytes the device's allocator holds, which is the most it ever needed; `None` on the CPU, where the system knows.
    pub fn device_memory(&self) -> Option<u64> {
        match &self.store {
            Store::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Store::Cuda(params) => cuda::reserved(params.device()),
        }
    }
}

impl DeviceExecutor {
    pub(super) fn cpu(device: Device, plan: Executor<Cpu>) -> Self {
        Self { device, plan: Planned::Cpu(plan) }
    }

    #[cfg(feature = "cuda")]
    pub(super) fn cuda(device: Device, plan: Executor<Cuda>) -> Self {
        Self { device, plan: Planned::Cuda(plan) }
    }

    /// The device it was planned for.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The graph as it is executed.
    pub fn graph(&self) -> &Graph {
        each!(Planned, &self.plan, plan => plan.graph())
    }

    /// The plan that is walked.
    pub fn plan(&self) -> &Plan {
        each!(Planned, &self.plan, plan => plan.plan())
    }

    /// As [`Executor::spare`].
    pub fn spare(&mut self, len: usize) -> Option<Vec<f32>> {
        each!(Planned, &mut self.plan, plan => plan.spare(len))
    }

    /// Starts (or clears) the per-node clock; on a GPU it shows when a node was sent, not when it was done.
    pub fn profile(&mut self) {
        each!(Planned, &mut self.plan, plan => plan.profile());
    }

    /// Stops the clock: times of all runs since [`DeviceExecutor::profile`].
    pub fn take_profile(&mut self) -> Profile<'_> {
        each!(Planned, &mut self.plan, plan => plan.take_profile())
    }

    /// See [`Executor::guard`].
    pub fn guard(&mut self) {
        each!(Planned, &mut self.plan, plan => plan.guard());
    }

    /// See [`Executor::first_bad`].
    ///
    /// # Errors
    /// As [`DeviceExecutor::run`].
    pub fn first_bad(
        &mut self,
        params: &DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<Option<String>, RunError> {
        match (&mut self.plan, &params.store) {
            (Planned::Cpu(plan), Store::Cpu(params)) => plan.first_bad(params, inputs),
            #[cfg(feature = "cuda")]
            (Planned::Cuda(plan), Store::Cuda(params)) => caught(self.device, || plan.first_bad(params, inputs)),
            #[cfg(feature = "cuda")]
            _ => Err(RunError::Elsewhere { plan: self.device.to_string(), params: params.device.to_string() }),
        }
    }

    /// Runs the plan once; see [`Executor::run`].
    ///
    /// # Errors
    /// As [`Executor::run`]; [`RunError::Device`] when the device fails or its memory is full, after which `params` are
    /// not to be used again.
    pub fn run(
        &mut self,
        params: &mut DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<BTreeMap<String, HostTensor>, RunError> {
        match (&mut self.plan, &mut params.store) {
            (Planned::Cpu(plan), Store::Cpu(params)) => plan.run(params, inputs),
            #[cfg(feature = "cuda")]
            (Planned::Cuda(plan), Store::Cuda(params)) => caught(self.device, || plan.run(params, inputs)),
            #[cfg(feature = "cuda")]
            _ => Err(RunError::Elsewhere { plan: self.device.to_string(), params: params.device.to_string() }),
        }
    }
}

/// Back ends of GPUs panic where their library fails (a full memory, a kernel that does not compile).
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
fn caught<T>(device: Device, f: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
    let said = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Err(RunError::Lost { why, .. })) => why,
        Ok(result) => return result,
        Err(panic) => crate::quiet::panic_text(&*panic).unwrap_or("its library gave up without a word").to_owned(),
    };
    Err(DeviceError::from_message(device, &said).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_device_is_an_error() {
        let run = || -> Result<(), RunError> { crate::without_panic_message(|| panic!("CUDA_ERROR_OUT_OF_MEMORY")) };
        let error = caught(Device::CPU, run).unwrap_err().to_string();
        assert!(error.starts_with("cpu is out of memory"), "{error}");
        let lost = || -> Result<(), RunError> { Err(RunError::Lost { name: "loss".into(), why: "bad kernel".into() }) };
        assert_eq!(caught(Device::CPU, lost).unwrap_err().to_string(), "cpu failed: bad kernel");
    }
}
