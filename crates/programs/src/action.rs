//! V-JEPA 2-AC: its two graphs, and which such model a file holds.

use super::CompileError;
use super::forward::{batch_of_clips, declare, failed, traced};
use vjepa_compiler::ir::Graph;
use vjepa_graphs::{ACTION_WIDTH, ActionPredictor, ActionPredictorConfig, Encoder, EncoderConfig, frame_tokens};
use vjepa_recipe::config::{Config, Positions, Preprocessing, Rotary};
use vjepa_weights::{Weights, WeightsError};

/// An encoder of single frames and the predictor over them.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionModel {
    /// The encoder; its clip is one frame, as often as a tubelet needs it.
    pub encoder: EncoderConfig,
    /// The predictor.
    pub predictor: ActionPredictorConfig,
    /// How frames are prepared.
    pub preprocessing: Preprocessing,
    /// Where the encoder's tensors are in the file.
    pub entry: &'static str,
}

/// `frame_tokens[B]`: `clip f32[B, C, T, H, W]` of `frames` frames to the tokens of each, seen alone, `tokens f32[B, T·N, D]`;
/// parameters under `encoder.`.
///
/// # Errors
/// [`CompileError`].
pub fn frames(config: &EncoderConfig, frames: usize) -> Result<Graph, CompileError> {
    traced("frame_tokens", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "encoder.")?;
        let clip = batch_of_clips(scope, "clip", [config.channels, frames, config.height, config.width])?;
        scope.output("tokens", &frame_tokens(&model, clip).map_err(failed)?)
    })
}

/// `action_predictor[B]`: `tokens f32[B, T·N, D]`, `states f32[B, T, 7]` and `actions f32[B, T, 7]` to the tokens of each next
/// frame, `next_tokens f32[B, T·N, D]`; parameters under `predictor.`.
///
/// # Errors
/// [`CompileError`].
pub fn action_predictor(config: &ActionPredictorConfig) -> Result<Graph, CompileError> {
    traced("action_predictor", &["B"], |scope| {
        let model = ActionPredictor::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "predictor.")?;
        let batch = scope.size("B");
        let tokens = scope.input("tokens", [batch, config.frames * config.patches(), config.encoder_dim])?;
        let states = scope.input("states", [batch, config.frames, ACTION_WIDTH])?;
        let actions = scope.input("actions", [batch, config.frames, ACTION_WIDTH])?;
        scope.output("next_tokens", &model.forward(tokens, states, actions).map_err(failed)?)
    })
}

/// The V-JEPA 2-AC model of a file, whose names and shapes are all checked, for sequences of `frames` frames. `config` says
/// what the file does not: the numbers of attention heads where sizes are not the released ones, and another size of frames.
///
/// # Errors
/// [`WeightsError::Model`] for a file of another model, [`WeightsError::Mismatch`] with the names at fault,
/// [`WeightsError::Sizes`] where heads are not known.
pub fn action_model(weights: &Weights, config: Option<&Config>, frames: usize) -> Result<ActionModel, WeightsError> {
    let unclear = |why: String| WeightsError::Sizes { path: weights.path().to_owned(), why };
    let file = weights.model_file(config.map(|config| &config.model))?;
    let parts = file.as_ref().and_then(|file| Some((file, file.encoder.as_ref()?, file.predictor.as_ref()?)));
    let Some((file, encoder, predictor)) = parts.filter(|(.., predictor)| predictor.action_conditioned) else {
        let model = file.map_or_else(|| "a file without a model".to_owned(), |file| file.name());
        let why = "it has no predictor that reads actions: give a file of V-JEPA 2-AC".to_owned();
        return Err(WeightsError::Model { path: weights.path().to_owned(), model, why });
    };
    weights.check_model(file)?;
    let unknown = |what: &str| {
        unclear(format!(
            "the attention heads of its {what} are not known: give --config FILE with `model.num_heads` and `model.pred_num_heads`"
        ))
    };
    let sizes = encoder.sizes().ok_or_else(|| unknown("encoder"))?;
    let num_heads = predictor.num_heads.ok_or_else(|| unknown("predictor"))?;
    let preprocessing = match config {
        Some(config) => config.preprocessing(),
        None => Preprocessing { num_frames: frames, ..file.clip() },
    };
    let side = preprocessing.crop_size;
    let encoder = EncoderConfig {
        num_frames: encoder.tubelet,
        height: side,
        width: side,
        tubelet: encoder.tubelet,
        patch: encoder.patch,
        channels: encoder.channels,
        embed_dim: sizes.embed_dim,
        depth: sizes.depth,
        num_heads: sizes.num_heads,
        mlp_ratio: sizes.mlp_ratio,
        uniform_power: true,
        out_layers: None,
        positions: Positions::Rotary(Rotary { tiled: true, interpolate: false }),
        levels: Vec::new(),
        image_tubelet: None,
    };
    let [_, height, width] = encoder.grid();
    let predictor = ActionPredictorConfig {
        frames,
        grid: [height, width],
        encoder_dim: encoder.embed_dim,
        embed_dim: predictor.embed_dim,
        depth: predictor.depth,
        num_heads,
        mlp_dim: predictor.mlp_dim,
    };
    let invalid = |error: vjepa_graphs::ConfigError| WeightsError::Config {
        path: weights.path().to_owned(),
        error: error.to_string(),
    };
    encoder.validate().map_err(invalid)?;
    predictor.validate().map_err(invalid)?;
    Ok(ActionModel { encoder, predictor, preprocessing, entry: file.entry })
}
