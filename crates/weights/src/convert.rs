//! Checkpoints from one format into another, tensor by tensor: every number keeps its type and its bits.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::element::Element;
use super::model::known_key;
use super::plain::Plain;
use super::safetensors::Written;
use super::torch_save::{Described, Node};
use super::training::{OFFICIAL_KEY, TrainingState};
use super::{
    Format, MODEL_KEY, MODELS, ModelFile, SUM_KEY, Weights, WeightsError, first_part, hugging_face, load, names, order,
    safetensors, torch_save,
};
use vjepa_recipe::config::{Config, Generation};

/// What official files put before the names inside each model, and under which key the model is.
const OFFICIAL: [(&str, &str, &str); 5] = [
    ("encoder", "encoder", "module.backbone."),
    ("predictor", "predictor", "module.backbone."),
    ("target_encoder", "target_encoder", "module.backbone."),
    ("ema_encoder", "ema_encoder", "module.backbone."),
    ("probe", "classifier", "module."),
];

/// What a file is converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Safetensors with the official names under their model.
    Safetensors,
    /// A PyTorch file as official training writes it, training state included.
    Official,
    /// A PyTorch file as official loaders of released models take it: encoder and predictor under the entries that they ask
    /// for.
    Hub,
    /// A folder of V-JEPA 2 that Hugging Face's transformers reads.
    HuggingFace,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 4] = [Self::Safetensors, Self::Official, Self::Hub, Self::HuggingFace];

    /// The word that stands for it at the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Official => "official",
            Self::Hub => "hub",
            Self::HuggingFace => "hf",
        }
    }

    /// What it is, in one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Safetensors => "one file of official tensor names, prefixed with the model",
            Self::Official => "a PyTorch file as official training writes it, with the optimiser's state",
            Self::Hub => "a PyTorch file as the loaders of released models take it, weights alone",
            Self::HuggingFace => {
                "a folder that transformers reads (V-JEPA 2): config.json, model.safetensors, processor"
            }
        }
    }
}

impl From<Format> for Target {
    fn from(format: Format) -> Self {
        match format {
            Format::PyTorch => Self::Official,
            Format::Safetensors => Self::Safetensors,
        }
    }
}

/// How a file is converted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Says of the model what the file does not: attention heads, and the size of its clips.
    pub config: Option<Config>,
    /// Leave out the optimiser's moments, counters and settings.
    pub weights_only: bool,
    /// Metadata to write besides what the file has (safetensors only).
    pub metadata: BTreeMap<String, String>,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Tensors of each model, `adam` for the moments.
    pub tensors: BTreeMap<String, usize>,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Whether the training state was written too.
    pub training: bool,
    /// What the file holds besides, which was left out.
    pub left_out: Vec<String>,
}

