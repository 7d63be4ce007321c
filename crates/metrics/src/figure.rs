//! Means over draws and seeds.

use serde::Serialize;

/// Mean over draws with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Mean.
    pub mean: f64,
    /// Standard error of the mean over draws; 0 for a single draw.
    pub se: f64,
}

impl Figure {
    /// Of the results of several draws.
    pub fn of(results: &[f64]) -> Self {
        let n = results.len().max(1) as f64;
        let mean = results.iter().sum::<f64>() / n;
        let square: f64 = results.iter().map(|x| (x - mean).powi(2)).sum();
        let se = if results.len() > 1 { (square / (n - 1.0) / n).sqrt() } else { 0.0 };
        Self { mean, se }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_errors() {
        let figure = Figure::of(&[0.4, 0.6]);
        assert!((figure.mean - 0.5).abs() < 1e-12 && (figure.se - 0.1).abs() < 1e-12);
        assert_eq!(Figure::of(&[0.7]).se, 0.0);
    }
}
