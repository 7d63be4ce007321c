//! The CPU's kernels, and the lowering to Burn's operations that other back ends take, against the interpreter: every
//! operation on odd sizes, on contiguous operands and on views. `VJEPA_TEST_DEVICE=wgpu` (a back end of this build) has the
//! same done by that device's kernels, and lowered on it.
#![cfg(feature = "burn")]

#[path = "kernels/attention.rs"]
mod attention;
#[path = "kernels/fused.rs"]
mod fused;
#[path = "kernels/given.rs"]
mod given;
#[path = "kernels/mixed.rs"]
mod mixed;
#[path = "kernels/narrow.rs"]
mod narrow;
#[path = "kernels/refused.rs"]
mod refused;

use std::collections::BTreeMap;
use vjepa_compiler::interp::{self, Tensor};
use vjepa_compiler::ir::{DType, Dim, Graph, Scalar, Sizes, TensorType, ValueId};
use vjepa_compiler::ops::{Binary, Op, Unary};
use vjepa_runtime::plan::{Device, DeviceError, HostTensor, InstructionSet, RunError};

/// Deterministic values in -1..1.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

fn ty(shape: &[usize]) -> TensorType {
    TensorType::f32(shape.iter().map(|n| Dim::from(*n)))
}

/// Runs the graph with kernels, without, and on the interpreter, and compares all outputs.
fn compare(name: &str, graph: &Graph, indices: &BTreeMap<&str, Vec<i32>>) {
    // A gradient is a longer computation than a forward.
    let grad = graph.nodes.iter().any(|node| node.op.name().contains("grad"));
    let limits = if grad { [2e-6, 5e-6] } else { [1e-6, 5e-6] };
    compare_within(name, graph, indices, limits);
}

/// [`compare`] with limits of its own: relative L2 distance with kernels, and without.
fn compare_within(name: &str, graph: &Graph, indices: &BTreeMap<&str, Vec<i32>>, limits: [f64; 2]) {
    let (mut host, mut sources) = (Vec::new(), BTreeMap::new());
    for (seed, id) in graph.inputs.iter().enumerate() {
        let source = graph.source_name(*id).unwrap();
        let shape: Vec<usize> = graph.ty(*id).shape.iter().map(|dim| dim.eval(&Sizes::new()).unwrap()).collect();
        if graph.ty(*id).dtype == DType::I32 {
            let data = indices[source].clone();
            host.push((source, HostTensor::i32(shape.clone(), data.clone()).unwrap()));
            sources.insert(source.to_owned(), Tensor::i32(shape, data));
        } else {
            let data = values(shape.iter().product(), seed as u32 + 1);
            host.push((source, HostTensor::f32(shape.clone(), data.clone()).unwrap()));
            sources.insert(source.to_owned(), Tensor::f32(shape, data));
        }
    }
    let expected = interp::run(graph, &Sizes::new(), &sources).unwrap();
    let coarse = coarse(graph);
    for ((device, limit), coarse) in devices().into_iter().zip(limits).zip(coarse) {
        let limit = f64::max(limit, coarse);
        // Cutting nothing out of rows asks CUDA for memory of no bytes, which it refuses; our kernels pass empty parts over.
        if is_cuda() && device == device.without_kernels() && has_empty_parts(graph) {
            println!("{name}: left out on {device}, which has no memory of no bytes");
            continue;
        }
        // What the device says before it runs anything that it cannot do, of types alone.
        let mut plan = match device.plan(graph) {
            Err(RunError::Device(DeviceError::Type { dtype, .. })) => {
                println!("{name}: {device} has no {dtype}");
                continue;
            }
            plan => plan.unwrap(),
        };
        let got = plan.run(&mut device.params(), host.clone()).unwrap();
        for (output, tensor) in &expected.outputs {
            let (want, have) = (tensor.as_f32().unwrap(), &got[output]);
            assert_eq!(have.shape(), tensor.shape.as_slice(), "{name}, {output}: shape");
            let norm = distance(want, &vec![0.0; want.len()]);
            let error = distance(want, have.floats());
            assert!(
                error <= limit * norm + 1e-6 + 0.1 * coarse,
                "{name}, {output}, {device}: off by {error} of {norm}"
            );
            println!("{name}, {output}, {device}: rel-L2 {:.1e}", error / norm.max(f64::MIN_POSITIVE));
            // A device that computes nothing returns what its memory held: the operands.
            for (operand, input) in host.iter().filter(|(_, input)| input.floats().len() == want.len()) {
                let computed = distance(want, input.floats()) > 2.0 * error;
                let same = distance(want, input.floats()) <= f64::from(f32::EPSILON) * norm;
                assert!(computed || same, "{name}, {output}, {device}: it is no nearer to the result than `{operand}`");
            }
        }
    }
}

