//! Checkpoints of V-JEPA 2 and 2.1, recognised so that they are refused by name.

use super::{Format, Weights, WeightsError};
use vjepa_recipe::config::ModelName;

/// How the literature writes the sizes of encoders.
const NAMES: [(ModelName, &str); 4] =
    [(ModelName::Base, "ViT-B"), (ModelName::Large, "ViT-L"), (ModelName::Huge, "ViT-H"), (ModelName::Giant, "ViT-g")];
/// Width and blocks of ViT-G, which V-JEPA 1 does not have.
const GIGANTIC: (usize, usize) = (1664, 48);
/// Mask tokens of the predictors in V-JEPA 2's released files, whose encoders have a position table that is not used.
const RELEASED_MASK_TOKENS: usize = 10;

impl Weights {
    /// The model of a later generation that the file holds, in words: `V-JEPA 2 ViT-L (1024 wide, 24 blocks)`.
    pub fn later_generation(&self) -> Option<String> {
        if self.record().is_some() {
            return None;
        }
        if self.has("classifiers") {
            return Some("probes of V-JEPA 2's evaluation".to_owned());
        }
        let has = |name: String| self.shape(&name).is_some() || self.others.contains_key(&name);
        if has("encoder.embeddings.patch_embeddings.proj.weight".to_owned()) {
            let size = self.size("encoder.embeddings.patch_embeddings.proj.bias", "encoder.layer");
            return Some(format!("V-JEPA 2 {size} in Hugging Face's format"));
        }
        let model = ["target_encoder", "encoder", "ema_encoder"].into_iter().find(|model| self.has(model))?;
        let inside = |name: &str| has(format!("{model}.{name}"));
        let tokens = self.tensors().filter(|(name, ..)| name.starts_with("predictor.mask_tokens.")).count();
        let released = self.format() == Format::PyTorch && tokens == RELEASED_MASK_TOKENS;
        let generation = if inside("norms_block.0.weight") || inside("video_mod_embed") || model == "ema_encoder" {
            "V-JEPA 2.1"
        } else if inside("blocks.0.norm1.weight")
            && inside("patch_embed.proj.weight")
            && (!inside("pos_embed") || released)
        {
            "V-JEPA 2"
        } else {
            return None;
        };
        let size = self.size(&format!("{model}.patch_embed.proj.bias"), &format!("{model}.blocks"));
        Some(format!("{generation} {size}"))
    }

    /// Refuses a model of a later generation.
    pub fn refuse_later(&self) -> Result<(), WeightsError> {
        match self.later_generation() {
            Some(model) => Err(WeightsError::Later { path: self.path().to_owned(), model }),
            None => Ok(()),
        }
    }

    /// Name and size of an encoder from the width of a bias and the names of its blocks.
    fn size(&self, bias: &str, blocks: &str) -> String {
        let width = self.shape(bias).and_then(<[usize]>::first).copied().unwrap_or(0);
        let depth = (0..).take_while(|i| self.shape(&format!("{blocks}.{i}.norm1.weight")).is_some()).count();
        let named = NAMES.iter().find(|(name, _)| {
            let sizes = name.sizes();
            (sizes.embed_dim, sizes.depth) == (width, depth)
        });
        let name = match named {
            Some((_, name)) => name,
            None if (width, depth) == GIGANTIC => "ViT-G",
            None => "encoder",
        };
        format!("{name} ({width} wide, {depth} blocks)")
    }
}
