//! Multinomial logistic regression on standardised features, and the choice of its regularisation.
//!
//! Minimises `C · Σ cross-entropy + ½ |W|²` (the bias is free), the convention of scikit-learn, by L-BFGS in double precision.
//! No random number is drawn and sums have a fixed order, so equal inputs give equal bits.

use super::EvalError;
use vjepa_metrics::argmax;

/// The grid that C is chosen from, ten-thousandth to ten in half decades.
pub const C_GRID: [f64; 11] = [1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1, 3.16e-1, 1.0, 3.16, 10.0];

/// Rows of features with their classes.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// `[rows, dim]`.
    pub features: &'a [f32],
    /// Width of a row.
    pub dim: usize,
    /// Class of each row.
    pub labels: &'a [usize],
}

impl Labelled<'_> {
    fn check(&self, classes: usize) -> Result<(), EvalError> {
        if self.dim == 0 || self.labels.is_empty() || self.features.len() != self.labels.len() * self.dim {
            return Err(EvalError::setup(format!(
                "{} labels do not fit {} values of features of width {}",
                self.labels.len(),
                self.features.len(),
                self.dim
            )));
        }
        match self.labels.iter().find(|label| **label >= classes) {
            Some(label) => Err(EvalError::setup(format!("label {label} is not below the {classes} classes"))),
            None if self.features.iter().all(|x| x.is_finite()) => Ok(()),
            None => Err(EvalError::setup("the features hold values that are not finite; check the checkpoint")),
        }
    }
}

/// A fitted classifier of plain (not standardised) features.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticModel {
    /// Width of a row.
    pub dim: usize,
    /// `[classes, dim]`, standardisation folded in.
    pub weight: Vec<f32>,
    /// `[classes]`.
    pub bias: Vec<f32>,
}

impl LogisticModel {
    /// Scores of a row, `[classes]`.
    pub fn scores(&self, row: &[f32]) -> Vec<f32> {
        let dot = |weight: &[f32]| weight.iter().zip(row).map(|(w, x)| w * x).sum::<f32>();
        self.weight.chunks_exact(self.dim.max(1)).zip(&self.bias).map(|(weight, bias)| dot(weight) + bias).collect()
    }

    /// Share of rows whose label has the largest score.
    pub fn accuracy(&self, data: Labelled<'_>) -> f64 {
        let rows = data.features.chunks_exact(data.dim.max(1)).zip(data.labels);
        let hits = rows.filter(|(row, label)| argmax(&self.scores(row)) == **label).count();
        hits as f64 / data.labels.len().max(1) as f64
    }
}

/// Fits one classifier.
///
/// # Errors
/// [`EvalError::Setup`] for sizes and labels that do not fit, or features that are not finite.
pub fn fit(data: Labelled<'_>, classes: usize, c: f64) -> Result<LogisticModel, EvalError> {
    let mut models = fit_path(data, classes, &[c])?;
    models.pop().ok_or_else(|| EvalError::setup("no C was given"))
}

/// Fits one classifier for each C, each started from the one before (an ascending grid is quickest).
///
/// # Errors
/// As [`fit`].
pub fn fit_path(data: Labelled<'_>, classes: usize, grid: &[f64]) -> Result<Vec<LogisticModel>, EvalError> {
    data.check(classes)?;
    let mut problem = Problem::new(data, classes);
    let mut theta = vec![0f64; (data.dim + 1) * classes];
    let mut models = Vec::with_capacity(grid.len());
    for &c in grid {
        if !(c.is_finite() && c > 0.0) {
            return Err(EvalError::setup(format!("C must be a positive number, got {c}")));
        }
        problem.ridge = 1.0 / (c * data.labels.len() as f64);
        minimise(&problem, &mut theta);
        models.push(problem.model(&theta));
    }
    Ok(models)
}

