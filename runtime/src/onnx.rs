//! What a session needs to know of an ONNX file before a runtime gets it: inputs, outputs, metadata, and that its
//! tensors and external data are what they say.
//!
//! The file is foreign: nothing here may panic, and no size in it is believed. Runtimes allocate what tensors declare and
//! open the files that external data names, so both are checked first.

mod check;
mod grow;
mod int8;
mod message;

pub use int8::INT8_RANGE_KEY;

use prost::Message;
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::FileKind;

/// Bytes by which a file of another kind is known.
const HEAD: usize = 256;
/// Largest model file: what protobuf readers accept.
const LARGEST_FILE: u64 = i32::MAX as u64;

/// A dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Always this size.
    Size(usize),
    /// Chosen at each run, under this name (empty when the model gives none).
    Symbol(String),
}

impl Dimension {
    /// The size, where it is always the same.
    pub fn size(&self) -> Option<usize> {
        match self {
            Self::Size(size) => Some(*size),
            Self::Symbol(_) => None,
        }
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<Dimension>,
    /// True for 32-bit floats, the only element type clips and results have here.
    pub is_f32: bool,
}

impl TensorInfo {
    /// Whether a tensor of this shape is one: sizes where they are fixed, anything above 0 where they are not.
    pub fn accepts(&self, shape: &[usize]) -> bool {
        let fits = |(dim, size): (&Dimension, &usize)| dim.size().map_or(*size > 0, |wanted| wanted == *size);
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }

    /// Whether the first size, the batch, is chosen at each run.
    pub fn has_free_batch(&self) -> bool {
        matches!(self.shape.first(), Some(Dimension::Symbol(_)))
    }

    /// The sizes behind the batch, where all are fixed.
    pub fn row(&self) -> Option<Vec<usize>> {
        self.shape.get(1..)?.iter().map(Dimension::size).collect()
    }

    /// Its shape for a batch as TensorRT's tools write it, `clip:8x3x16x224x224`, where the rest is fixed.
    pub fn with_batch(&self, batch: usize) -> Option<String> {
        let rest: String = self.row()?.iter().map(|size| format!("x{size}")).collect();
        Some(format!("{}:{batch}{rest}", self.name))
    }
}

impl fmt::Display for TensorInfo {
    /// `clip f32[batch, 3, 16, 224, 224]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self
            .shape
            .iter()
            .map(|dim| match dim {
                Dimension::Size(size) => size.to_string(),
                Dimension::Symbol(name) if name.is_empty() => "?".to_owned(),
                Dimension::Symbol(name) => name.clone(),
            })
            .collect();
        write!(f, "{} {}[{}]", self.name, if self.is_f32 { "f32" } else { "other" }, dims.join(", "))
    }
}

