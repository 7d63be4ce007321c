//! Recorded data of the official code: the folders in `tests/golden`, and the full ones beside the checkout where they are
//! there. Names and shapes come from a folder's `config.json`, so other sizes of the same layout are checked, too.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vjepa_recipe::config::{Generation, ModelConfig};
use vjepa_weights::{self as weights, Element};

/// The folders of this name.
pub fn folders(name: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden").join(name);
    assert!(carried.is_dir(), "{} is part of the repository", carried.display());
    let full = root.join("../shared/golden").join(name);
    [carried, full].into_iter().filter(|folder| folder.is_dir()).collect()
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Names and shapes of a JSON object of lists.
pub fn shapes(object: &Value) -> BTreeMap<String, Vec<usize>> {
    let sizes = |shape: &Value| shape.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
    object.as_object().unwrap().iter().map(|(name, shape)| (name.clone(), sizes(shape))).collect()
}

type Stored = BTreeMap<String, (Vec<usize>, Element, Vec<u8>)>;

/// Every tensor as it is stored.
pub fn stored(path: &Path) -> Stored {
    let weights = weights::load(path).unwrap();
    let tensor =
        |name: &str| weights.bytes(name).map(|(shape, element, bytes)| (shape.to_vec(), element, bytes)).unwrap();
    weights.tensors().map(|(name, ..)| (name.to_owned(), tensor(name))).collect()
}

/// What a configuration says of a model that no released size fits.
pub fn model(generation: Generation, sizes: [u64; 3], heads: u64) -> ModelConfig {
    let [embed_dim, depth, num_heads] = sizes.map(|size| Some(size as usize));
    ModelConfig { generation, embed_dim, depth, num_heads, pred_num_heads: Some(heads as usize), ..with_predictor() }
}

fn with_predictor() -> ModelConfig {
    ModelConfig { pred_embed_dim: Some(24), pred_depth: Some(2), ..ModelConfig::default() }
}
