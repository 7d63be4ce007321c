//! Safetensors files: an index read at once, tensors read when asked for; written through a temporary file.
//!
//! Layout: 8 bytes with the header's length, a JSON header (name to type, shape and byte range, apart from `__metadata__`),
//! then the bytes of all tensors.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use vjepa_runtime::write_atomically;

use super::element::Element;
use super::index::Index;
use super::span::Span;
use super::{Entry, Tensors, WeightsError, names};

/// Longest header that is read; the format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// One entry of the header.
#[derive(Serialize, Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// True when the first bytes look like a header's length and the brace after it.
pub(super) fn looks_like(head: &[u8]) -> bool {
    matches!(head.get(..9).map(|head| head.split_at(8)), Some((length, [b'{']))
        if length.try_into().is_ok_and(|length| u64::from_le_bytes(length) <= LONGEST_HEADER))
}

/// What a file says of itself.
pub(super) fn metadata_of(path: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    Ok(index(path)?.metadata)
}

/// Reads the index of a file.
pub(super) fn index(path: &Path) -> Result<Index, WeightsError> {
    let mut file = File::open(path).map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    index_from(&mut file, path)
}

/// As [`index`], from a file that is open; `path` is for messages.
pub(super) fn index_from<F: Read + Seek>(file: &mut F, path: &Path) -> Result<Index, WeightsError> {
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    let malformed = |why: String| WeightsError::Malformed { path: path.to_owned(), why };
    let length = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.rewind().map_err(read)?;
    let mut word = [0; 8];
    file.read_exact(&mut word).map_err(|_| malformed(format!("it has only {length} bytes")))?;
    let header_length = u64::from_le_bytes(word);
    let Some(data_length) = length.checked_sub(8).and_then(|rest| rest.checked_sub(header_length)) else {
        return Err(malformed("it is cut off in the header".to_owned()));
    };
    if header_length > LONGEST_HEADER {
        return Err(malformed(format!("its header would be {header_length} bytes long")));
    }
    let mut header = vec![0; header_length as usize];
    file.read_exact(&mut header).map_err(read)?;
    let header: Map<String, Value> = serde_json::from_slice(&header)
        .map_err(|error| malformed(format!("its header is not a JSON object ({error})")))?;
    let mut index = Index::default();
    let mut keys = BTreeMap::new();
    let mut end = 0;
    for (key, value) in header {
        if key == "__metadata__" {
            index.metadata = serde_json::from_value(value).map_err(|error| {
                malformed(format!(
                    "its `__metadata__` is not a mapping of texts ({})",
                    names::shortened(&error.to_string())
                ))
            })?;
            continue;
        }
        if names::is_flattened(&key) {
            return Err(malformed(names::FLATTENED.to_owned()));
        }
        let shown = names::shortened(&key);
        let described: Described = serde_json::from_value(value)
            .map_err(|_| malformed(format!("the header's entry `{shown}` lacks its type, shape or offsets")))?;
        // Tensors of no model are kept: clips and features are stored like this too.
        let name = names::official(&key).unwrap_or_else(|| names::unwrapped(&key));
        if let Some(other) = keys.insert(name.clone(), key.clone()) {
            return Err(malformed(names::collision(&other, &key, &name)));
        }
        let [start, stop] = described.data_offsets;
        end = end.max(stop);
        let Some(element) = Element::named(&described.dtype) else {
            index.others.insert(name, names::shortened(&described.dtype));
            continue;
        };
        if stop < start || stop > data_length {
            return Err(malformed(format!("it is cut off: {data_length} of {stop} bytes of tensors are there")));
        }
        let wanted = bytes_of(&described.shape, element.size());
        if stop.checked_sub(start) != wanted {
            let sizes = names::sizes(&described.shape);
            return Err(malformed(format!("the bytes of `{shown}` do not fit its shape {sizes}")));
        }
        let span = Span::plain(8 + header_length + start, stop - start);
        index.entries.insert(name, Entry::whole(described.shape, element, span));
    }
    if end > data_length {
        return Err(malformed(format!("it is cut off: {} of {end} bytes of tensors are there", data_length)));
    }
    if end < data_length {
        return Err(malformed(format!("{} bytes follow the last tensor", data_length - end)));
    }
    Ok(index)
}

