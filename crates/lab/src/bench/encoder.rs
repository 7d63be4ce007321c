//! The encoder as a plan that gives back one number, so that no worker spends its time copying features.

use super::BenchError;
use vjepa_compiler::ir::{Graph, GraphError};
use vjepa_compiler::ops::Unary;
use vjepa_graphs::{EncoderConfig, NamedTensors};
use vjepa_programs as compile;
use vjepa_programs::Precision;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};

/// An encoder whose only output is the mean |feature|.
pub(super) struct EncoderMean {
    executor: DeviceExecutor,
    params: DeviceParams,
}

impl EncoderMean {
    /// Compiles the encoder; `weights` are under `encoder.`.
    pub(super) fn new(
        device: Device,
        precision: Precision,
        config: &EncoderConfig,
        weights: NamedTensors,
    ) -> Result<Self, BenchError> {
        let graph = with_mean(compile::frozen(config, None)?).map_err(compile::CompileError::from)?;
        let graph = compile::optimised(&graph)?;
        let executor = device.plan(&precision.apply(graph)?)?;
        let mut params = device.params();
        for (name, (shape, data)) in weights {
            params.set(&name, HostTensor::F32 { shape, data });
        }
        Ok(Self { executor, params })
    }

    /// The executor, for profiles.
    pub(super) fn executor(&mut self) -> &mut DeviceExecutor {
        &mut self.executor
    }

    /// The graph as it is executed.
    pub(super) fn graph(&self) -> &Graph {
        self.executor.graph()
    }

    /// Peak memory on the device, where it is not the process's.
    pub(super) fn device_memory(&self) -> Option<u64> {
        self.params.device_memory()
    }

    /// Mean |feature| of clips `f32[B, C, T, H, W]`.
    pub(super) fn run(&mut self, shape: Vec<usize>, data: Vec<f32>) -> Result<f64, BenchError> {
        let outputs = self.executor.run(&mut self.params, vec![("clip", HostTensor::F32 { shape, data })])?;
        let mean = outputs.get("mean_abs").and_then(|mean| mean.floats().first().copied());
        Ok(mean.map_or(f64::NAN, f64::from))
    }
}

fn with_mean(mut graph: Graph) -> Result<Graph, GraphError> {
    let missing = || GraphError::Other("the encoder has no output".to_owned());
    let features = graph.find_output("encoder_out").ok_or_else(missing)?;
    let size = graph.unary(Unary::Abs, features)?;
    let mean = graph.mean(size, &[0, 1, 2])?;
    let mean = graph.reshape(mean, &[])?;
    graph.outputs.clear();
    graph.output("mean_abs", mean);
    Ok(graph)
}
