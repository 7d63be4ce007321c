//! Errors of weights files.

use std::path::PathBuf;

use vjepa_recipe::config::Generation;
use vjepa_runtime::FileKind;

use super::LoadError;

use super::names::shortened;

/// Why weights cannot be read. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read the checkpoint {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is damaged, cut off, or something else.
    #[error(
        "{} is not a usable checkpoint: {why}; expected a complete PyTorch file (.pth.tar, .pt) or safetensors file",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Something that stands for a file, or holds it: a Git LFS pointer, a web page, an archive, a folder.
    #[error("{} is {what}; {remedy}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        what: String,
        /// How to get the file.
        remedy: String,
    },
    /// A file of another kind: a picture, a video, text.
    #[error("{} is {kind}, not a checkpoint; give a .safetensors, .pt or .pth.tar file", path.display())]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// What the file says of its model beside its tensors contradicts them.
    #[error("{} holds {model}, but {why}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// The model that its tensors show.
        model: String,
        /// What is said otherwise.
        why: String,
    },
    /// A model of another generation than the configuration's.
    #[error(
        "{} holds {model}, but the configuration is of {}; write `model.generation: {}` or give a file of that model",
        path.display(), wanted.about(), held.name()
    )]
    Generation {
        /// The file.
        path: PathBuf,
        /// The model that its tensors show.
        model: String,
        /// Its generation.
        held: Generation,
        /// The configuration's.
        wanted: Generation,
    },
    /// A folder in Hugging Face's format that is not whole, or holds a JSON file that cannot be obeyed.
    #[error("the folder {} of {model} {why}; download the complete folder again", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The model it says it holds.
        model: String,
        /// What is wrong, to follow the folder's name.
        why: String,
    },
    /// A probe for features of another width.
    #[error(
        "{} holds {probe}, but {model} has features {width} wide; give the probe that was trained on them",
        path.display()
    )]
    ProbeWidth {
        /// The probe's file.
        path: PathBuf,
        /// The probe.
        probe: String,
        /// The encoder's model.
        model: String,
        /// Width of its features.
        width: usize,
    },
    /// A probe of action anticipation, which has a head each for verb, noun and action.
    #[error("{} holds a probe of action anticipation, with {heads} heads; give a probe with one", path.display())]
    Heads {
        /// The file.
        path: PathBuf,
        /// How many heads it has.
        heads: usize,
    },
    /// A number that none of the file's probes has.
    #[error(
        "{} holds {}: give --probe-number {}",
        path.display(),
        if *held == 1 { "one probe".to_owned() } else { format!("{held} probes") },
        if *held == 1 { "0, or leave it out".to_owned() } else { format!("a number from 0 to {}", held.saturating_sub(1)) }
    )]
    ProbeNumber {
        /// The probes' file.
        path: PathBuf,
        /// How many it holds.
        held: usize,
    },
    /// A tensor whose elements are not floating-point numbers.
    #[error(
        "tensor `{}` of {} is {}; weights are F32, F16, BF16 or F64",
        shortened(name), path.display(), shortened(found)
    )]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// No tensor of that name.
    #[error("{} holds no tensor `{}`", path.display(), shortened(name))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor asked for.
        name: String,
    },
    /// The file holds other models than the one asked for.
    #[error("{} holds no {wanted}, only {found}; name a file that does", path.display())]
    NoModel {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// Names or shapes do not fit the model.
    #[error("{}: {error}; {remedy}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Every name at fault.
        error: LoadError,
        /// What to do about this difference.
        remedy: String,
    },
    /// The sizes of the model cannot be inferred from the weights.
    #[error("{}: {why}; pass --config with the model's sizes", path.display())]
    Sizes {
        /// The file.
        path: PathBuf,
        /// What cannot be inferred.
        why: String,
    },
    /// The description stored with the weights cannot be used.
    #[error("{}: its stored {what} cannot be used: {why}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Which description.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The optimiser's state beside the models cannot be used.
    #[error("{}: its training state cannot be used: {why}", path.display())]
    Training {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What a file holds cannot be said in the format asked for.
    #[error("{} cannot be converted: {why}", path.display())]
    Convert {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Sizes that no model has.
    #[error("{}: {error}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The rule that was broken.
        error: String,
    },
    /// Writing failed; what was there before is untouched.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}
