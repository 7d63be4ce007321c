//! What tests over several ranks share: how they are started, and how two runs are compared.

use std::path::Path;
use std::process::Command;

use super::losses;
use vjepa_graphs::NamedTensors;
use vjepa_train::Checkpoint;

/// `mpirun -n RANKS vjepa`, on however few cores there are.
pub fn on_ranks(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    // Containers run as root, and CI has two cores.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.env("RAYON_NUM_THREADS", "1");
    command.args(["--oversubscribe", "-n", &ranks.to_string(), env!("CARGO_BIN_EXE_vjepa")]);
    command
}

/// A checkpoint's tensors.
pub fn tensors(folder: &Path) -> NamedTensors {
    Checkpoint::new(folder, "jepa").load().unwrap().0
}

/// What a tensor's values are compared by: the biases of queries and values without those of keys between them.
///
/// A bias of the keys adds the same to all scores of a query, which softmax takes out again: its gradient is zero, and what is
/// computed of it is rounding, which AdamW divides by its own size. So it differs between any two orders of summation.
fn defined(name: &str, values: &[f32]) -> Vec<f32> {
    if !name.ends_with("qkv.bias") {
        return values.to_vec();
    }
    let third = values.len() / 3;
    [&values[..third], &values[2 * third..]].concat()
}

/// The largest relative distance of losses, and of weights and moments, between two runs.
pub fn apart(a: &Path, b: &Path) -> (f64, f64) {
    apart_but(a, b, &[])
}

/// As [`apart`], some tensors left out.
pub fn apart_but(a: &Path, b: &Path, left_out: &[&str]) -> (f64, f64) {
    let (x, y) = (losses(a), losses(b));
    assert_eq!(x.len(), y.len());
    let loss = x.iter().zip(&y).map(|(x, y)| (x - y).abs() / y.abs()).fold(0.0, f64::max);
    let (x, y) = (tensors(a), tensors(b));
    assert_eq!(x.keys().collect::<Vec<_>>(), y.keys().collect::<Vec<_>>());
    let distance = |name: &String| {
        let [x, y] = [&x, &y].map(|tensors| defined(name, &tensors[name].1));
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let norm = square(&mut y.iter().map(|v| f64::from(*v)));
        square(&mut x.iter().zip(&y).map(|(x, y)| f64::from(x - y))) / norm.max(1e-12)
    };
    let weights = x.keys().filter(|name| !left_out.contains(&name.as_str())).map(distance).fold(0.0, f64::max);
    (loss, weights)
}
