//! The readers as plain functions of bytes, for fuzzing: what they return or refuse does not matter, only that they do.
//!
//! Each reads everything that a file of these bytes holds, as [`crate::load`] and [`crate::Weights::all`] would.

use std::io::{Cursor, Read, Seek};
use std::path::Path;

use super::index::Index;
use super::rows::RowsFile;
use super::{WeightsError, hugging_face, pytorch, safetensors, shards};

/// What messages call the bytes.
const NAME: &str = "input";

/// A PyTorch file, in either format; gives the number of its tensors.
///
/// # Errors
/// [`WeightsError`].
pub fn pytorch(bytes: &[u8]) -> Result<usize, WeightsError> {
    let mut file = Cursor::new(bytes);
    let index = pytorch::index_from(&mut file, Path::new(NAME))?;
    let moments = pytorch::training_from(&mut file, Path::new(NAME), &index.entries)?.map(|(_, moments)| moments);
    everything(&mut file, &index)?;
    everything(&mut file, &Index { entries: moments.unwrap_or_default(), ..Index::default() })
}

/// A safetensors file; gives the number of its tensors.
///
/// # Errors
/// [`WeightsError`].
pub fn safetensors(bytes: &[u8]) -> Result<usize, WeightsError> {
    let mut file = Cursor::new(bytes);
    let mut index = safetensors::index_from(&mut file, Path::new(NAME))?;
    let malformed = |why: String| WeightsError::Malformed { path: NAME.into(), why };
    hugging_face::translate(&mut index).map_err(malformed)?;
    everything(&mut file, &index)
}

/// The index of several files; gives the number of its tensors.
///
/// # Errors
/// [`WeightsError`].
pub fn index(bytes: &[u8]) -> Result<usize, WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { path: NAME.into(), why };
    let text = std::str::from_utf8(bytes).map_err(|error| malformed(error.to_string()))?;
    shards::parse(text).map(|written| written.weight_map.len()).map_err(malformed)
}

/// A table of features as a Parquet file; gives the number of its rows.
///
/// # Errors
/// [`WeightsError`].
pub fn parquet(bytes: &[u8]) -> Result<usize, WeightsError> {
    let malformed = |why: String| WeightsError::Malformed { path: NAME.into(), why };
    RowsFile::parquet_from(Cursor::new(bytes), None).map(|table| table.places.len()).map_err(malformed)
}

fn everything<F: Read + Seek>(file: &mut F, index: &Index) -> Result<usize, WeightsError> {
    for entry in index.entries.values() {
        for span in &entry.spans {
            let bytes = span.read_from(file, &entry.part_shape(), entry.element);
            let bytes = bytes.map_err(|source| WeightsError::Read { path: NAME.into(), source })?;
            drop(entry.element.decode(&bytes));
        }
    }
    Ok(index.entries.len())
}
