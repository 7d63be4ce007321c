//! Initial values of all weights: drawn on the host from a seed, the same on every machine.
//!
//! Every parameter has its own stream, seeded by the seed and its name: adding a block changes no other weight. Normals come
//! from the polar method with `libm`'s logarithm, so they do not depend on a platform's math library.

use crate::config::{BlocksOn, EncoderConfig, PredictorConfig, ProbeConfig};
use crate::params::NamedTensors;
use crate::tuned::TunedHead;
pub use vjepa_recipe::config::Init;
use vjepa_recipe::config::Positions;

/// Standard deviation of the official weights.
const STD: f64 = 0.02;
/// Standard deviation of the vectors added to the tokens of images and videos.
const MODALITY_STD: f64 = 1e-6;

/// Weights of a new encoder; a target encoder starts as a copy of it.
pub fn encoder(config: &EncoderConfig, init: Init, seed: u64) -> NamedTensors {
    let init = in_force(init, config.positions);
    backbone("encoder", config.parameter_shapes(), || config.position_table(), init, seed)
}

/// What `init` means for a model with these positions: the code that pre-trains V-JEPA 2 does not undo the depth rescale of
/// its constructors.
pub fn in_force(init: Init, positions: Positions) -> Init {
    match (init, positions) {
        (Init::Official, Positions::Rotary(_)) => Init::Constructor,
        (init, _) => init,
    }
}

/// Weights of a new predictor. Mask tokens start at 0 or, with `zero_init_mask_tokens: false`, normal with deviation .02.
pub fn predictor(config: &PredictorConfig, init: Init, zero_mask_tokens: bool, seed: u64) -> NamedTensors {
    let init = in_force(init, config.positions);
    let mut tensors = backbone("predictor", config.parameter_shapes(), || config.position_table(), init, seed);
    if !zero_mask_tokens {
        for (name, (_, values)) in tensors.iter_mut().filter(|(name, _)| name.starts_with("mask_tokens.")) {
            Rng::new(seed, "predictor", name).normal(values, STD, f64::INFINITY);
        }
    }
    tensors
}

/// Weights of a new attentive probe: deviation .02 with the depth rescale (the cross-attention is layer 1, the self-attention
/// blocks follow), and PyTorch's default for the last linear layer.
pub fn probe(config: &ProbeConfig, seed: u64) -> NamedTensors {
    let tensors = config.parameter_shapes().into_iter().map(|(name, shape)| {
        let mut values = vec![0f32; shape.iter().product()];
        let mut rng = Rng::new(seed, "probe", &name);
        if name.starts_with("linear.") {
            rng.uniform(&mut values, 1.0 / (config.embed_dim as f64).sqrt());
        } else if let Some(value) = constant(&name) {
            values.fill(value);
        } else {
            let by = probe_rescale(config, &name);
            rng.normal(&mut values, STD / by, 2.0 / by);
        }
        (name, (shape, values))
    });
    tensors.collect()
}

/// Weights of a new linear probe: PyTorch's default, uniform within `1 / sqrt(embed_dim)`.
pub fn linear_probe(embed_dim: usize, num_classes: usize, seed: u64) -> NamedTensors {
    let shapes = [("linear.weight", vec![num_classes, embed_dim]), ("linear.bias", vec![num_classes])];
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let mut values = vec![0f32; shape.iter().product()];
        Rng::new(seed, "linear_probe", name).uniform(&mut values, 1.0 / (embed_dim as f64).sqrt());
        (name.to_owned(), (shape, values))
    });
    tensors.collect()
}

/// Weights of a new classifier for fine-tuning: deviation .02, times `scale`; no bias, and a norm that changes nothing.
pub fn tuned(head: &TunedHead, scale: f64, seed: u64) -> NamedTensors {
    let tensors = head.parameter_shapes().into_iter().map(|(name, shape)| {
        let mut values = vec![0f32; shape.iter().product()];
        match constant(&name) {
            Some(value) => values.fill(value),
            None => {
                Rng::new(seed, "tuned", &name).normal(&mut values, STD, 2.0);
                values.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
            }
        }
        (name, (shape, values))
    });
    tensors.collect()
}

fn backbone(
    model: &str,
    shapes: Vec<(String, Vec<usize>)>,
    positions: impl Fn() -> Vec<f32>,
    init: Init,
    seed: u64,
) -> NamedTensors {
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let frozen = crate::is_frozen(&name);
        let values = if frozen { positions() } else { drawn(model, &name, &shape, init, seed) };
        (name, (shape, values))
    });
    tensors.collect()
}

/// A single weight of [`encoder`]: `shape` is that of [`EncoderConfig::parameter_shapes`]. Position tables are not
/// drawn; see [`EncoderConfig::position_table`].
pub fn encoder_weight(name: &str, shape: &[usize], init: Init, seed: u64) -> Vec<f32> {
    drawn("encoder", name, shape, init, seed)
}

