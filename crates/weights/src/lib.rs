//! Weights on disk: official PyTorch checkpoints, safetensors, our own training checkpoints and probes.
//!
//! [`load`] reads an index of a file: names, shapes, spans. Tensors are read when they are taken, as `f32` whatever they
//! are stored as. Names are the official ones under the model they belong to: `encoder.blocks.0.norm1.weight`,
//! `target_encoder.*`, `predictor.*`, `probe.*`; what wrappers add (`module.`, `backbone.`, `_orig_mod.`, FSDP's) is left
//! out, and the names of a bare encoder are put under `encoder.`. Taking a model is strict: missing, unexpected and
//! misshapen names are counted in one error, with the remedy for that difference.
//!
//! PyTorch files are read by [`pytorch`], which executes nothing: [`zip`] finds the entries, [`pickle`] makes a [`heap`] of
//! values, [`objects`] finds the tensors among them, [`span`] reads one by its strides. An official checkpoint's optimiser is
//! found by [`optimiser`], which names its numbered states by the official [`order`] of parameters; the rest of what such a
//! file holds is a [`TrainingState`]. [`convert`] writes what was read as safetensors or by [`torch_save`].

#![warn(missing_docs)]

mod convert;
mod element;
mod error;
mod faults;
#[doc(hidden)]
pub mod fuzz;
mod heap;
mod index;
mod later;
mod mismatch;
mod names;
mod objects;
mod optimiser;
mod order;
mod pickle;
mod plain;
mod pytorch;
mod recognise;
mod safetensors;
mod shards;
mod span;
mod tensors;
mod torch_save;
mod training;
mod zip;

pub use convert::{Converted, Options, convert};
pub use element::Element;
pub use error::WeightsError;
pub use faults::{LoadError, Misshapen};
pub use mismatch::remedy;
pub use names::shortened;
pub use plain::Plain;
pub use recognise::{Foreign, foreign, refuse_foreign};
pub use safetensors::save_safetensors;
pub use tensors::{TensorFile, TensorFileError};
pub use training::{OFFICIAL_KEY, TrainingState};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use index::Index;
use span::Span;
use vjepa_recipe::config::{Config, Preprocessing};

/// Name to shape and values, row-major.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Metadata key under which training describes its checkpoints.
pub const RECORD_KEY: &str = "vjepa";

/// Key of the SHA-256 of a checkpoint's tensors in its metadata.
pub const SUM_KEY: &str = "vjepa.sha256";

/// Models a checkpoint may hold: the first part of every name.
const MODELS: [&str; 4] = ["encoder", "target_encoder", "predictor", "probe"];
/// Another top-level prefix in our own checkpoints: the optimiser's moments.
const OPTIMISER: &str = "adam";

/// The format of a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `torch.save`.
    PyTorch,
    /// Safetensors.
    Safetensors,
}

/// A tensor of a file.
struct Entry {
    shape: Vec<usize>,
    element: Element,
    span: Span,
}

/// The record that training stores with its weights.
#[derive(Clone, Debug)]
pub struct Record {
    /// Steps done.
    pub step: Option<u64>,
    /// The configuration of the run.
    pub config: Config,
    /// How its clips were prepared.
    pub preprocessing: Preprocessing,
}

/// The written form of [`Record`]; other keys (counters) are the trainer's own.
#[derive(Deserialize)]
struct WrittenRecord {
    step: Option<u64>,
    config: Option<String>,
    preprocessing: Option<Preprocessing>,
}

/// Names and shapes of a model's parameters.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// An open weights file.
pub struct Weights {
    path: PathBuf,
    /// The files that tensors are in: the file itself, or those of an index.
    files: Vec<PathBuf>,
    format: Format,
    entries: BTreeMap<String, Entry>,
    others: BTreeMap<String, String>,
    foreign: BTreeSet<String>,
    metadata: BTreeMap<String, String>,
    record: Option<Record>,
}

/// Opens a weights file: PyTorch, safetensors, or the index of several such files, recognised by its first bytes.
///
/// # Errors
/// [`WeightsError`]: an unreadable, damaged or foreign file, or a record in it that cannot be used.
pub fn load(path: &Path) -> Result<Weights, WeightsError> {
    let path = path.to_owned();
    let head = head_of(&path)?;
    let (files, format, Index { entries, others, foreign, metadata }) =
        if shards::looks_like(&head) && !safetensors::looks_like(&head) {
            shards::read(&path)?
        } else {
            let (format, index) = index_of(&path)?;
            (vec![path.clone()], format, index)
        };
    let record = record(&path, &metadata)?;
    Ok(Weights { path, files, format, entries, others, foreign, metadata, record })
}

