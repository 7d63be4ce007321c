//! Names and shapes of all parameters, without building anything.

use crate::config::{EncoderConfig, PredictorConfig, ProbeConfig};

/// Names and shapes in the official state dict's order.
type Shapes = Vec<(String, Vec<usize>)>;

impl EncoderConfig {
    /// Names and shapes of the encoder's parameters; nothing is allocated.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let dim = self.embed_dim;
        let mut shapes = vec![("pos_embed".to_owned(), vec![1, self.tokens(), dim])];
        shapes.push((
            "patch_embed.proj.weight".to_owned(),
            vec![dim, self.channels, self.tubelet, self.patch, self.patch],
        ));
        shapes.push(("patch_embed.proj.bias".to_owned(), vec![dim]));
        for i in 0..self.depth {
            block(&mut shapes, &format!("blocks.{i}"), dim, self.mlp_dim());
        }
        norm(&mut shapes, "norm", dim);
        shapes
    }
}

impl PredictorConfig {
    /// Names and shapes of the predictor's parameters; nothing is allocated.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let dim = self.embed_dim;
        let mut shapes = vec![("predictor_pos_embed".to_owned(), vec![1, self.tokens(), dim])];
        linear(&mut shapes, "predictor_embed", self.encoder_dim, dim);
        shapes.extend((0..self.num_mask_tokens).map(|i| (format!("mask_tokens.{i}"), vec![1, 1, dim])));
        for i in 0..self.depth {
            block(&mut shapes, &format!("predictor_blocks.{i}"), dim, self.mlp_dim());
        }
        norm(&mut shapes, "predictor_norm", dim);
        linear(&mut shapes, "predictor_proj", dim, self.encoder_dim);
        shapes
    }
}

impl ProbeConfig {
    /// Names and shapes of the attentive probe's parameters; nothing is allocated.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let dim = self.embed_dim;
        let mut shapes = vec![("pooler.query_tokens".to_owned(), vec![1, 1, dim])];
        let cross = "pooler.cross_attention_block";
        if self.complete_block {
            norm(&mut shapes, &format!("{cross}.norm1"), dim);
            cross_attention(&mut shapes, &format!("{cross}.xattn"), dim);
            norm(&mut shapes, &format!("{cross}.norm2"), dim);
            mlp(&mut shapes, &format!("{cross}.mlp"), dim, self.mlp_dim());
        } else {
            cross_attention(&mut shapes, cross, dim);
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

fn cross_attention(shapes: &mut Shapes, name: &str, dim: usize) {
    linear(shapes, &format!("{name}.q"), dim, dim);
    linear(shapes, &format!("{name}.kv"), dim, 2 * dim);
    linear(shapes, &format!("{name}.proj"), dim, dim);
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
}