/// A model file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("cannot read the model {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than an ONNX file can be.
    #[error("the model {} has {bytes} bytes; ONNX files over 2 GB keep their weights in a file beside them", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is something else, by its first bytes.
    #[error("{} is {kind}, not a model; {}", path.display(), instead_of(*kind))]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// The file is not an ONNX model, or a damaged one.
    #[error("{} is not a valid ONNX model: {reason}; export it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Its external data is missing or not to be trusted.
    #[error("the external data of {} is refused: {reason}", path.display())]
    ExternalData {
        /// The model.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A model file, read and checked.
#[derive(Debug)]
pub struct OnnxFile {
    /// Where it is; where a link to it leads when its weights lie there.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Bytes,
    /// Inputs that must be fed.
    pub inputs: Vec<TensorInfo>,
    /// Outputs.
    pub outputs: Vec<TensorInfo>,
    /// `metadata_props`.
    pub metadata: BTreeMap<String, String>,
    /// Files in its folder that hold weights, sorted.
    pub external: Vec<String>,
}

impl OnnxFile {
    /// Reads and checks a model.
    ///
    /// # Errors
    /// [`OnnxError`].
    pub fn read(path: &Path) -> Result<Self, OnnxError> {
        let read = |source| OnnxError::Read { path: path.to_owned(), source };
        let about = std::fs::metadata(path).map_err(read)?;
        if !about.is_file() {
            return Err(read(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a file")));
        }
        if about.len() > LARGEST_FILE {
            return Err(OnnxError::TooLarge { path: path.to_owned(), bytes: about.len() });
        }
        Self::parse(path, contents(path, about.len()).map_err(read)?)
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self, OnnxError> {
        let malformed = |reason: String| OnnxError::Malformed { path: path.to_owned(), reason };
        let mut model = message::Model::decode(bytes.clone()).map_err(|error| match kind_of(&bytes) {
            Some(kind) => OnnxError::Foreign { path: path.to_owned(), kind },
            None => malformed(error.to_string()),
        })?;
        let functions = std::mem::take(&mut model.functions).into_iter().map(message::Function::into_graph);
        let functions: Vec<message::Graph> = functions.collect();
        let graph = model.graph.as_ref().ok_or_else(|| malformed("it has no graph".to_owned()))?;
        let graphs = || functions.iter().chain([graph]);
        for graph in graphs() {
            check::tensors(graph, bytes.len() as u64).map_err(malformed)?;
            grow::constants(graph).map_err(malformed)?;
        }
        let (path, external) =
            external_data(path, graphs).map_err(|reason| OnnxError::ExternalData { path: path.to_owned(), reason })?;
        let constants: std::collections::BTreeSet<&str> =
            graph.initializers.iter().map(|tensor| tensor.name.as_str()).collect();
        let fed = graph.inputs.iter().filter(|input| !constants.contains(input.name.as_str()));
        let inputs = fed.map(tensor_info).collect::<Result<_, _>>().map_err(malformed)?;
        let outputs = graph.outputs.iter().map(tensor_info).collect::<Result<_, _>>().map_err(malformed)?;
        let metadata = model.metadata.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        Ok(Self { path, inputs, outputs, metadata, bytes, external })
    }
}

/// What a file is that is no model.
fn kind_of(bytes: &[u8]) -> Option<FileKind> {
    FileKind::of(bytes.get(..bytes.len().min(HEAD))?).filter(|kind| *kind != FileKind::Onnx)
}

/// What to do where a file of this kind was given in place of a model.
fn instead_of(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Checkpoint => {
            "export it with `vjepa compile --export onnx` or `--export plan`, or run it as it is with `vjepa run --runtime plan`"
        }
        FileKind::Video | FileKind::Picture(_) => "give the model first, then the videos",
        FileKind::Onnx | FileKind::Other(_) | FileKind::Text => "give one that `vjepa compile --export onnx` wrote",
    }
}

/// The files that hold weights, and the place of the model from which they are found: its own, or the target's of a link
/// whose target lies beside them (`current.onnx -> v3/model.onnx`).
fn external_data<'g, G: Iterator<Item = &'g message::Graph>>(
    path: &Path,
    graphs: impl Fn() -> G,
) -> Result<(PathBuf, Vec<String>), String> {
    let found = |place: PathBuf| {
        let mut files = std::collections::BTreeSet::new();
        for graph in graphs() {
            files.extend(check::external_data(graph, &place)?);
        }
        Ok((place, files.into_iter().collect()))
    };
    found(path.to_owned()).or_else(|reason| match path.canonicalize() {
        Ok(target) if path.is_symlink() => found(target).map_err(|_| reason),
        _ => Err(reason),
    })
}

/// The bytes of a file of that length, in pages of their own: given up, they are the system's again at once, before a
/// runtime reads the file a second time. An allocator would keep them for later.
fn contents(path: &Path, length: u64) -> std::io::Result<Bytes> {
    let mut file = std::fs::File::open(path)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length == 0 {
        return Ok(Bytes::new());
    }
    let mut pages = memmap2::MmapMut::map_anon(length)?;
    file.read_exact(&mut pages)?;
    Ok(Bytes::from_owner(pages))
}

fn tensor_info(value: &message::ValueInfo) -> Result<TensorInfo, String> {
    let tensor = value.ty.as_ref().and_then(|ty| ty.tensor.as_ref());
    let tensor = tensor.ok_or_else(|| format!("`{}` is not a tensor", value.name))?;
    let dims = tensor.shape.as_ref().map(|shape| shape.dims.as_slice()).unwrap_or_default();
    let shape = dims
        .iter()
        .map(|dim| match dim.size {
            Some(size) => usize::try_from(size)
                .ok()
                .filter(|size| *size <= 1 << 31)
                .map(Dimension::Size)
                .ok_or_else(|| format!("`{}` has a dimension of {size}", value.name)),
            None => Ok(Dimension::Symbol(dim.symbol.clone().unwrap_or_default())),
        })
        .collect::<Result<_, _>>()?;
    Ok(TensorInfo { name: value.name.clone(), shape, is_f32: tensor.element == message::FLOAT })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_kind_are_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let header = [&36u64.to_le_bytes()[..], br#"{"a":{"dtype":"F32","shape":[]}}    "#].concat();
        for (bytes, words) in [
            (
                &header[..],
                "is a checkpoint, not a model; export it with `vjepa compile --export onnx` or `--export plan`",
            ),
            (b"\0\0\0\x20ftypisom", "is a video, not a model; give the model first, then the videos"),
            (b"\x89PNG\r\n\x1a\n", "is a PNG picture, not a model"),
            (b"PK\x03\x04\x00\x00", "vjepa compile --export onnx"),
            (&[0x80, 2, 0x8a, 10, 0x6c], "vjepa run --runtime plan"),
            (b"name: tiny\nlayers: 3\n", "a text file"),
            (&[0xff; 40], "is not a valid ONNX model"),
        ] {
            let path = folder.path().join("model");
            std::fs::write(&path, bytes).unwrap();
            let message = OnnxFile::read(&path).err().unwrap().to_string();
            assert!(message.contains(words), "{words}: {message}");
        }
    }
}
