//! What tells checkpoints apart.

use std::path::PathBuf;

use vjepa_runtime::files::sha256;
use vjepa_weights::{Weights, WeightsError};

/// SHA-256 of a checkpoint's file in hexadecimal, or those of its files, a folder's or the shards of an index, joined by `+`.
///
/// # Errors
/// [`WeightsError::Read`].
pub fn digest(file: &Weights) -> Result<String, WeightsError> {
    let sum = |path: &PathBuf| sha256(path).map_err(|source| WeightsError::Read { path: path.clone(), source });
    Ok(file.files().iter().map(sum).collect::<Result<Vec<_>, _>>()?.join("+"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_weights::{Tensors, load, save_safetensors};

    #[test]
    fn a_checkpoint_in_two_files_has_two_sums() {
        let folder = tempfile::tempdir().unwrap();
        let mut map = serde_json::Map::new();
        for (number, name) in [(1, "encoder.norm.weight"), (2, "encoder.norm.bias")] {
            let file = format!("model-{number:05}-of-00002.safetensors");
            let tensor = Tensors::from([(name.to_owned(), (vec![1], vec![number as f32]))]);
            save_safetensors(&folder.path().join(&file), &tensor, &Default::default()).unwrap();
            map.insert(name.to_owned(), file.into());
        }
        let index = folder.path().join("model.safetensors.index.json");
        std::fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
        let sums: Vec<String> = digest(&load(&index).unwrap()).unwrap().split('+').map(str::to_owned).collect();
        let one =
            |number| digest(&load(&folder.path().join(format!("model-0000{number}-of-00002.safetensors"))).unwrap());
        assert_eq!(sums, [one(1).unwrap(), one(2).unwrap()]);
        assert!(sums.iter().all(|sum| sum.len() == 64) && sums[0] != sums[1]);
    }
}
