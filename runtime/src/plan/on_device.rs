//! Parameters and plans on the device a command was given: which back end that is, is asked once a call.

use super::device::Device;
use super::failures::on;
use super::profile::Profile;
use super::{Exchange, Executor, FirstBad, HostTensor, Params, PlanBackend, Recorded, RunError, Shaped};
use std::any::Any;
use std::collections::BTreeMap;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::Plan;

/// Named tensors on a [`Device`]; see [`Params`].
pub struct DeviceParams {
    device: Device,
    store: Box<dyn Store>,
}

/// A graph planned for a [`Device`]; see [`Executor`].
pub struct DeviceExecutor {
    device: Device,
    plan: Box<dyn Planned>,
}

/// [`Params`] of some back end.
trait Store: Send + Sync + Any {
    fn set(&mut self, name: &str, tensor: HostTensor);
    fn zeros(&mut self, name: &str, shape: &[usize]);
    fn remove(&mut self, name: &str) -> bool;
    fn read(&self, device: Device, name: &str) -> Result<Option<Shaped>, RunError>;
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;
    fn elements(&self, name: &str) -> Option<usize>;
    fn alias(&mut self, from: &str, to: &str) -> bool;
    fn reserved(&self) -> Option<u64>;
}

impl<B: PlanBackend> Store for Params<B> {
    fn set(&mut self, name: &str, tensor: HostTensor) {
        self.set(name, tensor);
    }

    fn zeros(&mut self, name: &str, shape: &[usize]) {
        self.zeros(name, shape);
    }

    fn remove(&mut self, name: &str) -> bool {
        self.remove(name)
    }

    fn read(&self, device: Device, name: &str) -> Result<Option<Shaped>, RunError> {
        on(device, || B::failure(self.device()), || self.read(name))
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.names())
    }

    fn elements(&self, name: &str) -> Option<usize> {
        Some(self.operand(name)?.shape().iter().product())
    }

    fn alias(&mut self, from: &str, to: &str) -> bool {
        self.alias(from, to)
    }

    fn reserved(&self) -> Option<u64> {
        B::reserved(self.device())
    }
}

