//! What the machine can do at most.

use std::time::Instant;

/// Matrix products this size fit no cache level's best case and no worst case; every BLAS is near its peak on them.
const SIDE: usize = 1536;

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