fn drawn(model: &str, name: &str, shape: &[usize], init: Init, seed: u64) -> Vec<f32> {
    let mut values = vec![0f32; shape.iter().product()];
    match constant(name) {
        Some(value) => values.fill(value),
        None if name.ends_with("_mod_embed") => {
            Rng::new(seed, model, name).normal(&mut values, MODALITY_STD, f64::INFINITY);
        }
        None => {
            let (std, cut) = match init {
                // The official code truncates at the *value* 2, a hundred deviations away.
                Init::Official | Init::Constructor => (STD, 2.0),
                Init::Xavier => {
                    let fans = shape.iter().take(1).sum::<usize>() + shape.iter().skip(1).product::<usize>();
                    let std = (2.0 / fans as f64).sqrt();
                    (std, 2.0 * std)
                }
            };
            let by = if init == Init::Official { 1.0 } else { rescale(name) };
            Rng::new(seed, model, name).normal(&mut values, std / by, cut / by);
        }
    }
    values
}

/// The value of a parameter that starts constant: 1 for weights of norms, 0 for biases and mask tokens.
fn constant(name: &str) -> Option<f32> {
    let (layer, kind) = name.rsplit_once('.').unwrap_or(("", name));
    if kind == "bias" || name.starts_with("mask_tokens.") {
        return Some(0.0);
    }
    // The norms of levels are numbered.
    let layer = layer.rsplit('.').find(|part| part.parse::<usize>().is_err()).unwrap_or(layer);
    (kind == "weight" && layer.contains("norm")).then_some(1.0)
}

/// `sqrt(2 · layer)` for the two weights of a block that write to the residual stream, 1 for all others.
fn rescale(name: &str) -> f64 {
    match block_of(name) {
        Some(block) if writes_residual(name) => (2.0 * (block + 1) as f64).sqrt(),
        _ => 1.0,
    }
}

/// The same for a probe. On the query the cross-attention is layer 1 and block 0 layer 2; on the features block 0 is layer 1
/// and the cross-attention has the number of the last block once more.
fn probe_rescale(config: &ProbeConfig, name: &str) -> f64 {
    let cross = name.starts_with("pooler.cross_attention_block.")
        && (name.ends_with(".proj.weight") || name.ends_with(".fc2.weight"));
    let (first, of_cross) = match config.blocks_on {
        BlocksOn::Query => (2, 1),
        BlocksOn::Features => (1, config.depth.saturating_sub(1).max(1)),
    };
    let layer = match block_of(name) {
        _ if cross => of_cross,
        Some(block) if writes_residual(name) => block + first,
        _ => return 1.0,
    };
    (2.0 * layer as f64).sqrt()
}

fn writes_residual(name: &str) -> bool {
    name.ends_with(".attn.proj.weight") || name.ends_with(".mlp.fc2.weight")
}

