//! Weights on disk: official PyTorch checkpoints, safetensors, our own training checkpoints and probes.
//!
//! [`load`] reads an index of a file: names, shapes, spans. Tensors are read when they are taken, as `f32` whatever they
//! are stored as. Names are the official ones under the model they belong to: `encoder.blocks.0.norm1.weight`,
//! `target_encoder.*`, `predictor.*`, `probe.*`; what wrappers add (`module.`, `backbone.`, `_orig_mod.`, FSDP's) is left
//! out, and the names of a bare encoder are put under `encoder.`. Taking a model is strict: missing, unexpected and
//! misshapen names are counted in one error, with the remedy for that difference.
//!
//! [`Weights::model_file`] tells which model a file holds, V-JEPA 1, 2 or 2.1, and its sizes ([`model`]); [`Weights::take_model`]
//! takes it whole. [`rows`] writes tables of features.
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
mod hugging_face;
mod index;
mod mismatch;
mod model;
mod names;
mod objects;
mod optimiser;
mod order;
mod pickle;
mod plain;
mod probes;
mod pytorch;
mod recognise;
mod record;
pub mod rows;
mod safetensors;
mod shards;
mod span;
mod taking;
mod tensors;
mod torch_save;
mod training;
mod zip;

pub use convert::{Converted, Options, Target, convert};
pub use element::Element;
pub use error::WeightsError;
pub use faults::{LoadError, Misshapen};
pub use hugging_face::is_hugging_face;
pub use mismatch::remedy;
pub use model::{EncoderLayout, MODEL_KEY, ModelFile, PredictorLayout, ProbeLayout, TakenModel, size_name};
pub use names::shortened;
pub use plain::Plain;
pub use recognise::{Foreign, foreign, refuse_foreign};
pub use record::{RECORD_KEY, Record};
pub use safetensors::save_safetensors;
pub use tensors::{TensorFile, TensorFileError};
pub use training::{OFFICIAL_KEY, TrainingState};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use index::Index;
use span::Span;
use vjepa_recipe::config::Generation;
use vjepa_runtime::FileKind;

/// Name to shape and values, row-major.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Key of the SHA-256 of a checkpoint's tensors in its metadata.
pub const SUM_KEY: &str = "vjepa.sha256";

/// Models a checkpoint may hold: the first part of every name.
const MODELS: [&str; 5] = ["encoder", "target_encoder", "ema_encoder", "predictor", "probe"];
/// Another top-level prefix in our own checkpoints: the optimiser's moments.
const OPTIMISER: &str = "adam";
/// The probes of V-JEPA 2's evaluation after the first, which is `probe`: other learning rates of the same run.
const OTHER_PROBES: &str = "classifiers";
/// Position tables, which models with rotary positions do not use although released files have them.
const TABLES: [&str; 2] = ["pos_embed", "predictor_pos_embed"];

/// The format of a weights file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `torch.save`.
    PyTorch,
    /// Safetensors.
    Safetensors,
}

/// A tensor of a file, in one part or in several of equal shape that follow each other along the first axis.
struct Entry {
    shape: Vec<usize>,
    element: Element,
    spans: Vec<Span>,
}

impl Entry {
    fn whole(shape: Vec<usize>, element: Element, span: Span) -> Self {
        Self { shape, element, spans: vec![span] }
    }

    /// The shape of each part.
    fn part_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let (Some(first), 2..) = (shape.first_mut(), self.spans.len()) {
            *first /= self.spans.len();
        }
        shape
    }
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
    /// The JSON files beside tensors in Hugging Face's format.
    hugging_face: Option<hugging_face::Folder>,
    /// Tensors that stand among a model's and are not used.
    unused: BTreeSet<String>,
}

