//! Benchmarks: comparable programs, interleaved, in processes of their own.
//!
//! A [`Workload`] is a folder with everything a worker needs: sizes, weights, a batch of clips, masks. A [`Worker`] is a
//! process that runs one step on request and answers with its time and loss, so that peak memory is that of one program, and
//! the programs take turns: a slow minute of a shared machine affects all of them. Results are ratios of neighbouring runs
//! with their spread ([`Measured`]).

mod device_kernels;
mod eager;
mod encoder;
mod kernels;
mod machine;
mod program;
mod table;
mod worker;
mod workload;

pub use device_kernels::{DeviceKernel, device_kernels};
pub use kernels::{KernelSpeed, KernelTable, kernel_speeds};
pub use machine::{paths, product_peak};
pub use program::{Program, WorkerRequest, serve};
pub use table::{Comparison, Measured, compare};
pub use worker::{Answer, Worker, WorkerError};
pub use workload::{What, Workload, WorkloadRequest};

/// A benchmark failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The workload cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A workload file that is not one.
    #[error("{}: {reason}", path.display())]
    Workload {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The configuration does not hold its rules.
    #[error(transparent)]
    Config(#[from] vjepa_recipe::config::ConfigError),
    /// Masks cannot be drawn.
    #[error(transparent)]
    Masks(#[from] vjepa_recipe::masks::MaskError),
    /// The training step failed.
    #[error(transparent)]
    Train(#[from] vjepa_train::TrainError),
    /// A plan failed.
    #[error(transparent)]
    Run(#[from] vjepa_runtime::plan::RunError),
    /// Compiling failed.
    #[error(transparent)]
    Compile(#[from] vjepa_programs::CompileError),
    /// An exported model failed.
    #[error(transparent)]
    Session(#[from] vjepa_runtime::SessionError),
    /// A worker died or answered nonsense.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The graph has no report.
    #[error(transparent)]
    Plan(#[from] vjepa_compiler::plan::PlanError),
    /// The eager modules refused their input.
    #[error("Burn's modules: {0}")]
    Eager(String),
    /// A worker was asked for what it does not have.
    #[error("{0}")]
    Refused(String),
}
