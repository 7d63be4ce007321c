//! Whether a run has collapsed: the encoder gives every clip the same, and nothing in the gradient says that it should not.
//!
//! Three signs have to agree, since each alone has harmless causes. The encoder's gradient has vanished beside what it was
//! (late in a schedule it only shrinks); the loss does not depend on the context (nor does it in an untrained model); and
//! the targets of different clips hardly differ (nor may those of similar videos).

use std::collections::VecDeque;

use crate::DiagnosticsReport;

/// Steps whose gradients are looked at, and the fewest that a verdict needs before and beside them.
const RECENT: usize = 10;
/// An encoder's gradient below this share of its largest has vanished.
const VANISHED: f64 = 1e-3;
/// A loss that grows by less than this share with another clip's context does not depend on it.
const NO_GAP: f64 = 0.005;
/// Below this effective rank the targets of different clips hardly differ. Twelve runs that had collapsed (learning rates of
/// 0.1 to 10 on videos and on textures, two sizes) ended between 1.1 and 4.2, since the rank of what little is left does not
/// depend on its scale; the official first weights begin near 20. Sound small runs come down to 4, which is why the other
/// two signs are asked for.
const FEW_DIMENSIONS: f64 = 5.0;

/// The encoder's gradient over a run.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    recent: VecDeque<f64>,
    largest: f64,
    steps: usize,
}

impl Gradients {
    /// Notes the norm of a step.
    pub fn add(&mut self, encoder: f64) {
        self.steps += 1;
        self.largest = self.largest.max(encoder);
        self.recent.push_back(encoder);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// The median of the last steps; none where there are too few to tell.
    pub fn typical(&self) -> Option<f64> {
        if self.steps < 2 * RECENT {
            return None;
        }
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(RECENT / 2).copied()
    }

    /// Whether it has vanished; none where the steps are too few to tell.
    pub fn vanished(&self) -> Option<bool> {
        self.typical().map(|typical| typical <= VANISHED * self.largest)
    }
}

/// Whether a run has collapsed, from its gradients and what was measured at its end; none where it cannot be told: after too
/// few steps, or without a measurement where the gradient has vanished.
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
        // The small gradients of the official first weights, which shrink with the learning rate.
        let small = gradients((0..40).map(|step| 5e-4 / f64::from(1 + step)));
        assert_eq!(collapsed(&small, Some(&report(0.0, 1.0))), Some(false));
    }

    #[test]
    fn what_cannot_be_told_is_not_said() {
        let short = gradients((0..19).map(|step| if step < 5 { 0.1 } else { 0.0 }));
        assert_eq!(collapsed(&short, Some(&report(0.0, 1.0))), None);
        let unmeasured = gradients((0..40).map(|step| if step < 20 { 0.1 } else { 0.0 }));
        assert_eq!(collapsed(&unmeasured, None), None);
        // A step or two without a gradient are no end.
        let gaps = gradients((0..40).map(|step| if step % 4 == 0 { 0.0 } else { 0.1 }));
        assert_eq!(collapsed(&gaps, None), Some(false));
    }
}
