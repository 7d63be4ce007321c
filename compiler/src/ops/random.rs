//! Dropout and drop path, by a generator without state.
//!
//! The numbers are those of Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011)
//! under the key (seed) and the counter (element, step, place). So they are the same on every device, a recomputed forward drops
//! what the first one dropped, the gradient does too, and a resumed run goes on as if it had not been interrupted.

use super::rules::{Grads, Parts, ensure};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::Array;
use crate::ir::{DType, Dim, GraphError, TensorType};

/// What decides the numbers of one run of a graph: `i32[4]`, the seed and the step, each low half first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropKey {
    seed: [u32; 2],
    step: [u32; 2],
}

impl DropKey {
    /// Elements of the tensor.
    pub const LEN: usize = 4;

    /// Of a seed and a step.
    pub fn new(seed: u64, step: u64) -> Self {
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        Self { seed: halves(seed), step: halves(step) }
    }

    /// As the tensor that graphs take.
    pub fn to_tensor(self) -> [i32; 4] {
        let ([a, b], [c, d]) = (self.seed, self.step);
        [a, b, c, d].map(u32::cast_signed)
    }

    /// Of the tensor; none for one of another length.
    pub fn of_tensor(values: &[i32]) -> Option<Self> {
        let [a, b, c, d] = <[i32; 4]>::try_from(values).ok()?.map(i32::cast_unsigned);
        Some(Self { seed: [a, b], step: [c, d] })
    }

    /// How many of the 2^32 numbers drop their element: those below this one.
    pub fn dropped(rate: f64) -> u64 {
        (rate.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64
    }

    /// Which of `count` elements are kept at a place, each by its own number.
    pub fn kept(self, place: usize, rate: f64, count: usize) -> impl Iterator<Item = bool> {
        let dropped = Self::dropped(rate);
        let block = move |block: usize| {
            // The first counter has 32 bits of the block; those above it share a word with the place.
            let high = (block as u64 >> 32) as u32;
            let [low, step_low, at, step_high] =
                [block as u32, self.step[0], place as u32, self.step[1] ^ high.rotate_left(16)];
            philox([low, step_low, at, step_high], self.seed)
        };
        let numbers = (0..count.div_ceil(4)).flat_map(block).take(count);
        numbers.map(move |number| u64::from(number) >= dropped)
    }
}

/// Ten rounds of Philox4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let (first, second) = (u64::from(a) * 0xD251_1F53, u64::from(c) * 0xCD9E_8D57);
        counter = [(second >> 32) as u32 ^ b ^ key[0], second as u32, (first >> 32) as u32 ^ d ^ key[1], first as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// The operation of this file.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub rate: f64,
    pub place: usize,
    pub axes: usize,
}

pub(super) fn infer(op: Kind, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    arity(operands, 2, 2, "2")?;
    let (x, key) = (operands[0], operands[1]);
    let four = key.shape == [Dim::from(DropKey::LEN)] && key.dtype == DType::I32;
    require(x.dtype.is_float() && four, || {
        format!("needs floats and a key i32[4] of seed and step, got {x} and {key}")
    })?;
    require((0.0..1.0).contains(&op.rate), || format!("rate {} is not in 0..1", op.rate))?;
    require((1..=x.rank()).contains(&op.axes), || format!("{} leading axes of {x} cannot draw", op.axes))?;
    require(u32::try_from(op.place).is_ok(), || format!("place {} is too large", op.place))?;
    Ok(vec![x.clone()])
}

/// One multiplication per element; ten rounds of a generator, 7 operations each, per four draws.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let mut cost = Cost::streaming(1, &operands[0].elements(), operands, results);
    let draws = Dim::product(operands[0].shape.iter().take(op.axes));
    cost.flops = &cost.flops + &(&draws * &Dim::from(18usize));
    cost
}

pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let x = e.inputs[0];
    let key: Vec<i32> = e.inputs[1].data.iter().map(|x| *x as i32).collect();
    let key = DropKey::of_tensor(&key).ok_or_else(|| EvalError("a key has four numbers".to_owned()))?;
    ensure(op.axes <= x.shape.len(), || format!("{:?} has no {} axes", x.shape, op.axes))?;
    let draws: usize = x.shape.iter().take(op.axes).product();
    let each = x.data.len() / draws.max(1);
    let kept = key.kept(op.place, op.rate, draws).flat_map(|kept| std::iter::repeat_n(kept, each));
    let scale = 1.0 / (1.0 - op.rate);
    let data = x.data.iter().zip(kept).map(|(x, kept)| if kept { x * scale } else { 0.0 }).collect();
    Ok(vec![Array { shape: x.shape.clone(), data }])
}

pub(super) fn decompose(_: Kind) -> Parts {
    None
}

/// Linear, so the gradient is dropped as the value was.
pub(super) fn grad(op: Kind, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let Kind { rate, place, axes } = op;
    let key = r.inputs[1];
    Ok(Some(vec![Some(r.graph.push1(Op::Dropout { rate, place, axes }, &[r.dy, key])?), None]))
}

#[cfg(test)]
mod tests;
