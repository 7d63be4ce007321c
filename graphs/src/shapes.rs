//! Names and shapes of all parameters, without building anything.

use crate::config::{BlocksOn, EncoderConfig, PredictorConfig, ProbeConfig};
use vjepa_recipe::config::Positions;

/// Names and shapes in the official state dict's order.
type Shapes = Vec<(String, Vec<usize>)>;

impl EncoderConfig {
    /// Names and shapes of the encoder's parameters; nothing is allocated.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let dim = self.embed_dim;
        let mut shapes = Vec::new();
        if self.positions == Positions::Table {
            shapes.push(("pos_embed".to_owned(), vec![1, self.tokens(), dim]));
        }
        if self.image_tubelet.is_some() {
            modalities(&mut shapes, dim);
        }
        let embeddings = [("patch_embed", Some(self.tubelet)), ("patch_embed_img", self.image_tubelet)];
        for (name, frames) in embeddings.into_iter().filter_map(|(name, frames)| Some((name, frames?))) {
            shapes.push((format!("{name}.proj.weight"), vec![dim, self.channels, frames, self.patch, self.patch]));
            shapes.push((format!("{name}.proj.bias"), vec![dim]));
        }
        for i in 0..self.depth {
            block(&mut shapes, &format!("blocks.{i}"), dim, self.mlp_dim());
        }
        match self.levels.len() {
            0 => norm(&mut shapes, "norm", dim),
            levels => (0..levels).for_each(|level| norm(&mut shapes, &format!("norms_block.{level}"), dim)),
        }
        shapes
    }
}

impl PredictorConfig {
    /// Names and shapes of the predictor's parameters; nothing is allocated.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let dim = self.embed_dim;
        let mut shapes = Vec::new();
        if self.positions == Positions::Table {
            shapes.push(("predictor_pos_embed".to_owned(), vec![1, self.tokens(), dim]));
        }
        if self.modalities {
            modalities(&mut shapes, dim);
        }
        if self.levels == 1 {
            linear(&mut shapes, "predictor_embed", self.input_dim(), dim);
        } else {
            linear(&mut shapes, "predictor_embed.0", self.input_dim(), self.encoder_dim);
            linear(&mut shapes, "predictor_embed.2", self.encoder_dim, dim);
        }
        shapes.extend((0..self.num_mask_tokens).map(|i| (format!("mask_tokens.{i}"), vec![1, 1, dim])));
        for i in 0..self.depth {
            block(&mut shapes, &format!("predictor_blocks.{i}"), dim, self.mlp_dim());
        }
        norm(&mut shapes, "predictor_norm", dim);
        linear(&mut shapes, "predictor_proj", dim, self.predicted_dim());
        if self.predicts_context {
            linear(&mut shapes, "predictor_proj_context", dim, self.predicted_dim());
        }
        shapes
    }
}

/// The vectors added to the tokens of images and of videos.
fn modalities(shapes: &mut Shapes, dim: usize) {
    shapes.extend(["img_mod_embed", "video_mod_embed"].map(|name| (name.to_owned(), vec![1, 1, dim])));
}

impl ProbeConfig {
    /// Names and shapes of the attentive probe's parameters; nothing is allocated.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let dim = self.embed_dim;
        let mut shapes = vec![("pooler.query_tokens".to_owned(), vec![1, 1, dim])];
        let cross = "pooler.cross_attention_block";
        let projected = self.blocks_on == BlocksOn::Query;
        if self.complete_block {
            norm(&mut shapes, &format!("{cross}.norm1"), dim);
            cross_attention(&mut shapes, &format!("{cross}.xattn"), dim, projected);
            norm(&mut shapes, &format!("{cross}.norm2"), dim);
            mlp(&mut shapes, &format!("{cross}.mlp"), dim, self.mlp_dim());
        } else {
            cross_attention(&mut shapes, cross, dim, projected);
        }
        for i in 0..self.depth.saturating_sub(1) {
            block(&mut shapes, &format!("pooler.blocks.{i}"), dim, self.mlp_dim());
        }
        linear(&mut shapes, "linear", dim, self.num_classes);
        shapes
    }
}

fn linear(shapes: &mut Shapes, name: &str, inputs: usize, outputs: usize) {
    shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
    shapes.push((format!("{name}.bias"), vec![outputs]));
}

fn norm(shapes: &mut Shapes, name: &str, dim: usize) {
    shapes.push((format!("{name}.weight"), vec![dim]));
    shapes.push((format!("{name}.bias"), vec![dim]));
}

fn mlp(shapes: &mut Shapes, name: &str, dim: usize, hidden: usize) {
    linear(shapes, &format!("{name}.fc1"), dim, hidden);
    linear(shapes, &format!("{name}.fc2"), hidden, dim);
}

fn cross_attention(shapes: &mut Shapes, name: &str, dim: usize, projected: bool) {
    linear(shapes, &format!("{name}.q"), dim, dim);
    linear(shapes, &format!("{name}.kv"), dim, 2 * dim);
    if projected {
        linear(shapes, &format!("{name}.proj"), dim, dim);
    }
}