/// An [`Executor`] of some back end.
trait Planned: Send {
    fn graph(&self) -> &Graph;
    fn plan(&self) -> &Plan;
    fn profile(&mut self);
    fn take_profile(&mut self) -> Profile<'_>;
    fn guard(&mut self);
    fn read_late(&mut self);
    fn record_launches(&mut self);
    fn recorded(&self) -> Option<Recorded>;
    fn unread(
        &mut self,
        device: Device,
        params: &DeviceParams,
    ) -> Result<Option<BTreeMap<String, HostTensor>>, RunError>;
    fn spare(&mut self, len: usize) -> Option<Vec<f32>>;
    fn first_bad(
        &mut self,
        device: Device,
        params: &DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<Option<FirstBad>, RunError>;
    fn run(
        &mut self,
        device: Device,
        params: &mut DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
        exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<BTreeMap<String, HostTensor>, RunError>;
}

impl<B: PlanBackend> Planned for Executor<B> {
    fn graph(&self) -> &Graph {
        self.graph()
    }

    fn plan(&self) -> &Plan {
        self.plan()
    }

    fn profile(&mut self) {
        self.profile();
    }

    fn take_profile(&mut self) -> Profile<'_> {
        self.take_profile()
    }

    fn guard(&mut self) {
        self.guard();
    }

    fn read_late(&mut self) {
        self.read_late();
    }

    fn record_launches(&mut self) {
        self.record_launches();
    }

    fn recorded(&self) -> Option<Recorded> {
        self.recorded()
    }

    fn unread(
        &mut self,
        device: Device,
        params: &DeviceParams,
    ) -> Result<Option<BTreeMap<String, HostTensor>>, RunError> {
        let place = held::<B>(device, params)?.device().clone();
        on(device, || B::failure(&place), || self.unread())
    }

    fn spare(&mut self, len: usize) -> Option<Vec<f32>> {
        self.spare(len)
    }

    fn first_bad(
        &mut self,
        device: Device,
        params: &DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<Option<FirstBad>, RunError> {
        let store = held::<B>(device, params)?;
        let place = store.device().clone();
        on(device, || B::failure(&place), || self.first_bad(store, inputs))
    }

    fn run(
        &mut self,
        device: Device,
        params: &mut DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
        exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<BTreeMap<String, HostTensor>, RunError> {
        let at = params.device;
        let store: &mut dyn Any = &mut *params.store;
        let Some(store) = store.downcast_mut::<Params<B>>().filter(|_| device.index == at.index) else {
            return Err(elsewhere(device, at));
        };
        let place = store.device().clone();
        on(device, || B::failure(&place), || self.run_among(store, inputs, exchange))
    }
}

impl DeviceParams {
    pub(super) fn new<B: PlanBackend>(device: Device, params: Params<B>) -> Self {
        Self { device, store: Box::new(params) }
    }

    /// The device the tensors live on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Sets a tensor, replacing one of that name.
    pub fn set(&mut self, name: &str, tensor: HostTensor) {
        self.store.set(name, tensor);
    }

    /// Sets a tensor of zeros, made on the device; one of that name is given back first.
    pub fn zeros(&mut self, name: &str, shape: &[usize]) {
        self.store.zeros(name, shape);
    }

    /// Gives a tensor back; false when there is none.
    pub fn remove(&mut self, name: &str) -> bool {
        self.store.remove(name)
    }

    /// A copy of the floats of a tensor on the host, with its shape (scalars as `[1]`); `None` for a tensor that is not
    /// there, or that the device lost; [`DeviceParams::read`] tells these apart.
    pub fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.read(name).ok().flatten()
    }

    /// A copy of the floats of a tensor on the host, with its shape (scalars as `[1]`); `None` for one that is not there.
    ///
    /// # Errors
    /// [`RunError::Device`] when the device has failed or fails in this: what it returns is not what was computed.
    pub fn read(&self, name: &str) -> Result<Option<Shaped>, RunError> {
        self.store.read(self.device, name)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        self.store.names()
    }

    /// Number of values of a tensor; `None` for one that is not there.
    pub fn elements(&self, name: &str) -> Option<usize> {
        self.store.elements(name)
    }

    /// Makes `to` another name of the tensor called `from`; false when there is none.
    pub fn alias(&mut self, from: &str, to: &str) -> bool {
        self.store.alias(from, to)
    }

    /// Bytes the device's allocator holds, which is the most it ever needed; `None` on the CPU, where the system knows.
    pub fn device_memory(&self) -> Option<u64> {
        self.store.reserved()
    }
}

impl DeviceExecutor {
    pub(super) fn new<B: PlanBackend>(device: Device, plan: Executor<B>) -> Self {
        Self { device, plan: Box::new(plan) }
    }

    /// The device it was planned for.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The graph as it is executed.
    pub fn graph(&self) -> &Graph {
        self.plan.graph()
    }

    /// The plan that is walked.
    pub fn plan(&self) -> &Plan {
        self.plan.plan()
    }

    /// As [`Executor::spare`].
    pub fn spare(&mut self, len: usize) -> Option<Vec<f32>> {
        self.plan.spare(len)
    }

    /// Starts (or clears) the per-node clock; on a GPU it shows when a node was sent, not when it was done.
    pub fn profile(&mut self) {
        self.plan.profile();
    }

    /// Stops the clock: times of all runs since [`DeviceExecutor::profile`].
    pub fn take_profile(&mut self) -> Profile<'_> {
        self.plan.take_profile()
    }

    /// See [`Executor::guard`].
    pub fn guard(&mut self) {
        self.plan.guard();
    }

    /// See [`Executor::read_late`].
    pub fn read_late(&mut self) {
        self.plan.read_late();
    }

    /// See [`Executor::record_launches`].
    pub fn record_launches(&mut self) {
        self.plan.record_launches();
    }

    /// See [`Executor::recorded`].
    pub fn recorded(&self) -> Option<Recorded> {
        self.plan.recorded()
    }

    /// See [`Executor::unread`]; `params` are those of the run.
    ///
    /// # Errors
    /// As [`DeviceExecutor::run`]: a device that fails may be found out here.
    pub fn unread(&mut self, params: &DeviceParams) -> Result<Option<BTreeMap<String, HostTensor>>, RunError> {
        self.plan.unread(self.device, params)
    }

    /// See [`Executor::first_bad`].
    ///
    /// # Errors
    /// As [`DeviceExecutor::run`].
    pub fn first_bad(
        &mut self,
        params: &DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<Option<FirstBad>, RunError> {
        self.plan.first_bad(self.device, params, inputs)
    }

    /// Runs the plan once; see [`Executor::run`].
    ///
    /// # Errors
    /// As [`Executor::run`]; [`RunError::Device`] when the device fails or its memory is full, after which `params` are
    /// not to be used again, and every further run on that device fails too.
    pub fn run(
        &mut self,
        params: &mut DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<BTreeMap<String, HostTensor>, RunError> {
        self.plan.run(self.device, params, inputs, None)
    }

    /// Runs the plan once as one of several ranks; see [`Executor::run_among`].
    ///
    /// # Errors
    /// As [`DeviceExecutor::run`] and [`Executor::run_among`].
    pub fn run_among(
        &mut self,
        params: &mut DeviceParams,
        inputs: Vec<(&str, HostTensor)>,
        exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<BTreeMap<String, HostTensor>, RunError> {
        self.plan.run(self.device, params, inputs, exchange)
    }
}

/// The parameters of a plan's back end, on its device.
fn held<B: PlanBackend>(device: Device, params: &DeviceParams) -> Result<&Params<B>, RunError> {
    let store: &dyn Any = &*params.store;
    let of_plan = store.downcast_ref::<Params<B>>().filter(|_| device.index == params.device.index);
    of_plan.ok_or_else(|| elsewhere(device, params.device))
}

fn elsewhere(plan: Device, params: Device) -> RunError {
    RunError::Elsewhere { plan: plan.to_string(), params: params.to_string() }
}
