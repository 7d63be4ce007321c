//! Comparing with stored tensors, whole or sampled.
//!
//! A big tensor `x` may be stored sampled: `x#idx` holds flat indices, `x#val` the values there and `x#stat` the L2 norm,
//! the sum and the largest magnitude of the whole. [`Compare`] takes either form.

use vjepa_weights::{TensorFile, TensorFileError};

use super::check::{Check, Limit, nan_max};

/// Comparison with what a file of golden data stores.
pub trait Compare {
    /// Compares `got` with the tensor stored under `name`, whole or sampled. Of a sampled one, the differences are the
    /// largest among the sampled values and what its norm, sum and largest magnitude imply for the whole: each of them
    /// is a lower bound of the true difference, so a correct result is never failed for them.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`] and [`TensorFileError::Type`], for the stored tensor.
    fn compare(&self, name: &str, got: &[f32], limit: Limit) -> Result<Check, TensorFileError>;
}

impl Compare for TensorFile {
    fn compare(&self, name: &str, got: &[f32], limit: Limit) -> Result<Check, TensorFileError> {
        if self.contains(name) {
            return Ok(Check::compare(name, got, &self.f32(name)?, limit));
        }
        let value_name = format!("{name}#val");
        if !self.contains(&value_name) {
            return Err(self.missing(name));
        }
        let values = self.f32(&value_name)?;
        let indices = self.i64(&format!("{name}#idx"))?;
        let stats = self.f64(&format!("{name}#stat"))?;
        let sampled: Option<Vec<f32>> = indices
            .iter()
            .map(|&index| usize::try_from(index).ok().and_then(|index| got.get(index).copied()))
            .collect();
        let Some(sampled) = sampled else {
            let least = indices.iter().max().map_or(0, |&last| last.max(0) as usize + 1);
            return Ok(Check::mismatch(name, got.len(), least, limit));
        };
        match Check::compare(name, &sampled, &values, limit) {
            Check::Measured { rel_l2, max_abs, .. } => {
                let (rel_stat, abs_stat) = stat_differences(got, &stats);
                let (rel_l2, max_abs) = (nan_max(rel_l2, rel_stat), nan_max(max_abs, abs_stat));
                Ok(Check::measured(name, rel_l2, max_abs, limit))
            }
            other => Ok(other),
        }
    }
}

/// Lower bounds on the relative L2 and the largest difference, from `[norm, sum, largest magnitude]` of the whole.
fn stat_differences(got: &[f32], stats: &[f64]) -> (f64, f64) {
    let &[norm, sum, largest] = stats else {
        return (f64::NAN, f64::NAN);
    };
    let (mut got_square, mut got_sum, mut got_largest) = (0.0f64, 0.0f64, 0.0f64);
    for &value in got {
        let value = f64::from(value);
        got_square += value * value;
        got_sum += value;
        got_largest = nan_max(got_largest, value.abs());
    }
    // |sum of differences| <= sqrt(n) * |differences|_2 (Cauchy-Schwarz).
    let by_sum = (got_sum - sum).abs() / (got.len().max(1) as f64).sqrt();
    let distance = nan_max((got_square.sqrt() - norm).abs(), by_sum);
    let rel = if distance == 0.0 { 0.0 } else { distance / norm };
    (rel, (got_largest - largest).abs())
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;

    #[test]
    fn sampled_tensors_compare_values_and_statistics() {
        let whole: Vec<f32> = (0..10).map(|x| x as f32 - 4.0).collect();
        let norm = whole.iter().map(|x| x * x).sum::<f32>().sqrt();
        let stats = [norm, whole.iter().sum(), 5.0];
        let (indices, values) = ([1i64, 7].map(i64::to_le_bytes), [whole[1], whole[7]].map(f32::to_le_bytes));
        let (indices, values, stats) = (indices.concat(), values.concat(), stats.map(f32::to_le_bytes).concat());
        let stored = [
            ("w#idx", TensorView::new(Dtype::I64, vec![2], &indices).unwrap()),
            ("w#val", TensorView::new(Dtype::F32, vec![2], &values).unwrap()),
            ("w#stat", TensorView::new(Dtype::F32, vec![3], &stats).unwrap()),
        ];
        let bytes = safetensors::serialize(stored, None).unwrap();
        let file = TensorFile::from_bytes("some.safetensors".into(), bytes).unwrap();
        let limit = Limit::RelL2(1e-5);
        assert!(!file.compare("w", &whole, limit).unwrap().failed());
        // Wrong only where nothing was sampled: the statistics see it.
        let mut wrong = whole.clone();
        wrong[4] += 1.0;
        assert!(file.compare("w", &wrong, limit).unwrap().failed());
        wrong[4] = f32::NAN;
        assert!(file.compare("w", &wrong, Limit::RelL2(1e9)).unwrap().failed());
        let short = file.compare("w", &whole[..5], limit).unwrap();
        assert!(short.failed() && short.name().contains("shape mismatch"));
        assert!(file.compare("v", &whole, limit).is_err());
    }
}
