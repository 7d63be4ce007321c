//! Whether a run has collapsed: the model gives the same features for every clip, and no gradient pushes it away from that.
//!
//! Three signs have to agree, since each alone has harmless causes. The monitored gradient has vanished compared with its
//! largest value (late in a schedule it merely shrinks); the loss does not depend on the context (nor does an untrained
//! model's); and the monitored features of different clips hardly differ (nor may those of similar videos).

use std::collections::VecDeque;

use crate::DiagnosticsReport;

/// The number of latest steps whose gradients count. A verdict needs as many steps before them.
const RECENT: usize = 10;
/// A gradient below this fraction of its largest value has vanished.
const VANISHED: f64 = 1e-3;
/// A loss that grows by less than this fraction with another clip's context does not depend on it.
const NO_GAP: f64 = 0.005;
/// Below this effective rank the features of different clips hardly differ. Twelve collapsed runs (learning rates of 0.1 to
/// 10, on videos and on textures, two sizes) ended between 1.1 and 4.2, since the rank of the remaining variation does not
/// depend on its scale; official initial weights start near 20. Healthy small runs come down to 4, which is why the other two
/// signs are required.
const FEW_DIMENSIONS: f64 = 5.0;

/// The norm of the monitored gradient over a run.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    recent: VecDeque<f64>,
    largest: f64,
    steps: usize,
}

impl Gradients {
    /// Adds the norm of a step.
    pub fn add(&mut self, norm: f64) {
        self.steps += 1;
        self.largest = self.largest.max(norm);
        self.recent.push_back(norm);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// The median of the latest steps; none after too few steps.
    pub fn typical(&self) -> Option<f64> {
        if self.steps < 2 * RECENT {
            return None;
        }
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(RECENT / 2).copied()
    }

    /// Whether it has vanished; none after too few steps.
    pub fn vanished(&self) -> Option<bool> {
        self.typical().map(|typical| typical <= VANISHED * self.largest)
    }
}

/// Whether a run has collapsed, from its gradients and the diagnostics at its end. None when that is unknown: after too few
/// steps, or without diagnostics when the gradient has vanished.
pub fn collapsed(gradients: &Gradients, measured: Option<&DiagnosticsReport>) -> Option<bool> {
    match (gradients.vanished()?, measured) {
        (false, _) => Some(false),
        (true, None) => None,
        (true, Some(report)) => Some(report.context_gap.abs() < NO_GAP && report.effective_rank < FEW_DIMENSIONS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradients(norms: impl IntoIterator<Item = f64>) -> Gradients {
        let mut gradients = Gradients::default();
        norms.into_iter().for_each(|norm| gradients.add(norm));
        gradients
    }

    fn report(context_gap: f64, effective_rank: f64) -> DiagnosticsReport {
        DiagnosticsReport {
            loss: 0.1,
            loss_other_context: 0.1 * (1.0 + context_gap),
            context_gap,
            effective_rank,
            deviation_mean: 0.1,
            deviation_min: 0.0,
            knn: None,
        }
    }

    #[test]
    fn all_three_signs_have_to_agree() {
        let dead = gradients((0..40).map(|step| if step < 20 { 0.1 } else { 0.0 }));
        assert_eq!(collapsed(&dead, Some(&report(0.0, 1.0))), Some(true));
        assert_eq!(collapsed(&dead, Some(&report(-0.001, 0.0))), Some(true));
        assert_eq!(collapsed(&dead, Some(&report(0.2, 1.0))), Some(false));
        assert_eq!(collapsed(&dead, Some(&report(0.0, 12.0))), Some(false));
        // The small gradients of official initial weights, which shrink with the learning rate.
        let small = gradients((0..40).map(|step| 5e-4 / f64::from(1 + step)));
        assert_eq!(collapsed(&small, Some(&report(0.0, 1.0))), Some(false));
    }

    #[test]
    fn unknown_is_not_called_either_way() {
        let short = gradients((0..19).map(|step| if step < 5 { 0.1 } else { 0.0 }));
        assert_eq!(collapsed(&short, Some(&report(0.0, 1.0))), None);
        let unmeasured = gradients((0..40).map(|step| if step < 20 { 0.1 } else { 0.0 }));
        assert_eq!(collapsed(&unmeasured, None), None);
        // Single steps without a gradient are not a collapse.
        let gaps = gradients((0..40).map(|step| if step % 4 == 0 { 0.0 } else { 0.1 }));
        assert_eq!(collapsed(&gaps, None), Some(false));
    }
}
