//! Single CPU kernels compared with what the machine can do: plain matrix products for arithmetic, a plain copy for memory.

use super::BenchError;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use vjepa_compiler::ir::{Dim, Graph, GraphError, Scalar, TensorType, ValueId};
use vjepa_compiler::ops::{Op, Unary};
use vjepa_recipe::counter::noise;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor, InstructionSet, square_product};

/// Rows, features and hidden features of ViT-S on a 16x224x224 clip.
const ROWS: usize = 1568;
const WIDTH: usize = 384;
const HIDDEN: usize = 1536;
const HEADS: usize = 6;
/// Worker of a plain product.
const SIDE: usize = 768;
/// Floats of a task of a plain copy.
const CHUNK: usize = 16 * 1024;

/// Speed of one kernel, the best of a few runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelSpeed {
    /// The operation, and the shape of its result.
    pub name: String,
    /// Milliseconds.
    pub ms: f64,
    /// Whether arithmetic bounds it (attention, linear layers) or memory.
    pub arithmetic: bool,
    /// GFLOP/s, or GB/s with every operand read and every result written once.
    pub speed: f64,
    /// The speed over a plain product's, or over that of a plain copy of as many bytes.
    pub share: f64,
}

/// Speeds of all kernels under one instruction set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelTable {
    /// The instruction set of the kernels.
    pub kernels: String,
    /// The instruction set of plain products.
    pub products: String,
    /// GFLOP/s of plain products.
    pub product: f64,
    /// GB/s of a plain copy of one hidden activation, read and written.
    pub copy: f64,
    /// The kernels.
    pub speeds: Vec<KernelSpeed>,
}

/// One operation as a plan of its own.
struct Operation {
    name: String,
    arithmetic: bool,
    executor: DeviceExecutor,
    params: DeviceParams,
    best: f64,
    work: f64,
    bytes: f64,
    /// The best time of a plain copy of as many bytes.
    copy: f64,
}

/// Runs every kernel `rounds` times in turn, so that a slow moment of the machine hits all of them.
///
/// # Errors
/// [`BenchError`].
pub fn kernel_speeds(rounds: usize) -> Result<KernelTable, BenchError> {
    let mut cases = cases()?;
    let (a, b) = (noise(SIDE * SIDE), noise(SIDE * SIDE));
    let (from, mut to) = (vec![1f32; 2 * ROWS * HIDDEN], vec![0f32; 2 * ROWS * HIDDEN]);
    let (mut product, mut copy) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        product = product.min(timed(|| drop(std::hint::black_box(square_product(&a, &b, SIDE)))));
        copy = copy.min(copied(&from, &mut to, ROWS * HIDDEN));
        for case in &mut cases {
            case.run()?;
            if !case.arithmetic {
                case.copy = case.copy.min(copied(&from, &mut to, (case.bytes / 8.0) as usize));
            }
        }
    }
    let product = 2.0 * (SIDE as f64).powi(3) / product / 1e9;
    let speeds = cases.iter().map(|case| case.speed(product)).collect();
    Ok(KernelTable {
        kernels: InstructionSet::chosen().map_err(vjepa_runtime::plan::RunError::from)?.to_string(),
        products: InstructionSet::of_products().to_string(),
        product,
        copy: 8.0 * (ROWS * HIDDEN) as f64 / copy / 1e9,
        speeds,
    })
}

fn timed(f: impl FnOnce()) -> f64 {
    let began = Instant::now();
    f();
    began.elapsed().as_secs_f64()
}

/// Seconds of a copy of `len` floats on all threads.
fn copied(from: &[f32], to: &mut [f32], len: usize) -> f64 {
    let len = len.min(from.len());
    let (from, to) = (from[..len].par_chunks(CHUNK), to[..len].par_chunks_mut(CHUNK));
    timed(|| to.zip(from).for_each(|(to, from)| to.copy_from_slice(from)))
}

impl Operation {
    /// An operation on noise of these shapes; operands that it writes into are copied first, as a plan's are fresh.
    fn new(op: Op, shapes: &[&[usize]], owned: &[usize], arithmetic: bool) -> Result<Self, BenchError> {
        let graph = graph(&op, shapes, owned).map_err(vjepa_programs::CompileError::from)?;
        let executor = Device::CPU.plan(&graph)?;
        let mut params = Device::CPU.params();
        for (i, shape) in shapes.iter().enumerate() {
            params
                .set(&format!("x{i}"), HostTensor::F32 { shape: shape.to_vec(), data: noise(shape.iter().product()) });
        }
        let name = format!("{} {:?}", op.name(), shapes[0]);
        let best = f64::INFINITY;
        Ok(Self { name, arithmetic, executor, params, best, work: 0.0, bytes: 0.0, copy: best })
    }

