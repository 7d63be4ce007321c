//! Devices that plans run on, by name: `cpu`, `cpu-lowered`, `cuda:N`, `wgpu:N`.

use super::RunError;
use super::back_ends::{BackEnd, CPU, all};
use super::on_device::{DeviceExecutor, DeviceParams};
use std::fmt;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::Plan;

/// A device that plans run on. It was there when it was [opened](Device::open).
#[derive(Clone, Copy)]
pub struct Device {
    pub(super) back_end: &'static BackEnd,
    pub(super) index: usize,
}

/// A device that is not there, or that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No name of a device.
    #[error(
        "there is no device `{0}`; write cpu, cuda:N for the N-th NVIDIA GPU or wgpu:N for the N-th GPU of Vulkan or \
         Metal, counted from 0"
    )]
    Unknown(String),
    /// The program was built without the feature.
    #[error("this build has no {what}; build with --features {feature}, or use --device cpu")]
    NotBuilt {
        /// The back end, as people call it.
        what: &'static str,
        /// The feature.
        feature: &'static str,
    },
    /// A device that is not there, or does not start.
    #[cfg(feature = "cube")]
    #[error(transparent)]
    Open(#[from] vjepa_cube::OpenError),
    /// An element type that the device does not compute with.
    #[error("{device} does not compute in {dtype}: {remedy}")]
    Type {
        /// The device.
        device: String,
        /// The element type.
        dtype: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A device whose work groups are too small for our kernels.
    #[error(
        "{device} runs work groups of at most {has} units, and kernels of ours have {needed}: use {}, or --device cpu",
        device.replacen(|c: char| !c.is_ascii_alphabetic(), "-lowered:", 1)
    )]
    WorkGroup {
        /// The device.
        device: String,
        /// Units of the largest work group.
        needed: u32,
        /// Units that the device has.
        has: u32,
    },
    /// A tensor that is larger than the device's buffers.
    #[error(
        "{what} takes {} MiB, and the largest buffer of this device has {} MiB: use fewer clips at once (--set \
         data.batch_size=N in training, --batch in benchmarks) or a smaller model, or use --device cpu",
        bytes >> 20, largest >> 20
    )]
    TooLarge {
        /// Which tensor, with its type.
        what: String,
        /// Bytes it takes.
        bytes: u64,
        /// Bytes of the largest buffer.
        largest: u64,
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
    pub const CPU: Self = Self { back_end: &CPU, index: 0 };

    /// The device of that name, once it has been looked for: `cpu`; `cuda` or `cuda:N` (experimental; in builds with the
    /// feature `cuda`); `wgpu` or `wgpu:N` (experimental; feature `wgpu`), GPUs before software. Each also with `-lowered`
    /// (`cpu-lowered`, `wgpu-lowered:N`): without our kernels, for telling a kernel's mistake from the plan's.
    ///
    /// # Errors
    /// [`DeviceError`] names what is missing.
    pub fn open(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(name.to_owned());
        let (word, index) = match name.split_once(':') {
            None => (name, None),
            // `parse` alone would take a sign.
            Some((word, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (word, Some(digits.parse::<usize>().map_err(|_| unknown())?))
            }
            Some(_) => return Err(unknown()),
        };
        match all().find(|back_end| back_end.name == word) {
            Some(back_end) if index.is_none() || back_end.numbered => {
                let index = index.unwrap_or(0);
                (back_end.open)(index)?;
                Ok(Self { back_end, index })
            }
            Some(_) => Err(unknown()),
            None => Err(match word.strip_suffix("-lowered").unwrap_or(word) {
                "cuda" => DeviceError::NotBuilt { what: "CUDA", feature: "cuda" },
                "wgpu" => DeviceError::NotBuilt { what: "Vulkan or Metal", feature: "wgpu" },
                _ => unknown(),
            }),
        }
    }

    /// Plans `graph` for this device.
    ///
    /// # Errors
    /// [`RunError::Plan`]; [`RunError::Device`] for an element type that the device lacks, or a tensor of fixed size that is
    /// larger than its buffers.
    pub fn plan(self, graph: &Graph) -> Result<DeviceExecutor, RunError> {
        (self.back_end.plan)(self, graph)
    }

    /// The graph with the semantic operations decomposed that nothing runs whole on this device.
    ///
    /// # Errors
    /// [`RunError::Plan`] when the graph is ill formed.
    pub fn lower(self, graph: &Graph) -> Result<Graph, RunError> {
        (self.back_end.lower)(graph)
    }

    /// For each node of a graph that was [lowered](Device::lower) for this device, whether a kernel of ours runs it; the
    /// library's operations run the others.
    pub fn by_kernel(self, graph: &Graph) -> Vec<bool> {
        (self.back_end.by_kernel)(graph)
    }

    /// Takes a graph that was [lowered](Device::lower) for this device and planned before.
    ///
    /// # Errors
    /// As [`Executor::from_plan`](super::Executor::from_plan) and [`Device::plan`].
    pub fn take(self, graph: Graph, plan: Plan) -> Result<DeviceExecutor, RunError> {
        (self.back_end.take)(self, graph, plan)
    }

    /// The back end a plan for this device is made for: `cpu`, `cpu-lowered`, `cuda` or `wgpu`, whichever GPU it is.
    pub fn kind(self) -> &'static str {
        self.back_end.name
    }

    /// The same device without our kernels.
    pub fn without_kernels(self) -> Self {
        let lowered = all().find(|back_end| back_end.name.strip_suffix("-lowered") == Some(self.back_end.name));
        Self { back_end: lowered.unwrap_or(self.back_end), index: self.index }
    }

    /// An empty store of parameters on this device.
    pub fn params(self) -> DeviceParams {
        (self.back_end.params)(self)
    }

    /// Bytes of its memory that nothing has been put into; `None` where that is not known, as for the CPU, whose system knows.
    pub fn unused(self) -> Option<u64> {
        (self.back_end.unused)(self.index)
    }

    /// Lays its memory out for values of this many bytes and less, the largest of a plan's ([`largest_value`]). To be called
    /// before anything is put there; false where the memory stays as it is, as the CPU's does.
    ///
    /// [`largest_value`]: vjepa_compiler::plan::largest_value
    ///
    /// # Errors
    /// [`DeviceError::Failed`] where the device's library refuses.
    pub fn lay_out(self, largest: u64) -> Result<bool, DeviceError> {
        (self.back_end.lay_out)(self.index, largest)
            .map_err(|why| DeviceError::Failed { device: self.to_string(), why })
    }

    /// Whether it computes on the CPU.
    pub fn is_cpu(self) -> bool {
        !self.back_end.numbered
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::CPU
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        (self.back_end.name, self.index) == (other.back_end.name, other.index)
    }
}

