//! Dropout and drop path, by the numbers that every device draws (Philox4x32-10; the compiler's `ops/random.rs` has the paper).

use super::{elements, empty, spread};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use vjepa_compiler::ops::DropKey;

/// A unit draws the number of its element again, rather than sharing four of them: the draws cost less than the memory.
#[cube(launch)]
fn dropout_kernel(x: &[f32], key: &[i32], y: &mut [f32], each: usize, place: u32, dropped: u32, scale: f32) {
    if ABSOLUTE_POS < y.len() {
        let draw = ABSOLUTE_POS / each;
        let mut a = u32::cast_from(draw / 4);
        let mut b = u32::cast_from(key[2]);
        let mut c = place;
        let mut d = u32::cast_from(key[3]);
        let mut first = u32::cast_from(key[0]);
        let mut second = u32::cast_from(key[1]);
        let mut round = 0u32.runtime();
        while round < 10u32 {
            let left = u32::mul_hi(a, 0xD251_1F53u32);
            let right = u32::mul_hi(c, 0xCD9E_8D57u32);
            let left_low = a * 0xD251_1F53u32;
            let right_low = c * 0xCD9E_8D57u32;
            a = right ^ b ^ first;
            b = right_low;
            c = left ^ d ^ second;
            d = left_low;
            first += 0x9E37_79B9u32;
            second += 0xBB67_AE85u32;
            round += 1u32;
        }
        let word = draw % 4;
        let mut number = a;
        if word == 1 {
            number = b;
        }
        if word == 2 {
            number = c;
        }
        if word == 3 {
            number = d;
        }
        let mut value = 0.0f32;
        if number >= dropped {
            value = x[ABSOLUTE_POS] * scale;
        }
        y[ABSOLUTE_POS] = value;
    }
}

/// `x` with some of the elements of its first `axes` axes dropped, and the others scaled up.
pub(super) fn dropout<R: CubeRuntime>(
    x: CubeTensor<R>,
    key: CubeTensor<R>,
    (rate, place, axes): (f64, usize, usize),
) -> CubeTensor<R> {
    let y = empty(&x, x.shape());
    if elements(&y) > 0 {
        let each = x.shape().iter().skip(axes).product::<usize>().max(1);
        let dropped = u32::try_from(DropKey::dropped(rate)).unwrap_or(u32::MAX);
        let (place, scale) = (u32::try_from(place).unwrap_or(u32::MAX), (1.0 / (1.0 - rate)) as f32);
        let (count, dim) = spread(&y, elements(&y));
        let args = (x.into_buffer_arg(), key.into_buffer_arg(), y.clone().into_buffer_arg());
        dropout_kernel::launch::<R>(&y.client, count, dim, args.0, args.1, args.2, each, place, dropped, scale);
    }
    y
}
