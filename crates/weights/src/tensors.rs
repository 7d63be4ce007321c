//! Any safetensors file, mapped into memory and read tensor by tensor in the type asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

/// Why a tensor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not in the safetensors format.
    #[error("{} is not a safetensors file: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        why: String,
    },
    /// No tensor of that name.
    #[error("{} holds no tensor `{name}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor asked for.
        name: String,
    },
    /// The tensor's type does not convert to the one asked for.
    #[error("tensor `{name}` of {} is {dtype:?}, which does not read as {wanted}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
        /// The type asked for.
        wanted: &'static str,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// A safetensors file, mapped into memory: only the tensors that are asked for are read from disk.
///
/// The file must not be shortened or written in place while it is open: the system ends a process that reads past the end
/// of a shortened file (SIGBUS). vjepa itself replaces files whole ([`vjepa_runtime::write_atomically`]), which leaves an
/// open one as it was.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    data: Contents,
    entries: BTreeMap<String, Entry>,
}

/// The bytes of a file.
#[derive(Debug)]
enum Contents {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Contents {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Maps a file.
fn map(path: &Path) -> std::io::Result<Contents> {
    // Opening a pipe would wait for a writer, and a device may never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        // There is nothing to map.
        return Ok(Contents::Owned(Vec::new()));
    }
    // SAFETY: the map is private to this process and read only. Its bytes stay as they are as long as nobody shortens the
    // file or writes to it in place, which [`TensorFile`] forbids; files that are replaced by a rename
    // are not affected.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(Contents::Mapped(map))
}

impl TensorFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`TensorFileError::Read`] and [`TensorFileError::Format`], both naming the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TensorFileError> {
        let path = path.as_ref().to_path_buf();
        match map(&path) {
            Ok(data) => Self::parse(path, data),
            Err(source) => Err(TensorFileError::Read { path, source }),
        }
    }

    /// Parses a file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// [`TensorFileError::Format`].
    pub fn from_bytes(path: PathBuf, data: Vec<u8>) -> Result<Self, TensorFileError> {
        Self::parse(path, Contents::Owned(data))
    }

    fn parse(path: PathBuf, data: Contents) -> Result<Self, TensorFileError> {
        let bytes = data.bytes();
        let file = match SafeTensors::deserialize(bytes) {
            Ok(file) => file,
            Err(error) => return Err(TensorFileError::Format { path, why: error.to_string() }),
        };
        let base = bytes.as_ptr() as usize;
        let entry = |view: safetensors::tensor::TensorView<'_>| {
            let start = view.data().as_ptr() as usize - base;
            Entry { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: start..start + view.data().len() }
        };
        let entries = file.iter().map(|(name, view)| (name.to_owned(), entry(view))).collect();
        Ok(Self { path, data, entries })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`].
    pub fn shape(&self, name: &str) -> Result<&[usize], TensorFileError> {
        Ok(&self.entry(name)?.shape)
    }

    /// Type of a tensor.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`].
    pub fn dtype(&self, name: &str) -> Result<Dtype, TensorFileError> {
        Ok(self.entry(name)?.dtype)
    }

    /// A tensor's values as `f32`, row-major, from any of F32, F16, BF16, F64, U8, I16, I32, I64 and BOOL.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`], [`TensorFileError::Type`].
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, TensorFileError> {
        let bytes = self.bytes(name)?;
        Ok(match self.dtype(name)? {
            Dtype::F32 => words(bytes, f32::from_le_bytes),
            Dtype::F16 => words(bytes, |word| f16::from_le_bytes(word).to_f32()),
            Dtype::BF16 => words(bytes, |word| bf16::from_le_bytes(word).to_f32()),
            Dtype::F64 => words(bytes, |word| f64::from_le_bytes(word) as f32),
            _ => self.integers(name, "f32")?.into_iter().map(|x| x as f32).collect(),
        })
    }

    /// A tensor's values as `f64`, row-major, from the types of [`TensorFile::f32`].
    ///
    /// # Errors
    /// [`TensorFileError::Missing`], [`TensorFileError::Type`].
    pub fn f64(&self, name: &str) -> Result<Vec<f64>, TensorFileError> {
        match self.dtype(name)? {
            Dtype::F64 => Ok(words(self.bytes(name)?, f64::from_le_bytes)),
            Dtype::I32 | Dtype::I64 => Ok(self.integers(name, "f64")?.into_iter().map(|x| x as f64).collect()),
            _ => Ok(self.f32(name)?.into_iter().map(f64::from).collect()),
        }
    }

    /// A tensor's values as `i64`, row-major, from U8, I16, I32, I64 and BOOL.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`], [`TensorFileError::Type`].
    pub fn i64(&self, name: &str) -> Result<Vec<i64>, TensorFileError> {
        self.integers(name, "i64")
    }

    /// The bytes of a U8 tensor.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`], [`TensorFileError::Type`].
    pub fn u8(&self, name: &str) -> Result<&[u8], TensorFileError> {
        match self.dtype(name)? {
            Dtype::U8 => self.bytes(name),
            dtype => Err(self.wrong_type(name, dtype, "u8")),
        }
    }

    /// The raw little-endian bytes of a tensor.
    ///
    /// # Errors
    /// [`TensorFileError::Missing`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], TensorFileError> {
        let entry = self.entry(name)?;
        self.data.bytes().get(entry.bytes.clone()).ok_or_else(|| self.missing(name))
    }

    fn entry(&self, name: &str) -> Result<&Entry, TensorFileError> {
        self.entries.get(name).ok_or_else(|| self.missing(name))
    }

    /// The error for a tensor that is not there.
    pub fn missing(&self, name: &str) -> TensorFileError {
        TensorFileError::Missing { path: self.path.clone(), name: name.into() }
    }

    fn wrong_type(&self, name: &str, dtype: Dtype, wanted: &'static str) -> TensorFileError {
        TensorFileError::Type { path: self.path.clone(), name: name.into(), dtype, wanted }
    }

    fn integers(&self, name: &str, wanted: &'static str) -> Result<Vec<i64>, TensorFileError> {
        let bytes = self.bytes(name)?;
        Ok(match self.dtype(name)? {
            Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&x| x.into()).collect(),
            Dtype::I16 => words(bytes, |word| i16::from_le_bytes(word).into()),
            Dtype::I32 => words(bytes, |word| i32::from_le_bytes(word).into()),
            Dtype::I64 => words(bytes, i64::from_le_bytes),
            dtype => return Err(self.wrong_type(name, dtype, wanted)),
        })
    }
}

