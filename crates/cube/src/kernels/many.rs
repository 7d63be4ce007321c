//! Launches over many tensors of different sizes: the optimiser's step of all parameters, and the norm of all gradients.
//!
//! A launch is given as many tensors as the device binds, and its cubes share their blocks of elements out: each finds the tensor
//! that its block is of by counting the blocks of those before. Tensors in one buffer would take a single launch, but gradients
//! come from products that write where the library allocates, and copying them there is a launch for each.

use super::norm::total;
use super::optimizer::{self, average, step};
use super::{cubes, elements, empty, writable};
use burn_backend::Shape;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Tensors of each kind in one launch at most: a kernel has the code for each of them.
const MOST: usize = 16;

/// Buffers that CubeCL binds to a launch for itself: the sizes of the tensors. Its `max_bindings` is one less than the device's
/// limit already.
const OWN: usize = 1;

/// Elements of a block for each unit.
const EACH: usize = 4;

/// Units of a cube.
pub(super) const UNITS: usize = 128;

/// Blocks of a tensor.
#[cube]
fn blocks(len: usize) -> usize {
    (len + comptime!(UNITS * EACH - 1)) / comptime!(UNITS * EACH)
}

#[cube(launch)]
fn adamw_kernel(
    p: &mut Sequence<Box<[f32]>>,
    m: &mut Sequence<Box<[f32]>>,
    v: &mut Sequence<Box<[f32]>>,
    g: &Sequence<Box<[f32]>>,
    target: &mut Sequence<Box<[f32]>>,
    rates: &Sequence<Box<[f32]>>,
    beta1: f32,
    take1: f32,
    beta2: f32,
    take2: f32,
    eps: f32,
    #[comptime] count: usize,
    #[comptime] averaged: bool,
) {
    let lr = rates[0][0];
    let decay = 1.0f32 - lr * rates[1][0];
    let size = lr / rates[2][0];
    let correction = Sqrt::sqrt(rates[3][0]);
    let clip = rates[4][0];
    let mut first = 0usize.runtime();
    #[unroll]
    for i in 0..count {
        let len = p[i].len();
        let end = first + blocks(len);
        if CUBE_POS >= first && CUBE_POS < end {
            let block = (CUBE_POS - first) * comptime!(UNITS * EACH) + UNIT_POS as usize;
            #[unroll]
            for j in 0..EACH {
                let at = block + comptime!(j * UNITS);
                if at < len {
                    let (p, m, v) = (&mut p[i], &mut m[i], &mut v[i]);
                    let gradient = clip * g[i][at];
                    let one = beta1 * m[at] + take1 * gradient;
                    let two = beta2 * v[at] + take2 * gradient * gradient;
                    let new = step(p[at], one, two, decay, size, correction, eps);
                    p[at] = new;
                    m[at] = one;
                    v[at] = two;
                    if comptime!(averaged) {
                        let target = &mut target[i];
                        target[at] = average(target[at], new, rates[5][0]);
                    }
                }
            }
        }
        first = end;
    }
}

/// A cube adds up the squares of its block.
#[cube(launch)]
fn squares_kernel(x: &Sequence<Box<[f32]>>, sums: &mut [f32], from: usize, #[comptime] count: usize) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut part = 0.0f32;
    let mut first = 0usize.runtime();
    #[unroll]
    for i in 0..count {
        let len = x[i].len();
        let end = first + blocks(len);
        if CUBE_POS >= first && CUBE_POS < end {
            let block = (CUBE_POS - first) * comptime!(UNITS * EACH) + UNIT_POS as usize;
            #[unroll]
            for j in 0..EACH {
                let at = block + comptime!(j * UNITS);
                if at < len {
                    part += x[i][at] * x[i][at];
                }
            }
        }
        first = end;
    }
    let sum = total(part, &mut shared, UNITS);
    if UNIT_POS == 0 && CUBE_POS < first {
        sums[from + CUBE_POS] = sum;
    }
}