/// Reads `input`, whatever it is, and writes its models to `output`, atomically and tensor by tensor. The training state goes
/// along to [`Target::Safetensors`] and [`Target::Official`]: moments, counters and settings, so that either can be continued.
///
/// Models of V-JEPA 2 and 2.1 are compared with what they must have, name by name. Safetensors then also say which model they
/// hold, under [`MODEL_KEY`].
///
/// # Errors
/// [`WeightsError`]; nothing is written then.
pub fn convert(
    input: &Path,
    output: &Path,
    target: impl Into<Target>,
    options: &Options,
) -> Result<Converted, WeightsError> {
    let target = target.into();
    let alone = options.weights_only || matches!(target, Target::Hub | Target::HuggingFace);
    let (weights, state) = match alone {
        true => (load(input)?, None),
        false => load(input)?.with_training()?,
    };
    let mut wanted: Vec<&str> =
        weights.tensors().map(|(name, ..)| name).filter(|name| !(alone && first_part(name) == "adam")).collect();
    if !wanted.iter().any(|name| MODELS.contains(&first_part(name))) {
        return Err(weights.no_model("model"));
    }
    if let Some((name, found)) = weights.unreadable().find(|(name, _)| MODELS.contains(&first_part(name))) {
        return Err(WeightsError::Type { path: input.to_owned(), name: name.to_owned(), found: found.to_owned() });
    }
    let model = later(&weights, options)?;
    let mut converted = Converted { training: state.is_some(), ..Converted::default() };
    converted.left_out.extend(weights.unused().map(str::to_owned));
    converted.left_out.extend(weights.keys_of_no_model().map(|key| match &model {
        // Of a training state that is known the key says enough.
        Some(_) => known_key(key).unwrap_or(key).to_owned(),
        None => key.to_owned(),
    }));
    converted.left_out.dedup();
    match target {
        Target::Safetensors => {
            to_safetensors(&weights, model.as_ref(), state.as_ref(), output, options, &wanted)?;
        }
        Target::Official => to_official(&weights, model.as_ref(), state.as_ref(), output, &wanted)?,
        Target::Hub | Target::HuggingFace => {
            let model = model.ok_or_else(|| {
                let why = "it holds V-JEPA 1, and --to hub and --to hf are for V-JEPA 2; use --to official";
                WeightsError::Convert { path: input.to_owned(), why: why.to_owned() }
            })?;
            let written = match target {
                Target::Hub => to_hub(&weights, &model, output)?,
                _ => hugging_face::write(&weights, &model, output)?,
            };
            let left = wanted.iter().filter(|name| !written.iter().any(|written| written == *name));
            let mut models: Vec<String> = left.map(|name| first_part(name).to_owned()).collect();
            models.dedup();
            converted.left_out.extend(models);
            wanted.retain(|name| written.iter().any(|written| written == name));
        }
    }
    for name in wanted {
        *converted.tensors.entry(first_part(name).to_owned()).or_default() += 1;
        let element = weights.element(name).map_or(0, Element::size);
        let count: usize = weights.shape(name).unwrap_or_default().iter().product();
        converted.bytes += (count * element) as u64;
    }
    Ok(converted)
}

/// The model of a file of V-JEPA 2 or 2.1, after a strict check; none for V-JEPA 1, of which this program has its own record.
fn later(weights: &Weights, options: &Options) -> Result<Option<ModelFile>, WeightsError> {
    if !matches!(weights.generation_seen(), Some(Generation::V2 | Generation::V21)) {
        return Ok(None);
    }
    let Some(mut model) = weights.model_file(options.config.as_ref().map(|config| &config.model))? else {
        return Ok(None);
    };
    weights.check_model(&model)?;
    if let Some(config) = &options.config {
        model.preprocessing = Some(config.preprocessing());
    }
    Ok(Some(model))
}

/// Runs a writer whose tensors come from another file: an error of that file is not one of the output.
pub(super) fn reading(
    output: &Path,
    write: impl FnOnce(&mut Option<WeightsError>) -> io::Result<()>,
) -> Result<(), WeightsError> {
    let mut failed = None;
    match (write(&mut failed), failed) {
        (_, Some(error)) => Err(error),
        (Err(source), None) => Err(WeightsError::Write { path: output.to_owned(), source }),
        (Ok(()), None) => Ok(()),
    }
}

fn to_safetensors(
    weights: &Weights,
    model: Option<&ModelFile>,
    state: Option<&TrainingState>,
    output: &Path,
    options: &Options,
    wanted: &[&str],
) -> Result<(), WeightsError> {
    let mut metadata = weights.metadata().clone();
    // Of the tensors of the file that is read.
    metadata.remove(SUM_KEY);
    if options.weights_only {
        metadata.remove(OFFICIAL_KEY);
    }
    // A run of this program has its own record; what it would be officially follows from that.
    if let Some(state) = state.filter(|_| weights.format() == Format::PyTorch) {
        let text = serde_json::to_string(state)
            .map_err(|error| WeightsError::Write { path: output.to_owned(), source: error.into() })?;
        metadata.insert(OFFICIAL_KEY.to_owned(), text);
    }
    // A run of this program has its own record of the model.
    if let Some(model) = model.filter(|_| weights.record().is_none()) {
        let text = serde_json::to_string(model)
            .map_err(|error| WeightsError::Write { path: output.to_owned(), source: error.into() })?;
        metadata.insert(MODEL_KEY.to_owned(), text);
    }
    metadata.extend(options.metadata.clone());
    let described = |name| Some(Written::of(name, weights.shape(name)?, weights.element(name)?));
    let tensors: Vec<Written<'_>> = wanted.iter().copied().filter_map(described).collect();
    reading(output, |failed| {
        safetensors::write(output, &tensors, &metadata, |number, out| {
            let name = tensors.get(number).map_or("", |tensor| tensor.name);
            out.write_all(&copied(weights, name, failed)?)
        })
    })
}

