//! What the names and shapes of a file's tensors show of its model.

use super::{EncoderLayout, ModelFile, OFFICIAL_EPS, OFFICIAL_PROBE_EPS, PredictorLayout, ProbeLayout};
use crate::{Format, Weights, WeightsError, names};
use vjepa_recipe::config::Generation;

/// The entries an encoder is taken from, in the order of preference: what V-JEPA 2.1's distilled models were averaged into,
/// the target encoder, which the official evaluations use, and the encoder in training.
pub(crate) const ENTRIES: [&str; 3] = ["ema_encoder", "target_encoder", "encoder"];
/// Keys that stand beside the models in official files, and are needed by a training run only.
const KNOWN: [&str; 8] = ["opt", "scaler", "epoch", "loss", "batch_size", "world_size", "lr", "classifiers"];
/// Mask tokens of the predictors in V-JEPA 2's released files, whose encoders have a position table that is not used.
const RELEASED_MASK_TOKENS: usize = 10;
/// The most parts of a kind to look for.
const MOST: usize = 4096;

/// The known key of official files that a key of no model stands under, if it does: `opt` of `opt.state.0.exp_avg`.
pub(crate) fn known_key(key: &str) -> Option<&str> {
    let first = key.split('.').next().unwrap_or(key);
    KNOWN.contains(&first).then_some(first)
}

/// Parts numbered from 0 of which `name` is there.
fn count(there: impl Fn(&str) -> bool, name: impl Fn(usize) -> String) -> usize {
    (0..MOST).take_while(|number| there(&name(*number))).count()
}

impl Weights {
    /// The generation of the file's models; none where it has none of V-JEPA's.
    ///
    /// Rotary positions need no parameters, so V-JEPA 2 is what lacks a position table, or what has the ten mask tokens of the
    /// released files, in which an older code's table is left.
    pub(crate) fn generation_seen(&self) -> Option<Generation> {
        let there = |name: String| self.shape(&name).is_some() || self.unreadable().any(|(other, _)| other == name);
        if let Some(record) = self.record() {
            return Some(record.config.model.generation);
        }
        let inside = |name: &str| ENTRIES.iter().any(|entry| there(format!("{entry}.{name}")));
        let predictor = |name: &str| there(format!("predictor.{name}"));
        if inside("norms_block.0.weight") || inside("video_mod_embed") || predictor("video_mod_embed") {
            return Some(Generation::V21);
        }
        // V-JEPA 2-AC's predictor has no mask tokens.
        if self.has("classifiers") || self.hugging_face.is_some() || predictor("action_encoder.weight") {
            return Some(Generation::V2);
        }
        if inside("blocks.0.norm1.weight") || inside("patch_embed.proj.weight") {
            let tokens = count(|name| there(name.to_owned()), |i| format!("predictor.mask_tokens.{i}"));
            let released = self.format() == Format::PyTorch && tokens == RELEASED_MASK_TOKENS;
            let distilled = self.has("ema_encoder");
            return Some(match (inside("pos_embed") && !released, distilled) {
                (_, true) => Generation::V21,
                (true, false) => Generation::V1,
                (false, false) => Generation::V2,
            });
        }
        if predictor("predictor_norm.weight") {
            return Some(if predictor("predictor_pos_embed") { Generation::V1 } else { Generation::V2 });
        }
        let cross = "probe.pooler.cross_attention_block";
        let projected = ["xattn.proj", "proj"].iter().any(|name| there(format!("{cross}.{name}.weight")));
        // V-JEPA 2's pooler lacks the projection that V-JEPA 1 stores and never applies.
        let later = there("probe.pooler.query_tokens".to_owned()) && !projected;
        self.has("probe").then_some(if later { Generation::V2 } else { Generation::V1 })
    }

    /// The model that the tensors show; none where they show none.
    pub(super) fn seen(&self) -> Result<Option<ModelFile>, WeightsError> {
        let Some(generation) = self.generation_seen() else { return Ok(None) };
        let entry = ENTRIES.into_iter().find(|entry| self.has(entry));
        let encoder = entry.map(|entry| self.encoder_seen(entry)).transpose()?;
        let width = encoder.as_ref().map(|encoder| encoder.embed_dim);
        let predictor = self.has("predictor").then(|| self.predictor_seen(width)).transpose()?;
        let probe = self.has("probe").then(|| self.probe_seen()).transpose()?;
        let mut model = ModelFile {
            generation,
            encoder,
            predictor,
            probe,
            preprocessing: self.record().map(|record| record.preprocessing.clone()),
            entry: entry.unwrap_or("encoder"),
            ignored: Vec::new(),
        };
        model.ignored = self.ignored(&model);
        Ok((model.encoder.is_some() || model.predictor.is_some() || model.probe.is_some()).then_some(model))
    }

    /// What is not of the model: other encoders, a training state, tables that are not used.
    fn ignored(&self, model: &ModelFile) -> Vec<String> {
        let others = self.models().into_iter().filter(|other| {
            let used = [model.entry, "predictor", "probe"];
            !used.contains(other) && (ENTRIES.contains(other) || KNOWN.contains(other))
        });
        let mut ignored: Vec<String> = others.map(str::to_owned).collect();
        ignored.extend(self.keys_of_no_model().filter_map(known_key).map(str::to_owned));
        ignored.sort_unstable();
        ignored.dedup();
        ignored.extend(self.unused.iter().cloned());
        ignored
    }

