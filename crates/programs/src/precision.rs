//! The precision of a compiled graph.

use super::CompileError;
use vjepa_compiler::ir::{DType, Graph, GraphError};
use vjepa_compiler::passes::{Autocast, Pass, PassError};
use vjepa_recipe::config::Dtype;

/// The precision of products. Weights, moments, norms, softmax and losses are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32 (on CUDA the tensor cores' TF32).
    #[default]
    F32,
    /// bf16 operands, f32 sums. The CPU emulates it exactly, but slowly.
    Bf16,
    /// f16 operands, f32 sums, for graphs that train nothing: smaller rounding than bf16's, but nothing above 65504, and
    /// gradients below 6e-8 vanish. The CPU emulates it.
    F16,
}

impl Precision {
    /// The graph in this precision. Apply it last, to the differentiated graph.
    ///
    /// # Errors
    /// [`CompileError::Pass`]; [`CompileError::Unscaled`] for f16 and a graph that trains.
    pub fn apply(self, graph: Graph) -> Result<Graph, CompileError> {
        let pass = match self {
            Self::F32 => return Ok(graph),
            Self::Bf16 => Autocast { to: DType::BF16 },
            Self::F16 if !graph.updates.is_empty() => return Err(CompileError::Unscaled),
            Self::F16 => Autocast { to: DType::F16 },
        };
        let failed = |source: GraphError| PassError::Failed { pass: pass.name(), source };
        Ok(pass.run(&graph).map_err(failed)?.map_or(graph, |changed| changed.graph))
    }

    /// The precision of training in `meta.dtype`; none for float16, whose gradients would need scaling.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::Float32 => Some(Self::F32),
            Dtype::Bfloat16 => Some(Self::Bf16),
            Dtype::Float16 => None,
        }
    }

    /// The corresponding value of `meta.dtype`.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::Float32,
            Self::Bf16 => Dtype::Bfloat16,
            Self::F16 => Dtype::Float16,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(format!("`{text}` is not a precision; write f32, bf16 or f16")),
        }
    }
}
