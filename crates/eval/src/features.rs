//! Features of frozen encoders: the compiled encoder run over clips, batch by batch.

use rayon::prelude::*;
use vjepa_graphs::{EncoderConfig, NamedTensors, ProbeConfig};
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};

use super::{EvalError, OnProgress, Progress};
use vjepa_programs as compile;

/// Token features of clips, `f32[clips, tokens, dim]`; mean-pooled features have one token a clip.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Features {
    /// Tokens of a clip.
    pub tokens: usize,
    /// Width of a token.
    pub dim: usize,
    /// The values, row-major.
    pub values: Vec<f32>,
}

impl Features {
    /// No clips yet, of this shape.
    pub fn empty(tokens: usize, dim: usize) -> Self {
        Self { tokens, dim, values: Vec::new() }
    }

    /// Clips.
    pub fn len(&self) -> usize {
        self.values.len() / self.row().max(1)
    }

    /// True without clips.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Values of a clip.
    pub fn row(&self) -> usize {
        self.tokens * self.dim
    }

    /// The tokens of clip `index`, `[tokens, dim]`; empty for one that is not there.
    pub fn clip(&self, index: usize) -> &[f32] {
        let start = index.saturating_mul(self.row());
        self.values.get(start..start.saturating_add(self.row())).unwrap_or_default()
    }

    /// The mean token of every clip.
    pub fn pooled(&self) -> Self {
        let mut pooled = Self::empty(1, self.dim);
        pooled.values =
            self.values.par_chunks_exact(self.row().max(1)).flat_map_iter(|c| mean_token(c, self.dim)).collect();
        pooled
    }

    /// The clips of these numbers, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut chosen = Self::empty(self.tokens, self.dim);
        chosen.values.reserve_exact(rows.len() * self.row());
        rows.iter().for_each(|&row| chosen.values.extend_from_slice(self.clip(row)));
        chosen
    }

    /// Every `segments` clips in a row become one of `segments · tokens` tokens: attention across segments.
    ///
    /// # Errors
    /// [`EvalError::Setup`] when the number of clips is not a multiple of `segments`.
    pub fn join_segments(self, segments: usize) -> Result<Self, EvalError> {
        if segments == 0 || !self.len().is_multiple_of(segments) {
            return Err(EvalError::setup(format!("{} clips do not make whole groups of {segments}", self.len())));
        }
        Ok(Self { tokens: self.tokens * segments, ..self })
    }
}