/// A tensor's bytes, or its error put aside.
pub(super) fn copied(weights: &Weights, name: &str, failed: &mut Option<WeightsError>) -> io::Result<Vec<u8>> {
    weights.bytes(name).map(|(.., bytes)| bytes).map_err(|error| {
        *failed = Some(error);
        io::ErrorKind::Other.into()
    })
}

/// Where a tensor of the new file comes from.
enum Source<'a> {
    Tensor(&'a str),
    /// One number.
    Number(f32),
}

/// Tensors in the order of their numbers.
#[derive(Default)]
struct Storages<'a> {
    described: Vec<Described>,
    sources: Vec<Source<'a>>,
    /// The numbers of tensors that are there: two names of one share it, as in PyTorch.
    numbers: BTreeMap<&'a str, usize>,
}

impl<'a> Storages<'a> {
    fn add(&mut self, shape: &[usize], element: Element, source: Source<'a>) -> Node {
        self.described.push(Described { shape: shape.to_vec(), element });
        self.sources.push(source);
        Node::Tensor(self.sources.len() - 1)
    }

    fn tensor(&mut self, weights: &Weights, name: &'a str) -> Option<Node> {
        if let Some(number) = self.numbers.get(name) {
            return Some(Node::Tensor(*number));
        }
        let (shape, element) = (weights.shape(name)?.to_vec(), weights.element(name)?);
        self.numbers.insert(name, self.sources.len());
        Some(self.add(&shape, element, Source::Tensor(name)))
    }
}

/// The tensors of one model as official files have them: `prefix` before each name, in the order of the modules.
fn state_dict<'a>(
    weights: &Weights,
    model: &str,
    prefix: &str,
    wanted: &[&'a str],
    storages: &mut Storages<'a>,
) -> Option<Node> {
    let full: BTreeMap<&str, &'a str> =
        wanted.iter().filter_map(|name| Some((name.strip_prefix(model)?.strip_prefix('.')?, *name))).collect();
    let mut inside: Vec<&str> = full.keys().copied().collect();
    order::sort(model, &mut inside);
    let items = inside.into_iter().filter_map(|name| {
        let node = storages.tensor(weights, full.get(name).copied()?)?;
        Some((Plain::Text(format!("{prefix}{name}")), node))
    });
    let items: Vec<_> = items.collect();
    (!items.is_empty()).then_some(Node::Dict(items))
}

fn to_official(
    weights: &Weights,
    model: Option<&ModelFile>,
    state: Option<&TrainingState>,
    output: &Path,
    wanted: &[&str],
) -> Result<(), WeightsError> {
    let cannot = |why: String| Err(WeightsError::Convert { path: weights.path().to_owned(), why });
    let known = |name: &&&str| MODELS.contains(&first_part(name)) || first_part(name) == "adam";
    if let Some(name) = wanted.iter().find(|name| !known(name)) {
        return cannot(format!("`{}` is of a model that official files do not have", names::shortened(name)));
    }
    if state.is_none() && wanted.iter().any(|name| first_part(name) == "adam") {
        return cannot(
            "it has an optimiser's moments, but no record of the run; convert it with --weights-only".to_owned(),
        );
    }
    let mut storages = Storages::default();
    let mut root = Vec::new();
    for (part, key, prefix) in OFFICIAL {
        let Some(dict) = state_dict(weights, part, prefix, wanted, &mut storages) else { continue };
        root.push(match part == "probe" && model.is_some() {
            // V-JEPA 2's evaluation keeps a list of probes.
            true => ("classifiers", Node::List(vec![dict])),
            false => (key, dict),
        });
    }
    if let Some(state) = state {
        let at = root.iter().position(|(key, _)| *key == "target_encoder").unwrap_or(root.len());
        root.insert(at, ("opt", optimiser(weights, state, wanted, &mut storages)?));
        for (key, value) in &state.others {
            root.push((key.as_str(), Node::Plain(value.clone())));
        }
    }
    write_pytorch(weights, Node::dict(root), &storages, output)
}

