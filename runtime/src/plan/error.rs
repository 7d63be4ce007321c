//! What running a plan refuses, and how it fails.

use super::backend::KernelError;
use super::{DeviceError, SimdError};

/// Running a plan failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The graph cannot be planned.
    #[error("the graph `{graph}` cannot be planned: {reason}")]
    Plan {
        /// Graph name.
        graph: String,
        /// Why not.
        reason: String,
    },
    /// An input the graph declares was not given.
    #[error("input `{0}` is missing")]
    MissingInput(String),
    /// A parameter the graph declares is not in the store.
    #[error("parameter `{0}` is not loaded")]
    MissingParam(String),
    /// A source has another shape or type than the graph declares.
    #[error("`{name}` should be {expected} but is {got}")]
    Shape {
        /// Input or parameter.
        name: String,
        /// As declared.
        expected: String,
        /// As given.
        got: String,
    },
    /// A node has an operation that this back end has no kernel for, and Burn no operations.
    #[error("operation {op} (node {node}) has no kernel on this back end")]
    Unsupported {
        /// Operation name.
        op: &'static str,
        /// Its position in the plan.
        node: usize,
    },
    /// A kernel does not take what it was given. Parameters that the run had moved out of the store are lost.
    #[error("operation {op} (node {node}): {source}")]
    Kernel {
        /// Operation name.
        op: &'static str,
        /// Its position in the plan.
        node: usize,
        /// What it does not take.
        source: KernelError,
    },
    /// A node reads, or the run returns, a value that no node has computed: the plan does not fit the graph.
    #[error("graph `{graph}`: value %{value} was never computed")]
    Missing {
        /// Graph name.
        graph: String,
        /// The value.
        value: usize,
    },
    /// A result cannot be read back.
    #[error("output `{name}` was lost on the device: {why}")]
    Lost {
        /// The output.
        name: String,
        /// What the back end says.
        why: String,
    },
    /// A guarded output is NaN or infinite; the parameters are as they were, but for those whose update came before it.
    #[error("`{output}` is {}", seen.last().map_or(f64::NAN, |(_, value)| *value))]
    NotFinite {
        /// The output.
        output: String,
        /// The guarded outputs so far, this one last.
        seen: Vec<(String, f64)>,
    },
    /// The ranks of the run cannot go on together.
    #[error("{0}")]
    Exchange(String),
    /// Plan and parameters are on different devices.
    #[error("the plan is for {plan} but its parameters are on {params}")]
    Elsewhere {
        /// Device of the plan.
        plan: String,
        /// Device of the parameters.
        params: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The instruction set that was asked for is not there.
    #[error(transparent)]
    Simd(#[from] SimdError),
}