    /// The shape of a tensor that the sizes of a model are read from.
    fn needed<const N: usize>(&self, name: &str) -> Result<[usize; N], WeightsError> {
        let why = |why: String| WeightsError::Sizes { path: self.path().to_owned(), why };
        let shape = self.shape(name).ok_or_else(|| why(format!("its sizes cannot be determined without `{name}`")))?;
        let sizes: Option<[usize; N]> = shape.try_into().ok();
        let sizes = sizes.filter(|sizes| !sizes.contains(&0));
        sizes.ok_or_else(|| why(format!("`{name}` has the shape {}, which no model has", names::sizes(shape))))
    }

    /// Width and blocks of an encoder, as far as they can be seen.
    pub(super) fn size_seen(&self, entry: &str) -> (usize, usize) {
        let bias = self.shape(&format!("{entry}.patch_embed.proj.bias"));
        let there = |name: &str| self.shape(name).is_some();
        let depth = count(there, |i| format!("{entry}.blocks.{i}.norm1.weight"));
        (bias.and_then(<[usize]>::first).copied().unwrap_or(0), depth)
    }

    fn encoder_seen(&self, entry: &str) -> Result<EncoderLayout, WeightsError> {
        let inside = |name: &str| format!("{entry}.{name}");
        let [embed_dim, channels, tubelet, patch, _] = self.needed(&inside("patch_embed.proj.weight"))?;
        let [mlp_dim, _] = self.needed(&inside("blocks.0.mlp.fc1.weight"))?;
        let there = |name: &str| self.shape(name).is_some();
        let levels = count(there, |level| inside(&format!("norms_block.{level}.weight")));
        let positions = there(&inside("pos_embed")).then(|| self.needed(&inside("pos_embed"))).transpose()?;
        Ok(EncoderLayout {
            embed_dim,
            depth: count(there, |i| inside(&format!("blocks.{i}.norm1.weight"))),
            num_heads: None,
            mlp_dim,
            channels,
            tubelet,
            patch,
            layer_norm_eps: OFFICIAL_EPS,
            levels: levels.max(1),
            positions: positions.map(|[_, rows, _]: [usize; 3]| rows),
        })
    }

    fn predictor_seen(&self, encoder: Option<usize>) -> Result<PredictorLayout, WeightsError> {
        let inside = |name: &str| format!("predictor.{name}");
        let there = |name: &str| self.shape(name).is_some();
        let [outputs, embed_dim] = self.needed(&inside("predictor_proj.weight"))?;
        let [mlp_dim, _] = self.needed(&inside("predictor_blocks.0.mlp.fc1.weight"))?;
        let joined = inside("predictor_embed.0.weight");
        let (levels, input_dim) = if there(&joined) {
            let [width, inputs] = self.needed(&joined)?;
            (inputs / width, width)
        } else {
            let [_, inputs] = self.needed(&inside("predictor_embed.weight"))?;
            (1, inputs)
        };
        let table = inside("predictor_pos_embed");
        let positions = there(&table).then(|| self.needed(&table)).transpose()?;
        Ok(PredictorLayout {
            embed_dim,
            depth: count(there, |i| inside(&format!("predictor_blocks.{i}.norm1.weight"))),
            num_heads: None,
            mlp_dim,
            mask_tokens: count(there, |i| inside(&format!("mask_tokens.{i}"))),
            layer_norm_eps: OFFICIAL_EPS,
            levels,
            input_dim: encoder.unwrap_or(input_dim),
            outputs,
            context: there(&inside("predictor_proj_context.weight")),
            modalities: there(&inside("video_mod_embed")),
            positions: positions.map(|[_, rows, _]: [usize; 3]| rows),
            action_conditioned: there(&inside("action_encoder.weight")),
        })
    }

    fn probe_seen(&self) -> Result<ProbeLayout, WeightsError> {
        const CROSS: &str = "probe.pooler.cross_attention_block";
        let there = |name: &str| self.shape(name).is_some();
        let mut heads = Vec::new();
        for head in ["linear", "verb_classifier", "noun_classifier", "action_classifier"] {
            let name = format!("probe.{head}.weight");
            if there(&name) {
                let [classes, width] = self.needed(&name)?;
                heads.push((head.to_owned(), classes, width));
            }
        }
        let Some((_, _, embed_dim)) = heads.first().cloned() else {
            let why = "a classifier needs `linear.weight` of shape [classes, width]".to_owned();
            return Err(WeightsError::Sizes { path: self.path().to_owned(), why });
        };
        let query = "probe.pooler.query_tokens";
        let queries = there(query).then(|| self.needed(query)).transpose()?.map(|[_, queries, _]: [usize; 3]| queries);
        let hidden = format!("{CROSS}.mlp.fc1.weight");
        let hidden = there(&hidden).then(|| self.needed(&hidden)).transpose()?.map(|[hidden, _]: [usize; 2]| hidden);
        let projections = ["xattn.proj", "proj"].into_iter();
        Ok(ProbeLayout {
            embed_dim,
            blocks: queries.map(|_| count(there, |i| format!("probe.pooler.blocks.{i}.norm1.weight"))),
            num_heads: None,
            mlp_dim: hidden.unwrap_or(4 * embed_dim),
            layer_norm_eps: OFFICIAL_PROBE_EPS,
            complete: there(&format!("{CROSS}.norm1.weight")),
            projection: projections.filter(|name| there(&format!("{CROSS}.{name}.weight"))).map(str::to_owned).next(),
            queries: queries.unwrap_or(0),
            heads: heads.into_iter().map(|(head, classes, _)| (head, classes)).collect(),
            labels: Vec::new(),
        })
    }
}
