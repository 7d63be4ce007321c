//! The configuration that describes a file's model, from which its modules are built.

use vjepa_recipe::config::{
    Config, DataConfig, Framing, Generation, ModelConfig, Normalization, Preprocessing, Sampling,
};

use super::{EncoderLayout, ModelFile, PredictorLayout};

/// Clips of the released models: frames, and pixels a side. Rotary positions take any others.
const RELEASED_FRAMES: usize = 64;
const RELEASED_CROP: usize = 256;
/// All files of V-JEPA 2.1 were released after a last stage at this size.
const RELEASED_CROP_21: usize = 384;
/// Frames from one of a clip to the next, where clips have 64.
const RELEASED_STEP: usize = 2;

impl ModelFile {
    /// How clips are prepared: as the file says, else as those of the released models of its generation are.
    pub fn clip(&self) -> Preprocessing {
        if let Some(own) = &self.preprocessing {
            return own.clone();
        }
        let (patch_size, tubelet_size) =
            self.encoder.as_ref().map_or((16, 2), |encoder| (encoder.patch, encoder.tubelet));
        Preprocessing {
            num_frames: RELEASED_FRAMES,
            sampling_rate: RELEASED_STEP,
            sampling: Sampling::Vjepa,
            crop_size: if self.generation == Generation::V21 { RELEASED_CROP_21 } else { RELEASED_CROP },
            crop_width: None,
            patch_size,
            tubelet_size,
            normalization: Normalization::Imagenet,
            grayscale: false,
            framing: Framing::Centre,
        }
    }

    /// A configuration of this model and its clips, all else at its defaults: of V-JEPA 2-AC, its encoder. Files of V-JEPA 2.1
    /// get a predictor without interpolated positions, as the official hub builds it.
    ///
    /// # Errors
    /// What the file does not say, or cannot be said, in words: a file without an encoder, attention heads that are not known,
    /// V-JEPA 1 (whose position table tells its clips).
    pub fn config(&self) -> Result<Config, String> {
        let encoder = self.encoder.as_ref().ok_or("it holds no encoder")?;
        if self.generation == Generation::V1 {
            return Err("it is of V-JEPA 1, whose position table tells the size of its clips".to_owned());
        }
        let sizes = encoder.sizes().ok_or_else(|| unknown("encoder", encoder.embed_dim))?;
        let mut model = ModelConfig {
            generation: self.generation,
            embed_dim: Some(sizes.embed_dim),
            depth: Some(sizes.depth),
            num_heads: Some(sizes.num_heads),
            mlp_ratio: Some(sizes.mlp_ratio),
            ..ModelConfig::default()
        };
        if let Some(predictor) = &self.predictor {
            self.describe_predictor(encoder, predictor, &mut model)?;
        }
        let clip = self.clip();
        let data = DataConfig {
            num_frames: clip.num_frames,
            sampling_rate: clip.sampling_rate,
            sampling: clip.sampling,
            crop_size: clip.crop_size,
            patch_size: clip.patch_size,
            tubelet_size: clip.tubelet_size,
            normalization: clip.normalization,
            grayscale: clip.grayscale,
            ..DataConfig::default()
        };
        let config = Config { model, data, ..Config::default() };
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    fn describe_predictor(
        &self,
        encoder: &EncoderLayout,
        predictor: &PredictorLayout,
        model: &mut ModelConfig,
    ) -> Result<(), String> {
        // No configuration describes a predictor that reads actions; its encoder is one of V-JEPA 2.
        if predictor.action_conditioned {
            return Ok(());
        }
        if predictor.mlp_dim != 4 * predictor.embed_dim {
            let (hidden, width) = (predictor.mlp_dim, predictor.embed_dim);
            return Err(format!("its predictor's MLP is {hidden} wide inside, not 4 times its width {width}"));
        }
        let heads = predictor.num_heads.ok_or_else(|| unknown("predictor", predictor.embed_dim))?;
        model.pred_embed_dim = Some(predictor.embed_dim);
        model.pred_depth = Some(predictor.depth);
        model.pred_num_heads = Some(heads);
        model.num_mask_tokens = Some(predictor.mask_tokens);
        if self.generation == Generation::V21 {
            model.levels_predictor = Some(predictor.levels);
            model.pred_interpolate_rope = Some(false);
            let own = predictor.levels * encoder.embed_dim;
            model.teacher_embed_dim = (predictor.outputs != own).then_some(predictor.outputs);
        }
        Ok(())
    }
}

fn unknown(what: &str, width: usize) -> String {
    format!("the number of attention heads of its {what}, {width} wide, is not known")
}
