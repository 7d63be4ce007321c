//! Fine-tuning: an encoder and a classifier on labelled clips, with soft targets, drop path, dropout and layer decay.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use vjepa_recipe::config::FinetuneConfig;
use vjepa_recipe::finetune::{LayerDecay, Pooling, decayed, drop_path_rates};

use super::{Batch, ClipUse, Declaration, Gate, Input, Losses, Monitor, Objective, ParameterSet, Role, Source, Start};
use crate::config::EncoderConfig;
use crate::encoder::Encoder;
use crate::error::{ConfigError, ShapeError};
use crate::init;
use crate::losses::cross_entropy;
use crate::params::NamedTensors;
use crate::tuned::{TunedClassifier, TunedHead};

/// Fine-tuning as VideoMAE does it (`modeling_finetune.py`, `optim_factory.py`), over modules of given sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Finetune {
    /// Sizes of the encoder.
    pub encoder: EncoderConfig,
    /// Sizes of the classifier.
    pub head: TunedHead,
    /// Probability that a branch of the last block is dropped.
    pub drop_path: f64,
    /// Probability that a value of the mean token is dropped.
    pub head_dropout: f64,
    /// Factor on the learning rate from one layer to the layer before it.
    pub layer_decay: f64,
    /// Factor on the classifier's first weights.
    pub init_scale: f64,
}

/// Its modules. The classifier's set has the name that classifiers have in checkpoints.
#[derive(Module, Debug)]
pub struct FinetuneModel {
    /// Clips to tokens.
    pub encoder: Encoder,
    /// Tokens to logits.
    pub probe: TunedClassifier,
}

impl Finetune {
    /// The objective of a `finetune` section for an encoder, with `classes` classes.
    pub fn new(encoder: EncoderConfig, config: &FinetuneConfig, classes: usize) -> Self {
        let head = TunedHead { embed_dim: encoder.embed_dim, num_classes: classes, pooling: config.pooling };
        Self {
            encoder,
            head,
            drop_path: config.drop_path,
            head_dropout: config.fc_drop_rate,
            layer_decay: config.layer_decay,
            init_scale: config.init_scale,
        }
    }

    /// The branches that may be dropped: two of each block, by block, the attention's first, then the mean token's values.
    /// Those that never are have no gate.
    pub fn gates(&self) -> Vec<Gate> {
        let depth = self.encoder.depth;
        let rates = drop_path_rates(self.drop_path as f32, depth);
        let branches = rates.into_iter().enumerate().flat_map(|(block, rate)| {
            [2 * block, 2 * block + 1].map(|place| Gate { place, rate: f64::from(rate), width: None })
        });
        let of_head = Gate { place: 2 * depth, rate: self.head_dropout, width: Some(self.encoder.embed_dim) };
        branches.chain([of_head]).filter(|gate| gate.rate > 0.0).collect()
    }

    /// Logits `f32[B, classes]` of a batch, with its gates.
    ///
    /// # Errors
    /// [`ShapeError`] for clips or gates that do not fit.
    pub fn logits(&self, model: &FinetuneModel, batch: &Batch) -> Result<Tensor<2>, ShapeError> {
        let gate = |place: usize| batch.gates.get(&place).cloned();
        let depth = self.encoder.depth;
        let gates: Vec<[Option<Tensor<3>>; 2]> = (0..depth).map(|i| [gate(2 * i), gate(2 * i + 1)]).collect();
        let normed = self.head.pooling == Pooling::Norm;
        let tokens = model.encoder.forward_gated(batch.context.clone(), &gates, normed)?; // [B, N, D]
        model.probe.forward(tokens, gate(2 * depth))
    }

    fn decay(&self) -> LayerDecay {
        LayerDecay { decay: self.layer_decay, depth: self.encoder.depth }
    }
}

impl Objective for Finetune {
    type Model = FinetuneModel;

    fn declaration(&self) -> Declaration {
        let EncoderConfig { channels, num_frames, height, width, .. } = self.encoder;
        let input = |name: String, source: Source| Input { name, source, stream: 0 };
        let mut inputs = vec![
            input("clip".to_owned(), Source::Clips(ClipUse::Both)),
            input("targets".to_owned(), Source::Targets { classes: self.head.num_classes }),
        ];
        inputs.extend(self.gates().into_iter().map(|gate| input(gate.name(), Source::Gate(gate))));
        Declaration {
            clip: [channels, num_frames, height, width],
            others: Vec::new(),
            inputs,
            sets: vec![
                ParameterSet { name: "encoder", shapes: self.encoder.parameter_shapes(), role: Role::Trained },
                ParameterSet { name: "probe", shapes: self.head.parameter_shapes(), role: Role::Trained },
            ],
            terms: Vec::new(),
            context_share: None,
            monitor: Monitor { gradient: "encoder", features: "encoder" },
            settings: vec![
                ("finetune.drop_path", self.drop_path.to_string()),
                ("finetune.fc_drop_rate", self.head_dropout.to_string()),
                ("finetune.layer_decay", self.layer_decay.to_string()),
                ("finetune.pooling", format!("{:?}", self.head.pooling)),
                ("the number of classes", self.head.num_classes.to_string()),
            ],
        }
    }

