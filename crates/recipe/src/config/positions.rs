//! How tokens know where they are: a setting of the model.

use serde::{Deserialize, Serialize};

/// How tokens know where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A table of sines and cosines is added to the tokens before the first block.
    #[default]
    Table,
    /// Queries and keys are rotated in every block.
    Rotary(Rotary),
}

/// Rotary positions along time, height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotary {
    /// The angles of an axis are repeated as a whole, so that the two channels of a pair turn by different angles, as in
    /// V-JEPA 2; otherwise each pair turns by one angle, a true rotation.
    pub tiled: bool,
    /// Rows and columns are mapped to the grid of the pre-training, 16 patches a side (18 with patches of 14 pixels).
    pub interpolate: bool,
}

impl Rotary {
    /// Patches a side that positions are mapped to by [`interpolate`](Self::interpolate).
    pub const fn pretrained_grid(patch: usize) -> usize {
        if patch == 14 { 18 } else { 16 }
    }
}