/// The encoder under the entry that the loader of its model asks for, and the predictor. Gives the names of what was written.
fn to_hub(weights: &Weights, model: &ModelFile, output: &Path) -> Result<Vec<String>, WeightsError> {
    let cannot = |why: &str| Err(WeightsError::Convert { path: weights.path().to_owned(), why: why.to_owned() });
    if model.encoder.is_none() {
        return cannot("it holds no encoder; write a probe as an official file (--to official)");
    }
    let names: Vec<&str> = weights.tensors().map(|(name, ..)| name).collect();
    let mut storages = Storages::default();
    let (mut root, mut taken) = (Vec::new(), Vec::new());
    for (part, keys) in [(model.entry, model.hub_entries()), ("predictor", ["predictor"].as_slice())] {
        for key in keys {
            root.extend(state_dict(weights, part, "module.backbone.", &names, &mut storages).map(|dict| (*key, dict)));
        }
        taken.extend(names.iter().filter(|name| first_part(name) == part).map(|name| (*name).to_owned()));
    }
    write_pytorch(weights, Node::dict(root), &storages, output)?;
    Ok(taken)
}

fn write_pytorch(weights: &Weights, root: Node, storages: &Storages<'_>, output: &Path) -> Result<(), WeightsError> {
    reading(output, |failed| {
        torch_save::write(output, &root, &storages.described, |number, out| match storages.sources.get(number) {
            Some(Source::Tensor(name)) => out.write_all(&copied(weights, name, failed)?),
            Some(Source::Number(number)) => out.write_all(&number.to_le_bytes()),
            None => Err(io::ErrorKind::InvalidInput.into()),
        })
    })
}

/// The optimiser: its states by number, and its groups.
fn optimiser<'a>(
    weights: &Weights,
    state: &TrainingState,
    wanted: &[&'a str],
    storages: &mut Storages<'a>,
) -> Result<Node, WeightsError> {
    let there: BTreeSet<&str> = wanted.iter().copied().collect();
    let parameters = |model: &str| {
        let mut names: Vec<&str> = wanted.iter().copied().filter(|name| first_part(name) == model).collect();
        order::sort(model, &mut names);
        names.into_iter().map(|name| (name.to_owned(), weights.shape(name).unwrap_or_default().to_vec())).collect()
    };
    let (mut number, mut states, mut groups) = (0, Vec::new(), Vec::new());
    let named = order::groups(&parameters("encoder"), &parameters("predictor"));
    for (place, names) in named.into_iter().enumerate() {
        let first = number;
        for name in names {
            let moment = |prefix: &str| there.get(format!("adam.{prefix}.{name}").as_str()).copied();
            if let (Some(m), Some(v)) = (moment("m"), moment("v")) {
                let mut items = Vec::new();
                if let Some(updates) = state.updates {
                    items.push(("step", storages.add(&[], Element::F32, Source::Number(updates as f32))));
                }
                items.extend(storages.tensor(weights, m).map(|node| ("exp_avg", node)));
                items.extend(storages.tensor(weights, v).map(|node| ("exp_avg_sq", node)));
                states.push((Plain::Int(number), Node::dict(items)));
            }
            number += 1;
        }
        let Some(Plain::Dict(items)) = state.groups.get(place) else {
            let why = "its training state lacks the settings of a group of parameters".to_owned();
            return Err(WeightsError::Training { path: weights.path().to_owned(), why });
        };
        let mut items = items.clone();
        items.push((Plain::Text("params".to_owned()), Plain::List((first..number).map(Plain::Int).collect())));
        groups.push(Node::Plain(Plain::Dict(items)));
    }
    Ok(Node::dict([("state", Node::Dict(states)), ("param_groups", Node::List(groups))]))
}