/// One cube adds up all of them.
#[cube(launch)]
fn sum_kernel(x: &[f32], sum: &mut [f32]) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut part = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < x.len() {
        part += x[at];
        at += UNITS;
    }
    let all = total(part, &mut shared, UNITS);
    if UNIT_POS == 0 {
        sum[0] = all;
    }
}

/// How many tensors of each of `kinds` a launch takes beside `others` buffers; none where the device binds too few.
fn at_once<R: CubeRuntime>(beside: &CubeTensor<R>, kinds: usize, others: usize) -> usize {
    let bound = beside.client.properties().hardware.max_bindings as usize;
    (bound.saturating_sub(OWN + others) / kinds).min(MOST)
}

fn blocks_of<R: CubeRuntime>(tensor: &CubeTensor<R>) -> usize {
    elements(tensor).div_ceil(UNITS * EACH)
}

fn all<'a, R: CubeRuntime>(tensors: impl IntoIterator<Item = &'a CubeTensor<R>>) -> SequenceArg<R, Box<[f32]>> {
    tensors.into_iter().map(|tensor| tensor.clone().into_buffer_arg()).collect()
}

/// `p', m', v', [target'], ..` of the rates `lr, wd, c1, c2, clip, [momentum]` and each parameter's `p, g, m, v, [target]`.
pub(super) fn adamw_all<R: CubeRuntime>(
    operands: Vec<CubeTensor<R>>,
    constants: [f64; 3],
    averaged: bool,
) -> Vec<CubeTensor<R>> {
    let (rates, each) = if averaged { (6, 5) } else { (5, 4) };
    let most = operands.first().map_or(0, |rate| at_once(rate, each, rates));
    adamw_in(operands, constants, averaged, most)
}

/// [`adamw_all`] with `most` parameters in a launch; by launches of their own where the device has no room for one.
fn adamw_in<R: CubeRuntime>(
    mut operands: Vec<CubeTensor<R>>,
    constants: [f64; 3],
    averaged: bool,
    most: usize,
) -> Vec<CubeTensor<R>> {
    let rates = if averaged { 6 } else { 5 };
    let mut tensors = operands.split_off(rates.min(operands.len())).into_iter();
    let mut parameters = Vec::new();
    while let (Some(p), Some(g), Some(m), Some(v)) = (tensors.next(), tensors.next(), tensors.next(), tensors.next()) {
        let target = if averaged { tensors.next() } else { None };
        parameters.push(Parameter { p: writable(p), g, m: writable(m), v: writable(v), target: target.map(writable) });
    }
    if most == 0 {
        return parameters.into_iter().flat_map(|one| one.alone(&operands, constants)).collect();
    }
    for some in parameters.chunks(most) {
        launch_adamw(some, &operands, constants);
    }
    parameters.into_iter().flat_map(|one| [one.p, one.m, one.v].into_iter().chain(one.target)).collect()
}

/// What belongs to one parameter; all but the gradient are written over.
struct Parameter<R: CubeRuntime> {
    p: CubeTensor<R>,
    g: CubeTensor<R>,
    m: CubeTensor<R>,
    v: CubeTensor<R>,
    target: Option<CubeTensor<R>>,
}

impl<R: CubeRuntime> Parameter<R> {
    /// Its step by a launch of its own, and its average by another.
    fn alone(self, rates: &[CubeTensor<R>], constants: [f64; 3]) -> Vec<CubeTensor<R>> {
        let [lr, wd, c1, c2, clip] = [0, 1, 2, 3, 4].map(|at| rates[at].clone());
        let [p, m, v] = optimizer::adamw([self.p, self.g, self.m, self.v], [lr, wd, c1, c2, clip], constants);
        let averaged =
            self.target.zip(rates.get(5)).map(|(target, momentum)| optimizer::ema(target, p.clone(), momentum.clone()));
        [p, m, v].into_iter().chain(averaged).collect()
    }
}