/// Fits on `train` with each C of [`C_GRID`], keeps the one most accurate on `held_out` (the smallest of equals), and fits
/// it again on both together. Returns the classifier, its C, and its accuracy on `held_out` before that.
///
/// # Errors
/// As [`fit`].
pub fn fit_tuned(
    train: Labelled<'_>,
    held_out: Labelled<'_>,
    classes: usize,
) -> Result<(LogisticModel, f64, f64), EvalError> {
    held_out.check(classes)?;
    let models = fit_path(train, classes, &C_GRID)?;
    let scores: Vec<f64> = models.iter().map(|model| model.accuracy(held_out)).collect();
    let best = first_best(&scores);
    let features = [train.features, held_out.features].concat();
    let labels = [train.labels, held_out.labels].concat();
    let both = Labelled { features: &features, dim: train.dim, labels: &labels };
    // C weighs the sum of the losses, so more rows ask for less of it.
    let c = C_GRID[best] * train.labels.len() as f64 / labels.len() as f64;
    Ok((fit(both, classes, c)?, C_GRID[best], scores[best]))
}

/// Index of the first of the largest scores; 0 for none.
pub fn first_best(scores: &[f64]) -> usize {
    let best = scores.iter().enumerate().reduce(|best, next| if *next.1 > *best.1 { next } else { best });
    best.map_or(0, |(index, _)| index)
}

