//! What a step has added up so far.

use crate::step_executor::Named;
use crate::sums::Travel;
use std::collections::BTreeMap;
use vjepa_graphs::objectives::Declaration;
use vjepa_recipe::masks::MaskPair;

/// Sums over the groups that this process has computed of a step.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) groups: u64,
    pub(super) loss: f64,
    pub(super) terms: Vec<f64>,
    /// By variant: how many parts of groups, and sums of their mask lengths, one a generator.
    pub(super) tokens: BTreeMap<usize, (usize, Vec<[usize; 2]>)>,
    /// Of a whole step, which has applied its gradients already.
    pub(super) grad_norms: Vec<f64>,
    /// Ranks that the sums are over.
    pub(super) over: usize,
    pub(super) travel: Travel,
    /// Outputs of the step before, where they are read late.
    pub(super) earlier: Named,
}

/// A scalar among outputs; NaN where it is missing.
pub(super) fn scalar(outputs: &Named, name: &str) -> f64 {
    outputs.get(name).and_then(|tensor| tensor.floats().first()).map_or(f64::NAN, |value| f64::from(*value))
}

/// Norms of the gradients among the outputs of a whole step, one a trained set.
pub(super) fn norms(outputs: &Named, declaration: &Declaration) -> Vec<f64> {
    declaration.trained().map(|set| scalar(outputs, &format!("grad_norm.{}", set.name))).collect()
}

impl Pending {
    /// Adds the losses of a part of a group that counts `weight`; norms are those of a step that is one graph, else NaN.
    pub(super) fn add(&mut self, outputs: &Named, weight: f64, declaration: &Declaration) {
        self.loss += weight * scalar(outputs, "loss");
        self.terms.resize(declaration.terms.len(), 0.0);
        self.terms.iter_mut().zip(&declaration.terms).for_each(|(sum, term)| *sum += weight * scalar(outputs, term));
        self.grad_norms = norms(outputs, declaration);
    }

    /// Counts the mask lengths of a part of a group.
    pub(super) fn masked(&mut self, variant: usize, pairs: &[MaskPair]) {
        let (parts, tokens) = self.tokens.entry(variant).or_default();
        *parts += 1;
        tokens.resize(pairs.len(), [0; 2]);
        for (sum, pair) in tokens.iter_mut().zip(pairs) {
            *sum = [sum[0] + pair.context.len, sum[1] + pair.target.len];
        }
    }

    /// Their means, those of one variant after the other.
    pub(super) fn mean_tokens(tokens: &BTreeMap<usize, (usize, Vec<[usize; 2]>)>) -> Vec<[usize; 2]> {
        let mean = |(parts, sums): &(usize, Vec<[usize; 2]>)| {
            let parts = *parts;
            sums.iter().map(move |sum| sum.map(|sum| sum / parts.max(1))).collect::<Vec<_>>()
        };
        tokens.values().flat_map(mean).collect()
    }
}
