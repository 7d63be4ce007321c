//! Any safetensors file, tensor by tensor in the type asked for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

/// Why a tensor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no safetensors file.
    #[error("{} is not a safetensors file: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
    /// There is no such tensor.
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

/// All tensors of a safetensors file, in memory.
#[derive(Clone, Debug)]
pub struct TensorFile {
    path: PathBuf,
    data: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

impl TensorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TensorFileError::Read`] and [`TensorFileError::Format`], both naming the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TensorFileError> {
        let path = path.as_ref().to_path_buf();
        // A device or a pipe may never end.
        let regular = std::fs::metadata(&path).and_then(|about| match about.is_file() {
            true => Ok(()),
            false => Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file")),
        });
        match regular.and_then(|()| std::fs::read(&path)) {
            Ok(data) => Self::from_bytes(path, data),
            Err(source) => Err(TensorFileError::Read { path, source }),
        }
    }

    /// Parses a file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// [`TensorFileError::Format`].
    pub fn from_bytes(path: PathBuf, data: Vec<u8>) -> Result<Self, TensorFileError> {
        let mut entries = BTreeMap::new();
        {
            let file = match SafeTensors::deserialize(&data) {
                Ok(file) => file,
                Err(error) => {
                    let why = error.to_string();
                    return Err(TensorFileError::Format { path, why });
                }
            };
            let base = data.as_ptr() as usize;
            for (name, view) in file.iter() {
                let start = view.data().as_ptr() as usize - base;
                let entry = Entry {
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                    bytes: start..start + view.data().len(),
                };
                entries.insert(name.to_string(), entry);
            }
        }
        Ok(Self { path, data, entries })
    }

    /// The file they came from.
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
        self.data.get(entry.bytes.clone()).ok_or_else(|| self.missing(name))
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
    use std::collections::HashMap;

    use safetensors::tensor::TensorView;

    use super::*;

    fn tensors(list: &[(&str, Dtype, Vec<u8>)]) -> TensorFile {
        let views: HashMap<String, TensorView<'_>> = list
            .iter()
            .map(|(name, dtype, bytes)| {
                let width = dtype.bitsize() / 8;
                let view = TensorView::new(*dtype, vec![bytes.len() / width], bytes).unwrap();
                (name.to_string(), view)
            })
            .collect();
        let bytes = safetensors::serialize(&views, None).unwrap();
        TensorFile::from_bytes("some.safetensors".into(), bytes).unwrap()
    }

    fn le<const N: usize, T>(values: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(bytes).collect()
    }

    #[test]
    fn every_type_reads() {
        let file = tensors(&[
            ("f32", Dtype::F32, le(&[1.5f32, -2.0], |x| x.to_le_bytes())),
            ("f64", Dtype::F64, le(&[1.5f64, -2.0], |x| x.to_le_bytes())),
            ("f16", Dtype::F16, le(&[1.5, -2.0], |&x| f16::from_f32(x).to_le_bytes())),
            ("bf16", Dtype::BF16, le(&[1.5, -2.0], |&x| bf16::from_f32(x).to_le_bytes())),
            ("i16", Dtype::I16, le(&[1i16, -2], |x| x.to_le_bytes())),
            ("i32", Dtype::I32, le(&[1i32, -2], |x| x.to_le_bytes())),
            ("i64", Dtype::I64, le(&[1i64, -2], |x| x.to_le_bytes())),
            ("u8", Dtype::U8, vec![1, 2]),
            ("bool", Dtype::BOOL, vec![1, 0]),
        ]);
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
    fn hostile_bytes_are_an_error() {
        for bytes in [vec![], vec![255; 16], b"\x02\0\0\0\0\0\0\0{}garbage".to_vec()] {
            let error = TensorFile::from_bytes("bad".into(), bytes).unwrap_err();
            assert!(error.to_string().starts_with("bad is not a safetensors file"), "{error}");
        }
        let error = TensorFile::read("no/such/file").unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such/file"), "{error}");
    }
}
