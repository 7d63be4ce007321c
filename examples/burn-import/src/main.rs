//! A model that is in the binary, code and weights: runs the bundle's parity clips on Burn's CPU back end and compares
//! with the results stored beside them. No ONNX file, runtime or library is read when it runs.

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use std::error::Error;

mod model {
    #![allow(dead_code, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/model/model.rs"));
}

/// Clips and what the training program computes for them.
const PARITY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/parity.safetensors"));
/// Largest difference of two values, as for every other runtime.
const TOLERANCE: f32 = 1e-4;

/// Shape and values of a stored f32 tensor.
fn stored(tensors: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<f32>), Box<dyn Error>> {
    let view = tensors.tensor(name)?;
    if view.dtype() != Dtype::F32 {
        return Err(format!("`{name}` is {:?}, not f32", view.dtype()).into());
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok((view.shape().to_vec(), words.iter().map(|word| f32::from_le_bytes(*word)).collect()))
}

fn run() -> Result<(), Box<dyn Error>> {
    let tensors = SafeTensors::deserialize(PARITY)?;
    let (shape, clips) = stored(&tensors, "clip")?;
    // Logits of a model with a probe, tokens of an encoder.
    let named = tensors.names().into_iter().find_map(|name| Some((name, name.strip_prefix("expected.")?)));
    let (name, output) = named.ok_or("the bundle has no expected result")?;
    let (expected_shape, expected) = stored(&tensors, name)?;

    let device = Device::flex();
    let model = model::Model::from_embedded(&device);
    let clips = Tensor::<5>::from_data(TensorData::new(clips, shape.clone()), &device);
    let result = model.forward(clips);
    let found_shape = result.dims().to_vec();
    let found = result.into_data().try_into_vec_as::<f32>().map_err(|error| format!("{error:?}"))?;

    if found_shape != expected_shape {
        return Err(format!("{output} is {found_shape:?}, but {expected_shape:?} was expected").into());
    }
    let pairs = expected.iter().zip(&found);
    let worst =
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |worst: f32, x| if x > worst || x.is_nan() { x } else { worst });
    println!(
        "clips {shape:?}, {output} {found_shape:?}: at most {worst:.1e} from what was stored, {TOLERANCE:.0e} allowed"
    );
    // Not `worst > TOLERANCE`: that a NaN is not.
    if worst <= TOLERANCE { Ok(()) } else { Err("the compiled model gives other numbers".into()) }
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
