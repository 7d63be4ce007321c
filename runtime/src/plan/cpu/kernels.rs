//! The kernels of the table in `mod.rs`: operands by position, an operation's attributes, the loop that computes it, and
//! which memory is free afterwards.

use super::node::{kernel, reading};
use super::{
    attention, contraction, elementwise, norm, optimizer, packed_attention, precision, reduce, roi, rotary, tensor,
    tokens,
};
use crate::plan::backend::{Kernel, KernelError, Operand, exactly, number, shape_of};
use burn_flex::Flex;
use vjepa_compiler::ir::{Dim, Scalar};
use vjepa_compiler::ops::{Binary, RoiSampling, Unary};

pub(super) fn unary(function: Unary) -> Option<Kernel<'static, Flex>> {
    let in_place = |function: fn(f32) -> f32| {
        kernel(move |node| {
            let [x] = node.floats()?;
            Ok(vec![elementwise::map_in_place(x, function, node.pool)])
        })
    };
    Some(match function {
        Unary::Gelu => kernel(|node| {
            let [x] = node.floats()?;
            Ok(vec![elementwise::gelu(x, node.pool)])
        }),
        Unary::Neg => in_place(|x| -x),
        Unary::Abs => in_place(f32::abs),
        Unary::Sign => in_place(elementwise::sign),
        Unary::Exp
        | Unary::Log
        | Unary::Sqrt
        | Unary::Recip
        | Unary::Tanh
        | Unary::Sin
        | Unary::Cos
        | Unary::Erf
        | Unary::Relu
        | Unary::Step => return None,
    })
}

pub(super) fn binary(function: Binary) -> Option<Kernel<'static, Flex>> {
    // One loop per function, so that each is vectorised.
    macro_rules! zip {
        ($function:expr) => {
            kernel(move |node| {
                let [a, b] = node.floats()?;
                Ok(vec![elementwise::zip(a, b, &node.shape, $function, node.pool)?])
            })
        };
    }
    Some(match function {
        Binary::Add => zip!(|a, b| a + b),
        Binary::Sub => zip!(|a, b| a - b),
        Binary::Mul => zip!(|a, b| a * b),
        Binary::Div => zip!(|a, b| a / b),
        Binary::Min | Binary::Max => return None,
    })
}

pub(super) fn add_scalar(c: &Scalar) -> Kernel<'_, Flex> {
    kernel(move |node| {
        let ([x], c) = (node.floats()?, number(c, node.sizes)? as f32);
        Ok(vec![elementwise::map_in_place(x, move |x| x + c, node.pool)])
    })
}

pub(super) fn mul_scalar(c: &Scalar) -> Kernel<'_, Flex> {
    kernel(move |node| {
        let ([x], c) = (node.floats()?, number(c, node.sizes)? as f32);
        Ok(vec![elementwise::map_in_place(x, move |x| x * c, node.pool)])
    })
}

pub(super) fn gelu_grad() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [x, dy] = node.floats()?;
        Ok(vec![elementwise::gelu_grad(x, dy, node.pool)])
    })
}

pub(super) fn gelu_with_grad() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [x, dy] = node.floats()?;
        Ok(elementwise::gelu_with_grad(x, dy, node.pool).into())
    })
}

/// A cast to floats: `f32` in memory, whatever their type in the graph.
pub(super) fn widen() -> Kernel<'static, Flex> {
    kernel(|node| Ok(vec![precision::widened(node.any()?)]))
}

pub(super) fn sum(axes: &[usize]) -> Kernel<'_, Flex> {
    reading(move |operands, node| match operands {
        [x] => Ok(reduce::sum(x, axes, &node.shape)),
        _ => Err(KernelError::Operands { expected: "1", got: operands.len() }),
    })
}

pub(super) fn softmax() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [x] = node.floats()?;
        Ok(vec![reduce::softmax(x, node.pool)])
    })
}

pub(super) fn softmax_grad() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [y, dy] = node.floats()?;
        Ok(vec![reduce::softmax_grad(&y, dy, node.pool)])
    })
}

pub(super) fn log_softmax() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [x] = node.floats()?;
        Ok(vec![reduce::log_softmax(x, node.pool)])
    })
}

pub(super) fn squared_norm() -> Kernel<'static, Flex> {
    reading(|operands, _| Ok(reduce::squared_norm(operands)))
}

/// A view where the elements lie in order, of floats or of indices.
pub(super) fn reshape() -> Kernel<'static, Flex> {
    Box::new(|call| {
        let ([operand], [ty]) = (call.operands.as_slice(), call.results) else {
            return Err(KernelError::Operands { expected: "1", got: call.operands.len() });
        };
        let shape = shape_of(ty, call.sizes)?;
        Ok(vec![match operand {
            Operand::Float(x) => Operand::Float(tensor::reshaped(x, &shape)),
            Operand::Int(x) => Operand::Int(tensor::reshaped(x, &shape)),
        }])
    })
}

pub(super) fn concat(axis: usize) -> Kernel<'static, Flex> {
    reading(move |parts, node| Ok(tokens::concat(parts, axis, &node.shape, node.pool)))
}

pub(super) fn gather_tokens() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [x, index] = node.floats_and_index()?;
        let y = tokens::gather(&x, &index, &node.shape, node.pool)?;
        [x, index].into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(vec![y])
    })
}

pub(super) fn scatter_tokens() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [dy, index] = node.floats_and_index()?;
        let dx = tokens::scatter(&dy, &index, &node.shape, node.pool)?;
        [dy, index].into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(vec![dx])
    })
}