    fn run(&mut self) -> Result<(), BenchError> {
        self.executor.profile();
        self.executor.run(&mut self.params, Vec::new())?;
        let profile = self.executor.take_profile();
        let op = self.name.split(' ').next().unwrap_or_default();
        if let Some((_, time)) = profile.by_op().into_iter().find(|(name, _)| name == op) {
            self.best = self.best.min(time.seconds);
            (self.work, self.bytes) = (time.flops as f64, time.bytes as f64);
        }
        Ok(())
    }

    fn speed(&self, product: f64) -> KernelSpeed {
        let amount = if self.arithmetic { self.work } else { self.bytes };
        let speed = amount / self.best / 1e9;
        let share = if self.arithmetic { speed / product } else { self.copy / self.best };
        KernelSpeed { name: self.name.clone(), ms: self.best * 1e3, arithmetic: self.arithmetic, speed, share }
    }
}

/// `op(x0, x1, ..)`, of which the sum of every result is read: by a kernel that hands its operand's memory on, as those of a
/// training step do. What an operation writes is warm then, and no pages are mapped while it is timed.
fn graph(op: &Op, shapes: &[&[usize]], owned: &[usize]) -> Result<Graph, GraphError> {
    let mut graph = Graph::new("kernel", &[]);
    let mut operands: Vec<ValueId> = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        let x = graph.param(&format!("x{i}"), TensorType::f32(shape.iter().map(|n| Dim::from(*n))))?;
        let fresh = owned.contains(&i);
        operands.push(if fresh { graph.push1(Op::AddScalar(Scalar::from(0.125)), &[x])? } else { x });
    }
    for (i, result) in graph.push(op.clone(), &operands)?.into_iter().enumerate() {
        let axes: Vec<usize> = (0..graph.ty(result).rank()).collect();
        let sum = graph.sum(result, &axes)?;
        let sum = graph.reshape(sum, &[])?;
        graph.output(&format!("y{i}"), sum);
    }
    Ok(graph)
}

fn cases() -> Result<Vec<Operation>, BenchError> {
    let (narrow, wide): (&[usize], &[usize]) = (&[ROWS, WIDTH], &[ROWS, HIDDEN]);
    let (weight, eps, scale) = (&[WIDTH][..], 1e-6, 0.125);
    let mut cases = vec![
        Operation::new(Op::Linear, &[narrow, &[HIDDEN, WIDTH], &[HIDDEN]], &[], true)?,
        Operation::new(Op::Unary(Unary::Gelu), &[wide], &[], false)?,
        Operation::new(Op::GeluGrad, &[wide, wide], &[1], false)?,
        Operation::new(Op::GeluWithGrad, &[wide, wide], &[0, 1], false)?,
        Operation::new(Op::LayerNorm { eps }, &[narrow, weight, weight], &[], false)?,
        Operation::new(Op::LayerNormGrad { eps }, &[narrow, narrow, weight], &[1], false)?,
    ];
    // One long sequence, and the clips of a step's contexts: about 40 tokens each at 112 pixels, 96 at 224.
    for [clips, tokens] in [[1, ROWS], [4, 392], [16, 96], [32, 40]] {
        let rows = clips * tokens;
        let parts = vec![Dim::from(clips), Dim::from(tokens)];
        let (qkv, y): (&[usize], &[usize]) = (&[rows, 3 * WIDTH], &[rows, WIDTH]);
        let forward = Op::PackedAttention { heads: HEADS, scale, parts: parts.clone(), sums: false };
        cases.push(Operation::new(forward, &[qkv], &[], true)?.named(clips, tokens));
        let backward = Op::PackedAttentionGrad { heads: HEADS, scale, parts, sums: false };
        cases.push(Operation::new(backward, &[qkv, y, y], &[], true)?.named(clips, tokens));
    }
    Ok(cases)
}

impl Operation {
    /// With clips and tokens instead of the shape of all rows.
    fn named(self, clips: usize, tokens: usize) -> Self {
        let op = self.name.split(' ').next().unwrap_or_default();
        Self { name: format!("{op} {clips} x {tokens} x {WIDTH}"), ..self }
    }
}