    fn model(&self, device: &Device) -> Result<FinetuneModel, ConfigError> {
        let encoder = Encoder::empty(&self.encoder, device)?;
        Ok(FinetuneModel { encoder, probe: TunedClassifier::empty(&self.head, device) })
    }

    fn initial(&self, Start { init, seed, .. }: Start) -> NamedTensors {
        let sets = [
            ("encoder", init::encoder(&self.encoder, init, seed)),
            ("probe", init::tuned(&self.head, self.init_scale, seed.wrapping_add(1))),
        ];
        let named = sets.into_iter().flat_map(|(set, tensors)| {
            tensors.into_iter().map(move |(name, tensor)| (format!("{set}.{name}"), tensor))
        });
        named.collect()
    }

    fn losses(&self, model: &FinetuneModel, batch: &Batch) -> Result<Losses, ShapeError> {
        let Some(targets) = batch.targets.clone() else {
            let expected = "targets [B, classes]".to_owned();
            return Err(ShapeError { input: "the objective's inputs", expected, got: Vec::new() });
        };
        Ok(Losses { loss: cross_entropy(self.logits(model, batch)?, targets)?, terms: Vec::new() })
    }

    fn monitored(&self, model: &FinetuneModel, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
        model.encoder.forward_gated(clips, &[], self.head.pooling == Pooling::Norm)
    }

    fn decays(&self, name: &str, rank: usize) -> bool {
        decayed(name.split_once('.').map_or(name, |(_, plain)| plain), &vec![1; rank])
    }

    fn rate(&self, name: &str) -> f64 {
        match name.strip_prefix("encoder.") {
            Some(plain) => self.decay().scale(self.decay().layer(plain)),
            None => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn small(pooling: Pooling) -> Finetune {
        let encoder = EncoderConfig { embed_dim: 24, depth: 2, num_heads: 2, patch: 8, ..EncoderConfig::tiny() };
        let encoder = encoder.with_clip(4, 16, 16);
        let config = FinetuneConfig { pooling, drop_path: 0.5, ..FinetuneConfig::default() };
        Finetune::new(encoder, &config, 3)
    }

    #[test]
    fn gates_are_those_of_branches_that_may_be_dropped() {
        let gates = small(Pooling::FcNorm).gates();
        // The first block's rate is 0.
        assert_eq!(gates.iter().map(|gate| gate.place).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(gates[2].width, Some(24));
        let still = Finetune { drop_path: 0.0, head_dropout: 0.0, ..small(Pooling::Norm) };
        assert!(still.gates().is_empty());
    }

    #[test]
    fn rates_fall_towards_the_pixels() {
        let objective = Finetune { layer_decay: 0.5, ..small(Pooling::FcNorm) };
        let rates = [
            "encoder.patch_embed.proj.weight",
            "encoder.blocks.1.norm1.bias",
            "encoder.norm.weight",
            "probe.head.bias",
        ]
        .map(|name| objective.rate(name));
        assert_eq!(rates, [0.125, 0.5, 1.0, 1.0]);
        assert!(objective.decays("probe.head.weight", 2) && !objective.decays("probe.fc_norm.weight", 1));
        assert!(!objective.decays("encoder.video_mod_embed", 3));
    }

    /// Gates of ones change nothing; a dropped branch adds nothing, so the logits of a clip do not depend on its weights.
    #[test]
    fn gates_multiply_branches() {
        let device = Device::flex();
        for pooling in [Pooling::FcNorm, Pooling::Norm] {
            let objective = small(pooling);
            let start = Start { init: init::Init::Xavier, zero_mask_tokens: true, seed: 1 };
            let weights = Objective::initial(&Finetune { init_scale: 50.0, ..objective.clone() }, start);
            let model = Objective::model(&objective, &device).unwrap();
            let model = crate::load_parameters(model, weights).unwrap();
            let values: Vec<f32> = (0..2 * 3 * 4 * 16 * 16).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
            let clip = Tensor::from_data(TensorData::new(values, [2, 3, 4, 16, 16]), &device);
            let mut batch = Batch::of_clips(clip);
            let logits =
                |batch: &Batch| objective.logits(&model, batch).unwrap().into_data().try_into_vec_as::<f32>().unwrap();
            let plain = logits(&batch);
            for gate in objective.gates() {
                batch.gates.insert(gate.place, Tensor::ones([2, 1, gate.width.unwrap_or(1)], &device));
            }
            assert_eq!(logits(&batch), plain);
            let first: Tensor<3> = Tensor::from_data([[[0.0f32]], [[1.0]]], &device);
            batch.gates.insert(2, first);
            let dropped = logits(&batch);
            assert_ne!(dropped[..3], plain[..3]);
            assert_eq!(dropped[3..], plain[3..]);
        }
    }
}