pub(super) fn tubelets(tubelet: usize, patch: usize) -> Kernel<'static, Flex> {
    reading(move |operands, node| match operands {
        [clip] => tokens::tubelets(clip, tubelet, patch, &node.shape, node.pool),
        _ => Err(KernelError::Operands { expected: "1", got: operands.len() }),
    })
}

pub(super) fn patch_embed(tubelet: usize, patch: usize) -> Kernel<'static, Flex> {
    reading(move |operands, node| match operands {
        [clip, weight] => tokens::patch_embed([clip, weight], None, (tubelet, patch), &node.shape, node.pool),
        [clip, weight, bias] => {
            tokens::patch_embed([clip, weight], Some(bias), (tubelet, patch), &node.shape, node.pool)
        }
        _ => Err(KernelError::Operands { expected: "2 or 3", got: operands.len() }),
    })
}

pub(super) fn dropout(rate: f64, place: usize, axes: usize) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let [x, key] = node.floats_and_index()?;
        let axes = node.shape.get(..axes).unwrap_or(&node.shape);
        let draws = axes.iter().product();
        Ok(vec![elementwise::dropout(x, &key, (rate, place), draws, node.pool)?])
    })
}

pub(super) fn roi_align(sampling: RoiSampling) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let [x, boxes] = node.floats()?;
        let y = roi::align(&x, &boxes, sampling, &node.shape, node.pool)?;
        [x, boxes].into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(vec![y])
    })
}

pub(super) fn roi_align_grad(sampling: RoiSampling) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let [dy, boxes] = node.floats()?;
        let dx = roi::align_grad(&dy, &boxes, sampling, &node.shape, node.pool)?;
        [dy, boxes].into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(vec![dx])
    })
}

/// With a third operand the product is added to it, in its memory.
pub(super) fn matmul(transposed: [bool; 2]) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let mut operands = node.all_floats()?;
        let addend = if operands.len() == 3 { operands.pop() } else { None };
        let [a, b] = exactly(operands)?;
        let accumulate = addend.is_some();
        let out = match addend {
            Some(addend) => tensor::writable(addend, node.pool),
            None => node.pool.empty(&node.shape),
        };
        let product = contraction::matmul(&a, &b, transposed, out, accumulate)?;
        [a, b].into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(vec![product])
    })
}

pub(super) fn linear() -> Kernel<'static, Flex> {
    reading(|operands, node| match operands {
        [x, weight] => contraction::linear(x, weight, None, &node.shape, node.pool),
        [x, weight, bias] => contraction::linear(x, weight, Some(bias), &node.shape, node.pool),
        _ => Err(KernelError::Operands { expected: "2 or 3", got: operands.len() }),
    })
}

pub(super) fn layer_norm(eps: f64) -> Kernel<'static, Flex> {
    reading(move |operands, node| match operands {
        [x] => Ok(norm::layer_norm(x, None, eps, node.pool)),
        [x, weight, bias] => Ok(norm::layer_norm(x, Some([weight, bias]), eps, node.pool)),
        _ => Err(KernelError::Operands { expected: "1 or 3", got: operands.len() }),
    })
}

pub(super) fn layer_norm_grad(eps: f64) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let mut operands = node.all_floats()?;
        let weight = if operands.len() == 3 { operands.pop() } else { None };
        let [x, dy] = exactly(operands)?;
        Ok(norm::layer_norm_grad(x, dy, weight, eps, node.pool))
    })
}

pub(super) fn attention(scale: f64) -> Kernel<'static, Flex> {
    reading(move |operands, node| match operands {
        [q, k, v] => attention::forward(q, k, v, scale, node.pool),
        _ => Err(KernelError::Operands { expected: "3", got: operands.len() }),
    })
}

pub(super) fn attention_grad(scale: f64) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let operands: [_; 5] = node.floats()?;
        let grads = attention::backward(&operands, scale, node.pool)?;
        operands.into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(grads)
    })
}

/// Attention of rows as a linear layer makes them, or with `back` its gradient.
pub(super) fn packed_attention(heads: usize, scale: f64, parts: &[Dim], back: bool) -> Kernel<'_, Flex> {
    reading(move |operands, node| {
        let call = (heads, scale, parts, back);
        packed_attention::run(operands, call, (&node.shape, node.sizes), node.pool)
    })
}

pub(super) fn rotate(transposed: bool) -> Kernel<'static, Flex> {
    reading(move |operands, node| match operands {
        [x, table] => rotary::rotate(x, table, transposed, node.pool),
        _ => Err(KernelError::Operands { expected: "2", got: operands.len() }),
    })
}

/// AdamW by its constants beta1, beta2 and eps.
pub(super) fn adamw(constants: [f64; 3]) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let [p, g, m, v, rates @ ..] = node.floats::<9>()?;
        let rates = optimizer::Rates::new(constants, &rates)?;
        Ok(optimizer::adamw([p, g, m, v], rates, None, node.pool))
    })
}

/// As [`adamw`], and the moving average of the result.
pub(super) fn adamw_ema(constants: [f64; 3]) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let [p, g, m, v, lr, wd, c1, c2, clip, target, momentum] = node.floats()?;
        let rates = optimizer::Rates::new(constants, &[lr, wd, c1, c2, clip])?;
        let momentum = tensor::scalar(&momentum)?;
        Ok(optimizer::adamw([p, g, m, v], rates, Some((target, momentum)), node.pool))
    })
}

pub(super) fn ema() -> Kernel<'static, Flex> {
    kernel(|node| {
        let [target, p, momentum] = node.floats()?;
        Ok(vec![optimizer::ema(target, &p, tensor::scalar(&momentum)?, node.pool)])
    })
}
