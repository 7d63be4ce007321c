//! Our kernels on a device, one by one, beside the library's operations that they replace.

use super::BenchError;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use vjepa_compiler::ir::{DType, Dim, Graph, GraphError, Scalar, Sizes, TensorType, ValueId};
use vjepa_compiler::ops::{Op, Unary};
use vjepa_compiler::plan::{Plan, Report};
use vjepa_programs::CompileError;
use vjepa_recipe::counter::noise;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};

/// Runs of an operation that are sent before the device is waited for.
const SENT: usize = 8;

/// An operation by our kernel and by the library's operations, the best of a few rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceKernel {
    /// The operation, and the shape of its first operand.
    pub name: String,
    /// Milliseconds of our kernel.
    pub ours: f64,
    /// Milliseconds of the library's operations.
    pub library: f64,
    /// Bytes of all operands and results.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// Sizes of the tensors that operations are timed on.
#[derive(Clone, Copy, Debug)]
struct Scale {
    clips: usize,
    tokens: usize,
    width: usize,
    heads: usize,
}

/// ViT-L on 8 clips of 16x224x224.
const LARGE: Scale = Scale { clips: 8, tokens: 1568, width: 1024, heads: 16 };
/// What a software device, or the CPU, does in a moment.
const SMALL: Scale = Scale { clips: 2, tokens: 98, width: 192, heads: 3 };

/// An operation on one of two sides.
struct Side {
    executor: DeviceExecutor,
    params: DeviceParams,
    best: f64,
}

/// Times every kernel of ours in turn with the library's operations, `rounds` times. `small` tensors are for devices that
/// compute on the CPU.
///
/// # Errors
/// [`BenchError`].
pub fn device_kernels(device: Device, rounds: usize, small: bool) -> Result<Vec<DeviceKernel>, BenchError> {
    let library = device.without_kernels();
    let scale = if small { SMALL } else { LARGE };
    let mut found = Vec::new();
    for case in cases(scale) {
        let (graph, name) = graph(&case).map_err(CompileError::from)?;
        // Products are the library's on both sides, unless VJEPA_KERNELS says otherwise.
        if !device.by_kernel(&device.lower(&graph)?).contains(&true) {
            continue;
        }
        let mut sides = [Side::new(device, &graph, &case.operands)?, Side::new(library, &graph, &case.operands)?];
        for _ in 0..rounds {
            for side in &mut sides {
                side.time()?;
            }
        }
        let report = Report::new(&graph, &Plan::new(&graph)?, &Sizes::new())?;
        let [ours, library] = sides.map(|side| side.best * 1e3);
        found.push(DeviceKernel { name, ours, library, bytes: report.total.bytes, flops: report.total.flops });
    }
    Ok(found)
}

impl Side {
    /// On noise, with everything compiled and measured that is when it first runs.
    fn new(device: Device, graph: &Graph, operands: &[Operand]) -> Result<Self, BenchError> {
        let executor = device.plan(graph)?;
        let mut params = device.params();
        for (i, Operand { shape, kind }) in operands.iter().enumerate() {
            let count = shape.iter().product::<usize>();
            let tensor = match kind {
                Kind::Noise => HostTensor::F32 { shape: shape.clone(), data: noise(count) },
                Kind::Rate(rate) => HostTensor::F32 { shape: shape.clone(), data: vec![*rate; count] },
                // Every other token.
                Kind::Index => {
                    let kept = shape.last().copied().unwrap_or(1);
                    let data = (0..count).map(|i| i32::try_from(i % kept * 2).unwrap_or(0)).collect();
                    HostTensor::I32 { shape: shape.clone(), data }
                }
            };
            params.set(&format!("x{i}"), tensor);
        }
        for (id, _) in &graph.updates {
            let name = graph.source_name(*id).unwrap_or_default();
            if name.starts_with("y") {
                let shape: Vec<usize> = graph.ty(*id).shape.iter().filter_map(|dim| dim.eval(&Sizes::new())).collect();
                params.zeros(name, &shape);
            }
        }
        params.set("done", HostTensor::scalar(0.0));
        let mut side = Self { executor, params, best: f64::INFINITY };
        side.time()?;
        side.best = f64::INFINITY;
        Ok(side)
    }

    /// What has been sent is done when something can be read that was written before it.
    fn time(&mut self) -> Result<(), BenchError> {
        self.params.read("done")?;
        let began = Instant::now();
        for _ in 0..SENT {
            self.executor.run(&mut self.params, Vec::new())?;
        }
        self.params.read("done")?;
        self.best = self.best.min(began.elapsed().as_secs_f64() / SENT as f64);
        Ok(())
    }
}

/// One operand of an operation.
struct Operand {
    shape: Vec<usize>,
    kind: Kind,
}

enum Kind {
    Noise,
    Rate(f32),
    Index,
}

/// An operation to be timed.
struct Case {
    op: Op,
    operands: Vec<Operand>,
    /// Which operands its results are written over, as in a step; none where they are tensors of their own.
    over: Vec<usize>,
}