fn block(shapes: &mut Shapes, name: &str, dim: usize, hidden: usize) {
    norm(shapes, &format!("{name}.norm1"), dim);
    linear(shapes, &format!("{name}.attn.qkv"), dim, 3 * dim);
    linear(shapes, &format!("{name}.attn.proj"), dim, dim);
    norm(shapes, &format!("{name}.norm2"), dim);
    mlp(shapes, &format!("{name}.mlp"), dim, hidden);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::{Module, Param};
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::{AttentiveClassifier, Encoder, ParameterVisitor, Predictor, visit_parameters};
    use vjepa_recipe::config::{Generation, ModelName};

    struct Built(BTreeMap<String, Vec<usize>>);
    impl ParameterVisitor for Built {
        fn parameter<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            self.0.insert(name.to_owned(), parameter.lazy_shape().iter().copied().collect());
        }
    }

    fn assert_built<M: Module>(module: &M, shapes: Shapes) {
        let mut built = Built(BTreeMap::new());
        visit_parameters(module, &mut built);
        assert_eq!(built.0, shapes.into_iter().collect());
    }

    #[test]
    fn shapes_are_those_of_the_built_modules() {
        let device = Device::flex();
        // Nothing is allocated, so the giant costs no more than the tiny.
        let encoder = EncoderConfig::giant();
        assert_built(&Encoder::empty(&encoder, &device).unwrap(), encoder.parameter_shapes());
        let predictor = PredictorConfig::for_encoder(&encoder);
        assert_built(&Predictor::empty(&predictor, &device).unwrap(), predictor.parameter_shapes());
        for generation in [Generation::V2, Generation::V21] {
            let encoder = encoder.clone().of(generation).unwrap();
            assert_built(&Encoder::empty(&encoder, &device).unwrap(), encoder.parameter_shapes());
            let mut predictor = PredictorConfig::for_encoder(&encoder);
            assert_built(&Predictor::empty(&predictor, &device).unwrap(), predictor.parameter_shapes());
            (predictor.levels, predictor.output_dim) = (1, Some(1664));
            assert_built(&Predictor::empty(&predictor, &device).unwrap(), predictor.parameter_shapes());
            let probe = ProbeConfig::for_encoder(&encoder, 7);
            assert_built(&AttentiveClassifier::empty(&probe, &device).unwrap(), probe.parameter_shapes());
        }
        for (depth, complete_block) in [(1, true), (1, false), (3, true)] {
            let probe = ProbeConfig { depth, complete_block, ..ProbeConfig::for_encoder(&encoder, 7) };
            assert_built(&AttentiveClassifier::empty(&probe, &device).unwrap(), probe.parameter_shapes());
        }
    }

    #[test]
    fn released_models_have_their_published_sizes() {
        let count = |shapes: Shapes| shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
        // ViT-L is "about 300 M", ViT-H "about 630 M", the predictor 22 M.
        assert_eq!(count(EncoderConfig::large().parameter_shapes()) / 1_000_000, 305);
        assert_eq!(count(EncoderConfig::huge().parameter_shapes()) / 1_000_000, 633);
        assert_eq!(count(PredictorConfig::for_encoder(&EncoderConfig::large()).parameter_shapes()) / 1_000_000, 22);
    }

    /// Counted in the official modules.
    #[test]
    fn later_generations_have_the_official_numbers_of_parameters() {
        use ModelName::{Base, GiantXformers, GiganticXformers, Huge, Large};
        let count = |shapes: Shapes| shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>();
        let encoder = |name, generation| EncoderConfig::named(name).of(generation).unwrap();
        for (name, generation, parameters) in [
            (Base, Generation::V2, 86_236_416),
            (Large, Generation::V2, 303_885_312),
            (Huge, Generation::V2, 631_648_000),
            (GiantXformers, Generation::V2, 1_012_173_952),
            (Base, Generation::V21, 86_833_152),
            (Large, Generation::V21, 304_680_960),
            (GiantXformers, Generation::V21, 1_013_267_968),
            (GiganticXformers, Generation::V21, 1_845_216_768),
        ] {
            let config = encoder(name, generation);
            config.validate().unwrap();
            assert_eq!(count(config.parameter_shapes()), parameters, "{name:?} of {generation:?}");
        }
        for (name, depth, distilled, parameters) in [
            (GiantXformers, 24, false, 55_400_704),
            (GiganticXformers, 24, false, 59_433_472),
            (Base, 12, true, 22_874_752),
            (Large, 12, true, 22_973_056),
        ] {
            let mut config = PredictorConfig { depth, ..PredictorConfig::for_encoder(&encoder(name, Generation::V21)) };
            if distilled {
                (config.levels, config.output_dim) = (1, Some(1664));
            }
            config.validate().unwrap();
            assert_eq!(count(config.parameter_shapes()), parameters, "the predictor for {name:?}");
        }
    }
}
