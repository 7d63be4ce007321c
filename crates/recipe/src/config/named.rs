//! What models are called: sizes that have a name, and generations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::positions::{Positions, Rotary};
use super::sizes::EncoderSizes;

/// The encoder sizes that have a name (`src/models/vision_transformer.py` of the official code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModelName {
    /// 192 wide, 12 blocks, 3 heads.
    #[serde(rename = "vit_tiny")]
    Tiny,
    /// 384 wide, 12 blocks, 6 heads.
    #[serde(rename = "vit_small")]
    Small,
    /// 768 wide, 12 blocks, 12 heads.
    #[serde(rename = "vit_base")]
    Base,
    /// 1024 wide, 24 blocks, 16 heads.
    #[serde(rename = "vit_large")]
    Large,
    /// 1280 wide, 32 blocks, 16 heads.
    #[serde(rename = "vit_huge")]
    Huge,
    /// 1408 wide, 40 blocks, 16 heads, MLP ratio 48/11.
    #[serde(rename = "vit_giant")]
    Giant,
    /// 1408 wide, 40 blocks, 22 heads, MLP ratio 48/11: the giant of V-JEPA 2 and 2.1.
    #[serde(rename = "vit_giant_xformers")]
    GiantXformers,
    /// 1664 wide, 48 blocks, 26 heads, MLP ratio 64/13.
    #[serde(rename = "vit_gigantic_xformers")]
    GiganticXformers,
}

impl ModelName {
    /// Every named size, in the order of their widths; of two giants the one of V-JEPA 1 comes first.
    pub const ALL: [Self; 8] = [
        Self::Tiny,
        Self::Small,
        Self::Base,
        Self::Large,
        Self::Huge,
        Self::Giant,
        Self::GiantXformers,
        Self::GiganticXformers,
    ];

    /// The sizes behind the name: the only table of them.
    pub const fn sizes(self) -> EncoderSizes {
        let (embed_dim, depth, num_heads, mlp_ratio) = match self {
            Self::Tiny => (192, 12, 3, 4.0),
            Self::Small => (384, 12, 6, 4.0),
            Self::Base => (768, 12, 12, 4.0),
            Self::Large => (1024, 24, 16, 4.0),
            Self::Huge => (1280, 32, 16, 4.0),
            Self::Giant => (1408, 40, 16, 48.0 / 11.0),
            Self::GiantXformers => (1408, 40, 22, 48.0 / 11.0),
            Self::GiganticXformers => (1664, 48, 26, 64.0 / 13.0),
        };
        EncoderSizes { embed_dim, depth, num_heads, mlp_ratio }
    }
}

/// The generation of a model: the choices that its released models have in common. Each can be made on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Generation {
    /// V-JEPA: a table of positions is added to the tokens, one final norm.
    #[default]
    #[serde(rename = "vjepa")]
    V1,
    /// V-JEPA 2: rotary positions in every block, one final norm.
    #[serde(rename = "vjepa2")]
    V2,
    /// V-JEPA 2.1: rotary positions on a grid of 16, four levels with their own norms, images alongside videos.
    #[serde(rename = "vjepa2_1")]
    V21,
}

impl Generation {
    /// Every generation, in the order of their release.
    pub const ALL: [Self; 3] = [Self::V1, Self::V2, Self::V21];

    /// The word that stands for it in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "vjepa",
            Self::V2 => "vjepa2",
            Self::V21 => "vjepa2_1",
        }
    }

    /// What people call it.
    pub const fn about(self) -> &'static str {
        match self {
            Self::V1 => "V-JEPA",
            Self::V2 => "V-JEPA 2",
            Self::V21 => "V-JEPA 2.1",
        }
    }

    /// How tokens of its models know where they are. `interpolate` is only asked where the generation has rotary positions;
    /// none for what its released encoders have.
    pub const fn positions(self, interpolate: Option<bool>) -> Positions {
        let rotary = match self {
            Self::V1 => return Positions::Table,
            Self::V2 => Rotary { tiled: true, interpolate: false },
            Self::V21 => Rotary { tiled: false, interpolate: true },
        };
        match interpolate {
            Some(interpolate) => Positions::Rotary(Rotary { interpolate, ..rotary }),
            None => Positions::Rotary(rotary),
        }
    }

    /// The blocks, counted from 0, whose outputs are the levels of an encoder of this depth; empty where a generation has
    /// one final norm instead. `None` for a depth that V-JEPA 2.1 has no levels for.
    pub const fn levels(self, depth: usize) -> Option<&'static [usize]> {
        match (self, depth) {
            (Self::V1 | Self::V2, _) => Some(&[]),
            (Self::V21, 12) => Some(&[2, 5, 8, 11]),
            (Self::V21, 24) => Some(&[5, 11, 17, 23]),
            (Self::V21, 40) => Some(&[9, 19, 29, 39]),
            (Self::V21, 48) => Some(&[11, 23, 37, 47]),
            (Self::V21, _) => None,
        }
    }
}