/// `mean cross-entropy + ridge/2 · |W|²` over standardised rows. Parameters are `[dim + 1, classes]`, the bias last.
struct Problem {
    rows: Vec<f64>,
    labels: Vec<usize>,
    dim: usize,
    classes: usize,
    ridge: f64,
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl Problem {
    fn new(data: Labelled<'_>, classes: usize) -> Self {
        let mean = super::linalg::mean_row(data.features, data.dim);
        let deviations = super::linalg::deviations(data.features, data.dim);
        // A dimension that is constant up to rounding says nothing.
        let inverse = |(deviation, mean): (&f64, &f64)| {
            if *deviation > 1e-7 * mean.abs().max(1e-30) { 1.0 / deviation } else { 0.0 }
        };
        let scale: Vec<f64> = deviations.iter().zip(&mean).map(inverse).collect();
        let standardised = data
            .features
            .chunks_exact(data.dim)
            .flat_map(|row| row.iter().zip(&mean).zip(&scale).map(|((x, mean), scale)| (f64::from(*x) - mean) * scale));
        let rows = standardised.collect();
        Self { rows, labels: data.labels.to_vec(), dim: data.dim, classes, ridge: 0.0, mean, scale }
    }

    fn value_and_gradient(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        let (k, weights) = (self.classes, self.dim * self.classes);
        let share = 1.0 / self.labels.len() as f64;
        gradient.fill(0.0);
        let mut logits = vec![0f64; k];
        let mut loss = 0.0;
        for (row, label) in self.rows.chunks_exact(self.dim).zip(&self.labels) {
            logits.copy_from_slice(&theta[weights..]);
            for (x, weight) in row.iter().zip(theta.chunks_exact(k)) {
                logits.iter_mut().zip(weight).for_each(|(z, w)| *z += x * w);
            }
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let own = logits[*label];
            let mut sum = 0.0;
            for z in &mut logits {
                *z = (*z - most).exp();
                sum += *z;
            }
            loss += share * (sum.ln() + most - own);
            logits.iter_mut().for_each(|z| *z *= share / sum);
            logits[*label] -= share;
            for (x, slot) in row.iter().zip(gradient.chunks_exact_mut(k)) {
                slot.iter_mut().zip(&logits).for_each(|(g, d)| *g += x * d);
            }
            gradient[weights..].iter_mut().zip(&logits).for_each(|(g, d)| *g += d);
        }
        for (g, w) in gradient[..weights].iter_mut().zip(theta) {
            *g += self.ridge * w;
            loss += 0.5 * self.ridge * w * w;
        }
        loss
    }

    /// The classifier with the standardisation folded in.
    fn model(&self, theta: &[f64]) -> LogisticModel {
        let k = self.classes;
        let mut weight = vec![0f32; k * self.dim];
        let mut bias: Vec<f64> = theta[self.dim * k..].to_vec();
        for (j, row) in theta.chunks_exact(k).take(self.dim).enumerate() {
            for (class, w) in row.iter().enumerate() {
                weight[class * self.dim + j] = (w * self.scale[j]) as f32;
                bias[class] -= w * self.scale[j] * self.mean[j];
            }
        }
        LogisticModel { dim: self.dim, weight, bias: bias.into_iter().map(|b| b as f32).collect() }
    }
}

/// Pairs of steps and gradient changes that L-BFGS remembers.
const MEMORY: usize = 12;
/// Iterations at most; the smooth, strictly convex problems here take some tens.
const ITERATIONS: usize = 300;
/// The largest gradient element that counts as zero.
const TOLERANCE: f64 = 1e-6;

/// L-BFGS with a backtracking line search from `theta` on.
fn minimise(problem: &Problem, theta: &mut Vec<f64>) {
    let mut gradient = vec![0f64; theta.len()];
    let mut value = problem.value_and_gradient(theta, &mut gradient);
    let mut pairs: Vec<Pair> = Vec::with_capacity(MEMORY + 1);
    for _ in 0..ITERATIONS {
        if gradient.iter().all(|g| g.abs() <= TOLERANCE) {
            return;
        }
        let mut direction = descent(&gradient, &pairs);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            pairs.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = dot(&direction, &gradient);
        }
        // Without curvature yet, a step of length 1 at most.
        let mut step = if pairs.is_empty() { 1f64.min(1.0 / dot(&direction, &direction).sqrt()) } else { 1.0 };
        let mut next_gradient = vec![0f64; theta.len()];
        let next = loop {
            let next: Vec<f64> = theta.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            let next_value = problem.value_and_gradient(&next, &mut next_gradient);
            if next_value <= value + 1e-4 * step * slope {
                value = next_value;
                break next;
            }
            step *= 0.5;
            if step < 1e-12 {
                return;
            }
        };
        let s: Vec<f64> = next.iter().zip(theta.iter()).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let sy = dot(&s, &y);
        if sy > 1e-12 * dot(&y, &y).sqrt() * dot(&s, &s).sqrt() {
            pairs.push(Pair { s, y, rho: 1.0 / sy });
            if pairs.len() > MEMORY {
                pairs.remove(0);
            }
        }
        *theta = next;
        gradient = next_gradient;
    }
}

/// A step and the change of the gradient over it.
struct Pair {
    s: Vec<f64>,
    y: Vec<f64>,
    rho: f64,
}

