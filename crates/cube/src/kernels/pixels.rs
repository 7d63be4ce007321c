//! Clips of bytes, scaled where they are used.

use super::{elements, spread};
use burn_backend::{DType, Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Neighbours scale neighbouring bytes, four of which share a word. `plane` is the size of a channel of a clip.
#[cube(launch)]
fn pixels_kernel(words: &[i32], scaling: &[f32], y: &mut [f32], plane: usize, channels: usize) {
    if ABSOLUTE_POS < y.len() {
        let word = u32::cast_from(words[ABSOLUTE_POS / 4]);
        let shift = u32::cast_from(ABSOLUTE_POS % 4) * 8u32;
        let value = f32::cast_from((word >> shift) & 255u32);
        let channel = ABSOLUTE_POS / plane % channels;
        y[ABSOLUTE_POS] = value * scaling[2 * channel] + scaling[2 * channel + 1];
    }
}

/// `gain·x + bias` of the bytes in `words` (i32, four in each, the lowest first), as `f32[B, C, ...]` of this shape; `scaling` is
/// `f32[2 C]`, gain and bias of each channel.
pub(crate) fn pixels<R: CubeRuntime>(words: CubeTensor<R>, scaling: CubeTensor<R>, shape: Shape) -> CubeTensor<R> {
    let y = empty_device_contiguous_dtype(words.client.clone(), words.device.clone(), shape, DType::F32);
    if elements(&y) > 0 {
        let channels = y.shape()[1];
        let plane = y.shape().iter().skip(2).product::<usize>().max(1);
        let (count, dim) = spread(&y, elements(&y));
        let args = (words.into_buffer_arg(), scaling.into_buffer_arg(), y.clone().into_buffer_arg());
        pixels_kernel::launch::<R>(&y.client, count, dim, args.0, args.1, args.2, plane, channels);
    }
    y
}