/// What a CUDA device's TF32, which has ten bits, adds to the limits of a graph with kernels, where attention is in f32, and
/// without.
fn coarse(graph: &Graph) -> [f64; 2] {
    let any = |found: &dyn Fn(&Op) -> bool| is_cuda() && graph.nodes.iter().any(|node| found(&node.op));
    let library = |op: &Op| {
        matches!(
            op,
            Op::MatMul { .. } | Op::Linear | Op::PatchEmbed { .. } | Op::RoiAlign { .. } | Op::RoiAlignGrad { .. }
        )
    };
    [any(&library), any(&|op| op.is_product() || library(op))].map(|tf32| if tf32 { TF32 } else { 0.0 })
}

/// Relative errors of products of f32 in TF32.
const TF32: f64 = 2e-3;

fn is_cuda() -> bool {
    test_device().starts_with("cuda")
}

fn has_empty_parts(graph: &Graph) -> bool {
    let parts = graph.nodes.iter().filter_map(|node| match &node.op {
        Op::PackedAttention { parts, .. } | Op::PackedAttentionGrad { parts, .. } => Some(parts),
        _ => None,
    });
    parts.flatten().any(|size| size.as_const() == Some(0))
}

/// The back end whose kernels are compared: the CPU's, unless another is asked for.
fn test_device() -> String {
    std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned())
}

/// That back end with its kernels, and with Burn's operations alone.
fn devices() -> [Device; 2] {
    ["", "-lowered"].map(|path| Device::open(&format!("{}{path}", test_device())).unwrap())
}

/// The L2 norm of the difference.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// An operation on inputs of these shapes; with `views`, every operand of rank 2 and more is a permuted view of an input.
fn check(op: Op, shapes: &[&[usize]], views: bool) {
    let mut graph = Graph::new("kernel", &[]);
    let mut operands: Vec<ValueId> = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        let name = format!("x{i}");
        if views && shape.len() > 1 {
            let turned: Vec<usize> = shape.iter().rev().copied().collect();
            let input = graph.input(&name, ty(&turned)).unwrap();
            let axes = (0..shape.len()).rev().collect();
            operands.push(graph.push1(Op::Permute { axes }, &[input]).unwrap());
        } else {
            operands.push(graph.input(&name, ty(shape)).unwrap());
        }
    }
    let results = graph.push(op.clone(), &operands).unwrap();
    for (i, result) in results.iter().enumerate() {
        graph.output(&format!("y{i}"), *result);
    }
    compare(&format!("{} {shapes:?}, views {views}", op.name()), &graph, &BTreeMap::new());
}

fn both(op: &Op, shapes: &[&[usize]]) {
    check(op.clone(), shapes, false);
    check(op.clone(), shapes, true);
}

#[test]
fn contractions() {
    for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
        let turn = |shape: [usize; 2], turned: bool| if turned { [shape[1], shape[0]] } else { shape };
        for [m, k, n] in [[1, 1, 1], [5, 7, 3], [129, 33, 65], [300, 64, 96]] {
            both(&Op::MatMul { ta, tb }, &[&turn([m, k], ta), &turn([k, n], tb)]);
            both(&Op::MatMul { ta, tb }, &[&turn([m, k], ta), &turn([k, n], tb), &[m, n]]);
        }
        let (a, b) = (turn([5, 9], ta), turn([9, 4], tb));
        both(&Op::MatMul { ta, tb }, &[&[3, 2, a[0], a[1]], &[3, 2, b[0], b[1]]]);
    }
    for rows in [1, 3, 257] {
        both(&Op::Linear, &[&[2, rows, 40], &[24, 40], &[24]]);
        both(&Op::Linear, &[&[2, rows, 40], &[24, 40]]);
    }
}