/// Bytes a tensor takes; none when that is more than a file can have.
fn bytes_of(shape: &[usize], size: usize) -> Option<u64> {
    shape.iter().try_fold(size as u64, |bytes, size| bytes.checked_mul(*size as u64))
}

/// A tensor that is to be written.
pub(super) struct Written<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    /// Name of its type in the header, and bytes of a number.
    pub dtype: &'static str,
    pub size: usize,
}

impl<'a> Written<'a> {
    /// A weight.
    pub fn of(name: &'a str, shape: &'a [usize], element: Element) -> Self {
        Self { name, shape, dtype: element.name(), size: element.size() }
    }
}

/// Writes tensors to `path`, atomically; `bytes` writes those of the tensor of a number, row-major and little-endian.
///
/// # Errors
/// What the system or `bytes` said; nothing has changed then.
pub(super) fn write(
    path: &Path,
    tensors: &[Written<'_>],
    metadata: &BTreeMap<String, String>,
    mut bytes: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), metadata.iter().map(|(k, v)| (k.clone(), v.as_str())).collect());
    }
    // Wide numbers first, so that each stands at a multiple of its size.
    let mut order: Vec<(usize, &Written<'_>)> = tensors.iter().enumerate().collect();
    order.sort_by_key(|(_, tensor)| (usize::MAX - tensor.size, tensor.name));
    let mut offset = 0u64;
    for (_, Written { name, shape, dtype, size }) in &order {
        let length = bytes_of(shape, *size).and_then(|length| offset.checked_add(length));
        let end = length.ok_or(io::ErrorKind::FileTooLarge)?;
        let entry = Described { dtype: (*dtype).to_owned(), shape: shape.to_vec(), data_offsets: [offset, end] };
        header.insert((*name).to_owned(), serde_json::to_value(entry)?);
        offset = end;
    }
    let mut text = serde_json::to_vec(&header)?;
    // Tensors start at multiples of 8 bytes.
    text.resize(text.len().next_multiple_of(8), b' ');
    write_atomically(path, |out| {
        out.write_all(&(text.len() as u64).to_le_bytes())?;
        out.write_all(&text)?;
        order.iter().try_for_each(|(number, _)| bytes(*number, out))
    })
}

/// Writes tensors as F32 to `path`, atomically: into a temporary file beside it, synced, then renamed. A failure (a full
/// disk, a kill) leaves what was there before. Equal input gives equal bytes.
///
/// # Errors
/// [`WeightsError::Write`] names the file.
pub fn save_safetensors(
    path: &Path,
    tensors: &Tensors,
    metadata: &BTreeMap<String, String>,
) -> Result<(), WeightsError> {
    let fail = |source| WeightsError::Write { path: path.to_owned(), source };
    for (name, (shape, data)) in tensors {
        if shape.iter().product::<usize>() != data.len() {
            let why = format!("`{name}` has {} values for the shape {shape:?}", data.len());
            return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
    }
    let written: Vec<Written<'_>> =
        tensors.iter().map(|(name, (shape, _))| Written::of(name, shape, Element::F32)).collect();
    let data: Vec<&[f32]> = tensors.values().map(|(_, data)| data.as_slice()).collect();
    let mut buffer = Vec::new();
    write(path, &written, metadata, |number, out| {
        for chunk in data.get(number).copied().unwrap_or_default().chunks(1 << 16) {
            buffer.clear();
            buffer.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&buffer)?;
        }
        Ok(())
    })
    .map_err(fail)
}