/// Number of the block a parameter belongs to.
fn block_of(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once("blocks.")?;
    rest.split('.').next()?.parse().ok()
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Rng(u64);

impl Rng {
    fn new(seed: u64, model: &str, name: &str) -> Self {
        // FNV-1a over the qualified name, from an offset that depends on the seed.
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in model.bytes().chain([b'.']).chain(name.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(hash)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    fn signed(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (2.0 / (1u64 << 53) as f64) - 1.0
    }

    fn uniform(&mut self, values: &mut [f32], bound: f64) {
        values.fill_with(|| (self.signed() * bound) as f32);
    }

    /// Normals with deviation `std`, redrawn if they lie beyond `cut`.
    fn normal(&mut self, values: &mut [f32], std: f64, cut: f64) {
        let mut spare = None;
        values.fill_with(|| {
            loop {
                let value = std
                    * spare.take().unwrap_or_else(|| {
                        let (first, second) = self.pair();
                        spare = Some(second);
                        first
                    });
                if value.abs() <= cut {
                    return value as f32;
                }
            }
        });
    }

    /// Two standard normals, by Marsaglia's polar method.
    fn pair(&mut self) -> (f64, f64) {
        loop {
            let (u, v) = (self.signed(), self.signed());
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let scale = (-2.0 * libm::log(s) / s).sqrt();
                return (u * scale, v * scale);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn std(tensors: &NamedTensors, name: &str) -> f64 {
        let values = &tensors[name].1;
        (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    fn largest(tensors: &NamedTensors, name: &str) -> f64 {
        tensors[name].1.iter().map(|&v| f64::from(v.abs())).fold(0.0, f64::max)
    }

    fn near(got: f64, expected: f64) -> bool {
        (got / expected - 1.0).abs() < 0.02
    }

    #[test]
    fn official_pretraining_starts_without_the_depth_rescale() {
        let config = EncoderConfig { depth: 4, ..EncoderConfig::small() };
        let tensors = encoder(&config, Init::Official, 7);
        for i in 0..4 {
            assert!(near(std(&tensors, &format!("blocks.{i}.attn.proj.weight")), 0.02));
            assert!(near(std(&tensors, &format!("blocks.{i}.mlp.fc2.weight")), 0.02));
        }
        assert!(near(std(&tensors, "patch_embed.proj.weight"), 0.02));
        // Cut at a hundred deviations, so some lie beyond two and beyond four.
        assert!(largest(&tensors, "blocks.0.mlp.fc1.weight") > 0.08);
        assert!(tensors["norm.weight"].1.iter().all(|&v| v == 1.0));
        assert!(tensors["blocks.1.norm2.weight"].1.iter().all(|&v| v == 1.0));
        assert!(tensors["patch_embed.proj.bias"].1.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn constructors_rescale_what_writes_to_the_residual_stream() {
        let config = EncoderConfig { depth: 4, ..EncoderConfig::small() };
        let tensors = encoder(&config, Init::Constructor, 7);
        for i in 0..4 {
            let expected = 0.02 / (2.0 * (i + 1) as f64).sqrt();
            assert!(near(std(&tensors, &format!("blocks.{i}.attn.proj.weight")), expected));
            assert!(near(std(&tensors, &format!("blocks.{i}.mlp.fc2.weight")), expected));
            assert!(near(std(&tensors, &format!("blocks.{i}.attn.qkv.weight")), 0.02));
        }
    }

    #[test]
    fn xavier_is_cut_at_two_deviations_and_includes_the_patch_embedding() {
        let config = EncoderConfig { patch: 8, depth: 4, num_heads: 4, embed_dim: 128, ..EncoderConfig::tiny() };
        let tensors = encoder(&config, Init::Xavier, 7);
        let sigma = (2.0f64 / (384.0 + 128.0)).sqrt();
        // A normal cut at two deviations keeps .8796 of its own.
        assert!(near(std(&tensors, "patch_embed.proj.weight"), 0.8796 * sigma));
        assert!(largest(&tensors, "patch_embed.proj.weight") <= 2.0 * sigma);
        let proj = (2.0f64 / 256.0).sqrt() / 6f64.sqrt();
        assert!(near(std(&tensors, "blocks.2.attn.proj.weight"), 0.8796 * proj));
    }

    #[test]
    fn mask_tokens_start_at_zero_unless_asked() {
        let config = PredictorConfig::for_encoder(&EncoderConfig::small());
        assert!(largest(&predictor(&config, Init::Official, true, 1), "mask_tokens.1") == 0.0);
        let drawn = predictor(&config, Init::Official, false, 1);
        assert!(largest(&drawn, "mask_tokens.1") > 0.0);
        assert_ne!(drawn["mask_tokens.0"], drawn["mask_tokens.1"]);
    }

    #[test]
    fn probe_keeps_its_rescale() {
        let config = ProbeConfig { depth: 2, ..ProbeConfig::for_encoder(&EncoderConfig::base(), 400) };
        let tensors = probe(&config, 3);
        let cross = "pooler.cross_attention_block";
        assert!(near(std(&tensors, &format!("{cross}.xattn.kv.weight")), 0.02));
        assert!(near(std(&tensors, &format!("{cross}.xattn.proj.weight")), 0.02 / 2f64.sqrt()));
        assert!(near(std(&tensors, &format!("{cross}.mlp.fc2.weight")), 0.02 / 2f64.sqrt()));
        assert!(near(std(&tensors, "pooler.blocks.0.mlp.fc2.weight"), 0.02 / 2.0));
        let bound = 1.0 / 768f64.sqrt();
        assert!(near(std(&tensors, "linear.weight"), bound / 3f64.sqrt()));
        assert!(largest(&tensors, "linear.bias") <= bound);
    }

    #[test]
    fn a_seed_gives_the_same_weights_everywhere() {
        let config = EncoderConfig { depth: 1, ..EncoderConfig::tiny().with_clip(4, 32, 32) };
        let tensors = encoder(&config, Init::Official, 42);
        assert_eq!(tensors, encoder(&config, Init::Official, 42));
        assert_ne!(tensors, encoder(&config, Init::Official, 43));
        let deeper = EncoderConfig { depth: 2, ..config };
        assert_eq!(encoder(&deeper, Init::Official, 42)["norm.bias"], tensors["norm.bias"]);
        assert_eq!(
            encoder(&deeper, Init::Official, 42)["blocks.0.attn.qkv.weight"],
            tensors["blocks.0.attn.qkv.weight"]
        );
    }
}