#[test]
fn norms_and_softmax() {
    for width in [1, 5, 40, 129] {
        let shape: &[usize] = &[3, 67, width];
        both(&Op::Softmax, &[shape]);
        both(&Op::LogSoftmax, &[shape]);
        both(&Op::SoftmaxGrad, &[shape, shape]);
        if width > 1 {
            both(&Op::LayerNorm { eps: 1e-6 }, &[shape]);
            both(&Op::LayerNorm { eps: 1e-6 }, &[shape, &[width], &[width]]);
            both(&Op::LayerNormGrad { eps: 1e-6 }, &[shape, shape]);
            both(&Op::LayerNormGrad { eps: 1e-6 }, &[shape, shape, &[width]]);
        }
    }
}

#[test]
fn elementwise_and_reductions() {
    let shape: &[usize] = &[3, 31, 17];
    for function in Unary::ALL {
        if !matches!(function, Unary::Log | Unary::Sqrt | Unary::Recip) {
            both(&Op::Unary(function), &[shape]);
        }
    }
    for function in Binary::ALL {
        if function != Binary::Div {
            for other in [shape, &[1, 31, 17], &[1, 1, 17], &[3, 1, 17], &[3, 31, 1], &[1, 1, 1]] {
                both(&Op::Binary(function), &[shape, other]);
                both(&Op::Binary(function), &[other, shape]);
            }
        }
    }
    both(&Op::GeluGrad, &[shape, shape]);
    both(&Op::GeluWithGrad, &[shape, shape]);
    both(&Op::AddScalar(Scalar::from(0.5)), &[shape]);
    both(&Op::MulScalar(Scalar::recip(Dim::from(7usize))), &[shape]);
    both(&Op::PowScalar(2.0), &[shape]);
    for axes in [vec![0], vec![1], vec![2], vec![0, 1], vec![1, 2], vec![0, 1, 2]] {
        both(&Op::Sum { axes: axes.clone() }, &[shape]);
        both(&Op::Mean { axes }, &[shape]);
    }
}

#[test]
fn moving_data() {
    let dims = |sizes: &[usize]| sizes.iter().map(|n| Dim::from(*n)).collect::<Vec<_>>();
    let shape: &[usize] = &[2, 5, 7];
    both(&Op::Reshape { shape: dims(&[10, 7]) }, &[shape]);
    both(&Op::Permute { axes: vec![2, 0, 1] }, &[shape]);
    both(&Op::Broadcast { shape: dims(&[2, 5, 7]) }, &[&[1, 5, 7]]);
    both(&Op::Slice { axis: 1, start: Dim::from(1usize), end: Dim::from(4usize) }, &[shape]);
    both(&Op::Pad { axis: 2, before: Dim::from(2usize), after: Dim::from(3usize) }, &[shape]);
    both(&Op::Concat { axis: 1 }, &[shape, &[2, 3, 7], &[2, 1, 7]]);
    both(&Op::Tubelets { tubelet: 2, patch: 3 }, &[&[2, 3, 4, 6, 9]]);
    both(&Op::PatchEmbed { tubelet: 2, patch: 3 }, &[&[2, 3, 4, 6, 9], &[11, 3, 2, 3, 3], &[11]]);
}

