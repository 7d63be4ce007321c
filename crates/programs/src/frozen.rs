//! A frozen model (an encoder, with or without a probe) as a compiled plan that takes clips.

use std::collections::BTreeMap;

use vjepa_compiler::ir::Graph;
use vjepa_graphs::EncoderConfig;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor, RunError};

use crate as compile;
use crate::{CompileError, DeployedHead, Precision, Probe};
use vjepa_weights::Tensors;

/// A frozen model cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum FrozenError {
    /// Compiling failed.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Planning or running failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Values that are not a whole number of the model's clips.
    #[error("the model takes clips of shape {expected:?}, got {got} values")]
    Clip {
        /// `[C, T, H, W]`.
        expected: [usize; 4],
        /// Number of values.
        got: usize,
    },
    /// A probe for features of another width.
    #[error(
        "the probe reads features {probe} wide, but {model} has features {encoder} wide; give the probe that was trained on them"
    )]
    Width {
        /// Width the probe reads.
        probe: usize,
        /// The encoder's model.
        model: String,
        /// Width of the encoder.
        encoder: usize,
    },
    /// A tensor whose values do not fill its shape.
    #[error("`{0}` cannot be read, or its values do not fill its shape")]
    Tensor(String),
}

/// A compiled model with its weights.
pub struct Frozen {
    graph: Graph,
    executor: DeviceExecutor,
    params: DeviceParams,
    clip: [usize; 4],
    /// Clips per result, if the graph takes several: `[B, clips, C, T, H, W]`.
    several: Option<usize>,
}

/// The second dimension of the input of a graph that takes several clips per result.
fn several(graph: &Graph) -> Option<usize> {
    match graph.inputs.first().map(|id| graph.ty(*id).shape.as_slice()) {
        Some([_, clips, _, _, _, _]) => clips.as_const().and_then(|clips| usize::try_from(clips).ok()),
        _ => None,
    }
}

/// Refuses a probe for features of another width than the encoder's.
fn check_width(encoder: &EncoderConfig, probe: Option<&Probe>) -> Result<(), FrozenError> {
    match probe.map(Probe::embed_dim).filter(|probe| *probe != encoder.embed_dim) {
        Some(probe) => {
            Err(FrozenError::Width { probe, model: compile::encoder_name(encoder), encoder: encoder.embed_dim })
        }
        None => Ok(()),
    }
}

/// A plan on the CPU for an optimised graph of any inputs, with the parameters that `read` returns.
///
/// # Errors
/// [`FrozenError::Run`]; [`FrozenError::Tensor`] names a parameter that could not be read.
pub fn planned(
    graph: &Graph,
    read: impl Fn(&str) -> std::io::Result<Vec<f32>>,
) -> Result<(DeviceExecutor, DeviceParams), FrozenError> {
    let executor = Device::CPU.plan(graph)?;
    let mut params = Device::CPU.params();
    for id in &graph.params {
        let name = graph.source_name(*id).unwrap_or_default();
        let unusable = || FrozenError::Tensor(name.to_owned());
        let shape = graph.ty(*id).fixed_shape().ok_or_else(unusable)?;
        let values = read(name).map_err(|_| unusable())?;
        params.set(name, HostTensor::f32(shape, values).ok_or_else(unusable)?);
    }
    Ok((executor, params))
}

impl Frozen {
    /// Compiles an encoder and, if given, a probe on its tokens. `weights` has the parameters under `encoder.` and `probe.`; the
    /// output is `logits` with a probe and `encoder_out` without.
    ///
    /// # Errors
    /// [`FrozenError`].
    pub fn on(
        device: Device,
        precision: Precision,
        encoder: &EncoderConfig,
        probe: Option<&Probe>,
        weights: &Tensors,
    ) -> Result<Self, FrozenError> {
        check_width(encoder, probe)?;
        let graph = precision.apply(compile::optimised(&compile::frozen(encoder, probe)?)?)?;
        Self::of_encoder(device, graph, encoder, weights)
    }

    /// As [`Frozen::on`], with what a deployed model of this head gives: tokens, their mean, or what an attentive probe pools,
    /// after the encoder's `out_layers` where it has some.
    ///
    /// # Errors
    /// [`FrozenError`]; [`CompileError::Head`] for a head that needs another probe.
    pub fn with_head(
        device: Device,
        encoder: &EncoderConfig,
        probe: Option<&Probe>,
        head: DeployedHead,
        weights: &Tensors,
    ) -> Result<Self, FrozenError> {
        check_width(encoder, probe)?;
        let graph = compile::optimised(&compile::deployed(encoder, probe, head)?)?;
        Self::of_encoder(device, graph, encoder, weights)
    }

    fn of_encoder(
        device: Device,
        graph: Graph,
        encoder: &EncoderConfig,
        weights: &Tensors,
    ) -> Result<Self, FrozenError> {
        let executor = device.plan(&graph)?;
        let mut params = device.params();
        for (name, (shape, data)) in weights {
            let tensor = HostTensor::f32(shape.clone(), data.clone());
            params.set(name, tensor.ok_or_else(|| FrozenError::Tensor(name.clone()))?);
        }
        let clip = [encoder.channels, encoder.num_frames, encoder.height, encoder.width];
        Ok(Self { several: several(&graph), graph, executor, params, clip })
    }

    /// A plan for an optimised graph on clips `[C, T, H, W]`, with the parameters that `read` returns.
    ///
    /// # Errors
    /// [`FrozenError`]; [`FrozenError::Tensor`] names a parameter that could not be read.
    pub fn of_graph(
        graph: Graph,
        clip: [usize; 4],
        read: impl Fn(&str) -> std::io::Result<Vec<f32>>,
    ) -> Result<Self, FrozenError> {
        let (executor, params) = planned(&graph, read)?;
        Ok(Self { several: several(&graph), graph, executor, params, clip })
    }

    /// The optimised graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The executor, for profiles.
    pub fn executor(&mut self) -> &mut DeviceExecutor {
        &mut self.executor
    }

    /// The plan and its weights, without the rest.
    pub fn into_parts(self) -> (DeviceExecutor, DeviceParams) {
        (self.executor, self.params)
    }

    /// Shape of one clip, `[C, T, H, W]`.
    pub fn clip(&self) -> [usize; 4] {
        self.clip
    }

    /// Clips per result.
    pub fn clips_of_a_result(&self) -> usize {
        self.several.unwrap_or(1)
    }

    /// The store of its weights.
    pub fn params(&self) -> &DeviceParams {
        &self.params
    }

    /// Runs whole clips, `[B, C, T, H, W]` row-major, in one batch.
    ///
    /// # Errors
    /// [`FrozenError::Clip`], [`FrozenError::Run`].
    pub fn run(&mut self, clips: Vec<f32>) -> Result<BTreeMap<String, HostTensor>, FrozenError> {
        let got = clips.len();
        let refuse = || FrozenError::Clip { expected: self.clip, got };
        let one: usize = self.clip.iter().product();
        let one = one * self.clips_of_a_result();
        let count = got.checked_div(one).filter(|count| *count > 0).ok_or_else(refuse)?;
        let shape: Vec<usize> = std::iter::once(count).chain(self.several).chain(self.clip).collect();
        let clips = HostTensor::f32(shape, clips).ok_or_else(refuse)?;
        Ok(self.executor.run(&mut self.params, vec![("clip", clips)])?)
    }
}
