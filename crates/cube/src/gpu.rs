//! What a back end on CubeCL provides, and what its devices are asked.

use crate::kernels::LARGEST_CUBE;
use crate::watch;
use burn_backend::{Backend, DType, Shape, get_device_settings};
use burn_cubecl::cubecl::device::Device as _;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
use std::fmt;
use vjepa_compiler::ops::Op;
use vjepa_lower::Lowering;

/// A CubeCL runtime whose devices plans run on.
pub trait Gpu: CubeRuntime {
    /// The word before the colon in a device's name.
    const NAME: &'static str;

    /// Looks for the device of that index and makes it ready.
    ///
    /// # Errors
    /// [`OpenError`] for the first thing that is missing.
    fn open(index: usize) -> Result<(), OpenError>;

    /// The device of that index, which has been [opened](Gpu::open).
    fn device(index: usize) -> Self::Device;

    /// All devices, in the order of their indices. None where the driver is missing.
    fn found() -> Vec<Found>;

    /// Our kernel for an operation; `None` for one that has none.
    fn kernel(op: &Op) -> Option<Lowering<'_, CubeBackend<Self>>>;

    /// Burn's operations for an operation; `None` for one that is decomposed instead.
    fn lowering(op: &Op) -> Option<Lowering<'_, CubeBackend<Self>>>;

    /// `gain·x + bias` of bytes, `f32[B, C, ...]` of this shape: `words` has four bytes in each i32, the lowest first, `scaling`
    /// gain and bias of each channel.
    fn pixels(words: CubeTensor<Self>, scaling: CubeTensor<Self>, shape: Shape) -> CubeTensor<Self>;

    /// Where a tensor's memory is: two tensors of one address share it. None where the device's thread does not tell.
    fn address(tensor: &CubeTensor<Self>) -> Option<(u64, u64)>;

    /// Lays the device's memory out for a plan whose largest value has so many bytes. False where it stays as it is, as the
    /// memory of back ends does that it has not been measured on.
    ///
    /// # Errors
    /// Why the layout cannot be had, in words.
    fn lay_out(_device: &Self::Device, _largest: u64) -> Result<bool, String> {
        Ok(false)
    }

    /// An f32 tensor in memory of its own, contiguous, with the address of that memory and its number of floats.
    ///
    /// # Errors
    /// Why there is no address that other libraries know, in words.
    fn resident(_tensor: CubeTensor<Self>) -> Result<(CubeTensor<Self>, u64, usize), String> {
        Err(format!("memory of {} has no address", Self::NAME))
    }
}

/// A device that is not there, or cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No driver library.
    #[error(
        "there is no NVIDIA driver here: libcuda.so.1 was not found; install the driver (in a container, pass the GPU \
         through), or use --device cpu"
    )]
    NoDriver,
    /// The driver library cannot be used.
    #[error("the NVIDIA driver does not start ({0}): see what `nvidia-smi` says, or use --device cpu")]
    Driver(String),
    /// CUDA's run-time compiler or its headers are missing: kernels are compiled on the machine they run on.
    #[error("{0}; install the CUDA toolkit and set CUDA_PATH to it, or use --device cpu")]
    NoToolkit(String),
    /// No device at all.
    #[error(
        "there is no {0} device here: install the graphics driver (for a software device, Mesa's Vulkan drivers: \
         mesa-vulkan-drivers and libvulkan1), or use --device cpu"
    )]
    NoDevice(&'static str),
    /// `VJEPA_KERNELS` is not understood.
    #[error("{0}")]
    Kernels(String),
    /// An index past the last device.
    #[error("there is no {name}:{index}: this machine has {count} of them, counted from 0 (`vjepa doctor` lists them)")]
    NoSuchDevice {
        /// The back end.
        name: &'static str,
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A device that does not start.
    #[error("{device} does not start ({why}): update its driver, or use --device cpu")]
    Start {
        /// The device.
        device: String,
        /// What its library says.
        why: String,
    },
}

/// A device as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What `--device` takes.
    pub device: String,
    /// Model and driver.
    pub about: String,
    /// Whether it computes on the CPU.
    pub software: bool,
    /// Bytes of its own memory; of the machine's for a device without.
    pub memory: Option<u64>,
    /// Whether its kernels compute in f16.
    pub f16: bool,
    /// Whether its kernels compute in bf16.
    pub bf16: bool,
    /// Fewest and most units that exchange values without memory; `None` where kernels cannot.
    pub subgroups: Option<(u32, u32)>,
    /// Bytes of the largest buffer a kernel can read.
    pub largest_buffer: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.about)?;
        if self.software {
            write!(f, ", a software device on the CPU")?;
        }
        if let Some(memory) = self.memory {
            write!(f, ", {:.1} GiB", memory as f64 / (1u64 << 30) as f64)?;
        }
        let has = |has: bool| if has { "" } else { "no " };
        write!(f, "; {}f16, {}bf16, ", has(self.f16), has(self.bf16))?;
        match self.subgroups {
            Some((least, most)) if least == most => write!(f, "subgroups of {least}")?,
            Some((least, most)) => write!(f, "subgroups of {least} to {most}")?,
            None => write!(f, "no subgroups")?,
        }
        write!(f, ", buffers of at most {} MiB", self.largest_buffer >> 20)
    }
}

/// Why this device cannot be used any more: a panic on its thread, or its loss. What was computed since is not to be trusted.
pub fn failure<R: Gpu>(device: &R::Device) -> Option<String> {
    watch::failure(device.to_id())
}

/// Bytes of the largest buffer that the device can have.
pub fn largest_buffer<R: Gpu>(device: &R::Device) -> u64 {
    R::client(device).properties().memory.max_page_size
}

/// Bytes of the device's memory, as its driver says.
pub fn memory<R: Gpu>(device: &R::Device) -> Option<u64> {
    let found = R::found().into_iter().enumerate();
    let mut here = found.filter(|(index, _)| R::device(*index).to_id() == device.to_id());
    here.next().and_then(|(_, found)| found.memory)
}

/// Bytes the allocator holds on the device: pages are kept for reuse, so this is the most that was needed so far.
pub fn reserved<R: Gpu>(device: &R::Device) -> Option<u64> {
    CubeBackend::<R>::memory_pool_usage(device).map(|usage| usage.bytes_reserved)
}

/// Units of a work group that kernels of ours need and the device does not have, and how many it has: a kernel of a fixed size is
/// not made smaller for it.
pub fn too_few_units<R: Gpu>(device: &R::Device) -> Option<(u32, u32)> {
    let has = R::client(device).properties().hardware.max_units_per_cube;
    (has < LARGEST_CUBE).then_some((LARGEST_CUBE, has))
}

/// The first of these element types that the device cannot compute with. Its truth values, which every plan may need, are
/// asked about as well.
pub fn without<R: Gpu>(device: &R::Device, types: impl IntoIterator<Item = DType>) -> Option<DType> {
    let bools = DType::Bool(get_device_settings::<CubeBackend<R>>(device).bool_dtype.into());
    types.into_iter().chain([bools]).find(|dtype| !CubeBackend::<R>::supports_dtype(device, *dtype))
}
