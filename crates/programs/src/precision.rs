//! The precision of a compiled graph.

use super::CompileError;
use vjepa_compiler::ir::{Graph, GraphError};
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
}

impl Precision {
    /// The graph in this precision. Apply it last, to the differentiated graph.
    ///
    /// # Errors
    /// [`CompileError::Pass`].
    pub fn apply(self, graph: Graph) -> Result<Graph, CompileError> {
        if self == Self::F32 {
            return Ok(graph);
        }
        let failed = |source: GraphError| PassError::Failed { pass: Autocast.name(), source };
        Ok(Autocast.run(&graph).map_err(failed)?.map_or(graph, |changed| changed.graph))
    }

    /// The precision of `meta.dtype`; none for float16, whose gradients would need scaling.
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
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("`{text}` is not a precision; write f32 or bf16")),
        }
    }
}