#[test]
fn optimiser() {
    // Second moments, decays and corrections must be positive: made from the inputs in the graph. At first they are zero, and
    // all there is of them is their share of the gradient.
    for (fused, first) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut graph = Graph::new("adamw", &[]);
        let inputs = ["p", "g", "m", "v", "target"].map(|name| graph.input(name, ty(&[37, 3])).unwrap());
        let [p, g, m, v, target] = inputs;
        let kept = Scalar::from(if first { 0.0 } else { 1.0 });
        let m = graph.push1(Op::MulScalar(kept.clone()), &[m]).unwrap();
        let v = graph.push1(Op::Binary(Binary::Mul), &[v, v]).unwrap();
        let v = graph.push1(Op::MulScalar(kept), &[v]).unwrap();
        let full = |graph: &mut Graph, value: f64| {
            graph.push1(Op::Full { value: Scalar::from(value), ty: TensorType::f32([]) }, &[]).unwrap()
        };
        let rates = [1e-2, 0.1, 0.1, 0.001, 0.5].map(|value| full(&mut graph, value));
        let momentum = full(&mut graph, 0.99);
        let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
        let mut operands = vec![p, g, m, v];
        operands.extend(rates);
        let results = if fused {
            operands.extend([target, momentum]);
            graph.push(Op::AdamWEma { beta1, beta2, eps }, &operands).unwrap()
        } else {
            let mut results = graph.push(Op::AdamW { beta1, beta2, eps }, &operands).unwrap();
            results.push(graph.push1(Op::Ema, &[target, results[0], momentum]).unwrap());
            results
        };
        for (i, result) in results.iter().enumerate() {
            graph.output(&format!("y{i}"), *result);
        }
        compare(&format!("adamw, fused {fused}, first {first}"), &graph, &BTreeMap::new());
    }
}

/// Axes longer than Burn's reductions read through WGSL; each value counts.
#[test]
fn long_axes() {
    for shape in [[3, 70_001], [70_001, 3]] {
        let axis = usize::from(shape[0] == 3);
        for op in [Op::Sum { axes: vec![axis] }, Op::Mean { axes: vec![axis] }] {
            let mut graph = Graph::new("long", &[]);
            let x = graph.input("x", ty(&shape)).unwrap();
            // Of squares, which do not cancel.
            let x = graph.push1(Op::Binary(Binary::Mul), &[x, x]).unwrap();
            let y = graph.push1(op, &[x]).unwrap();
            graph.output("y", y);
            compare(&format!("{shape:?}"), &graph, &BTreeMap::new());
        }
    }
}

/// Shares of longer rows than that, and their gradients.
#[test]
fn long_rows() {
    let mut graph = Graph::new("long", &[]);
    let [x, dy] = ["x", "dy"].map(|name| graph.input(name, ty(&[2, 70_001])).unwrap());
    let y = graph.push1(Op::Softmax, &[x]).unwrap();
    let logs = graph.push1(Op::LogSoftmax, &[x]).unwrap();
    let dx = graph.push1(Op::SoftmaxGrad, &[y, dy]).unwrap();
    for (name, value) in [("y", y), ("logs", logs), ("dx", dx)] {
        graph.output(name, value);
    }
    compare("long rows", &graph, &BTreeMap::new());
}

#[test]
fn squared_norms() {
    for sizes in [vec![1], vec![17, 3], vec![40_000, 2, 90_001]] {
        let shapes: Vec<Vec<usize>> = sizes.iter().map(|n| vec![3, *n]).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        both(&Op::SquaredNorm, &shapes);
    }
}

/// All of the above again, in a process of its own under each cap that this machine has.
#[test]
fn kernels_agree_with_the_interpreter_under_every_cap() {
    use std::io::Write;
    if std::env::var_os("VJEPA_SIMD").is_some() || std::env::var_os("VJEPA_TEST_DEVICE").is_some() {
        return;
    }
    let available = InstructionSet::available();
    for set in InstructionSet::ALL {
        if !available.contains(&set) {
            // Past the test harness, which keeps what passing tests print.
            let _ = writeln!(std::io::stderr(), "not tested under VJEPA_SIMD={set}: not in this processor or build");
            continue;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--skip", "under_every_cap"])
            .env("VJEPA_SIMD", set.name())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "under VJEPA_SIMD={set}:\n{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("attention_backward ... ok"), "{said}");
    }
}

#[test]
fn largest() {
    both(&Op::ReduceMax { axes: vec![1] }, &[&[3, 5, 4]]);
    both(&Op::ReduceMax { axes: vec![2, 3] }, &[&[2, 3, 7, 7]]);
    both(&Op::ReduceMax { axes: vec![1] }, &[&[2, 70_001]]);
    both(&Op::ReduceMax { axes: vec![0] }, &[&[70_001, 2]]);
}
