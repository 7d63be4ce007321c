//! Which back ends this build has: one row each, whatever there is to a back end.

use super::on_device::{DeviceExecutor, DeviceParams};
use super::{Cpu, Device, DeviceError, Executor, Params, PlanBackend, RunError};
use burn_backend::tensor::Device as Place;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::Plan;

/// One back end, with or without its kernels.
pub(super) struct BackEnd {
    /// The word before the colon in a device's name.
    pub(super) name: &'static str,
    /// Whether there may be several devices, which are numbered then.
    pub(super) numbered: bool,
    pub(super) open: fn(usize) -> Result<(), DeviceError>,
    pub(super) plan: fn(Device, &Graph) -> Result<DeviceExecutor, RunError>,
    pub(super) lower: fn(&Graph) -> Result<Graph, RunError>,
    /// For each node of a lowered graph, whether a kernel of ours runs it.
    pub(super) by_kernel: fn(&Graph) -> Vec<bool>,
    pub(super) take: fn(Device, Graph, Plan) -> Result<DeviceExecutor, RunError>,
    pub(super) params: fn(Device) -> DeviceParams,
    /// Bytes of the device's memory that nothing has been put into, where that is known.
    pub(super) unused: fn(usize) -> Option<u64>,
    /// Lays its memory out for a largest value, in bytes.
    pub(super) lay_out: fn(usize, u64) -> Result<bool, String>,
}

/// A back end that devices can be opened on.
pub(super) trait Opened: PlanBackend {
    /// Looks for the device of that index.
    fn open(index: usize) -> Result<(), DeviceError>;

    /// The device of that index, which has been looked for.
    fn place(index: usize) -> Place<Self>;

    /// Refuses what the device cannot do, as far as it is known before a run.
    fn refuse(_device: Device, _plan: &Executor<Self>) -> Result<(), RunError> {
        Ok(())
    }
}

impl Opened for Cpu {
    fn open(_: usize) -> Result<(), DeviceError> {
        Ok(())
    }

    fn place(_: usize) -> Place<Self> {
        Default::default()
    }
}

/// The CPU with our kernels.
pub(super) static CPU: BackEnd = row::<Cpu, true>("cpu", false);
static CPU_LOWERED: BackEnd = row::<Cpu, false>("cpu-lowered", false);
#[cfg(feature = "cuda-base")]
static CUDA: [BackEnd; 2] = cube::<vjepa_cube::CudaRuntime>(["cuda", "cuda-lowered"]);
#[cfg(feature = "wgpu-base")]
static WGPU: [BackEnd; 2] = cube::<vjepa_cube::WgpuRuntime>(["wgpu", "wgpu-lowered"]);

/// All back ends of this build.
pub(super) fn all() -> impl Iterator<Item = &'static BackEnd> {
    let all = [&CPU, &CPU_LOWERED].into_iter();
    #[cfg(feature = "cuda-base")]
    let all = all.chain(&CUDA);
    #[cfg(feature = "wgpu-base")]
    let all = all.chain(&WGPU);
    all
}

#[cfg(feature = "cube")]
const fn cube<R: vjepa_cube::Gpu>([name, lowered]: [&'static str; 2]) -> [BackEnd; 2] {
    use vjepa_cube::CubeBackend;
    [row::<CubeBackend<R>, true>(name, true), row::<CubeBackend<R>, false>(lowered, true)]
}

const fn row<B: Opened, const KERNELS: bool>(name: &'static str, numbered: bool) -> BackEnd {
    BackEnd {
        name,
        numbered,
        open: B::open,
        plan: |device, graph| planned(device, Executor::<B>::planned(graph, KERNELS)?),
        lower: |graph| Executor::<B>::lower_for(graph, KERNELS),
        by_kernel: |graph| Executor::<B>::by_kernel(graph, KERNELS),
        take: |device, graph, plan| planned(device, Executor::<B>::checked(graph, plan, KERNELS)?),
        params: |device| DeviceParams::new(device, Params::<B>::new(B::place(device.index))),
        unused: |index| B::unused(&B::place(index)),
        // The library's operations keep values that no plan knows, such as scores of attention.
        lay_out: |index, largest| if KERNELS { B::lay_out(&B::place(index), largest) } else { Ok(false) },
    }
}

fn planned<B: Opened>(device: Device, plan: Executor<B>) -> Result<DeviceExecutor, RunError> {
    B::refuse(device, &plan)?;
    Ok(DeviceExecutor::new(device, plan))
}
