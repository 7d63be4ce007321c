//! One node as a kernel sees it: operands checked and by position, the result's shape, memory.

use super::pool::Pool;
use super::precision;
use crate::plan::backend::{self, Call, Kernel, KernelError, Operand, exactly};
use burn_backend::DType;
use burn_flex::{Flex, FlexTensor};
use vjepa_compiler::ir::Sizes;

/// The node that a kernel computes.
pub(super) struct Node<'a> {
    operands: Vec<FlexTensor>,
    /// Shape of the first result; a scalar is `[1]`.
    pub(super) shape: Vec<usize>,
    pub(super) sizes: &'a Sizes,
    pub(super) pool: &'a mut Pool,
}

/// A kernel from what computes a node's results, all of which are floats. They are rounded to the types they have in the
/// graph.
pub(super) fn kernel<'a>(
    compute: impl Fn(&mut Node<'_>) -> Result<Vec<FlexTensor>, KernelError> + 'a,
) -> Kernel<'a, Flex> {
    Box::new(move |Call { operands, results, sizes, memory, .. }: Call<'_, Flex>| {
        // Flex has one tensor type for floats and integers, which says which it holds.
        let operands = operands.into_iter().map(|operand| match operand {
            Operand::Float(tensor) | Operand::Int(tensor) => tensor,
        });
        let first = results.first().ok_or(KernelError::Results { expected: 0, got: 1 })?;
        let shape = backend::shape_of(first, sizes)?;
        let mut node = Node { operands: operands.collect(), shape, sizes, pool: memory };
        let made = compute(&mut node)?;
        if made.len() != results.len() {
            return Err(KernelError::Results { expected: results.len(), got: made.len() });
        }
        let stored = made.into_iter().zip(results).map(|(made, ty)| precision::stored(made, ty.dtype));
        Ok(stored.map(Operand::Float).collect())
    })
}

/// A kernel with one result that writes into none of its operands, whose memory is free afterwards.
pub(super) fn reading<'a>(
    compute: impl Fn(&[FlexTensor], &mut Node<'_>) -> Result<FlexTensor, KernelError> + 'a,
) -> Kernel<'a, Flex> {
    kernel(move |node| {
        let operands = node.all_floats()?;
        let result = compute(&operands, node)?;
        operands.into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(vec![result])
    })
}

impl Node<'_> {
    /// The operands, which must be this many, all floats.
    pub(super) fn floats<const N: usize>(&mut self) -> Result<[FlexTensor; N], KernelError> {
        exactly(self.all_floats()?)
    }

    /// The operands, however many, all floats.
    pub(super) fn all_floats(&mut self) -> Result<Vec<FlexTensor>, KernelError> {
        let operands = std::mem::take(&mut self.operands);
        for (position, tensor) in operands.iter().enumerate() {
            holds(position, tensor, DType::F32, "f32")?;
        }
        Ok(operands)
    }

    /// Floats, and indices.
    pub(super) fn floats_and_index(&mut self) -> Result<[FlexTensor; 2], KernelError> {
        let [x, index] = exactly(std::mem::take(&mut self.operands))?;
        holds(0, &x, DType::F32, "f32")?;
        holds(1, &index, DType::I32, "i32")?;
        Ok([x, index])
    }

    /// One operand, floats or indices.
    pub(super) fn any(&mut self) -> Result<FlexTensor, KernelError> {
        let [x] = exactly(std::mem::take(&mut self.operands))?;
        if x.dtype() != DType::I32 {
            holds(0, &x, DType::F32, "f32 or i32")?;
        }
        Ok(x)
    }
}

fn holds(operand: usize, tensor: &FlexTensor, dtype: DType, expected: &'static str) -> Result<(), KernelError> {
    if tensor.dtype() == dtype {
        return Ok(());
    }
    let got = format!("{:?}", tensor.dtype()).to_lowercase();
    Err(KernelError::DType { operand, expected, got })
}