/// The mean of tokens `[N, dim]`.
fn mean_token(tokens: &[f32], dim: usize) -> Vec<f32> {
    let mut mean = vec![0f64; dim];
    for token in tokens.chunks_exact(dim.max(1)) {
        mean.iter_mut().zip(token).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = (tokens.len() / dim.max(1)).max(1) as f64;
    mean.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// A planned encoder without weights of its own: it reads them from any store that has them under its prefix.
pub struct EncoderPlan {
    config: EncoderConfig,
    executor: DeviceExecutor,
}

impl EncoderPlan {
    /// Compiles the encoder for a device, of a config with `out_layers` for the tokens after all of them; its parameters are
    /// looked up under `prefix` (`encoder.`, `target_encoder.`).
    ///
    /// # Errors
    /// [`EvalError::Compile`], [`EvalError::Run`].
    pub fn new(device: Device, config: &EncoderConfig, prefix: &str) -> Result<Self, EvalError> {
        let graph = match config.out_layers {
            None => compile::encoder(config, prefix)?,
            Some(_) => compile::joined_layers(config, prefix)?,
        };
        let graph = compile::optimised(&graph)?;
        Ok(Self { config: config.clone(), executor: device.plan(&graph)? })
    }

    /// Sizes of the encoder.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Tokens of a clip's features: those after each of the wanted blocks.
    pub fn tokens(&self) -> usize {
        self.config.tokens() * self.config.out_layers.as_ref().map_or(1, Vec::len)
    }

    /// Values of one clip, `[C, T, H, W]`.
    pub fn clip_len(&self) -> usize {
        self.config.channels * self.config.num_frames * self.config.height * self.config.width
    }

    /// Features of whole clips `f32[B, C, T, H, W]`, all in one batch.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for part of a clip or none, [`EvalError::Run`] for weights that are not in `params`.
    pub fn run(&mut self, params: &mut DeviceParams, clips: Vec<f32>) -> Result<Features, EvalError> {
        let count = clips.len() / self.clip_len().max(1);
        let config = &self.config;
        let shape = vec![count, config.channels, config.num_frames, config.height, config.width];
        let clip = HostTensor::f32(shape, clips)
            .filter(|_| count > 0)
            .ok_or_else(|| EvalError::setup("the encoder needs whole clips, and at least one"))?;
        let mut outputs = self.executor.run(params, vec![("clip", clip)])?;
        let out = outputs.remove("encoder_out").ok_or_else(|| EvalError::setup("the encoder's plan has no output"))?;
        Ok(Features { tokens: self.tokens(), dim: self.config.embed_dim, values: out.into_floats() })
    }
}

/// How much of a clip's features to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All tokens.
    Tokens,
    /// Their mean.
    Mean,
}

/// Whatever turns clips into tokens: a compiled encoder, or a model of others.
pub trait ClipEncoder {
    /// Channels, frames, height and width of a clip.
    fn clip(&self) -> [usize; 4];

    /// Tokens of a clip's features, and their width.
    fn tokens(&self) -> [usize; 2];

    /// The attentive probe that belongs to its features.
    ///
    /// # Errors
    /// [`EvalError::Setup`] where the number of its attention heads is not known.
    fn probe(&self, classes: usize) -> Result<ProbeConfig, EvalError>;

    /// What the features follow from beside the model's file, in words that differ where they do.
    fn describe(&self) -> String;

    /// Features of whole clips `[B, C, T, H, W]`, in one batch.
    ///
    /// # Errors
    /// [`EvalError`] for part of a clip or none, and for a model that cannot be run.
    fn encode(&mut self, clips: Vec<f32>) -> Result<Features, EvalError>;
}

impl ClipEncoder for FrozenEncoder {
    fn clip(&self) -> [usize; 4] {
        let config = self.config();
        [config.channels, config.num_frames, config.height, config.width]
    }

    fn tokens(&self) -> [usize; 2] {
        [self.plan.tokens(), self.config().embed_dim]
    }

    fn probe(&self, classes: usize) -> Result<ProbeConfig, EvalError> {
        Ok(ProbeConfig::for_encoder(self.config(), classes))
    }

    fn describe(&self) -> String {
        format!("{:?}", self.config())
    }

    fn encode(&mut self, clips: Vec<f32>) -> Result<Features, EvalError> {
        self.plan.run(&mut self.params, clips)
    }
}

/// A compiled encoder with its weights.
pub struct FrozenEncoder {
    plan: EncoderPlan,
    params: DeviceParams,
}

impl FrozenEncoder {
    /// Clips encoded at once.
    pub const BATCH: usize = 16;

    /// As [`FrozenEncoder::on`] the CPU.
    ///
    /// # Errors
    /// As [`EncoderPlan::new`].
    pub fn new(config: &EncoderConfig, weights: &NamedTensors) -> Result<Self, EvalError> {
        Self::on(Device::CPU, config, weights)
    }

    /// An encoder with weights under their official names, plain (`blocks.0.attn.qkv.weight`) or under `encoder.` as
    /// [`vjepa_weights::Weights::take_encoder`] gives them.
    ///
    /// # Errors
    /// As [`EncoderPlan::new`].
    pub fn on(device: Device, config: &EncoderConfig, weights: &NamedTensors) -> Result<Self, EvalError> {
        let mut params = device.params();
        for (name, (shape, values)) in weights {
            let name = name.strip_prefix("encoder.").unwrap_or(name);
            let tensor = HostTensor::f32(shape.clone(), values.clone())
                .ok_or_else(|| EvalError::setup(format!("`{name}` has not the values its shape asks for")))?;
            params.set(&format!("encoder.{name}"), tensor);
        }
        Ok(Self { plan: EncoderPlan::new(device, config, "encoder.")?, params })
    }

    /// Sizes of the encoder.
    pub fn config(&self) -> &EncoderConfig {
        self.plan.config()
    }

    /// Its weights, under `encoder.`, for other plans that read them.
    pub fn params_mut(&mut self) -> &mut DeviceParams {
        &mut self.params
    }

    /// Its position table, where it has one.
    pub fn position_table(&self) -> Option<(Vec<usize>, Vec<f32>)> {
        self.params.get("encoder.pos_embed")
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.params.device()
    }

    /// Features of whole clips, in one batch.
    ///
    /// # Errors
    /// As [`EncoderPlan::run`].
    pub fn encode(&mut self, clips: Vec<f32>) -> Result<Features, EvalError> {
        self.plan.run(&mut self.params, clips)
    }

    /// Features of `count` clips, of which `fill` writes number `i` into its `[C, T, H, W]`; clips are made in parallel, a
    /// batch at a time, so that never more than one batch of pixels is in memory.
    ///
    /// # Errors
    /// The first error of `fill`, and as [`EncoderPlan::run`].
    pub fn extract(
        &mut self,
        count: usize,
        keep: Keep,
        fill: impl Fn(usize, &mut [f32]) -> Result<(), EvalError> + Sync,
        what: &str,
        progress: OnProgress<'_>,
    ) -> Result<Features, EvalError> {
        let config = self.config();
        let (tokens, dim) = (if keep == Keep::Tokens { self.plan.tokens() } else { 1 }, config.embed_dim);
        let clip_len = self.plan.clip_len().max(1);
        let mut features = Features::empty(tokens, dim);
        features.values.reserve_exact(count.saturating_mul(tokens * dim));
        for start in (0..count).step_by(Self::BATCH) {
            let batch = Self::BATCH.min(count - start);
            let mut clips = vec![0f32; batch * clip_len];
            clips.par_chunks_exact_mut(clip_len).enumerate().try_for_each(|(i, clip)| fill(start + i, clip))?;
            let out = self.encode(clips)?;
            let out = if keep == Keep::Tokens { out } else { out.pooled() };
            features.values.extend_from_slice(&out.values);
            progress(Progress { what, done: start + batch, total: count });
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_selecting_and_joining() {
        let features = Features { tokens: 2, dim: 2, values: (0..16).map(|i| i as f32).collect() };
        assert_eq!(features.len(), 4);
        assert_eq!(features.clip(1), [4.0, 5.0, 6.0, 7.0]);
        assert!(features.clip(4).is_empty());
        assert_eq!(features.pooled().values, [1.0, 2.0, 5.0, 6.0, 9.0, 10.0, 13.0, 14.0]);
        assert_eq!(features.select(&[3, 0]).values[..4], [12.0, 13.0, 14.0, 15.0]);
        let joined = features.clone().join_segments(2).unwrap();
        assert_eq!((joined.len(), joined.tokens), (2, 4));
        assert!(features.join_segments(3).is_err());
    }

    #[test]
    fn the_compiled_encoder_does_not_depend_on_the_batch() {
        let config = EncoderConfig { patch: 8, depth: 1, num_heads: 2, embed_dim: 24, ..EncoderConfig::tiny() }
            .with_clip(4, 16, 16);
        let weights = vjepa_graphs::init::encoder(&config, vjepa_graphs::init::Init::Xavier, 3);
        let mut encoder = FrozenEncoder::new(&config, &weights).unwrap();
        let fill = |i: usize, clip: &mut [f32]| {
            clip.iter_mut().enumerate().for_each(|(j, v)| *v = ((i * 31 + j * 7) % 17) as f32 / 8.0 - 1.0);
            Ok(())
        };
        let mut last = 0;
        let all = encoder.extract(19, Keep::Tokens, fill, "test", &mut |p| last = p.done).unwrap();
        assert_eq!((all.len(), all.tokens, all.dim, last), (19, 8, 24, 19));
        let mut clip = vec![0f32; 3 * 4 * 16 * 16];
        fill(18, &mut clip).unwrap();
        let one = encoder.encode(clip).unwrap();
        let error = one.values.iter().zip(all.clip(18)).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(error < 1e-5, "{error}");
        assert!(encoder.encode(vec![0.0; 7]).is_err());
    }
}
