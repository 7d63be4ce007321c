//! RoIAlign: features of boxes, averaged over bins (torchvision `roi_align`, ONNX `RoiAlign` with `mode` avg).
//!
//! Sampling is separable: along each axis a bin averages bilinear samples of the feature map, so it is a weighted sum of rows
//! and of columns. [`RoiSampling::weights`] gives these weights, in the single-precision arithmetic of torchvision, where a bin's
//! number of samples may depend on the last bit; the interpreter and every kernel take them from there.

use super::rules::{Grads, Parts, ensure};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::Array;
use crate::ir::{Dim, GraphError, TensorType};

/// Boxes reach at most so many cells of the feature map far; more is a mistake, and would take for ever to sample.
const FARTHEST: f32 = 1e6;

/// How boxes are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoiSampling {
    /// Cells of the feature map per pixel of the boxes: 1/16 for patches of 16.
    pub scale: f64,
    /// Samples per bin and axis; 0 for as many as its side has cells, rounded up.
    pub samples: usize,
    /// Cell centres at half pixels. Without it (code from before 2019) boxes lie half a cell too far down and right, and have
    /// sides of one cell at least.
    pub aligned: bool,
}

/// The weights of one bin along one axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoiWeights {
    /// First cell of the feature map.
    pub first: usize,
    /// Weights from there on; none for a bin that reads nothing.
    pub values: Vec<f32>,
}

/// A box as its five numbers say.
#[derive(Clone, Debug, PartialEq)]
pub struct RoiBox {
    /// Which sample of the batch.
    pub batch: usize,
    /// Weights of the bins along the height.
    pub rows: Vec<RoiWeights>,
    /// Weights of the bins along the width.
    pub columns: Vec<RoiWeights>,
}

impl RoiSampling {
    /// The weights of `bins` by `bins` bins for a box `(batch, x1, y1, x2, y2)`, coordinates in pixels, on features of
    /// `[batches, height, width]`.
    ///
    /// # Errors
    /// A sentence on a box that is not of this batch, or whose coordinates are no numbers or absurd.
    pub fn weights(&self, row: &[f32], bins: usize, [batches, height, width]: [usize; 3]) -> Result<RoiBox, String> {
        let &[batch, x1, y1, x2, y2] = row else {
            return Err(format!("a box has {} numbers instead of 5: sample, x1, y1, x2, y2", row.len()));
        };
        if !(batch >= 0.0 && batch < batches as f32 && batch.fract() == 0.0) {
            return Err(format!("a box is of sample {batch}, but there are {batches}"));
        }
        let far = |x: &&f32| {
            let cell = (**x * self.scale as f32).abs();
            cell.is_nan() || cell > FARTHEST
        };
        if let Some(x) = [x1, y1, x2, y2].iter().find(far) {
            return Err(format!("a box has the coordinate {x}: coordinates are pixels of the clip"));
        }
        let rows = self.axis([y1, y2], bins, height);
        let columns = self.axis([x1, x2], bins, width);
        Ok(RoiBox { batch: batch as usize, rows, columns })
    }

    /// The weights of bins between two ends, on `len` cells.
    fn axis(&self, ends: [f32; 2], bins: usize, len: usize) -> Vec<RoiWeights> {
        let offset = if self.aligned { 0.5 } else { 0.0 };
        let [start, end] = ends.map(|x| x * self.scale as f32 - offset);
        let side = if self.aligned { end - start } else { (end - start).max(1.0) };
        let bin = side / bins.max(1) as f32;
        // A side of zero or less has no samples of its own; the cast keeps it at 0.
        let samples = if self.samples > 0 { self.samples } else { bin.ceil() as usize };
        let weights = |index: usize| {
            let from = start + index as f32 * bin;
            let at = |sample: usize| from + (sample as f32 + 0.5) * bin / samples as f32;
            RoiWeights::of((0..samples).map(at), len)
        };
        (0..bins).map(weights).collect()
    }
}

impl RoiWeights {
    /// The mean of bilinear samples at these places, of `len` cells. A sample more than a cell outside reads zero.
    fn of(places: impl ExactSizeIterator<Item = f32>, len: usize) -> Self {
        let share = 1.0 / places.len().max(1) as f32;
        let Some(last) = len.checked_sub(1) else { return Self::default() };
        let mut taps: Vec<(usize, f32)> = Vec::new();
        for place in places.filter(|place| (-1.0..=len as f32).contains(place)) {
            let place = place.max(0.0);
            let low = place as usize;
            if low >= last {
                taps.push((last, share));
            } else {
                let above = place - low as f32;
                taps.extend([(low, (1.0 - above) * share), (low + 1, above * share)]);
            }
        }
        let first = taps.iter().map(|tap| tap.0).min().unwrap_or(0);
        let count = taps.iter().map(|tap| tap.0 + 1 - first).max().unwrap_or(0);
        let mut values = vec![0.0; count];
        for (cell, weight) in taps {
            if let Some(value) = values.get_mut(cell - first) {
                *value += weight;
            }
        }
        Self { first, values }
    }

    /// Cells with their weights.
    pub fn cells(&self) -> impl Iterator<Item = (usize, f32)> {
        self.values.iter().enumerate().map(|(index, weight)| (self.first + index, *weight))
    }
}

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Align { size: usize, sampling: RoiSampling },
    Grad { shape: &'a [Dim], sampling: RoiSampling },
}

