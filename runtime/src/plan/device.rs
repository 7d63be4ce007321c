//! Devices that plans run on, by name: `cpu`, `cpu-lowered`, `cuda:N`.

use super::on_device::{DeviceExecutor, DeviceParams};
use super::{Cpu, Executor, Params, RunError};
use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::Plan;

/// A device that plans run on. It was there when it was [opened](Device::open).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device(pub(super) Kind);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// All cores, our own kernels.
    #[default]
    Cpu,
    /// All cores, through Burn's operations: what a device without kernels of ours computes.
    CpuLowered,
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(usize),
}

/// A device that is not there, or that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No name of a device.
    #[error("there is no device `{0}`; write cpu, or cuda:N for the N-th NVIDIA GPU, counted from 0")]
    Unknown(String),
    /// The program was built without the feature.
    #[error("this build has no CUDA; build with --features cuda, or use --device cpu")]
    NotBuilt,
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
    /// An index past the last GPU.
    #[error("there is no cuda:{index}: this machine has {count} NVIDIA GPU(s), counted from 0")]
    NoSuchGpu {
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The device's memory is full.
    #[error(
        "{device} is out of memory: use fewer clips at once (--set data.batch_size=N in training, --batch in benchmarks), \
         compute more of the step again (train --memory-budget), or use --set meta.dtype=bfloat16"
    )]
    OutOfMemory {
        /// The device.
        device: String,
    },
    /// Anything else that went wrong on the device.
    #[error("{device} failed: {why}")]
    Failed {
        /// The device.
        device: String,
        /// What its library says.
        why: String,
    },
}

impl Device {
    /// The CPU with our kernels.
    pub const CPU: Self = Self(Kind::Cpu);

    /// The device of that name, once it has been looked for: `cpu`; `cpu-lowered` (the CPU without our kernels, slow: for
    /// telling a kernel's mistake from the plan's); `cuda` or `cuda:N` (experimental; in builds with the feature `cuda`).
    ///
    /// # Errors
    /// [`DeviceError`] names what is missing.
    pub fn open(name: &str) -> Result<Self, DeviceError> {
        match name {
            "cpu" => Ok(Self(Kind::Cpu)),
            "cpu-lowered" => Ok(Self(Kind::CpuLowered)),
            _ => {
                let index = match name.strip_prefix("cuda") {
                    Some("") => Some(0),
                    // `parse` alone would take a sign.
                    Some(rest) => rest
                        .strip_prefix(':')
                        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                        .and_then(|digits| digits.parse().ok()),
                    None => None,
                };
                gpu(index.ok_or_else(|| DeviceError::Unknown(name.to_owned()))?)
            }
        }
    }

    /// Plans `graph` for this device.
    ///
    /// # Errors
    /// [`RunError::Plan`].
    pub fn plan(self, graph: &Graph) -> Result<DeviceExecutor, RunError> {
        Ok(match self.0 {
            Kind::Cpu => DeviceExecutor::cpu(self, Executor::<Cpu>::new(graph)?),
            Kind::CpuLowered => DeviceExecutor::cpu(self, Executor::<Cpu>::without_kernels(graph)?),
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => DeviceExecutor::cuda(self, Executor::new(graph)?),
        })
    }

    /// The graph with the semantic operations decomposed that nothing runs whole on this device.
    ///
    /// # Errors
    /// [`RunError::Plan`] when the graph is ill formed.
    pub fn lower(self, graph: &Graph) -> Result<Graph, RunError> {
        match self.0 {
            Kind::Cpu => Executor::<Cpu>::lower(graph),
            Kind::CpuLowered => Executor::<Cpu>::lower_for(graph, false),
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => Executor::<super::cuda::Cuda>::lower(graph),
        }
    }

    /// Takes a graph that was [lowered](Device::lower) for this device and planned before.
    ///
    /// # Errors
    /// As [`Executor::from_plan`].
    pub fn take(self, graph: Graph, plan: Plan) -> Result<DeviceExecutor, RunError> {
        Ok(match self.0 {
            Kind::Cpu => DeviceExecutor::cpu(self, Executor::from_plan(graph, plan)?),
            Kind::CpuLowered => DeviceExecutor::cpu(self, Executor::checked(graph, plan, false)?),
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => DeviceExecutor::cuda(self, Executor::from_plan(graph, plan)?),
        })
    }

    /// The back end a plan for this device is made for: `cpu`, `cpu-lowered` or `cuda`, whichever GPU it is.
    pub fn kind(self) -> &'static str {
        match self.0 {
            Kind::Cpu => "cpu",
            Kind::CpuLowered => "cpu-lowered",
            #[cfg(feature = "cuda")]
            Kind::Cuda(_) => "cuda",
        }
    }

    /// An empty store of parameters on this device.
    pub fn params(self) -> DeviceParams {
        match self.0 {
            Kind::Cpu | Kind::CpuLowered => DeviceParams::cpu(self, Params::new(Default::default())),
            #[cfg(feature = "cuda")]
            Kind::Cuda(index) => DeviceParams::cuda(self, Params::new(super::cuda::device(index))),
        }
    }

    /// Whether it computes on the CPU.
    pub fn is_cpu(self) -> bool {
        matches!(self.0, Kind::Cpu | Kind::CpuLowered)
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Kind::Cpu => write!(f, "cpu"),
            Kind::CpuLowered => write!(f, "cpu-lowered"),
            #[cfg(feature = "cuda")]
            Kind::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu(index: usize) -> Result<Device, DeviceError> {
    super::cuda::look_for(index)?;
    Ok(Device(Kind::Cuda(index)))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

impl DeviceError {
    /// What a device's library said, as one of ours: its first two lines, without the traces below.
    pub(super) fn from_message(device: Device, message: &str) -> Self {
        let device = device.to_string();
        let lower = message.to_lowercase();
        let full = ["out of memory", "out-of-memory", "out_of_memory", "capacity exceeded"];
        if full.iter().any(|words| lower.contains(words)) {
            return Self::OutOfMemory { device };
        }
        let said = message.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "Caused by:");
        Self::Failed { device, why: said.take(2).collect::<Vec<_>>().join(": ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!(Device::open("cpu"), Ok(Device::CPU));
        assert_eq!(Device::open("cpu-lowered").map(|device| device.to_string()), Ok("cpu-lowered".to_owned()));
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda0", "", "CUDA:0"] {
            assert_eq!(Device::open(name), Err(DeviceError::Unknown(name.to_owned())));
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_so() {
        for name in ["cuda", "cuda:0", "cuda:7"] {
            let error = Device::open(name).unwrap_err().to_string();
            assert!(error.starts_with("this build has no CUDA; build with --features cuda"), "{error}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_machine_without_a_driver_says_so() {
        if !super::super::cuda::has_driver() {
            let error = Device::open("cuda:0").unwrap_err();
            assert_eq!(error, DeviceError::NoDriver);
            assert!(error.to_string().contains("libcuda.so.1 was not found"), "{error}");
        }
    }

    #[test]
    fn messages_of_the_device_become_sentences() {
        let said =
            "An error happened during execution\nCaused by:\n  memory: CUDA_ERROR_OUT_OF_MEMORY\nBacktrace:\n0: x";
        let error = DeviceError::from_message(Device::CPU, said);
        assert!(error.to_string().starts_with("cpu is out of memory: use fewer clips"), "{error}");
        let error =
            DeviceError::from_message(Device::CPU, "A launch error happened\nCaused by:\n  bad kernel\nBacktrace");
        assert_eq!(error.to_string(), "cpu failed: A launch error happened: bad kernel");
    }
}
