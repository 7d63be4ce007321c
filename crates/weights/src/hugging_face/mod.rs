//! V-JEPA 2 in Hugging Face's format: a folder of `config.json`, `model.safetensors` (or several files and their index) and
//! `video_preprocessor_config.json`, as `save_pretrained` of transformers writes it.
//!
//! Read, its tensors get the official names ([`names`]) and the two JSON files are obeyed; written ([`write()`]), it is what
//! `VJEPA2Model.from_pretrained` takes.

mod config;
mod names;
mod processor;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use vjepa_recipe::config::Preprocessing;

use super::index::Index;
use super::model::ModelFile;
use super::{WeightsError, shortened};

use config::HfConfig;
use processor::Processor;

pub(super) use names::translate;
pub(super) use write::write;

const CONFIG: &str = "config.json";
const PROCESSOR: &str = "video_preprocessor_config.json";
/// Files that may hold the tensors, in the order in which the library looks for them.
const WEIGHTS: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];
/// What a folder holds that says no more.
const FORMAT: &str = "V-JEPA 2 in Hugging Face's format";
/// Longest JSON file that is read.
const LONGEST: u64 = 1 << 24;

/// The JSON files of a folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    config: Option<HfConfig>,
    processor: Option<Processor>,
}

/// The file of tensors in a folder of V-JEPA 2 in Hugging Face's format; none for any other folder.
///
/// # Errors
/// [`WeightsError::Read`], and [`WeightsError::Folder`] for a folder of that model without its tensors, or of its tensors without
/// a `config.json` that says so.
pub(super) fn weights_of(folder: &Path) -> Result<Option<PathBuf>, WeightsError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let there = WEIGHTS.into_iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let text = text(&folder.join(CONFIG))?;
    let Some(text) = text.as_ref().filter(|text| HfConfig::is(text)) else {
        // Another model's, or no model's: an ordinary folder, unless its tensors are of this one.
        let theirs = |path: &PathBuf| super::tensors_of(path).is_ok_and(|(_, _, index)| names::is_theirs(&index));
        if !there.as_ref().is_some_and(theirs) {
            return Ok(None);
        }
        let why = match text.map(|text| HfConfig::parse(&text)) {
            None => format!("holds no {CONFIG}"),
            Some(Err(why)) => format!("holds a {CONFIG} that {why}"),
            // `is` reads less than `parse`.
            Some(Ok(_)) => format!("holds a {CONFIG} of another model"),
        };
        return Err(WeightsError::Folder { path: folder.to_owned(), model: FORMAT.to_owned(), why });
    };
    match there {
        Some(path) => Ok(Some(path)),
        None => {
            let model = HfConfig::parse(text).map_or_else(|_| FORMAT.to_owned(), |config| config.name());
            let why = format!("holds no {}", WEIGHTS[0]);
            Err(WeightsError::Folder { path: folder.to_owned(), model, why })
        }
    }
}

/// Whether `path` is a folder of V-JEPA 2 in Hugging Face's format, which [`crate::load`] takes as it is.
pub fn is_hugging_face(path: &Path) -> bool {
    matches!(weights_of(path), Ok(Some(_)) | Err(WeightsError::Folder { .. }))
}

/// Where a folder says what its model and its clips are.
pub(super) fn descriptions(folder: &Path) -> [PathBuf; 2] {
    [CONFIG, PROCESSOR].map(|name| folder.join(name))
}

/// The size that the folder of `file` says it holds, for messages about a file of it.
pub(super) fn name_beside(file: &Path) -> Option<String> {
    let text = text(&folder_of(file).join(CONFIG)).ok().flatten()?;
    HfConfig::parse(&text).ok().map(|config| config.name())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// The text of a file; none where there is no such file.
fn text(path: &Path) -> Result<Option<String>, WeightsError> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WeightsError::Read { path: path.to_owned(), source }),
    }
}

/// Gives the tensors of `file` their official names where it is of such a folder; none where it is not.
///
/// # Errors
/// [`WeightsError::Malformed`] for tensors that do not fit together, and for a JSON file that cannot be used.
pub(super) fn read(file: &Path, index: &mut Index) -> Result<Option<Folder>, WeightsError> {
    if !names::is_theirs(index) {
        return Ok(None);
    }
    let malformed = |path: &Path, why: String| WeightsError::Malformed { path: path.to_owned(), why };
    names::translate(index).map_err(|why| malformed(file, why))?;
    let path = folder_of(file).to_owned();
    let said = |name: &str, why: String| WeightsError::Folder {
        path: path.clone(),
        model: FORMAT.to_owned(),
        why: format!("holds a {name} that {why}"),
    };
    let config = text(&path.join(CONFIG))?;
    let config = config.map(|text| HfConfig::parse(&text)).transpose().map_err(|why| said(CONFIG, why))?;
    let processor = text(&path.join(PROCESSOR))?;
    let processor = processor.map(|text| Processor::parse(&text)).transpose().map_err(|why| said(PROCESSOR, why))?;
    Ok(Some(Folder { path, config, processor }))
}

impl Folder {
    /// Completes `model` by what `config.json` says and tensors do not show.
    ///
    /// # Errors
    /// What contradicts the tensors, to follow "its config.json".
    pub fn describe(&self, model: &mut ModelFile) -> Result<(), String> {
        match &self.config {
            Some(config) => config.describe(model),
            None => Err(format!(
                "is not beside it: keep the files of the folder together ({CONFIG}, {}, {PROCESSOR})",
                WEIGHTS[0]
            )),
        }
    }

    /// How clips are prepared; the library's defaults for the model's clips where the folder does not say it.
    ///
    /// # Errors
    /// [`WeightsError::Folder`] for what this program does not do.
    pub fn preprocessing(&self) -> Result<Option<Preprocessing>, WeightsError> {
        let Some(config) = &self.config else { return Ok(None) };
        let default = Processor::default_for(config);
        let processor = self.processor.as_ref().unwrap_or(&default);
        processor.preprocessing(config).map(Some).map_err(|why| WeightsError::Folder {
            path: self.path.clone(),
            model: config.name(),
            why: format!("holds a {PROCESSOR} that {}", shortened(&why)),
        })
    }
}
