//! NVIDIA GPUs: CUDA C++, which NVRTC compiles on the machine it runs on.

use crate::cublaslt;
use crate::gpu::{Found, Gpu, OpenError};
use crate::kernels::rules;
use crate::pools;
use crate::watch;
use burn_backend::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cuda::CudaDevice;
use cudarc::driver::result::{self as driver, device as gpus};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use std::path::{Path, PathBuf};
use vjepa_compiler::ops::Op;
use vjepa_lower::Lowering;

/// CubeCL's runtime for these devices.
pub type CudaRuntime = burn_cubecl::cubecl::cuda::CudaRuntime;

impl Gpu for CudaRuntime {
    const NAME: &'static str = "cuda";

    /// Looks for driver, GPU and toolkit, in that order: the back end itself panics on its own thread where one is missing.
    fn open(index: usize) -> Result<(), OpenError> {
        let count = count()?;
        if index >= count {
            return Err(OpenError::NoSuchDevice { name: Self::NAME, index, count });
        }
        // SAFETY: opens libnvrtc and closes it; its initialisers run in every program that uses it.
        if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            return Err(OpenError::NoToolkit("CUDA's run-time compiler, libnvrtc, was not found".to_owned()));
        }
        let folder = toolkit().ok_or_else(|| OpenError::NoToolkit("there is no CUDA toolkit here".to_owned()))?;
        if let Some(header) = ["cuda_bf16.h", "mma.h"].into_iter().find(|h| !folder.join("include").join(h).is_file()) {
            let place = folder.join("include");
            return Err(OpenError::NoToolkit(format!("CUDA's header {header} is not in {}", place.display())));
        }
        watch::install();
        match rules::mistake(Self::NAME) {
            Some(mistake) => Err(OpenError::Kernels(mistake)),
            None if rules::asks_for_products() => cublaslt::find(index).map_err(OpenError::Kernels),
            None => Ok(()),
        }
    }

    fn device(index: usize) -> CudaDevice {
        CudaDevice::new(index)
    }

    fn found() -> Vec<Found> {
        let count = count().unwrap_or(0);
        (0..count).filter_map(|index| describe(index).ok()).collect()
    }

    fn kernel(op: &Op) -> Option<Lowering<'_, CubeBackend<Self>>> {
        crate::kernels::kernel(op).or_else(|| cublaslt::kernel(op))
    }

    fn lowering(op: &Op) -> Option<Lowering<'_, CubeBackend<Self>>> {
        vjepa_lower::lowering(op)
    }

    fn pixels(words: CubeTensor<Self>, scaling: CubeTensor<Self>, shape: Shape) -> CubeTensor<Self> {
        crate::kernels::pixels(words, scaling, shape)
    }

    fn address(tensor: &CubeTensor<Self>) -> Option<(u64, u64)> {
        let memory = tensor.client.get_resource(tensor.handle.clone()).ok()?;
        Some((memory.resource().ptr, 0))
    }

    fn lay_out(device: &CudaDevice, largest: u64) -> Result<bool, String> {
        pools::lay_out::<Self>(device, largest)
    }

    fn resident(tensor: CubeTensor<Self>) -> Result<(CubeTensor<Self>, u64, usize), String> {
        let tensor = into_contiguous(tensor);
        // A clone may be read while other ranks' values are added.
        let tensor = if tensor.can_mut() { tensor } else { tensor.copy() };
        let len = tensor.meta.shape().num_elements();
        if tensor.dtype != DType::F32 {
            return Err(format!("only f32 is summed where it lies, not {:?}", tensor.dtype));
        }
        let memory = tensor.client.get_resource(tensor.handle.clone()).map_err(|error| format!("{error:?}"))?;
        let (address, size) = (memory.resource().ptr, memory.resource().size);
        match size >= 4 * len as u64 {
            true => Ok((tensor, address, len)),
            false => Err(format!("{size} bytes are there for {len} floats")),
        }
    }
}

/// How many GPUs the driver has.
fn count() -> Result<usize, OpenError> {
    // SAFETY: opens libcuda and closes it; its initialisers run in every program that uses the driver.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(OpenError::NoDriver);
    }
    let failed = |error: driver::DriverError| OpenError::Driver(format!("{:?}", error.0));
    driver::init().map_err(failed)?;
    Ok(usize::try_from(gpus::get_count().map_err(failed)?).unwrap_or(0))
}

fn describe(index: usize) -> Result<Found, driver::DriverError> {
    let gpu = gpus::get(i32::try_from(index).unwrap_or(i32::MAX))?;
    // SAFETY: the driver has been initialised, and `gpu` is a handle it gave.
    let (memory, major, minor) = unsafe {
        let attribute = |of| gpus::get_attribute(gpu, of);
        (
            gpus::total_mem(gpu)? as u64,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        )
    };
    Ok(Found {
        device: format!("{}:{index}", CudaRuntime::NAME),
        about: format!("{} (compute capability {major}.{minor})", gpus::get_name(gpu)?),
        software: false,
        memory: Some(memory),
        f16: (major, minor) >= (5, 3),
        bf16: major >= 8,
        subgroups: Some((32, 32)),
        // CubeCL's largest page.
        largest_buffer: memory / 4,
    })
}

/// Where the back end looks for headers: CUDA_PATH, else the usual folders.
fn toolkit() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CUDA_PATH") {
        return Some(named.into());
    }
    let usual = ["/usr/local/cuda", "/opt/cuda"].into_iter().map(PathBuf::from).find(|folder| folder.exists());
    usual.or_else(|| Path::new("/usr/bin/nvcc").exists().then(|| PathBuf::from("/usr")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_says_so() {
        if count() == Err(OpenError::NoDriver) {
            let error = CudaRuntime::open(0).unwrap_err();
            assert!(error.to_string().contains("libcuda.so.1 was not found"), "{error}");
            assert!(CudaRuntime::found().is_empty());
        }
    }
}
