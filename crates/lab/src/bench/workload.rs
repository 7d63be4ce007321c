//! The benchmarked workload, as files that every worker reads.

use super::BenchError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vjepa_graphs::NamedTensors;
use vjepa_programs::{CompileError, Precision, initial_weights, model_configs, objective};
use vjepa_recipe::config::{Config, Dtype, ObjectiveName};
use vjepa_recipe::counter::noise;
use vjepa_recipe::masks::MaskPair;

/// The computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The whole training step.
    Step,
    /// The encoder, forward only, on all tokens.
    Encoder,
}

/// A workload to write.
pub struct WorkloadRequest<'a> {
    /// The computation.
    pub what: What,
    /// Sizes, masks and rates.
    pub config: &'a Config,
    /// Precision of products; f16 for [`What::Encoder`] alone.
    pub precision: Precision,
    /// Number of mask sets to draw; runs cycle through them.
    pub mask_sets: usize,
}

/// Sizes of a stack of blocks, as the Python worker reads them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stack {
    width: usize,
    depth: usize,
    heads: usize,
    hidden: usize,
    channels: usize,
    frames: usize,
    height: usize,
    size: usize,
    tubelet: usize,
    patch: usize,
    encoder_width: usize,
    tokens: usize,
    mask_tokens: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rates {
    lr: f64,
    wd: f64,
    momentum: f64,
    reg_coeff: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TensorFile {
    file: String,
    dtype: String,
    shape: Vec<usize>,
}

/// Everything a worker needs, in a folder: `workload.json` and a raw file a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The computation.
    pub what: What,
    /// Precision of products.
    products: String,
    /// The configuration, as YAML.
    config: String,
    encoder: Stack,
    predictor: Stack,
    rates: Rates,
    /// For each set: names of the context and target indices of each generator.
    masks: Vec<Vec<[String; 2]>>,
    tensors: BTreeMap<String, TensorFile>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Workload {
    /// Draws weights, clips and masks and writes them to `folder`.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn write(request: &WorkloadRequest<'_>, folder: &Path) -> Result<Self, BenchError> {
        let mut config = request.config.clone();
        config.meta.dtype = match (request.precision, request.what) {
            (Precision::F16, What::Step) => return Err(CompileError::Unscaled.into()),
            // A configuration is of a training; its file refuses f16.
            (Precision::F16, What::Encoder) => Dtype::Float32,
            (Precision::F32 | Precision::Bf16, _) => request.precision.dtype(),
        };
        let config = &config;
        if config.loss.objective != ObjectiveName::Jepa {
            let name = config.loss.objective.name();
            return Err(BenchError::Refused(format!(
                "the sides of a benchmark all compute the objective `jepa`, not `{name}`: use --set loss.objective=jepa"
            )));
        }
        let models = model_configs(config)?;
        let (e, p) = (&models.encoder, &models.predictor);
        let encoder = Stack {
            width: e.embed_dim,
            depth: e.depth,
            heads: e.num_heads,
            hidden: e.mlp_dim(),
            channels: e.channels,
            frames: e.num_frames,
            height: e.height,
            size: e.width,
            tubelet: e.tubelet,
            patch: e.patch,
            encoder_width: e.embed_dim,
            tokens: e.tokens(),
            mask_tokens: models.generators,
        };
        let predictor =
            Stack { width: p.embed_dim, depth: p.depth, heads: p.num_heads, hidden: p.mlp_dim(), ..encoder.clone() };
        let rates = Rates {
            lr: config.optimization.lr,
            wd: config.optimization.weight_decay,
            momentum: config.optimization.ema[0],
            reg_coeff: config.loss.reg_coeff,
        };
        let mut case = Self {
            what: request.what,
            products: request.precision.to_string(),
            config: config.to_yaml()?,
            encoder,
            predictor,
            rates,
            masks: Vec::new(),
            tensors: BTreeMap::new(),
            folder: folder.to_owned(),
        };
        for (name, (shape, data)) in initial_weights(&config.model, &objective(config)?, config.meta.seed) {
            case.floats(&name, &shape, &data)?;
        }
        let clip = [config.data.batch_size, e.channels, e.num_frames, e.height, e.width];
        case.floats("clip", &clip, &noise(clip.iter().product()))?;
        let masks = config.masks()?;
        for set in 0..request.mask_sets {
            let mut names = Vec::new();
            for (i, pair) in
                masks.pairs(config.meta.seed, set as u64, 0, config.data.batch_size)?.into_iter().enumerate()
            {
                let name = |what: &str| format!("masks.{set}.{i}.{what}");
                for (name, batch) in [(name("context"), &pair.context), (name("target"), &pair.target)] {
                    let bytes: Vec<u8> = batch.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
                    case.tensor(&name, "i32", &[batch.batch, batch.len], &bytes)?;
                }
                names.push([name("context"), name("target")]);
            }
            case.masks.push(names);
        }
        let json = serde_json::to_vec_pretty(&case)
            .map_err(|error| BenchError::Workload { path: case.path(), reason: error.to_string() })?;
        std::fs::write(case.path(), json).map_err(|source| BenchError::Io { path: case.path(), source })?;
        Ok(case)
    }

    /// Reads `workload.json`.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let bytes = std::fs::read(path).map_err(|source| BenchError::Io { path: path.to_owned(), source })?;
        let mut case: Self = serde_json::from_slice(&bytes)
            .map_err(|error| BenchError::Workload { path: path.to_owned(), reason: error.to_string() })?;
        case.folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(case)
    }

    /// The file others read.
    pub fn path(&self) -> PathBuf {
        self.folder.join("case.json")
    }

    /// Precision of products.
    ///
    /// # Errors
    /// [`BenchError::Workload`] for a word that names none.
    pub fn precision(&self) -> Result<Precision, BenchError> {
        self.products.parse().map_err(|reason| BenchError::Workload { path: self.path(), reason })
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`BenchError::Config`].
    pub fn config(&self) -> Result<Config, BenchError> {
        Ok(Config::from_yaml(&self.config, "the case's configuration", &[])?)
    }

    /// How many sets of masks there are.
    pub fn mask_sets(&self) -> usize {
        self.masks.len()
    }

    /// The masks of a set.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn masks(&self, set: usize) -> Result<Vec<MaskPair>, BenchError> {
        let names = self.masks.get(set).ok_or_else(|| self.wrong(format!("there is no mask set {set}")))?;
        names
            .iter()
            .map(|[context, target]| Ok(MaskPair { context: self.indices(context)?, target: self.indices(target)? }))
            .collect()
    }

    /// All floats by name: weights, and `clip`.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn tensors(&self) -> Result<NamedTensors, BenchError> {
        let floats = self.tensors.iter().filter(|(_, entry)| entry.dtype == "f32");
        floats
            .map(|(name, entry)| {
                let data = self.raw(name)?.into_iter().map(f32::from_le_bytes).collect();
                Ok((name.clone(), (entry.shape.clone(), data)))
            })
            .collect()
    }

    fn indices(&self, name: &str) -> Result<vjepa_recipe::masks::IndexBatch, BenchError> {
        let indices: Vec<i32> = self.raw(name)?.into_iter().map(i32::from_le_bytes).collect();
        match self.tensors.get(name).map(|entry| entry.shape.as_slice()) {
            Some(&[batch, len]) => Ok(vjepa_recipe::masks::IndexBatch { batch, len, indices }),
            _ => Err(self.wrong(format!("`{name}` is not [batch, length]"))),
        }
    }

    fn raw(&self, name: &str) -> Result<Vec<[u8; 4]>, BenchError> {
        let entry = self.tensors.get(name).ok_or_else(|| self.wrong(format!("`{name}` is missing")))?;
        let path = self.folder.join(&entry.file);
        let bytes = std::fs::read(&path).map_err(|source| BenchError::Io { path, source })?;
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || words.len() != entry.shape.iter().product::<usize>() {
            return Err(self.wrong(format!("the number of values of `{name}` does not match its shape")));
        }
        Ok(words.to_vec())
    }

    fn wrong(&self, reason: String) -> BenchError {
        BenchError::Workload { path: self.path(), reason }
    }

    fn floats(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Result<(), BenchError> {
        let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, "f32", shape, &bytes)
    }

    fn tensor(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) -> Result<(), BenchError> {
        let file = format!("{}.bin", self.tensors.len());
        let path = self.folder.join(&file);
        std::fs::write(&path, bytes).map_err(|source| BenchError::Io { path, source })?;
        self.tensors.insert(name.to_owned(), TensorFile { file, dtype: dtype.to_owned(), shape: shape.to_vec() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_is_for_encoders() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/tiny.yaml");
        let config = Config::from_file(&file, &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |what, precision| {
            Workload::write(&WorkloadRequest { what, config: &config, precision, mask_sets: 1 }, folder.path())
        };
        let said = write(What::Step, Precision::F16).unwrap_err().to_string();
        assert!(said.starts_with("a training step in f16 needs its gradients scaled"), "{said}");
        for (precision, dtype) in [(Precision::F16, Dtype::Float32), (Precision::Bf16, Dtype::Bfloat16)] {
            let case = write(What::Encoder, precision).unwrap();
            let read = Workload::read(&case.path()).unwrap();
            assert_eq!(read.precision().unwrap(), precision);
            assert_eq!(read.config().unwrap().meta.dtype, dtype);
        }
    }
}