fn launch_adamw<R: CubeRuntime>(some: &[Parameter<R>], rates: &[CubeTensor<R>], [beta1, beta2, eps]: [f64; 3]) {
    let count: usize = some.iter().map(|one| blocks_of(&one.p)).sum();
    let Some(beside) = some.first().filter(|_| count > 0) else { return };
    let take = |beta: f64| (1.0 - beta) as f32;
    adamw_kernel::launch::<R>(
        &beside.p.client,
        cubes(&beside.p, count),
        CubeDim::new_1d(UNITS as u32),
        all(some.iter().map(|one| &one.p)),
        all(some.iter().map(|one| &one.m)),
        all(some.iter().map(|one| &one.v)),
        all(some.iter().map(|one| &one.g)),
        all(some.iter().filter_map(|one| one.target.as_ref())),
        all(rates),
        beta1 as f32,
        take(beta1),
        beta2 as f32,
        take(beta2),
        eps as f32,
        some.len(),
        some.iter().all(|one| one.target.is_some()),
    );
}

/// The sum of the squares of all elements, each block's in one order, and the blocks' in one order.
pub(super) fn squared_norm<R: CubeRuntime>(tensors: &[CubeTensor<R>]) -> Option<CubeTensor<R>> {
    let beside = tensors.first()?;
    let most = at_once(beside, 1, 1).max(1);
    let count: usize = tensors.iter().map(blocks_of).sum();
    let (client, dim) = (&beside.client, CubeDim::new_1d(UNITS as u32));
    let sums = empty(beside, Shape::new([count.max(1)]));
    let mut from = 0;
    for some in tensors.chunks(most) {
        let count: usize = some.iter().map(blocks_of).sum();
        if count > 0 {
            let (grid, sums) = (cubes(beside, count), sums.clone().into_buffer_arg());
            squares_kernel::launch::<R>(client, grid, dim, all(some), sums, from, some.len());
        }
        from += count;
    }
    let sum = empty(beside, Shape::new([1]));
    sum_kernel::launch::<R>(client, cubes(beside, 1), dim, sums.into_buffer_arg(), sum.clone().into_buffer_arg());
    Some(sum)
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::{Gpu, WgpuRuntime};
    use burn_backend::TensorData;
    use burn_backend::ops::FloatTensorOps;
    use burn_cubecl::CubeBackend;

    type B = CubeBackend<WgpuRuntime>;

    /// Five parameters at once, two at a time, and one by one, as on a device that binds too few buffers.
    #[test]
    fn launches_of_any_size_compute_the_same() {
        if let Err(error) = WgpuRuntime::open(0) {
            assert!(std::env::var_os("VJEPA_TEST_DEVICE").is_none(), "{error}");
            println!("not tested: {error}");
            return;
        }
        let device = WgpuRuntime::device(0);
        let tensor = |values: Vec<f32>| {
            let count = values.len();
            B::float_from_data(TensorData::new(values, [count]), &device)
        };
        let stepped = |averaged: bool, most: usize| -> Vec<f32> {
            let mut operands: Vec<_> = [0.01, 0.1, 0.1, 0.001, 0.5, 0.9].map(|rate| tensor(vec![rate])).into();
            operands.truncate(if averaged { 6 } else { 5 });
            for (parameter, count) in [1usize, 700, 3, 513, 64].into_iter().enumerate() {
                for kind in 0..operands_of(averaged) {
                    let value = |i: usize| ((i * 37 + parameter * 11 + kind * 7) % 101) as f32 / 100.0;
                    operands.push(tensor((0..count).map(value).collect()));
                }
            }
            let results = adamw_in(operands, [0.9, 0.999, 1e-8], averaged, most);
            let read = |x| vjepa_lower::read_floats::<B>(x).unwrap();
            results.into_iter().flat_map(read).collect()
        };
        for averaged in [false, true] {
            let alone = stepped(averaged, 0);
            assert_eq!(alone.len(), 1281 * (operands_of(averaged) - 1));
            for most in [2, 5] {
                let apart = alone.iter().zip(stepped(averaged, most)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart <= 1e-6, "{averaged}, {most}: {apart}");
            }
        }
    }

    fn operands_of(averaged: bool) -> usize {
        if averaged { 5 } else { 4 }
    }
}
