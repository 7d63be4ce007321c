//! The values of clips on their way from a data set to a step: floats, or bytes that the step scales.

use vjepa_runtime::preprocess::scale_bytes;

use super::source::DataError;

/// Of each channel the gain and the bias: a byte stands for `gain·x + bias`.
pub type Scaling = [(f32, f32); 3];

/// Values of clips, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum ClipValues {
    /// As the model takes them.
    Floats(Vec<f32>),
    /// Pixels: a quarter of the memory.
    Bytes {
        /// The pixels.
        values: Vec<u8>,
        /// What they stand for.
        scaling: Scaling,
    },
}

impl Default for ClipValues {
    /// No values.
    fn default() -> Self {
        Self::Floats(Vec::new())
    }
}

impl From<Vec<f32>> for ClipValues {
    fn from(values: Vec<f32>) -> Self {
        Self::Floats(values)
    }
}

impl ClipValues {
    /// None yet, of bytes where there is a scaling.
    pub(super) fn empty(scaling: Option<Scaling>) -> Self {
        match scaling {
            None => Self::default(),
            Some(scaling) => Self::Bytes { values: Vec::new(), scaling },
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Bytes { values, .. } => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `len` values; those that are there stay.
    pub(super) fn resize(&mut self, len: usize) {
        match self {
            Self::Floats(values) => values.resize(len, 0.0),
            Self::Bytes { values, .. } => values.resize(len, 0),
        }
    }

    /// Puts the clips of a sample, of `len` values each, into a batch of so many samples: the first to the first clips of all,
    /// the second to the second ones.
    ///
    /// # Errors
    /// [`DataError::Setup`] where one has bytes and the other floats.
    pub(super) fn put(&mut self, sample: &Self, len: usize, (place, batch): (usize, usize)) -> Result<(), DataError> {
        match (self, sample) {
            (Self::Floats(to), Self::Floats(from)) => interleave(to, from, len, (place, batch)),
            (Self::Bytes { values: to, .. }, Self::Bytes { values: from, .. }) => {
                interleave(to, from, len, (place, batch));
            }
            (Self::Floats(_), Self::Bytes { .. }) | (Self::Bytes { .. }, Self::Floats(_)) => {
                return Err(DataError::Setup("a batch has bytes and floats".into()));
            }
        }
        Ok(())
    }

    /// The clips of some samples of a batch `[B, C, T, H, W]`, whose `frames` frames fill the beginning of the room that each has
    /// in it, with their shape.
    pub fn cut(&self, shape: [usize; 5], frames: usize, samples: &[usize]) -> (Self, [usize; 5]) {
        let [_, channels, time, height, width] = shape;
        let (room, len) = (channels * time * height * width, channels * frames * height * width);
        let cut = match self {
            Self::Floats(values) => Self::Floats(chosen(values, room, len, samples)),
            Self::Bytes { values, scaling } => {
                Self::Bytes { values: chosen(values, room, len, samples), scaling: *scaling }
            }
        };
        (cut, [samples.len(), channels, frames, height, width])
    }

    /// The floats; none of bytes.
    pub fn floats(&self) -> Option<&[f32]> {
        match self {
            Self::Floats(values) => Some(values),
            Self::Bytes { .. } => None,
        }
    }

    /// As floats, of clips `[B, 3, T, H, W]`.
    pub fn into_floats(self, shape: [usize; 5]) -> Vec<f32> {
        let (values, scaling) = match self {
            Self::Floats(values) => return values,
            Self::Bytes { values, scaling } => (values, scaling),
        };
        let mut floats = Vec::with_capacity(values.len());
        scale_bytes(&values, shape[2..].iter().product(), &scaling, &mut floats);
        floats
    }
}

/// See [`ClipValues::put`].
fn interleave<T: Copy>(to: &mut [T], from: &[T], len: usize, (place, batch): (usize, usize)) {
    let slots = to.chunks_exact_mut(len.max(1)).skip(place).step_by(batch);
    slots.zip(from.chunks_exact(len.max(1))).for_each(|(slot, clip)| slot.copy_from_slice(clip));
}

/// See [`ClipValues::cut`].
fn chosen<T: Copy>(values: &[T], room: usize, len: usize, samples: &[usize]) -> Vec<T> {
    let of = |sample: &usize| values.get(sample * room..sample * room + len).unwrap_or_default();
    samples.iter().flat_map(of).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[u8]) -> ClipValues {
        ClipValues::Bytes { values: values.to_vec(), scaling: [(0.5, 1.0), (2.0, 0.0), (1.0, -1.0)] }
    }

    #[test]
    fn bytes_stand_for_floats_by_channel() {
        let clips = bytes(&[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]);
        let floats = clips.into_floats([2, 3, 1, 1, 2]);
        assert_eq!(floats, [1.0, 2.0, 8.0, 12.0, 7.0, 9.0, 1.5, 2.5, 10.0, 14.0, 8.0, 10.0]);
    }

    #[test]
    fn samples_are_put_together_and_cut_out_again() {
        for blank in [bytes(&[]), ClipValues::Floats(Vec::new())] {
            let of = |values: [u8; 4]| match &blank {
                ClipValues::Floats(_) => ClipValues::Floats(values.map(f32::from).to_vec()),
                ClipValues::Bytes { .. } => bytes(&values),
            };
            // Two samples of two clips of two values.
            let mut batch = blank.clone();
            batch.resize(8);
            batch.put(&of([1, 2, 3, 4]), 2, (0, 2)).unwrap();
            batch.put(&of([5, 6, 7, 8]), 2, (1, 2)).unwrap();
            let mut wanted = blank.clone();
            wanted.resize(8);
            wanted.put(&of([1, 2, 5, 6]), 4, (0, 2)).unwrap();
            wanted.put(&of([3, 4, 7, 8]), 4, (1, 2)).unwrap();
            assert_eq!(batch, wanted);
            // Clips of one frame out of room for two.
            let (cut, shape) = batch.cut([4, 1, 2, 1, 1], 1, &[3, 0]);
            assert_eq!((cut.len(), shape), (2, [2, 1, 1, 1, 1]));
            assert_eq!(cut.into_floats([1, 3, 1, 1, 1])[0], if blank == bytes(&[]) { 4.5 } else { 7.0 });
        }
        // Three samples with room for two frames of one pixel, three channels: the second has one frame.
        let clips = ClipValues::Floats((0..18u8).map(f32::from).collect());
        let shape = [3, 3, 2, 1, 1];
        let two = [&clips.floats().unwrap()[..6], &clips.floats().unwrap()[12..]].concat();
        assert_eq!(clips.cut(shape, 2, &[0, 2]), (ClipValues::Floats(two), [2, 3, 2, 1, 1]));
        assert_eq!(clips.cut(shape, 1, &[1]), (ClipValues::Floats(vec![6.0, 7.0, 8.0]), [1, 3, 1, 1, 1]));
        assert!(ClipValues::Floats(vec![0.0]).put(&bytes(&[1]), 1, (0, 1)).is_err());
    }
}