/// `op(x0, x1, ..)`, whose results become the values of parameters, so that nothing is read back.
fn graph(case: &Case) -> Result<(Graph, String), GraphError> {
    let mut graph = Graph::new("kernel", &[]);
    let mut ids: Vec<ValueId> = Vec::new();
    for (i, Operand { shape, kind }) in case.operands.iter().enumerate() {
        let dtype = if matches!(kind, Kind::Index) { DType::I32 } else { DType::F32 };
        ids.push(graph.param(&format!("x{i}"), TensorType::new(dtype, shape.iter().map(|n| Dim::from(*n))))?);
    }
    for (i, result) in graph.push(case.op.clone(), &ids)?.into_iter().enumerate() {
        let to = match case.over.get(i).and_then(|operand| ids.get(*operand)) {
            Some(operand) => *operand,
            None => graph.param(&format!("y{i}"), graph.ty(result).clone())?,
        };
        graph.update(to, result)?;
    }
    let shape = case.operands.iter().find(|operand| matches!(operand.kind, Kind::Noise)).map(|operand| &operand.shape);
    Ok((graph, format!("{} {:?}", case.op.name(), shape.cloned().unwrap_or_default())))
}

fn case(op: Op, shapes: &[&[usize]]) -> Case {
    let operands = shapes.iter().map(|shape| Operand { shape: shape.to_vec(), kind: Kind::Noise }).collect();
    Case { op, operands, over: Vec::new() }
}

impl Case {
    /// With indices `[clips, kept]` of tokens as one more operand.
    fn at(mut self, clips: usize, kept: usize) -> Self {
        self.operands.push(Operand { shape: vec![clips, kept], kind: Kind::Index });
        self
    }
}

fn cases(Scale { clips, tokens, width, heads }: Scale) -> Vec<Case> {
    let (rows, kept) = (clips * tokens, tokens / 2);
    let (narrow, wide): (&[usize], &[usize]) = (&[rows, width], &[rows, 4 * width]);
    let (all, some): (&[usize], &[usize]) = (&[clips, tokens, width], &[clips, kept, width]);
    let (qkv, weight, hidden) = (&[rows, 3 * width][..], &[width][..], &[4 * width][..]);
    let (eps, scale) = (1e-6, ((width / heads) as f64).powf(-0.5));
    let parts = vec![Dim::from(clips), Dim::from(tokens)];
    let (sums, distance) = (false, Scalar::recip(Dim::from(clips * kept * width)));
    vec![
        case(Op::Unary(Unary::Gelu), &[wide]),
        case(Op::GeluGrad, &[wide, wide]),
        case(Op::BiasGelu, &[wide, hidden]),
        case(Op::BiasGeluGrad { result: true }, &[wide, hidden, wide]),
        case(Op::LayerNorm { eps }, &[narrow, weight, weight]),
        case(Op::LayerNormGrad { eps }, &[narrow, narrow, weight]),
        case(Op::PackedAttention { heads, scale, parts: parts.clone(), sums }, &[qkv]),
        case(Op::PackedAttentionGrad { heads, scale, parts, sums }, &[qkv, narrow, narrow]),
        case(Op::GatherTokens, &[all]).at(clips, kept),
        case(Op::ScatterTokens { tokens: Dim::from(tokens) }, &[some]).at(clips, kept),
        case(Op::TokenL1 { eps }, &[some, all]).at(clips, kept),
        case(Op::TokenL1Grad { eps, scale: distance }, &[some, all]).at(clips, kept),
        step(&[4 * width, width]),
        case(Op::Linear, &[narrow, &[4 * width, width], hidden]),
        case(Op::MatMul { ta: true, tb: false }, &[wide, narrow]),
    ]
}

/// AdamW and the moving average of one parameter.
fn step(shape: &[usize]) -> Case {
    let rates = [1e-3, 0.1, 0.1, 0.001, 0.05, 0.999].map(|rate| Operand { shape: Vec::new(), kind: Kind::Rate(rate) });
    let tensor = |kind: Kind| Operand { shape: shape.to_vec(), kind };
    let tensors = [Kind::Noise, Kind::Noise, Kind::Noise, Kind::Rate(1e-4), Kind::Noise].map(tensor);
    let op = Op::AdamWAll { beta1: 0.9, beta2: 0.999, eps: 1e-8, average: true };
    // The parameter, its moments and its average, past six rates, without the gradient.
    Case { op, operands: rates.into_iter().chain(tensors).collect(), over: vec![6, 8, 9, 10] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CPU's own kernels, which are a device's like any other's here.
    #[test]
    fn every_kernel_is_timed_on_both_sides() {
        let found = device_kernels(Device::CPU, 1, true).unwrap();
        assert_eq!(found.len(), cases(SMALL).len());
        for DeviceKernel { name, ours, library, bytes, .. } in found {
            assert!(ours > 0.0 && library > 0.0 && ours.is_finite() && library.is_finite() && bytes > 0, "{name}");
        }
    }
}