/// The two loops of L-BFGS: minus the approximate inverse Hessian times the gradient.
fn descent(gradient: &[f64], pairs: &[Pair]) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let alpha = pair.rho * dot(&pair.s, &q);
        add(&mut q, -alpha, &pair.y);
        alphas.push(alpha);
    }
    if let Some(last) = pairs.last() {
        let gamma = 1.0 / (last.rho * dot(&last.y, &last.y));
        q.iter_mut().for_each(|x| *x *= gamma);
    }
    for (pair, alpha) in pairs.iter().zip(alphas.iter().rev()) {
        let beta = pair.rho * dot(&pair.y, &q);
        add(&mut q, alpha - beta, &pair.s);
    }
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(x, y)| *x += factor * y);
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_recipe::counter::CounterRng;

    /// Rows at -1 and 1: the weights of the two classes are ∓a where `a = C n / (1 + e^(2a))`.
    #[test]
    fn the_known_solution_of_two_points() {
        let features = [-1.0, 1.0, -1.0, 1.0];
        let data = Labelled { features: &features, dim: 1, labels: &[0, 1, 0, 1] };
        for c in [0.01, 0.3, 10.0] {
            let (mut low, mut high) = (0f64, 100f64);
            for _ in 0..200 {
                let a = 0.5 * (low + high);
                if a < 4.0 * c / (1.0 + (2.0 * a).exp()) { low = a } else { high = a }
            }
            let model = fit(data, 2, c).unwrap();
            assert!((f64::from(model.weight[1]) - low).abs() < 1e-4, "C {c}: {:?} {low}", model.weight);
            assert!((model.weight[0] + model.weight[1]).abs() < 1e-5 && model.bias[0].abs() < 1e-4);
            assert_eq!(model.accuracy(data), 1.0);
        }
    }

    /// Three clouds in 20 dimensions of which two separate them, at another scale and far from the origin.
    fn clouds(rows: usize, noise: f64, seed: u64) -> (Vec<f32>, Vec<usize>) {
        let mut rng = CounterRng::new(&[seed]);
        let mut features = Vec::new();
        let mut labels = Vec::new();
        for i in 0..rows {
            let class = i % 3;
            for j in 0..20 {
                let centre = if j % 3 == class && j < 3 { 1.0 } else { 0.0 };
                let normal: f64 = (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
                features.push((50.0 + 30.0 * (centre + noise * normal)) as f32);
            }
            labels.push(class);
        }
        (features, labels)
    }

    #[test]
    fn separable_clouds_are_separated_and_noisy_ones_regularised() {
        let (features, labels) = clouds(300, 0.1, 1);
        let data = Labelled { features: &features, dim: 20, labels: &labels };
        assert_eq!(fit(data, 3, 1.0).unwrap().accuracy(data), 1.0);

        let (train, train_labels) = clouds(48, 0.8, 2);
        let (test, test_labels) = clouds(3000, 0.8, 3);
        let train = Labelled { features: &train, dim: 20, labels: &train_labels };
        let test = Labelled { features: &test, dim: 20, labels: &test_labels };
        let models = fit_path(train, 3, &C_GRID).unwrap();
        let accuracies: Vec<f64> = models.iter().map(|model| model.accuracy(test)).collect();
        let best = first_best(&accuracies);
        assert!(best < 8 && accuracies[best] > accuracies[10] + 0.01, "{accuracies:?}");
        // A path and a fit from nothing reach the same minimum.
        let alone = fit(train, 3, C_GRID[6]).unwrap();
        let apart = alone.weight.iter().zip(&models[6].weight).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(apart < 1e-5, "{apart}");
        assert_eq!(fit(train, 3, C_GRID[6]).unwrap(), alone);
    }

    #[test]
    fn tuning_refits_on_everything() {
        let (features, labels) = clouds(90, 0.4, 4);
        let (more, more_labels) = clouds(60, 0.4, 5);
        let train = Labelled { features: &features, dim: 20, labels: &labels };
        let held_out = Labelled { features: &more, dim: 20, labels: &more_labels };
        let (model, c, accuracy) = fit_tuned(train, held_out, 3).unwrap();
        assert!(C_GRID.contains(&c) && accuracy > 0.7 && model.accuracy(held_out) > 0.7);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let data = Labelled { features: &[1.0, 2.0], dim: 1, labels: &[0, 3] };
        assert!(fit(data, 2, 1.0).unwrap_err().to_string().contains("label 3"));
        assert!(fit(Labelled { labels: &[0], ..data }, 2, 1.0).is_err());
        assert!(fit(Labelled { features: &[1.0, f32::NAN], labels: &[0, 1], ..data }, 2, 1.0).is_err());
        assert!(fit(Labelled { labels: &[0, 1], ..data }, 2, 0.0).is_err());
        // A constant feature must not make it fail.
        assert!(fit(Labelled { features: &[5.0, 5.0], labels: &[0, 1], dim: 1 }, 2, 1.0).is_ok());
    }
}
