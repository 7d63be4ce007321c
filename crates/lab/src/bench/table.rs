//! Comparisons: workers take turns.

use super::worker::{Answer, Worker, WorkerError};
use serde::Serialize;

/// Figures of one worker; ratios are this worker's time over the first worker's in the same round.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Library and version.
    pub about: String,
    /// Median wall time of a run, in milliseconds.
    pub ms: f64,
    /// 95th and 99th percentile of the wall times, in milliseconds.
    pub tail: [f64; 2],
    /// Median CPU time of a run, in milliseconds.
    pub cpu_ms: f64,
    /// Median ratio, and its quartiles.
    pub ratio: [f64; 3],
    /// Median ratio of CPU times.
    pub cpu_ratio: f64,
    /// Peak memory of the process or on the device, in bytes.
    pub peak: u64,
    /// The same without mapped files (program and libraries).
    pub peak_anonymous: u64,
    /// Arithmetic of a run in FLOP/s: what the plan needs for it, over this worker's time.
    pub flops_per_second: Option<f64>,
    /// That rate over the machine's plain matrix products (model FLOPs utilisation).
    pub mfu: Option<f64>,
    /// Largest relative difference of a loss from the first worker's, over all runs.
    pub loss_difference: f64,
}

/// A comparison: workers in the order given, the first one the reference.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Rounds counted.
    pub rounds: usize,
    /// FLOP/s of plain matrix products on this machine; on a GPU in the precision compared, through the fastest worker's library.
    pub product_peak: Option<f64>,
    /// The workers.
    pub sides: Vec<Measured>,
}

/// Lets the workers take turns: `warmup` rounds uncounted, then `rounds`. Round r uses the masks of set r modulo `sets`.
///
/// # Errors
/// [`WorkerError`] of the first worker that fails.
pub fn compare(
    sides: &mut [Worker],
    sets: usize,
    warmup: usize,
    rounds: usize,
    mut progress: impl FnMut(usize, usize),
) -> Result<Comparison, WorkerError> {
    let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); sides.len()];
    let total = warmup + rounds;
    for round in 0..total {
        for (side, answers) in sides.iter_mut().zip(&mut answers) {
            // Threads of the worker before may still spin for their next task.
            std::thread::sleep(std::time::Duration::from_millis(30));
            answers.push(side.run(round % sets.max(1))?);
        }
        progress(round + 1, total);
    }
    let reference = answers.first().cloned().unwrap_or_default();
    let flops = sides.iter().map(|side| side.flops.clone()).find(|flops| !flops.is_empty()).unwrap_or_default();
    let mut measured = Vec::new();
    for (side, answers) in sides.iter_mut().zip(&answers) {
        measured.push(measure(side, answers, &reference, &flops, warmup)?);
    }
    Ok(Comparison { rounds, product_peak: None, sides: measured })
}

fn measure(
    side: &mut Worker,
    all: &[Answer],
    reference: &[Answer],
    flops: &[f64],
    warmup: usize,
) -> Result<Measured, WorkerError> {
    let paired = || all.iter().zip(reference).skip(warmup);
    let ratios = sorted(paired().map(|(own, first)| own.ms / first.ms));
    let loss = |answer: &Answer| answer.loss.unwrap_or(f64::NAN);
    let differences = all.iter().zip(reference).map(|(own, first)| (loss(own) - loss(first)).abs() / loss(first).abs());
    let [peak, peak_anonymous] = side.peak()?;
    let times = sorted(all.iter().skip(warmup).map(|own| own.ms));
    let rates = sorted(
        all.iter()
            .enumerate()
            .skip(warmup)
            .filter_map(|(round, own)| Some(flops.get(round % flops.len().max(1))? / (own.ms / 1e3))),
    );
    Ok(Measured {
        name: side.name.clone(),
        about: side.about.clone(),
        ms: quantile(&times, 0.5),
        tail: [0.95, 0.99].map(|q| quantile(&times, q)),
        cpu_ms: quantile(&sorted(all.iter().skip(warmup).map(|own| own.cpu_ms)), 0.5),
        ratio: [0.5, 0.25, 0.75].map(|q| quantile(&ratios, q)),
        cpu_ratio: quantile(&sorted(paired().map(|(own, first)| own.cpu_ms / first.cpu_ms)), 0.5),
        peak,
        peak_anonymous,
        flops_per_second: (!rates.is_empty()).then(|| quantile(&rates, 0.5)),
        mfu: None,
        loss_difference: differences.fold(0.0, worse),
    })
}

impl Comparison {
    /// Notes what the machine can do, and each worker's share of it.
    #[must_use]
    pub fn with_peak(mut self, peak: f64) -> Self {
        self.product_peak = Some(peak);
        for side in &mut self.sides {
            side.mfu = side.flops_per_second.map(|rate| rate / peak);
        }
        self
    }
}

/// The larger one; NaN counts as the worst.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Linear interpolation between the neighbours of rank `q·(n − 1)`; NaN for an empty list.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = q * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(a), Some(b)) => a + (b - a) * (rank - low as f64),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
