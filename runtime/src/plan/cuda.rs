//! NVIDIA GPUs (experimental): Burn's raw CubeCL back end, without burn-fusion around it.
//!
//! There are no kernels of ours for it yet: plans are lowered to Burn's operations, whose kernels are compiled and tuned on
//! the machine when they first run, for minutes on a large model.

use super::device::DeviceError;
use super::{Kernel, PlanBackend};
use burn_backend::Backend;
use burn_cuda::CudaDevice;
use cudarc::driver::result::{self as driver, device as gpus};
use std::path::{Path, PathBuf};
use vjepa_compiler::ops::Op;

/// The back end. Without burn-cuda's feature `fusion` this is `CubeBackend<CudaRuntime>`.
pub type Cuda = burn_cuda::Cuda;

impl PlanBackend for Cuda {
    type Memory = ();

    /// Plans are lowered to Burn's operations.
    fn kernel(_: &Op) -> Option<Kernel<'_, Self>> {
        None
    }
}

/// The GPU of that index, which has been [looked for](look_for).
pub(super) fn device(index: usize) -> CudaDevice {
    CudaDevice::new(index)
}

/// Whether the driver's library is there.
pub(super) fn has_driver() -> bool {
    // SAFETY: opens libcuda and closes it; its initialisers run in every program that uses the driver.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

/// Looks for driver, GPU and toolkit, in that order: the back end itself panics on its own thread where one is missing.
///
/// # Errors
/// [`DeviceError`] for the first that is not there.
pub(super) fn look_for(index: usize) -> Result<(), DeviceError> {
    if !has_driver() {
        return Err(DeviceError::NoDriver);
    }
    let failed = |error: driver::DriverError| DeviceError::Driver(format!("{:?}", error.0));
    driver::init().map_err(failed)?;
    let count = usize::try_from(gpus::get_count().map_err(failed)?).unwrap_or(0);
    if index >= count {
        return Err(DeviceError::NoSuchGpu { index, count });
    }
    // SAFETY: as above, for libnvrtc.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(DeviceError::NoToolkit("CUDA's run-time compiler, libnvrtc, was not found".to_owned()));
    }
    let folder = toolkit().ok_or_else(|| DeviceError::NoToolkit("there is no CUDA toolkit here".to_owned()))?;
    match ["cuda_bf16.h", "mma.h"].into_iter().find(|header| !folder.join("include").join(header).is_file()) {
        Some(header) => {
            let place = folder.join("include");
            Err(DeviceError::NoToolkit(format!("CUDA's header {header} is not in {}", place.display())))
        }
        None => Ok(()),
    }
}

/// Where the back end looks for headers: CUDA_PATH, else the usual folders.
fn toolkit() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("CUDA_PATH") {
        return Some(named.into());
    }
    let usual = ["/usr/local/cuda", "/opt/cuda"].into_iter().map(PathBuf::from).find(|folder| folder.exists());
    usual.or_else(|| Path::new("/usr/bin/nvcc").exists().then(|| PathBuf::from("/usr")))
}

/// Bytes the allocator holds on the device: pages are kept for reuse, so this is the most that was needed so far.
pub(super) fn reserved(device: &CudaDevice) -> Option<u64> {
    Cuda::memory_pool_usage(device).map(|usage| usage.bytes_reserved)
}
