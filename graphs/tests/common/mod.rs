//! Golden data: reading, comparing, and models made of it.
//!
//! The data come from the official code (facebookresearch/jepa @ 51c59d5, f32 on a CPU). To stay small, `tests/golden`
//! holds a part of the full set: of `rect`, the predictor and the first sample of its inputs and outputs; of `probe`, the
//! pixels of the first view; of `tiny`, sampled gradients (256 values, norm, sum and largest of each large tensor).

// Each test file uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use vjepa_graphs::{Encoder, EncoderConfig, MaskPair, NamedTensors, Predictor, PredictorConfig, load_parameters};
use vjepa_recipe::config::Positions;

/// A file of the golden set. `VJEPA_GOLDEN` names a full set; without it, the part of it in the repository is used.
pub fn path(name: &str) -> PathBuf {
    let root = std::env::var_os("VJEPA_GOLDEN").map(PathBuf::from);
    root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")).join(name)
}

pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

/// All tensors of a file, as f32.
pub fn read(name: &str) -> NamedTensors {
    let bytes = std::fs::read(path(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let data = view.data();
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::F16 => {
                    data.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
                }
                Dtype::I32 => data.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
                Dtype::U8 => data.iter().map(|&b| f32::from(b)).collect(),
                other => panic!("{name} is {other:?}"),
            };
            (name, (view.shape().to_vec(), values))
        })
        .collect()
}

/// The tensors whose names start with a prefix, without it.
pub fn part(tensors: &NamedTensors, prefix: &str) -> NamedTensors {
    tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone()))).collect()
}

pub fn shapes(tensors: &NamedTensors) -> BTreeMap<String, Vec<usize>> {
    tensors.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect()
}

pub fn tensor<const D: usize>(tensors: &NamedTensors, name: &str, device: &Device) -> Tensor<D> {
    let (shape, values) = &tensors[name];
    Tensor::from_data(TensorData::new(values.clone(), shape.clone()), device)
}

pub fn index(tensors: &NamedTensors, name: &str, device: &Device) -> Tensor<2, Int> {
    let (shape, values) = &tensors[name];
    let values: Vec<i32> = values.iter().map(|&v| v as i32).collect();
    Tensor::from_data(TensorData::new(values, shape.clone()), device)
}

/// Pixels `[..., C, T, H, W]` normalised as the official pipeline does.
pub fn normalise(shape: &[usize], pixels: &[f32]) -> Vec<f32> {
    const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    const STD: [f32; 3] = [0.229, 0.224, 0.225];
    let plane: usize = shape[shape.len() - 3..].iter().product();
    let at = |i: usize| (i / plane) % 3;
    pixels.iter().enumerate().map(|(i, &v)| (v - 255.0 * MEAN[at(i)]) / (255.0 * STD[at(i)])).collect()
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as::<f32>().unwrap()
}

pub fn rel_l2(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let (mut difference, mut norm) = (0f64, 0f64);
    for (&g, &e) in got.iter().zip(expected) {
        difference += f64::from(g - e).powi(2);
        norm += f64::from(e).powi(2);
    }
    (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
}

pub fn max_abs(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).map(|(&g, &e)| f64::from((g - e).abs())).fold(0.0, f64::max)
}

/// Worst deviation of a group of comparisons, printed at the end.
pub struct Worst {
    group: &'static str,
    rel: f64,
    name: String,
}

impl Worst {
    pub fn new(group: &'static str) -> Self {
        Self { group, rel: 0.0, name: String::new() }
    }

    /// Forward activations: rel-L2 at most 1e-5, largest difference at most 1e-4.
    pub fn forward(&mut self, name: &str, got: &[f32], expected: &[f32]) {
        self.note(name, rel_l2(got, expected), 1e-5);
        let max = max_abs(got, expected);
        assert!(max <= 1e-4, "{name}: max abs {max:e}");
    }

    pub fn note(&mut self, name: &str, rel: f64, tolerance: f64) {
        assert!(rel <= tolerance, "{} {name}: {rel:e} > {tolerance:e}", self.group);
        if rel >= self.rel {
            (self.rel, self.name) = (rel, name.to_owned());
        }
    }
}

impl Drop for Worst {
    fn drop(&mut self) {
        println!("{}: worst {:.2e} ({})", self.group, self.rel, self.name);
    }
}

/// Configurations of `tiny` or `rect`.
pub fn configs(set: &str) -> (EncoderConfig, PredictorConfig) {
    let c = &json(&format!("{set}/config.json"))["config"];
    let n = |key: &str| c[key].as_u64().unwrap() as usize;
    let encoder = EncoderConfig {
        num_frames: n("frames"),
        height: n("img"),
        width: n("img"),
        tubelet: n("tubelet"),
        patch: n("patch"),
        channels: 3,
        embed_dim: n("dim"),
        depth: n("depth"),
        num_heads: n("heads"),
        mlp_ratio: c["mlp_ratio"].as_f64().unwrap(),
        uniform_power: c["uniform_power"].as_bool().unwrap(),
        out_layers: Some(vec![0]),
        positions: Positions::Table,
        levels: Vec::new(),
        image_tubelet: None,
    };
    let predictor = PredictorConfig {
        embed_dim: n("pred_dim"),
        depth: n("pred_depth"),
        num_heads: n("pred_heads"),
        num_mask_tokens: n("num_mask_tokens"),
        ..PredictorConfig::for_encoder(&encoder)
    };
    (encoder, predictor)
}

pub struct Golden {
    pub encoder: Encoder,
    pub predictor: Predictor,
    pub forward: NamedTensors,
    pub weights: NamedTensors,
    pub clip: Tensor<5>,
    pub pairs: Vec<MaskPair>,
}

/// `None` where the set is not complete (the repository holds only a part of `rect`).
pub fn golden(set: &str, device: &Device) -> Option<Golden> {
    if !path(&format!("{set}/weights.safetensors")).exists() {
        return None;
    }
    let (encoder, predictor) = configs(set);
    let weights = read(&format!("{set}/weights.safetensors"));
    let forward = read(&format!("{set}/forward.safetensors"));
    let encoder = load_parameters(Encoder::empty(&encoder, device).unwrap(), part(&weights, "encoder.")).unwrap();
    let predictor =
        load_parameters(Predictor::empty(&predictor, device).unwrap(), part(&weights, "predictor.")).unwrap();
    let (shape, pixels) = &forward["clip_u8"];
    let clip = Tensor::from_data(TensorData::new(normalise(shape, pixels), shape.clone()), device);
    let pairs = [0, 1].map(|i| MaskPair {
        context: index(&forward, &format!("mask_enc.{i}"), device),
        target: index(&forward, &format!("mask_pred.{i}"), device),
        weights: None,
    });
    Some(Golden { encoder, predictor, forward, weights, clip, pairs: pairs.to_vec() })
}
