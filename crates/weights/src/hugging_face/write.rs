//! Writes a model of V-JEPA 2 as a folder that `from_pretrained` reads.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vjepa_recipe::config::{Generation, Preprocessing};
use vjepa_runtime::write_atomically;

use super::config::HfConfig;
use super::processor::Processor;
use super::{CONFIG, PROCESSOR, WEIGHTS, names};
use crate::model::ModelFile;
use crate::safetensors::{self, Written};
use crate::{Element, Target, Weights, WeightsError};

impl Target {
    /// The files that a conversion writes where it is given `out`.
    pub fn files(self, out: &Path) -> Vec<PathBuf> {
        match self {
            Self::HuggingFace => [WEIGHTS[0], CONFIG, PROCESSOR].map(|name| out.join(name)).into(),
            Self::Safetensors | Self::Official | Self::Hub => vec![out.to_owned()],
        }
    }
}

/// A tensor of the new file: parts of tensors of ours, one after the other.
struct Planned {
    name: String,
    shape: Vec<usize>,
    element: Element,
    /// Names, and of how many equal parts along the first axis which.
    sources: Vec<(String, usize, usize)>,
}

/// Writes the model of `weights` to the folder `out`, which is made where it is not there: tensors as they are stored, then
/// the two JSON files. Gives the names of the tensors that were taken.
///
/// # Errors
/// [`WeightsError::Convert`] for what such a folder cannot hold; nothing is written then.
pub(crate) fn write(weights: &Weights, model: &ModelFile, out: &Path) -> Result<Vec<String>, WeightsError> {
    let cannot = |why: String| WeightsError::Convert { path: weights.path().to_owned(), why };
    known(model).map_err(cannot)?;
    let clip = model.preprocessing.as_ref().ok_or_else(|| cannot(no_clip()))?;
    let (config, processor) = texts(weights, model, clip).map_err(cannot)?;
    let tensors = plan(weights, model).map_err(cannot)?;
    let failed = |path: &Path, source: io::Error| WeightsError::Write { path: path.to_owned(), source };
    std::fs::create_dir_all(out).map_err(|source| failed(out, source))?;
    let file = out.join(WEIGHTS[0]);
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let written: Vec<Written<'_>> =
        tensors.iter().map(|Planned { name, shape, element, .. }| Written::of(name, shape, *element)).collect();
    crate::convert::reading(&file, |problem| {
        safetensors::write(&file, &written, &metadata, |number, out| {
            let sources = tensors.get(number).map_or(&[][..], |tensor| tensor.sources.as_slice());
            sources.iter().try_for_each(|source| part(weights, source, problem, out))
        })
    })?;
    for (name, json) in [(CONFIG, config), (PROCESSOR, processor)] {
        let path = out.join(name);
        write_atomically(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, &json)?;
            out.write_all(b"\n")
        })
        .map_err(|source| failed(&path, source))?;
    }
    Ok(tensors.into_iter().flat_map(|tensor| tensor.sources).map(|(name, ..)| name).collect())
}

/// Refuses models that the library does not know.
fn known(model: &ModelFile) -> Result<(), String> {
    if model.generation != Generation::V2 || model.predictor.as_ref().is_some_and(|it| it.action_conditioned) {
        return Err(format!("it holds {}, and Hugging Face's transformers knows V-JEPA 2 only", model.name()));
    }
    if model.encoder.is_none() || model.predictor.is_none() {
        let name = model.name();
        return Err(format!("it holds {name} alone, and Hugging Face's models have both encoder and predictor"));
    }
    Ok(())
}

fn no_clip() -> String {
    "the size of its clips is not known; give --config, the configuration of the model".to_owned()
}

/// One part of a tensor of ours.
fn part(
    weights: &Weights,
    (name, part, of): &(String, usize, usize),
    problem: &mut Option<WeightsError>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let bytes = crate::convert::copied(weights, name, problem)?;
    let length = bytes.len() / (*of).max(1);
    let part = bytes.get(part * length..(part + 1) * length).ok_or(io::ErrorKind::InvalidData)?;
    out.write_all(part)
}

/// The two JSON files.
fn texts(weights: &Weights, model: &ModelFile, clip: &Preprocessing) -> Result<(Value, Value), String> {
    let config = HfConfig::of(model, clip.num_frames, clip.crop_size, dtype(weights))?;
    let mut config = serde_json::to_value(config).map_err(|error| error.to_string())?;
    if config["mlp_ratio"] == json!(4.0) {
        // As in the released files.
        config["mlp_ratio"] = json!(4);
    }
    Ok((config, Processor::of(clip)?.to_json()))
}

/// The type of all tensors by PyTorch's name; where they differ, the one that holds every value.
fn dtype(weights: &Weights) -> &'static str {
    let mut found: Vec<Element> = weights.tensors().map(|(.., element)| element).collect();
    found.dedup();
    match found.as_slice() {
        [Element::F16] => "float16",
        [Element::Bf16] => "bfloat16",
        elements if elements.contains(&Element::F64) => "float64",
        _ => "float32",
    }
}

/// Every tensor of the file, in the order of the official modules.
fn plan(weights: &Weights, model: &ModelFile) -> Result<Vec<Planned>, String> {
    let before = if model.probe.is_some() { "vjepa2." } else { "" };
    let mut planned = Vec::new();
    let mut tokens: Vec<(String, usize, usize)> = Vec::new();
    for (part, parameters) in model.parameters() {
        let entry = if part == "encoder" { model.entry } else { part };
        for (name, shape) in parameters {
            let source = format!("{entry}.{name}");
            let element = weights.element(&source).ok_or_else(|| format!("it lacks `{source}`"))?;
            if name.starts_with("mask_tokens.") {
                tokens.push((source, 0, 1));
                continue;
            }
            let theirs = names::theirs(&format!("{part}.{name}"));
            if theirs.is_empty() {
                return Err(format!("Hugging Face's model has no place for its `{name}`"));
            }
            let of = theirs.len();
            let mut shape = shape;
            if let Some(rows) = shape.first_mut() {
                *rows /= of;
            }
            let before = if part == "probe" { "" } else { before };
            planned.extend(theirs.into_iter().enumerate().map(|(number, theirs)| Planned {
                name: format!("{before}{theirs}"),
                shape: shape.clone(),
                element,
                sources: vec![(source.clone(), number, of)],
            }));
        }
    }
    let width = model.predictor.as_ref().map_or(0, |predictor| predictor.embed_dim);
    let elements: Vec<Option<Element>> = tokens.iter().map(|(name, ..)| weights.element(name)).collect();
    let element = match elements.as_slice() {
        [Some(first), rest @ ..] if rest.iter().all(|element| *element == Some(*first)) => *first,
        _ => return Err("its mask tokens are not there, or of several types".to_owned()),
    };
    let shape = vec![tokens.len(), 1, 1, width];
    planned.push(Planned { name: format!("{before}{}", names::MASK_TOKENS), shape, element, sources: tokens });
    Ok(planned)
}