fn words<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (words, _) = bytes.as_chunks::<N>();
    words.iter().map(|word| read(*word)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use safetensors::tensor::TensorView;

    use super::*;

    fn serialized(tensors: &[(&str, Dtype, Vec<u8>)]) -> Vec<u8> {
        let views = tensors.iter().map(|(name, dtype, bytes)| {
            (*name, TensorView::new(*dtype, vec![bytes.len() * 8 / dtype.bitsize()], bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    #[test]
    fn every_type_reads() {
        let bytes = serialized(&[
            ("f32", Dtype::F32, [1.5f32, -2.0].map(f32::to_le_bytes).concat()),
            ("f64", Dtype::F64, [1.5f64, -2.0].map(f64::to_le_bytes).concat()),
            ("f16", Dtype::F16, [1.5, -2.0].map(|x| f16::from_f32(x).to_le_bytes()).concat()),
            ("bf16", Dtype::BF16, [1.5, -2.0].map(|x| bf16::from_f32(x).to_le_bytes()).concat()),
            ("i16", Dtype::I16, [1i16, -2].map(i16::to_le_bytes).concat()),
            ("i32", Dtype::I32, [1i32, -2].map(i32::to_le_bytes).concat()),
            ("i64", Dtype::I64, [1i64, -2].map(i64::to_le_bytes).concat()),
            ("u8", Dtype::U8, vec![1, 2]),
            ("bool", Dtype::BOOL, vec![1, 0]),
        ]);
        let file = TensorFile::from_bytes("some.safetensors".into(), bytes).unwrap();
        for name in ["f32", "f64", "f16", "bf16"] {
            assert_eq!(file.f32(name).unwrap(), [1.5, -2.0], "{name}");
            assert_eq!(file.f64(name).unwrap(), [1.5, -2.0], "{name}");
            assert!(file.i64(name).is_err());
        }
        for name in ["i16", "i32", "i64"] {
            assert_eq!(file.i64(name).unwrap(), [1, -2], "{name}");
            assert_eq!(file.f32(name).unwrap(), [1.0, -2.0], "{name}");
        }
        assert_eq!(file.u8("u8").unwrap(), [1, 2]);
        assert_eq!(file.i64("bool").unwrap(), [1, 0]);
        assert_eq!(file.shape("u8").unwrap(), [2]);
        let error = file.f32("nothing").unwrap_err().to_string();
        assert_eq!(error, "some.safetensors holds no tensor `nothing`");
    }

    #[test]
    fn a_mapped_file_stays_as_it_was_when_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        std::fs::write(&path, serialized(&[("x", Dtype::U8, vec![7; 100_000])])).unwrap();
        let file = TensorFile::read(&path).unwrap();
        vjepa_runtime::write_atomically(&path, |out| out.write_all(b"short")).unwrap();
        assert_eq!(file.u8("x").unwrap(), [7; 100_000]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.u8("x").unwrap(), [7; 100_000]);
    }

    #[test]
    fn hostile_bytes_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad");
        for bytes in [vec![], vec![255; 16], b"\x02\0\0\0\0\0\0\0{}garbage".to_vec()] {
            std::fs::write(&path, &bytes).unwrap();
            let mapped = TensorFile::read(&path).unwrap_err().to_string();
            let error = TensorFile::from_bytes(path.clone(), bytes).unwrap_err().to_string();
            assert!(error.contains("bad is not a safetensors file"), "{error}");
            assert_eq!(mapped, error);
        }
        let error = TensorFile::read("no/such/file").unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such/file"), "{error}");
        let error = TensorFile::read(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("it is not a regular file"), "{error}");
    }
}
