//! Clips of the golden data: bytes in the file, normalised for the model, moved about as the recorded run did.

use super::check::GoldenError;
use vjepa_runtime::Normalization;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

/// Normalised clips `[B, C, T, H, W]`.
#[derive(Clone, Debug)]
pub(super) struct Clip {
    pub(super) shape: [usize; 5],
    pub(super) values: Vec<f32>,
}

impl Clip {
    /// Reads pixels `u8[.., B, C, T, H, W]`; leading axes give one clip each, in order.
    pub(super) fn read(tensors: &TensorFile, name: &str) -> Result<Vec<Self>, GoldenError> {
        let wrong = |why: String| GoldenError::Config { path: tensors.path().into(), why };
        let dims = tensors.shape(name)?.to_vec();
        let shape: Option<[usize; 5]> = dims.last_chunk().copied();
        let Some(shape) = shape.filter(|shape| shape[1] == 3) else {
            return Err(wrong(format!("`{name}` should be clips [.., B, 3, T, H, W], but is {dims:?}")));
        };
        let size: usize = shape.iter().product();
        if size == 0 {
            return Err(wrong(format!("`{name}` is empty")));
        }
        let clips = tensors.u8(name)?.chunks_exact(size);
        Ok(clips.map(|pixels| Self { shape, values: normalise(shape, pixels) }).collect())
    }

    /// For a plan.
    pub(super) fn host(&self) -> HostTensor {
        HostTensor::F32 { shape: self.shape.to_vec(), data: self.values.clone() }
    }

    /// The first sample alone.
    pub(super) fn first_sample(&self) -> Self {
        let [batch, rest @ ..] = self.shape;
        let [c, t, h, w] = rest;
        Self { shape: [1, c, t, h, w], values: self.values[..self.values.len() / batch].to_vec() }
    }

    /// The first frame of the first sample, `[1, C, 1, H, W]`.
    pub(super) fn first_frame(&self) -> Self {
        let [_, c, t, h, w] = self.shape;
        let frames = self.values.chunks_exact(h * w).step_by(t).take(c);
        Self { shape: [1, c, 1, h, w], values: frames.flatten().copied().collect() }
    }

    /// The first frame of the first sample, `frames` times: an image as the official evaluation feeds it.
    pub(super) fn still(&self, frames: usize) -> Self {
        let image = self.first_frame();
        let [_, c, _, h, w] = image.shape;
        let channels = image.values.chunks_exact(h * w);
        let values = channels.flat_map(|channel| std::iter::repeat_n(channel, frames).flatten()).copied().collect();
        Self { shape: [1, c, frames, h, w], values }
    }

    /// Parts of samples as a batch: the sample and the range of its frames, as many frames each.
    pub(super) fn cut(&self, parts: &[(usize, std::ops::Range<usize>)]) -> Self {
        let [_, c, t, h, w] = self.shape;
        let pixels = h * w;
        let frames = parts.first().map_or(0, |(_, range)| range.len());
        let values = parts.iter().flat_map(|(sample, range)| {
            let channels = (0..c).map(move |channel| (sample * c + channel) * t);
            channels.flat_map(move |first| {
                self.values[(first + range.start) * pixels..(first + range.end) * pixels].iter().copied()
            })
        });
        Self { shape: [parts.len(), c, frames, h, w], values: values.collect() }
    }

    /// Input of 0-based step `step` of the recorded runs: samples moved on by `step`, mirrored in every other step.
    pub(super) fn of_step(&self, step: usize) -> Self {
        let [batch, _, _, _, width] = self.shape;
        let mut values = self.values.clone();
        values.rotate_right((step % batch) * (self.values.len() / batch));
        if step % 2 == 1 {
            values.chunks_exact_mut(width).for_each(<[f32]>::reverse);
        }
        Self { shape: self.shape, values }
    }
}

/// Each sample `[3, T, H, W]` normalised as the official pipeline does it.
fn normalise([_, sizes @ ..]: [usize; 5], pixels: &[u8]) -> Vec<f32> {
    let samples = pixels.chunks_exact(sizes.iter().product::<usize>().max(1));
    samples.flat_map(|sample| Normalization::Imagenet.of_planes(sample)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_roll_the_batch_and_mirror_every_other_time() {
        let clip = Clip { shape: [3, 1, 1, 1, 2], values: vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0] };
        assert_eq!(clip.of_step(0).values, clip.values);
        assert_eq!(clip.of_step(1).values, [21.0, 20.0, 1.0, 0.0, 11.0, 10.0]);
        assert_eq!(clip.of_step(2).values, [10.0, 11.0, 20.0, 21.0, 0.0, 1.0]);
    }

    #[test]
    fn a_still_repeats_the_first_frame_of_each_channel() {
        let clip = Clip { shape: [1, 3, 2, 1, 1], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        assert_eq!(clip.first_frame().values, [1.0, 3.0, 5.0]);
        assert_eq!(clip.still(2).values, [1.0, 1.0, 3.0, 3.0, 5.0, 5.0]);
    }
}
