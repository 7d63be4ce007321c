//! V-JEPA 2 and 2.1: models with rotary positions, their training, their probes.

pub(super) mod dense;
mod groups;
pub(super) mod probe;
pub(super) mod released;
mod scores;
pub(super) mod steps;
pub(super) mod tiny;
pub(super) mod train;

use vjepa_graphs::rotary::part_width;
use vjepa_weights::TensorFile;

use super::check::GoldenError;
use super::run::has_gradient;

/// Widths of the heads of encoder and predictor, which decide which key biases have a gradient.
#[derive(Clone, Copy)]
pub(super) struct HeadWidths {
    pub(super) encoder: usize,
    pub(super) predictor: usize,
}

impl HeadWidths {
    /// Elements of a parameter whose gradient is not zero by the model's algebra. A rotation makes the bias of the keys
    /// matter; in the channels that it leaves alone there is only rounding.
    pub(super) fn has_gradient(self, name: &str, len: usize) -> impl Fn(usize) -> bool {
        let width = if name.starts_with("predictor") { self.predictor } else { self.encoder };
        let turned = 3 * part_width(width);
        let plain = has_gradient(name, len);
        let keys_turn = name.ends_with("qkv.bias");
        move |index| plain(index) || (keys_turn && index.saturating_sub(len / 3) % width.max(1) < turned)
    }
}

/// A configuration of the folder that cannot be run.
pub(super) fn wrong(tensors: &TensorFile, why: impl ToString) -> GoldenError {
    GoldenError::Config { path: tensors.path().into(), why: why.to_string() }
}
