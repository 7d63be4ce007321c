//! PyTorch checkpoints, as `torch.save` writes them.
//!
//! The pickle is interpreted by burn-store, which builds tensors and plain values only and runs nothing. Tensors stay in
//! the file until they are asked for. Their strides are not looked at: official checkpoints hold contiguous tensors.

use std::collections::BTreeMap;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::DType;
use burn_store::pytorch::PytorchReader;

use super::element::Element;
use super::safetensors::bytes_of;
use super::{Entry, MODELS, Place, WeightsError, unwrapped};

/// Reads the index of a file: the tensors of the models in it, without the optimiser's.
pub(super) fn index(path: &Path) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { path: path.to_owned(), why };
    let length = std::fs::metadata(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?.len();
    let reader = guarded(|| PytorchReader::new(path).map_err(|error| error.to_string()));
    let reader = reader.map_err(|why| malformed(reason(path, &why)))?;
    let mut entries = BTreeMap::new();
    for (key, tensor) in reader.into_tensors() {
        let Some(name) = official_name(&key) else { continue };
        let element = match tensor.dtype {
            DType::F32 => Element::F32,
            DType::F16 => Element::F16,
            DType::BF16 => Element::Bf16,
            DType::F64 => Element::F64,
            other => {
                let found = format!("{other:?}");
                return Err(WeightsError::Type { path: path.to_owned(), name, found });
            }
        };
        let shape: Vec<usize> = tensor.shape.iter().copied().collect();
        // Storages are not compressed, so a tensor larger than the file is not in it.
        if bytes_of(&shape, element).is_none_or(|bytes| bytes > length) {
            return Err(malformed(format!("it is too short to hold `{name}` of shape {shape:?}")));
        }
        if entries.insert(name.clone(), Entry { shape, element, place: Place::Pickled(tensor) }).is_some() {
            return Err(malformed(format!("two of its keys mean `{name}`")));
        }
    }
    if entries.is_empty() {
        return Err(malformed(format!("none of its keys is {}", MODELS.join(", "))));
    }
    Ok(entries)
}

/// Why a file cannot be read: a zip archive that has lost its end is no archive to the reader, which then tries other
/// formats and complains of those.
fn reason(path: &Path, why: &str) -> String {
    let mut head = [0; 4];
    let zip =
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *b"PK\x03\x04";
    if zip && why.starts_with("Pickle") {
        return "its archive has no end, it is cut off".to_owned();
    }
    why.trim_end_matches('.').to_owned()
}

/// The bytes of one tensor.
pub(super) fn bytes(tensor: &burn_store::burn_pack::Tensor) -> Result<Vec<u8>, String> {
    guarded(|| tensor.to_bytes().map(|bytes| bytes.to_vec()).map_err(|error| error.to_string()))
}

/// `encoder.module.backbone.blocks.0.norm1.weight` is `encoder.blocks.0.norm1.weight`; none for what belongs to no model.
fn official_name(key: &str) -> Option<String> {
    let name = unwrapped(key);
    name.split_once('.').is_some_and(|(model, _)| MODELS.contains(&model)).then_some(name)
}

/// Runs the reader on a foreign file: its panics become errors.
fn guarded<R>(read: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    let panicked = |_| Err("its contents make no sense".to_owned());
    vjepa_runtime::without_panic_message(|| catch_unwind(AssertUnwindSafe(read))).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests {
    use super::official_name;

    #[test]
    fn wrappers_are_stripped_anywhere() {
        let name = |key| official_name(key).unwrap_or_default();
        assert_eq!(name("encoder.module.backbone.blocks.0.attn.qkv.weight"), "encoder.blocks.0.attn.qkv.weight");
        assert_eq!(name("target_encoder.backbone.norm.bias"), "target_encoder.norm.bias");
        assert_eq!(name("predictor.module.mask_tokens.1"), "predictor.mask_tokens.1");
        assert_eq!(official_name("opt.state.0.exp_avg"), None);
        assert_eq!(official_name("encoder"), None);
    }
}
