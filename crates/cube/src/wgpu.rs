//! GPUs through Vulkan, or Metal on a Mac: kernels are WGSL, which the driver compiles.

use crate::gpu::{Found, Gpu, OpenError};
use crate::kernels::rules;
use crate::watch;
use burn_backend::Shape;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::device::Device as _;
use burn_cubecl::cubecl::future::block_on;
use burn_cubecl::tensor::CubeTensor;
use burn_wgpu::graphics::{AutoGraphicsApi, GraphicsApi};
use burn_wgpu::{RuntimeOptions, WgpuDevice, WgpuSetup, init_setup};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vjepa_compiler::ops::Op;
use vjepa_lower::Lowering;
use wgpu::{Adapter, DeviceType, Features};

/// CubeCL's runtime for these devices.
pub type WgpuRuntime = burn_wgpu::WgpuRuntime;

impl Gpu for WgpuRuntime {
    const NAME: &'static str = "wgpu";

    fn open(index: usize) -> Result<(), OpenError> {
        let count = adapters().len();
        let Some((device, found)) = adapters().get(index) else {
            return Err(match count {
                0 => OpenError::NoDevice(Self::NAME),
                _ => OpenError::NoSuchDevice { name: Self::NAME, index, count },
            });
        };
        watch::install();
        if let Some(mistake) = rules::mistake(Self::NAME) {
            return Err(OpenError::Kernels(mistake));
        }
        start(index, device).map_err(|why| OpenError::Start { device: found.device.clone(), why })
    }

    fn device(index: usize) -> WgpuDevice {
        // An opened device is one of them; otherwise CubeCL is left to choose.
        adapters().get(index).map_or(WgpuDevice::DefaultDevice, |(device, _)| device.clone())
    }

    fn found() -> Vec<Found> {
        adapters().iter().map(|(_, found)| found.clone()).collect()
    }

    fn kernel(op: &Op) -> Option<Lowering<'_, CubeBackend<Self>>> {
        crate::kernels::kernel(op)
    }

    fn lowering(op: &Op) -> Option<Lowering<'_, CubeBackend<Self>>> {
        vjepa_lower::lowering(op)
    }

    fn pixels(words: CubeTensor<Self>, scaling: CubeTensor<Self>, shape: Shape) -> CubeTensor<Self> {
        crate::kernels::pixels(words, scaling, shape)
    }

    fn address(tensor: &CubeTensor<Self>) -> Option<(u64, u64)> {
        let memory = tensor.client.get_resource(tensor.handle.clone()).ok()?;
        let mut buffer = DefaultHasher::new();
        memory.resource().buffer.hash(&mut buffer);
        Some((buffer.finish(), memory.resource().offset))
    }
}

/// Buffers of the kernel that has most, AdamW's, with CubeCL's own two.
const BUFFERS: u32 = 11;

/// The devices that have been started.
static STARTED: Mutex<BTreeMap<usize, WgpuSetup>> = Mutex::new(BTreeMap::new());

/// Starts a device once.
fn start(index: usize, device: &WgpuDevice) -> Result<(), String> {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if started.contains_key(&index) {
        return Ok(());
    }
    let setup = catch_unwind(AssertUnwindSafe(|| init_setup::<AutoGraphicsApi>(device, RuntimeOptions::default())));
    let setup = setup.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
        text.unwrap_or("no reason given").to_owned()
    })?;
    let buffers = setup.device.limits().max_storage_buffers_per_shader_stage;
    if buffers < BUFFERS {
        return Err(format!("its kernels read {buffers} buffers at most, and {BUFFERS} are needed"));
    }
    let id = device.to_id();
    setup.device.set_device_lost_callback(move |reason, text| {
        watch::record(id, format!("the device was lost ({reason:?}) {text}").trim_end());
    });
    // wgpu's own handler panics.
    setup.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| watch::record(id, &error.to_string())));
    started.insert(index, setup);
    Ok(())
}

/// Destroys a started device, as a driver that resets it does. For tests: nothing can be computed on it afterwards.
pub fn lose(index: usize) {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(setup) = started.get(&index) {
        setup.device.destroy();
        // The loss is told where the device is next waited for.
        let _ = setup.device.poll(wgpu::PollType::Poll);
    }
}

/// The devices of the system, asked once: GPUs with memory of their own first, software last.
fn adapters() -> &'static [(WgpuDevice, Found)] {
    static ADAPTERS: OnceLock<Vec<(WgpuDevice, Found)>> = OnceLock::new();
    ADAPTERS.get_or_init(|| {
        // Only the one interface that CubeCL takes: asking OpenGL prints errors where there is no display.
        let backends = AutoGraphicsApi::backend().into();
        let wanted = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
        let mut all = block_on(wgpu::Instance::new(wanted).enumerate_adapters(backends));
        let order = [DeviceType::DiscreteGpu, DeviceType::IntegratedGpu, DeviceType::VirtualGpu, DeviceType::Cpu];
        let mut listed = Vec::new();
        for kind in order {
            let (of_kind, others) = all.into_iter().partition(|adapter| adapter.get_info().device_type == kind);
            all = others;
            let of_kind: Vec<Adapter> = of_kind;
            for (nth, adapter) in of_kind.iter().enumerate() {
                let device = match kind {
                    DeviceType::DiscreteGpu => WgpuDevice::DiscreteGpu(nth),
                    DeviceType::IntegratedGpu => WgpuDevice::IntegratedGpu(nth),
                    DeviceType::VirtualGpu => WgpuDevice::VirtualGpu(nth),
                    // CubeCL knows one software device.
                    DeviceType::Cpu if nth == 0 => WgpuDevice::Cpu,
                    DeviceType::Cpu | DeviceType::Other => continue,
                };
                let found = describe(listed.len(), adapter);
                listed.push((device, found));
            }
        }
        listed
    })
}

fn describe(index: usize, adapter: &Adapter) -> Found {
    let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
    let software = info.device_type == DeviceType::Cpu;
    let driver = [info.driver.as_str(), info.driver_info.as_str()].map(str::trim).join(" ");
    let about = if driver.trim().is_empty() { info.name.clone() } else { format!("{} ({})", info.name, driver.trim()) };
    // CubeCL uses none on software devices.
    let subgroups = (features.contains(Features::SUBGROUP) && !software)
        .then_some((info.subgroup_min_size, info.subgroup_max_size));
    Found {
        device: format!("{}:{index}", WgpuRuntime::NAME),
        about: format!("{about} through {:?}", info.backend),
        software,
        memory: memory(adapter),
        f16: features.contains(Features::SHADER_F16),
        // WGSL has no such type.
        bf16: false,
        subgroups,
        largest_buffer: limits.max_storage_buffer_binding_size,
    }
}

/// Bytes of the largest heap of the device's own memory.
#[cfg(not(any(target_vendor = "apple", target_family = "wasm")))]
fn memory(adapter: &Adapter) -> Option<u64> {
    // SAFETY: the adapter is only read from, and outlives the borrow; nothing of it is destroyed or kept.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = vulkan.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance, which the adapter keeps alive.
    let heaps = unsafe { instance.get_physical_device_memory_properties(vulkan.raw_physical_device()) };
    // Bit 0 of a heap's flags is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT.
    let own = heaps.memory_heaps_as_slice().iter().filter(|heap| heap.flags.as_raw() & 1 == 1);
    own.map(|heap| heap.size).max()
}

/// Metal does not say.
#[cfg(any(target_vendor = "apple", target_family = "wasm"))]
fn memory(_: &Adapter) -> Option<u64> {
    None
}
