//! The model that [`to_onnx`](crate::to_onnx) made, and how it is written: the weights are streamed, one at a time.

use crate::proto::tensor_proto::DataLocation;
use crate::proto::{ModelProto, StringStringEntryProto, TensorProto};
use crate::weights::{Initializer, WriteError};
use crate::{ExportError, ExternalData, WeightSource};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Field numbers of `onnx.proto`.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;

/// External tensors start at multiples of this, so that they can be mapped into memory.
const ALIGNMENT: u64 = 4096;
/// Smaller tensors stay in the model.
const SMALLEST_EXTERNAL: u64 = 1024;
/// What readers of protobuf accept in one message.
const LARGEST_FILE: u64 = i32::MAX as u64;

/// A model ready to be written. It borrows the weights.
pub struct OnnxModel<'w> {
    model: ModelProto,
    initializers: Vec<Initializer>,
    weights: &'w dyn WeightSource,
    external: ExternalData,
}

/// The files of a written model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The model.
    pub model: PathBuf,
    /// Its external data, if any.
    pub data: Option<PathBuf>,
    /// Bytes in all.
    pub bytes: u64,
}

/// Where a tensor's values are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Inline,
    External { offset: u64 },
}

impl<'w> OnnxModel<'w> {
    pub(crate) fn new(
        model: ModelProto,
        initializers: Vec<Initializer>,
        weights: &'w dyn WeightSource,
        external: ExternalData,
    ) -> Self {
        Self { model, initializers, weights, external }
    }

    /// The model without its constants.
    pub fn proto(&self) -> &ModelProto {
        &self.model
    }

    /// Name, shape and size in bytes of every constant.
    pub fn constants(&self) -> impl Iterator<Item = (&str, &[usize], u64)> {
        self.initializers.iter().map(|tensor| (tensor.name.as_str(), tensor.dims.as_slice(), tensor.bytes()))
    }