/// The first bytes of a file that may hold weights.
fn head_of(path: &Path) -> Result<Vec<u8>, WeightsError> {
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    std::fs::metadata(path).map_err(read)?;
    if let Some(Foreign { what, remedy }) = foreign(path) {
        return Err(WeightsError::Foreign { path: path.to_owned(), what, remedy });
    }
    let mut head = Vec::with_capacity(16);
    File::open(path).and_then(|file| file.take(16).read_to_end(&mut head)).map_err(read)?;
    if head.is_empty() {
        return Err(WeightsError::Malformed { path: path.to_owned(), why: "it is empty (0 bytes)".to_owned() });
    }
    Ok(head)
}

/// Reads the index of one file.
fn index_of(path: &Path) -> Result<(Format, Index), WeightsError> {
    let head = head_of(path)?;
    // Something cut off may have no more than the beginning of a header, so the name has a say too.
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    if safetensors::looks_like(&head) || (named && !pytorch::looks_like(&head)) {
        return Ok((Format::Safetensors, safetensors::index(path)?));
    }
    Ok((Format::PyTorch, pytorch::index(path)?))
}

/// The record in the metadata, or else in a file of the same name ending in `.json`.
fn record(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Option<Record>, WeightsError> {
    let bad = |why: String| WeightsError::Record { path: path.to_owned(), what: "configuration", why };
    let (text, required) = match metadata.get(RECORD_KEY) {
        Some(text) => (text.clone(), true),
        None => match std::fs::read_to_string(path.with_extension("json")) {
            Ok(text) => (text, false),
            Err(_) => return Ok(None),
        },
    };
    let written: WrittenRecord = match serde_json::from_str(&text) {
        Ok(written) => written,
        Err(error) if required => return Err(bad(error.to_string())),
        // Another program's file that happens to have the name.
        Err(_) => return Ok(None),
    };
    let Some(yaml) = written.config else { return Ok(None) };
    let config = Config::from_yaml(&yaml, "", &[]).map_err(|error| bad(error.to_string()))?;
    let preprocessing = written.preprocessing.unwrap_or_else(|| config.preprocessing());
    Ok(Some(Record { step: written.step, config, preprocessing }))
}

impl Weights {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that tensors are in: the file itself, or those of its index.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Name, shape and element type of every tensor of floats, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], Element)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice(), entry.element))
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Type of a tensor's numbers.
    pub fn element(&self, name: &str) -> Option<Element> {
        self.entries.get(name).map(|entry| entry.element)
    }

    /// The file's metadata (safetensors only).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The record that training stored with the weights.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Whether there are tensors of `model` (`encoder`, `predictor`, ...).
    pub fn has(&self, model: &str) -> bool {
        self.under(model).next().is_some()
    }

    /// First parts of all names: the models in the file.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = self.entries.keys().map(|name| first_part(name)).collect();
        models.dedup();
        models
    }

    /// The encoder to use: the target encoder where there is one, as in the official evaluations.
    ///
    /// # Errors
    /// [`WeightsError::NoModel`], [`WeightsError::Later`].
    pub fn encoder(&self) -> Result<&'static str, WeightsError> {
        self.refuse_later()?;
        ["target_encoder", "encoder"]
            .into_iter()
            .find(|model| self.has(model))
            .ok_or_else(|| self.no_model("`target_encoder.*` or `encoder.*`"))
    }

    /// One tensor as `f32`, with its shape.
    ///
    /// # Errors
    /// [`WeightsError::Missing`], [`WeightsError::Type`], or a file that cannot be read.
    pub fn get(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), WeightsError> {
        let (shape, element, bytes) = self.bytes(name)?;
        Ok((shape.to_vec(), element.decode(&bytes)))
    }

    /// One tensor as it is stored: its shape, type, and bytes, row-major and little-endian.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn bytes(&self, name: &str) -> Result<(&[usize], Element, Vec<u8>), WeightsError> {
        let Some(entry) = self.entries.get(name) else {
            let (path, name) = (self.path.clone(), name.to_owned());
            return Err(match self.others.get(&name) {
                Some(found) => WeightsError::Type { path, found: found.clone(), name },
                None => WeightsError::Missing { path, name },
            });
        };
        let Entry { shape, element, span } = entry;
        let path = self.files.get(span.file).unwrap_or(&self.path);
        let malformed = |why: String| WeightsError::Malformed { path: path.clone(), why };
        let bytes = span.read(path, shape, *element).map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData => malformed(format!("`{}`: {source}", names::shortened(name))),
            _ => WeightsError::Read { path: path.clone(), source },
        })?;
        if bytes.len() != shape.iter().product::<usize>() * element.size() {
            return Err(malformed(format!("`{name}` has {} bytes for the shape {shape:?}", bytes.len())));
        }
        Ok((shape, *element, bytes))
    }

    /// Every tensor of floats, by its full name.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn all(&self) -> Result<Tensors, WeightsError> {
        self.entries.keys().map(|name| Ok((name.clone(), self.get(name)?))).collect()
    }

    /// Compares the names and shapes under each `(model, parameters)` with what is there. Models not mentioned are not
    /// looked at. Other first parts are unexpected, unless the file has a record of our own: an objective may have parameter
    /// sets that only it knows.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] with every name at fault, [`WeightsError::Later`].
    pub fn check(&self, models: &[(&str, Shapes)]) -> Result<(), WeightsError> {
        self.refuse_later()?;
        let mut faults = LoadError::default();
        let foreign = |name: &&String| {
            let model = first_part(name);
            let known =
                MODELS.contains(&model) || model == OPTIMISER || models.iter().any(|(wanted, _)| *wanted == model);
            !known && self.record.is_none()
        };
        faults.unexpected.extend(self.entries.keys().chain(self.others.keys()).filter(foreign).cloned());
        for (model, parameters) in models {
            let mut wanted: BTreeMap<String, &[usize]> =
                parameters.iter().map(|(name, shape)| (format!("{model}.{name}"), shape.as_slice())).collect();
            for (name, entry) in self.under(model) {
                match wanted.remove(name) {
                    None => faults.unexpected.push(name.to_owned()),
                    Some(shape) if shape != entry.shape => faults.misshapen.push(Misshapen {
                        name: name.to_owned(),
                        expected: shape.to_vec(),
                        got: entry.shape.clone(),
                        values: entry.shape.iter().product(),
                    }),
                    Some(_) => {}
                }
            }
            let others = self.others.keys().filter(|name| first_part(name) == *model);
            faults.unexpected.extend(others.filter(|name| !wanted.contains_key(*name)).cloned());
            if let Some((name, found)) = self.others.iter().find(|(name, _)| wanted.contains_key(*name)) {
                let (name, found) = (name.clone(), found.clone());
                return Err(WeightsError::Type { path: self.path.clone(), name, found });
            }
            faults.missing.extend(wanted.into_keys());
        }
        if faults == LoadError::default() {
            return Ok(());
        }
        let absent = models.iter().map(|(model, _)| *model).find(|model| !self.has(model));
        let part = self.path.file_name().is_some_and(|name| name.to_string_lossy().contains("-of-"));
        let remedy = match absent {
            _ if part => "it is one of several files: give their index, *.index.json".to_owned(),
            Some(model) => format!("the file holds no {}: give a whole training checkpoint", model.replace('_', " ")),
            None => mismatch::remedy(&faults),
        };
        Err(WeightsError::Mismatch { path: self.path.clone(), error: faults, remedy })
    }

    /// All parameters of one model under the names `<as_model>.<parameter>`, after a strict check of that model.
    ///
    /// # Errors
    /// [`WeightsError::NoModel`], [`WeightsError::Mismatch`], or a file that cannot be read.
    pub fn take(
        &self,
        model: &str,
        as_model: &str,
        parameters: Vec<(String, Vec<usize>)>,
    ) -> Result<Tensors, WeightsError> {
        if !self.has(model) {
            return Err(self.no_model(&format!("`{model}.*`")));
        }
        let names: Vec<String> = parameters.iter().map(|(name, _)| name.clone()).collect();
        self.check(&[(model, parameters)])?;
        names
            .into_iter()
            .map(|name| Ok((format!("{as_model}.{name}"), self.get(&format!("{model}.{name}"))?)))
            .collect()
    }

    /// The encoder of [`Weights::encoder`] under `encoder.*`, after a strict check of its parameters.
    ///
    /// # Errors
    /// As [`Weights::take`].
    pub fn take_encoder(&self, parameters: Shapes) -> Result<Tensors, WeightsError> {
        self.take(self.encoder()?, "encoder", parameters)
    }

    fn under<'a>(&'a self, model: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        self.entries
            .iter()
            .filter(move |(name, _)| first_part(name) == model)
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// The error for a file that holds other models than `wanted`.
    pub fn no_model(&self, wanted: &str) -> WeightsError {
        let models = self.models();
        let found = match (models.is_empty(), self.foreign.is_empty()) {
            (false, _) => names::few(models.into_iter()),
            (true, true) => "no tensors".to_owned(),
            (true, false) => format!("tensors of other models ({})", names::few(self.keys_of_no_model())),
        };
        WeightsError::NoModel { path: self.path.clone(), wanted: wanted.to_owned(), found }
    }

    /// Names and types of tensors that are not floats, or not readable.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.others.iter().map(|(name, found)| (name.as_str(), found.as_str()))
    }

    /// Keys of tensors that belong to no model that is known here.
    pub fn keys_of_no_model(&self) -> impl Iterator<Item = &str> {
        self.foreign.iter().map(String::as_str)
    }
}

fn first_part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