pub(super) fn infer(op: Kind<'_>, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    arity(operands, 2, 2, "2")?;
    let (x, boxes) = (operands[0], operands[1]);
    let five = boxes.rank() == 2 && boxes.shape[1] == Dim::from(5usize) && boxes.dtype.is_float();
    require(x.dtype.is_float() && x.rank() == 4 && five, || {
        format!(
            "needs features [B, C, H, W] or bins [R, C, S, S], and boxes [R, 5] of sample, x1, y1, x2, y2; got {x} and {boxes}"
        )
    })?;
    let (Kind::Align { sampling, .. } | Kind::Grad { sampling, .. }) = op;
    require(sampling.scale.is_finite() && sampling.scale > 0.0, || {
        format!("scale {} is not positive", sampling.scale)
    })?;
    match op {
        Kind::Align { size, .. } => {
            require(size > 0, || "a side needs at least one bin".to_owned())?;
            let side = Dim::from(size);
            Ok(vec![TensorType::new(x.dtype, [boxes.shape[0].clone(), x.shape[1].clone(), side.clone(), side])])
        }
        Kind::Grad { shape, .. } => {
            let square = x.shape[2] == x.shape[3] && x.shape[2].as_const().is_some_and(|side| side > 0);
            require(x.shape[0] == boxes.shape[0] && square, || format!("bins {x} do not fit boxes {boxes}"))?;
            require(shape.len() == 4 && shape.get(1) == x.shape.get(1), || {
                format!("features of another shape than [B, {}, H, W]", x.shape[1])
            })?;
            Ok(vec![TensorType::new(x.dtype, shape.iter().cloned())])
        }
    }
}

/// 32 operations per bin: of adaptive samples, whose number only the boxes know, two per axis are counted.
pub(super) fn cost(op: Kind<'_>, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let (bins, sampling) = match op {
        Kind::Align { sampling, .. } => (results[0].elements(), sampling),
        Kind::Grad { sampling, .. } => (operands[0].elements(), sampling),
    };
    let samples = if sampling.samples == 0 { 2 } else { sampling.samples };
    Cost::streaming(samples.saturating_mul(samples).saturating_mul(8), &bins, operands, results)
}

pub(super) fn eval(op: Kind<'_>, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let (bins, features, sampling) = match op {
        Kind::Align { sampling, .. } => (&e.results[0], &e.inputs[0].shape, sampling),
        Kind::Grad { sampling, .. } => (&e.inputs[0].shape, &e.results[0], sampling),
    };
    let (&[count, channels, size, _], &[batches, _, height, width]) = (bins.as_slice(), features.as_slice()) else {
        return Err(EvalError(format!("{bins:?} are not bins of features {features:?}")));
    };
    let (from, boxes) = (e.inputs[0], e.inputs[1]);
    ensure(boxes.data.len() == count * 5, || format!("{:?} are no {count} boxes", boxes.shape))?;
    let mut to = Array::zeros(&e.results[0]);
    for (index, row) in boxes.data.chunks_exact(5).enumerate() {
        let row: Vec<f32> = row.iter().map(|x| *x as f32).collect();
        let found = sampling.weights(&row, size, [batches, height, width]).map_err(EvalError)?;
        for c in 0..channels {
            let (plane, bins) = ((found.batch * channels + c) * height * width, (index * channels + c) * size * size);
            for (i, j) in (0..size).flat_map(|i| (0..size).map(move |j| (i, j))) {
                for ((y, wy), (x, wx)) in pairs(&found.rows[i], &found.columns[j]) {
                    let (cell, bin) = (plane + y * width + x, bins + i * size + j);
                    let weight = f64::from(wy) * f64::from(wx);
                    match op {
                        Kind::Align { .. } => to.data[bin] += weight * from.data[cell],
                        Kind::Grad { .. } => to.data[cell] += weight * from.data[bin],
                    }
                }
            }
        }
    }
    Ok(vec![to])
}

fn pairs<'a>(rows: &'a RoiWeights, columns: &'a RoiWeights) -> impl Iterator<Item = ((usize, f32), (usize, f32))> {
    rows.cells().flat_map(move |row| columns.cells().map(move |column| (row, column)))
}

pub(super) fn decompose(_: Kind<'_>) -> Parts {
    None
}

/// Linear in the features; boxes have no gradient, as in torchvision.
pub(super) fn grad(op: Kind<'_>, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let boxes = r.inputs[1];
    let back = match op {
        Kind::Align { sampling, .. } => Op::RoiAlignGrad { shape: r.ty(0).shape.clone(), sampling },
        Kind::Grad { sampling, .. } => {
            let side = r.ty(0).shape.last().and_then(Dim::as_const).and_then(|side| usize::try_from(side).ok());
            let size = side.ok_or_else(|| GraphError::Other(format!("{} has no fixed number of cells", r.ty(0))))?;
            Op::RoiAlign { size, sampling }
        }
    };
    Ok(Some(vec![Some(r.graph.push1(back, &[r.dy, boxes])?), None]))
}

#[cfg(test)]
mod tests;