impl Eq for Device {}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.back_end.name)?;
        if self.back_end.numbered { write!(f, ":{}", self.index) } else { Ok(()) }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

impl DeviceError {
    /// What a device's library said, as one of ours: its first two lines, or those about a kernel that does not compile,
    /// without the kernel's source and the traces below.
    pub(super) fn from_message(device: Device, message: &str) -> Self {
        const MOST: usize = 400;
        let device = device.to_string();
        // Errors within errors come with their lines escaped.
        let message = message.replace("\\n", "\n");
        let (message, compiler) = match message.split_once("[Compilation Error]") {
            Some((_, said)) => (said.split("[Source]").next().unwrap_or(said), "a kernel does not compile: "),
            None => (message.as_str(), ""),
        };
        let lower = message.to_lowercase();
        let full = ["out of memory", "out-of-memory", "out_of_memory", "capacity exceeded"];
        if full.iter().any(|words| lower.contains(words)) {
            return Self::OutOfMemory { device };
        }
        let said = message.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "Caused by:");
        let why: String = said.take(2).collect::<Vec<_>>().join(": ").chars().take(MOST).collect();
        Self::Failed { device, why: format!("{compiler}{why}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!(Device::open("cpu"), Ok(Device::CPU));
        assert_eq!(Device::open("cpu-lowered").map(|device| device.to_string()), Ok("cpu-lowered".to_owned()));
        assert_eq!(Device::CPU.without_kernels().to_string(), "cpu-lowered");
        assert_eq!(Device::CPU.without_kernels().without_kernels().to_string(), "cpu-lowered");
        for name in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda0", "", "CUDA:0", "cpu:0", "wgpu:", "wgpu:a"]
        {
            assert_eq!(Device::open(name), Err(DeviceError::Unknown(name.to_owned())));
        }
    }

    #[test]
    fn a_build_without_a_back_end_says_so() {
        for (word, what, built) in
            [("cuda", "CUDA", cfg!(feature = "cuda-base")), ("wgpu", "Vulkan or Metal", cfg!(feature = "wgpu-base"))]
        {
            for name in [word.to_owned(), format!("{word}:0"), format!("{word}:7")] {
                if !built {
                    let error = Device::open(&name).unwrap_err().to_string();
                    assert!(
                        error.starts_with(&format!("this build has no {what}; build with --features {word}")),
                        "{error}"
                    );
                }
            }
        }
    }

    #[test]
    fn small_work_groups_are_refused_with_the_device_that_does_without() {
        let error = DeviceError::WorkGroup { device: "wgpu:1".to_owned(), needed: 128, has: 64 }.to_string();
        assert!(error.contains("at most 64 units") && error.contains("use wgpu-lowered:1, or"), "{error}");
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
        let said = r#"Read(\"A launch error\nCaused by:\n  [Compilation Error] \n    k.cu(7): no such type\n[Source]  \nvoid k()"#;
        let error = DeviceError::from_message(Device::CPU, said);
        assert_eq!(error.to_string(), "cpu failed: a kernel does not compile: k.cu(7): no such type");
        assert!(DeviceError::from_message(Device::CPU, &"x".repeat(9000)).to_string().len() < 500);
    }
}
