//! The `loss` section: what a run minimises.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a run minimises; each has a file of its own in `graphs/src/objectives/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveName {
    /// Masked latent prediction against a moving average of the encoder: V-JEPA's.
    #[default]
    Jepa,
    /// Masked pixel prediction: the normalised pixels of `pixel_target`, without a target encoder.
    Pixels,
    /// Masked latent prediction against the frozen encoder of `teacher`.
    Teacher,
}

impl ObjectiveName {
    /// Every objective there is.
    pub const ALL: [Self; 3] = [Self::Jepa, Self::Pixels, Self::Teacher];

    /// The word that stands for it in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jepa => "jepa",
            Self::Pixels => "pixels",
            Self::Teacher => "teacher",
        }
    }
}

/// How the pixels of a token are normalised, where they are predicted; both by unbiased deviations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PixelTarget {
    /// All values of a token are normalised by one mean and one variance, of the clip as the encoder sees it.
    #[default]
    Mae,
    /// Each channel of a token is normalised by its own mean and deviation, of pixels in 0 to 1.
    Videomae,
}

impl PixelTarget {
    /// The word that stands for it in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mae => "mae",
            Self::Videomae => "videomae",
        }
    }
}

/// The `loss` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Exponent p of the loss, `mean(|z - h|^p) / p`.
    pub loss_exp: f64,
    /// Weight of the variance regulariser.
    pub reg_coeff: f64,
    /// What is minimised; each objective is a file in `graphs/src/objectives/`.
    #[schemars(extend("x-ours" = true))]
    pub objective: ObjectiveName,
    /// Which pixels are predicted, with `objective: pixels`; the loss is the mean of squares, whatever `loss_exp` is.
    #[schemars(extend("x-ours" = true))]
    pub pixel_target: PixelTarget,
    /// The checkpoint whose encoder is the teacher, with `objective: teacher`; its sizes must be those of `model`. Null: random
    /// weights.
    #[schemars(extend("x-ours" = true))]
    pub teacher: Option<String>,
    /// Predict context tokens too, and add their loss with weight `model.lambda_value_vid`; null: as the generation does, true
    /// for V-JEPA 2.1.
    pub predict_all: Option<bool>,
    /// Weight context tokens by the inverse square root of their distance to the nearest predicted token; false in the
    /// cool-down. From V-JEPA 2.1.
    pub weight_distance_loss: bool,
    /// Divide distances by a sixteenth of the grid's side first; true is not supported.
    pub offset_context_loss: bool,
    /// Targets from later frames; only null and 0 are supported.
    pub shift_by_n: Option<i64>,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            loss_exp: 1.0,
            reg_coeff: 0.0,
            objective: ObjectiveName::default(),
            pixel_target: PixelTarget::default(),
            teacher: None,
            predict_all: None,
            weight_distance_loss: true,
            offset_context_loss: false,
            shift_by_n: None,
        }
    }
}
