//! Reading safetensors files, whole or sampled.
//!
//! A big tensor `x` may be stored sampled: `x#idx` holds flat indices, `x#val` the values there and `x#stat` the L2 norm,
//! the sum and the largest magnitude of the whole. [`Tensors::compare`] takes either form.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::check::{Check, Limit, nan_max};

/// Why a tensor cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
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
pub struct Tensors {
    path: PathBuf,
    data: Vec<u8>,
    entries: BTreeMap<String, Entry>,
}

impl Tensors {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TensorsError::Read`] and [`TensorsError::Format`], both naming the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TensorsError> {
        let path = path.as_ref().to_path_buf();
        // A device or a pipe may never end.
        let regular = std::fs::metadata(&path).and_then(|about| match about.is_file() {
            true => Ok(()),
            false => Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no regular file")),
        });
        match regular.and_then(|()| std::fs::read(&path)) {
            Ok(data) => Self::from_bytes(path, data),
            Err(source) => Err(TensorsError::Read { path, source }),
        }
    }

    /// Parses a file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// [`TensorsError::Format`].
    pub fn from_bytes(path: PathBuf, data: Vec<u8>) -> Result<Self, TensorsError> {
        let mut entries = BTreeMap::new();
        {
            let file = match SafeTensors::deserialize(&data) {
                Ok(file) => file,
                Err(error) => {
                    let why = error.to_string();
                    return Err(TensorsError::Format { path, why });
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
    /// [`TensorsError::Missing`].
    pub fn shape(&self, name: &str) -> Result<&[usize], TensorsError> {
        Ok(&self.entry(name)?.shape)
    }

    /// Type of a tensor.
    ///
    /// # Errors
    /// [`TensorsError::Missing`].
    pub fn dtype(&self, name: &str) -> Result<Dtype, TensorsError> {
        Ok(self.entry(name)?.dtype)
    }

    /// A tensor's values as `f32`, row-major, from any of F32, F16, BF16, F64, U8, I16, I32, I64 and BOOL.
    ///
    /// # Errors
    /// [`TensorsError::Missing`], [`TensorsError::Type`].
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, TensorsError> {
        let bytes = self.bytes(name)?;
        Ok(match self.dtype(name)? {
            Dtype::F32 => words(bytes, f32::from_le_bytes),
            Dtype::F16 => words(bytes, |word| f16::from_le_bytes(word).to_f32()),
            Dtype::BF16 => words(bytes, |word| bf16::from_le_bytes(word).to_f32()),
            Dtype::F64 => words(bytes, |word| f64::from_le_bytes(word) as f32),
            _ => self.integers(name, "f32")?.into_iter().map(|x| x as f32).collect(),
        })
    }

    /// A tensor's values as `f64`, row-major, from the types of [`Tensors::f32`].
    ///
    /// # Errors
    /// [`TensorsError::Missing`], [`TensorsError::Type`].
    pub fn f64(&self, name: &str) -> Result<Vec<f64>, TensorsError> {
        match self.dtype(name)? {
            Dtype::F64 => Ok(words(self.bytes(name)?, f64::from_le_bytes)),
            Dtype::I32 | Dtype::I64 => Ok(self.integers(name, "f64")?.into_iter().map(|x| x as f64).collect()),
            _ => Ok(self.f32(name)?.into_iter().map(f64::from).collect()),
        }
    }

    /// A tensor's values as `i64`, row-major, from U8, I16, I32, I64 and BOOL.
    ///
    /// # Errors
    /// [`TensorsError::Missing`], [`TensorsError::Type`].
    pub fn i64(&self, name: &str) -> Result<Vec<i64>, TensorsError> {
        self.integers(name, "i64")
    }

    /// The bytes of a U8 tensor.
    ///
    /// # Errors
    /// [`TensorsError::Missing`], [`TensorsError::Type`].
    pub fn u8(&self, name: &str) -> Result<&[u8], TensorsError> {
        match self.dtype(name)? {
            Dtype::U8 => self.bytes(name),
            dtype => Err(self.wrong_type(name, dtype, "u8")),
        }
    }

    /// The raw little-endian bytes of a tensor.
    ///
    /// # Errors
    /// [`TensorsError::Missing`].
    pub fn bytes(&self, name: &str) -> Result<&[u8], TensorsError> {
        let entry = self.entry(name)?;
        self.data.get(entry.bytes.clone()).ok_or_else(|| self.missing(name))
    }

    /// Compares `got` with the tensor stored under `name`, whole or sampled. Of a sampled one, the differences are the
    /// largest among the sampled values and what its norm, sum and largest magnitude imply for the whole: each of them
    /// is a lower bound of the true difference, so a correct result is never failed for them.
    ///
    /// # Errors
    /// [`TensorsError::Missing`] and [`TensorsError::Type`], for the stored tensor.
    pub fn compare(&self, name: &str, got: &[f32], limit: Limit) -> Result<Check, TensorsError> {
        if self.contains(name) {
            return Ok(Check::compare(name, got, &self.f32(name)?, limit));
        }
        let value_name = format!("{name}#val");
        if !self.contains(&value_name) {
            return Err(self.missing(name));
        }
        let values = self.f32(&value_name)?;
        let indices = self.i64(&format!("{name}#idx"))?;
        let stats = self.f64(&format!("{name}#stat"))?;
        let sampled: Option<Vec<f32>> = indices
            .iter()
            .map(|&index| usize::try_from(index).ok().and_then(|index| got.get(index).copied()))
            .collect();
        let Some(sampled) = sampled else {
            let least = indices.iter().max().map_or(0, |&last| last.max(0) as usize + 1);
            return Ok(Check::mismatch(name, got.len(), least, limit));
        };
        match Check::compare(name, &sampled, &values, limit) {
            Check::Measured { rel_l2, max_abs, .. } => {
                let (rel_stat, abs_stat) = stat_differences(got, &stats);
                let (rel_l2, max_abs) = (nan_max(rel_l2, rel_stat), nan_max(max_abs, abs_stat));
                Ok(Check::measured(name, rel_l2, max_abs, limit))
            }
            other => Ok(other),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, TensorsError> {
        self.entries.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> TensorsError {
        TensorsError::Missing { path: self.path.clone(), name: name.into() }
    }

    fn wrong_type(&self, name: &str, dtype: Dtype, wanted: &'static str) -> TensorsError {
        TensorsError::Type { path: self.path.clone(), name: name.into(), dtype, wanted }
    }

    fn integers(&self, name: &str, wanted: &'static str) -> Result<Vec<i64>, TensorsError> {
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

/// Lower bounds on the relative L2 and the largest difference, from `[norm, sum, largest magnitude]` of the whole.
fn stat_differences(got: &[f32], stats: &[f64]) -> (f64, f64) {
    let &[norm, sum, largest] = stats else {
        return (f64::NAN, f64::NAN);
    };
    let (mut got_square, mut got_sum, mut got_largest) = (0.0f64, 0.0f64, 0.0f64);
    for &value in got {
        let value = f64::from(value);
        got_square += value * value;
        got_sum += value;
        got_largest = nan_max(got_largest, value.abs());
    }
    // |sum of differences| <= sqrt(n) * |differences|_2 (Cauchy-Schwarz).
    let by_sum = (got_sum - sum).abs() / (got.len().max(1) as f64).sqrt();
    let distance = nan_max((got_square.sqrt() - norm).abs(), by_sum);
    let rel = if distance == 0.0 { 0.0 } else { distance / norm };
    (rel, (got_largest - largest).abs())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::TensorView;

    use super::*;

    fn tensors(list: &[(&str, Dtype, Vec<u8>)]) -> Tensors {
        let views: HashMap<String, TensorView<'_>> = list
            .iter()
            .map(|(name, dtype, bytes)| {
                let width = dtype.bitsize() / 8;
                let view = TensorView::new(*dtype, vec![bytes.len() / width], bytes).unwrap();
                (name.to_string(), view)
            })
            .collect();
        let bytes = safetensors::serialize(&views, None).unwrap();
        Tensors::from_bytes("some.safetensors".into(), bytes).unwrap()
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
            let error = Tensors::from_bytes("bad".into(), bytes).unwrap_err();
            assert!(error.to_string().starts_with("bad is not a safetensors file"), "{error}");
        }
        let error = Tensors::read("no/such/file").unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such/file"), "{error}");
    }

    #[test]
    fn sampled_tensors_compare_values_and_statistics() {
        let whole: Vec<f32> = (0..10).map(|x| x as f32 - 4.0).collect();
        let norm = whole.iter().map(|x| x * x).sum::<f32>().sqrt();
        let stats = [norm, whole.iter().sum(), 5.0];
        let file = tensors(&[
            ("w#idx", Dtype::I64, le(&[1i64, 7], |x| x.to_le_bytes())),
            ("w#val", Dtype::F32, le(&[whole[1], whole[7]], |x| x.to_le_bytes())),
            ("w#stat", Dtype::F32, le(&stats, |x| x.to_le_bytes())),
        ]);
        let limit = Limit::RelL2(1e-5);
        assert!(!file.compare("w", &whole, limit).unwrap().failed());
        // Wrong only where nothing was sampled: the statistics see it.
        let mut wrong = whole.clone();
        wrong[4] += 1.0;
        assert!(file.compare("w", &wrong, limit).unwrap().failed());
        wrong[4] = f32::NAN;
        assert!(file.compare("w", &wrong, Limit::RelL2(1e9)).unwrap().failed());
        let short = file.compare("w", &whole[..5], limit).unwrap();
        assert!(short.failed() && short.name().contains("shape mismatch"));
        assert!(file.compare("v", &whole, limit).is_err());
    }
}
