//! Every parameter of a model, by its official name: what a strict reader expects and a writer writes.

use super::{EncoderLayout, ModelFile, PredictorLayout, ProbeLayout};
use crate::Shapes;
use vjepa_recipe::config::Generation;

/// A list of parameters that grows.
#[derive(Default)]
struct List(Shapes);

impl List {
    fn one(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push((name.into(), shape.to_vec()));
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.one(format!("{name}.weight"), &[outputs, inputs]);
        self.one(format!("{name}.bias"), &[outputs]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.one(format!("{name}.weight"), &[width]);
        self.one(format!("{name}.bias"), &[width]);
    }

    /// A transformer block: attention and MLP, each after a norm.
    fn block(&mut self, name: &str, width: usize, hidden: usize) {
        self.norm(&format!("{name}.norm1"), width);
        self.linear(&format!("{name}.attn.qkv"), 3 * width, width);
        self.linear(&format!("{name}.attn.proj"), width, width);
        self.norm(&format!("{name}.norm2"), width);
        self.mlp(name, width, hidden);
    }

    fn mlp(&mut self, name: &str, width: usize, hidden: usize) {
        self.linear(&format!("{name}.mlp.fc1"), hidden, width);
        self.linear(&format!("{name}.mlp.fc2"), width, hidden);
    }
}

impl ModelFile {
    /// Names and shapes of each part's parameters, in the order in which the official modules have them; the parts are
    /// `encoder`, `predictor` and `probe`, as far as the file has them.
    pub fn parameters(&self) -> Vec<(&'static str, Shapes)> {
        let mut parts = Vec::new();
        parts.extend(self.encoder.as_ref().map(|encoder| ("encoder", encoder.parameters(self.generation))));
        let width = self.encoder.as_ref().map(|encoder| encoder.embed_dim);
        parts.extend(
            self.predictor.as_ref().map(|predictor| ("predictor", predictor.parameters(self.generation, width))),
        );
        parts.extend(self.probe.as_ref().map(|probe| ("probe", probe.parameters())));
        parts
    }
}

impl EncoderLayout {
    fn parameters(&self, generation: Generation) -> Shapes {
        let mut list = List::default();
        let Self { embed_dim: width, channels, tubelet, patch, .. } = *self;
        if let Some(rows) = self.positions {
            list.one("pos_embed", &[1, rows, width]);
        }
        let images = generation == Generation::V21;
        if images {
            list.one("img_mod_embed", &[1, 1, width]);
            list.one("video_mod_embed", &[1, 1, width]);
        }
        let mut embed = |name: &str, frames: usize| {
            list.one(format!("{name}.proj.weight"), &[width, channels, frames, patch, patch]);
            list.one(format!("{name}.proj.bias"), &[width]);
        };
        embed("patch_embed", tubelet);
        if images {
            embed("patch_embed_img", 1);
        }
        (0..self.depth).for_each(|i| list.block(&format!("blocks.{i}"), width, self.mlp_dim));
        match generation {
            Generation::V1 | Generation::V2 => list.norm("norm", width),
            Generation::V21 => (0..self.levels).for_each(|level| list.norm(&format!("norms_block.{level}"), width)),
        }
        list.0
    }
}

impl PredictorLayout {
    /// `encoder` is the encoder's width D where the file has one.
    fn parameters(&self, generation: Generation, encoder: Option<usize>) -> Shapes {
        let mut list = List::default();
        let width = self.embed_dim;
        let inputs = encoder.unwrap_or(self.input_dim);
        if let Some(rows) = self.positions {
            list.one("predictor_pos_embed", &[1, rows, width]);
        }
        if self.modalities {
            list.one("video_mod_embed", &[1, 1, width]);
            list.one("img_mod_embed", &[1, 1, width]);
        }
        if self.action_conditioned {
            list.linear("predictor_embed", width, inputs);
            // Poses and actions have 7 numbers, extrinsics 6.
            list.linear("action_encoder", width, 7);
            list.linear("state_encoder", width, 7);
            list.linear("extrinsics_encoder", width, 6);
        } else if generation == Generation::V21 && self.levels > 1 {
            list.linear("predictor_embed.0", inputs, self.levels * inputs);
            list.linear("predictor_embed.2", width, inputs);
        } else {
            list.linear("predictor_embed", width, inputs);
        }
        (0..self.mask_tokens).for_each(|i| list.one(format!("mask_tokens.{i}"), &[1, 1, width]));
        (0..self.depth).for_each(|i| list.block(&format!("predictor_blocks.{i}"), width, self.mlp_dim));
        list.norm("predictor_norm", width);
        list.linear("predictor_proj", self.outputs, width);
        if self.context {
            list.linear("predictor_proj_context", self.outputs, width);
        }
        list.0
    }
}

impl ProbeLayout {
    fn parameters(&self) -> Shapes {
        let mut list = List::default();
        let (width, hidden) = (self.embed_dim, self.mlp_dim);
        if let Some(blocks) = self.blocks {
            const CROSS: &str = "pooler.cross_attention_block";
            list.one("pooler.query_tokens", &[1, self.queries, width]);
            (0..blocks).for_each(|i| list.block(&format!("pooler.blocks.{i}"), width, hidden));
            let attention = if self.complete { format!("{CROSS}.xattn") } else { CROSS.to_owned() };
            list.linear(&format!("{attention}.q"), width, width);
            list.linear(&format!("{attention}.kv"), 2 * width, width);
            if let Some(projection) = &self.projection {
                list.linear(&format!("{CROSS}.{projection}"), width, width);
            }
            if self.complete {
                list.norm(&format!("{CROSS}.norm1"), width);
                list.norm(&format!("{CROSS}.norm2"), width);
                list.mlp(CROSS, width, hidden);
            }
        }
        self.heads.iter().for_each(|(head, classes)| list.linear(head, *classes, width));
        list.0
    }
}
