//! What the machine can do at most.

use super::BenchError;
use std::time::Instant;
use vjepa_compiler::ir::{Dim, Graph, GraphError, TensorType};
use vjepa_programs::Precision;
use vjepa_recipe::counter::noise;
use vjepa_runtime::plan::{Device, HostTensor, InstructionSet};

/// Matrix products this size fit no cache level's best case and no worst case; every BLAS is near its peak on them.
const SIDE: usize = 1536;
/// The same for a GPU.
const DEVICE_SIDE: usize = 8192;
/// Products in a row on a GPU, so that reading the result does not count.
const PRODUCTS: usize = 16;

/// Instruction sets by what uses them: our kernels, matrix products, and the best that the processor has.
pub fn paths() -> serde_json::Value {
    serde_json::json!({
        "kernels": InstructionSet::chosen().map_or("none", InstructionSet::name),
        "products": InstructionSet::of_products().name(),
        "processor": InstructionSet::best_of_processor().name(),
    })
}

/// FLOP/s of f32 matrix products on all threads: the best of a few, so that a neighbour's load counts least.
pub fn product_peak() -> f64 {
    let (a, b) = (vec![0.5f32; SIDE * SIDE], vec![0.25f32; SIDE * SIDE]);
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let began = Instant::now();
        let c = vjepa_runtime::plan::square_product(&a, &b, SIDE);
        best = best.min(began.elapsed().as_secs_f64());
        std::hint::black_box(c);
    }
    2.0 * (SIDE as f64).powi(3) / best
}

/// FLOP/s of matrix products on a device, through its plan, in a precision.
///
/// # Errors
/// [`BenchError`] when the device fails.
pub(super) fn device_peak(device: Device, precision: Precision) -> Result<f64, BenchError> {
    let (side, products) = if device.is_cpu() { (SIDE, 1) } else { (DEVICE_SIDE, PRODUCTS) };
    let graph = chain(side, products).map_err(vjepa_programs::CompileError::from)?;
    let mut executor = device.plan(&precision.apply(graph)?)?;
    let mut params = device.params();
    // Noise of this size keeps its size through a product; products of equal numbers run faster than they should.
    let scale = (side as f32).sqrt().recip();
    for name in ["a", "b"] {
        let data = noise(side * side).into_iter().map(|value| value * scale).collect();
        params.set(name, HostTensor::F32 { shape: vec![side, side], data });
    }
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let began = Instant::now();
        executor.run(&mut params, Vec::new())?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(products as f64 * 2.0 * (side as f64).powi(3) / best)
}

/// `a·b·b·...`, of which only the mean is read.
fn chain(side: usize, products: usize) -> Result<Graph, GraphError> {
    let mut graph = Graph::new("products", &[]);
    let ty = TensorType::f32([side, side].map(Dim::from));
    let mut y = graph.param("a", ty.clone())?;
    let b = graph.param("b", ty)?;
    for _ in 0..products {
        y = graph.matmul(y, b, false, false)?;
    }
    let mean = graph.mean(y, &[0, 1])?;
    let mean = graph.reshape(mean, &[])?;
    graph.output("mean", mean);
    Ok(graph)
}