    /// Size of all constants in bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.initializers.iter().map(Initializer::bytes).sum()
    }

    /// The model as one file in memory.
    ///
    /// # Errors
    /// [`ExportError::TooLarge`] over 2 GB; weights that cannot be read.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ExportError> {
        let places = vec![Place::Inline; self.initializers.len()];
        let mut bytes = Vec::new();
        self.write_model(&places, "", &mut bytes).map_err(|error| match error {
            WriteError::Export(error) => error,
            WriteError::Io(source) => ExportError::Write { path: PathBuf::new(), source },
        })?;
        Ok(bytes)
    }

    /// Writes the model to `path`, and its external data, if it has any, to `path` with `.data` appended.
    ///
    /// Both are written beside their place and renamed, data first: a failed export leaves what was there. Equal graphs,
    /// weights and options give equal bytes.
    ///
    /// # Errors
    /// [`ExportError::Write`] names the file; [`ExportError::TooLarge`]; weights that cannot be read.
    pub fn write(&self, path: &Path) -> Result<Written, ExportError> {
        let invalid = || ExportError::Write { path: path.to_owned(), source: io::ErrorKind::InvalidFilename.into() };
        let file_name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
        let data_name = format!("{file_name}.data");
        let places = self.places();
        let mut written = Written { model: path.to_owned(), data: None, bytes: 0 };
        if places.iter().any(|place| *place != Place::Inline) {
            let data_path = path.with_file_name(&data_name);
            written.bytes += atomically(&data_path, |out| self.write_data(&places, out))?;
            written.data = Some(data_path);
        }
        written.bytes += atomically(path, |out| self.write_model(&places, &data_name, out))?;
        Ok(written)
    }

    fn places(&self) -> Vec<Place> {
        let external = match self.external {
            ExternalData::Never => false,
            ExternalData::Always => true,
            // Room for the nodes and the tensors' headers.
            ExternalData::Auto => self.weight_bytes() > LARGEST_FILE - (64 << 20),
        };
        let mut end = 0u64;
        let place = |tensor: &Initializer| {
            if !external || tensor.bytes() < SMALLEST_EXTERNAL {
                return Place::Inline;
            }
            let offset = end.next_multiple_of(ALIGNMENT);
            end = offset + tensor.bytes();
            Place::External { offset }
        };
        self.initializers.iter().map(place).collect()
    }

    fn write_data(&self, places: &[Place], out: &mut dyn Write) -> Result<u64, WriteError> {
        let mut end = 0;
        for (tensor, place) in self.initializers.iter().zip(places) {
            if let Place::External { offset } = place {
                io::copy(&mut io::Read::take(io::repeat(0), offset - end), out)?;
                tensor.write(self.weights, out)?;
                end = offset + tensor.bytes();
            }
        }
        Ok(end)
    }

    /// The message `ModelProto`, put together by hand so that only one weight is in memory at a time.
    fn write_model(&self, places: &[Place], data_name: &str, out: &mut dyn Write) -> Result<u64, WriteError> {
        let mut model = self.model.clone();
        let graph = model.graph.take().unwrap_or_default();
        let headers: Vec<TensorProto> =
            self.initializers.iter().zip(places).map(|(tensor, place)| header(tensor, *place, data_name)).collect();
        let raw = |tensor: &Initializer, place: &Place| match place {
            Place::Inline => length_of(TENSOR_RAW_DATA, tensor.bytes()),
            Place::External { .. } => 0,
        };
        let sizes: Vec<u64> = self
            .initializers
            .iter()
            .zip(places)
            .zip(&headers)
            .map(|((tensor, place), header)| header.encoded_len() as u64 + raw(tensor, place))
            .collect();
        let constants: u64 = sizes.iter().map(|size| length_of(GRAPH_INITIALIZER, *size)).sum();
        let graph_size = graph.encoded_len() as u64 + constants;
        let bytes = model.encoded_len() as u64 + length_of(MODEL_GRAPH, graph_size);
        if bytes > LARGEST_FILE {
            return Err(ExportError::TooLarge { bytes }.into());
        }
        out.write_all(&model.encode_to_vec())?;
        start(MODEL_GRAPH, graph_size, out)?;
        out.write_all(&graph.encode_to_vec())?;
        for (((tensor, place), header), size) in self.initializers.iter().zip(places).zip(&headers).zip(sizes) {
            start(GRAPH_INITIALIZER, size, out)?;
            out.write_all(&header.encode_to_vec())?;
            if *place == Place::Inline {
                start(TENSOR_RAW_DATA, tensor.bytes(), out)?;
                tensor.write(self.weights, out)?;
            }
        }
        Ok(bytes)
    }
}

/// The tensor without its values.
fn header(tensor: &Initializer, place: Place, data_name: &str) -> TensorProto {
    let mut proto = TensorProto {
        name: Some(tensor.name.clone()),
        data_type: Some(tensor.data_type as i32),
        dims: tensor.dims.iter().map(|size| *size as i64).collect(),
        ..TensorProto::default()
    };
    if let Place::External { offset } = place {
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
        proto.data_location = Some(DataLocation::External as i32);
        proto.external_data = vec![
            entry("location", data_name.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", tensor.bytes().to_string()),
        ];
    }
    proto
}

/// Bytes of a length-delimited field that holds `size` bytes.
fn length_of(field: u32, size: u64) -> u64 {
    key_len(field) as u64 + encoded_len_varint(size) as u64 + size
}

/// Writes the start of such a field.
fn start(field: u32, size: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(16);
    encode_key(field, WireType::LengthDelimited, &mut bytes);
    encode_varint(size, &mut bytes);
    out.write_all(&bytes)
}

/// Writes a file beside `path` and renames it.
fn atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<u64, WriteError>) -> Result<u64, ExportError> {
    let fail = |source: io::Error| ExportError::Write { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any newly written file: readable by others, subject to the umask.
        temporary.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = temporary.prefix(".vjepa-export-").tempfile_in(folder).map_err(fail)?;
    let mut out = BufWriter::new(file);
    let bytes = write(&mut out).map_err(|error| match error {
        WriteError::Io(source) => fail(source),
        WriteError::Export(error) => error,
    })?;
    let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(bytes)
}