/// Opens a weights file: PyTorch, safetensors, or the index of several such files, recognised by its first bytes; or a folder
/// of V-JEPA 2 in Hugging Face's format.
///
/// # Errors
/// [`WeightsError`]: an unreadable, damaged or foreign file, or a record in it that cannot be used.
pub fn load(path: &Path) -> Result<Weights, WeightsError> {
    let path = hugging_face::weights_of(path)?.unwrap_or_else(|| path.to_owned());
    let (files, format, mut index) = tensors_of(&path)?;
    let hugging_face = hugging_face::read(&path, &mut index)?;
    let Index { entries, others, foreign, metadata } = index;
    let record = record::record(&path, &metadata)?;
    let unused = BTreeSet::new();
    let mut weights = Weights { path, files, format, entries, others, foreign, metadata, record, hugging_face, unused };
    weights.set_tables_aside();
    Ok(weights)
}

/// The files that a checkpoint is read from: itself, those of a folder in Hugging Face's format, those that an index lists;
/// itself alone where it cannot be read.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    let within = hugging_face::weights_of(path).ok().flatten();
    let mut files = vec![path.to_owned()];
    if let Some(within) = &within {
        files.extend(hugging_face::descriptions(path));
        files.push(within.clone());
    }
    files.extend(tensors_of(within.as_deref().unwrap_or(path)).map(|(files, ..)| files).unwrap_or_default());
    files
}

/// The files that hold the tensors of a file, one or several that it lists, their format, and what is in them.
fn tensors_of(path: &Path) -> Result<(Vec<PathBuf>, Format, Index), WeightsError> {
    let head = head_of(path)?;
    if shards::looks_like(&head) && !safetensors::looks_like(&head) {
        return shards::read(path);
    }
    let (format, index) = index_of(path)?;
    Ok((vec![path.to_owned()], format, index))
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
    match FileKind::of(&head) {
        None | Some(FileKind::Checkpoint) => Ok(head),
        Some(_) if shards::looks_like(&head) => Ok(head),
        Some(kind) => Err(WeightsError::OtherKind { path: path.to_owned(), kind }),
    }
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

    /// Takes the position tables out of models with rotary positions.
    fn set_tables_aside(&mut self) {
        if !matches!(self.generation_seen(), Some(Generation::V2 | Generation::V21)) {
            return;
        }
        let table = |name: &String| name.split_once('.').is_some_and(|(_, inner)| TABLES.contains(&inner));
        let tables: Vec<String> = self.entries.keys().filter(|name| table(name)).cloned().collect();
        for name in tables {
            self.entries.remove(&name);
            self.unused.insert(name);
        }
    }

    /// The encoder to use: the one that a distilled model was averaged into, or the target encoder where there is one, as in
    /// the official evaluations.
    ///
    /// # Errors
    /// [`WeightsError::NoModel`].
    pub fn encoder(&self) -> Result<&'static str, WeightsError> {
        model::ENTRIES
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
        let Entry { shape, element, spans } = entry;
        let part = entry.part_shape();
        let mut bytes = Vec::new();
        for span in spans {
            let path = self.files.get(span.file).unwrap_or(&self.path);
            let malformed = |why: String| WeightsError::Malformed { path: path.clone(), why };
            let read = span.read(path, &part, *element).map_err(|source| match source.kind() {
                std::io::ErrorKind::InvalidData => malformed(format!("`{}`: {source}", names::shortened(name))),
                _ => WeightsError::Read { path: path.clone(), source },
            })?;
            if read.len() != part.iter().product::<usize>() * element.size() {
                return Err(malformed(format!("`{name}` has {} bytes for the shape {part:?}", read.len())));
            }
            match spans.len() {
                1 => bytes = read,
                _ => bytes.extend(read),
            }
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

    /// Names of tensors that stand among a model's and are not used: position tables of models with rotary positions.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.unused.iter().map(String::as_str)
    }

    /// Keys of tensors that belong to no model that is known here.
    pub fn keys_of_no_model(&self) -> impl Iterator<Item = &str> {
        self.foreign.iter().map(String::as_str)
    }
}

fn first_part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
