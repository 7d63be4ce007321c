//! Checkpoints from one format into another, tensor by tensor: every number keeps its type and its bits.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::element::Element;
use super::plain::Plain;
use super::safetensors::Written;
use super::torch_save::{Described, Node};
use super::training::{OFFICIAL_KEY, TrainingState};
use super::{Format, MODELS, SUM_KEY, Weights, WeightsError, first_part, load, names, order, safetensors, torch_save};

/// What official files put before the names inside each model, and under which key the model is.
const OFFICIAL: [(&str, &str, &str); 4] = [
    ("encoder", "encoder", "module.backbone."),
    ("predictor", "predictor", "module.backbone."),
    ("target_encoder", "target_encoder", "module.backbone."),
    ("probe", "classifier", "module."),
];

/// How a file is converted.
#[derive(Clone, Debug, Default)]
pub struct Options {
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

/// Reads `input`, whatever it is, and writes its models to `output` as `format`, atomically and tensor by tensor. The
/// training state goes along: moments, counters and settings, so that either form can be continued.
///
/// Safetensors have the official names under their model, without wrappers; PyTorch files have the official layout.
///
/// # Errors
/// [`WeightsError`]; nothing is written then.
pub fn convert(input: &Path, output: &Path, format: Format, options: &Options) -> Result<Converted, WeightsError> {
    let (weights, state) = match options.weights_only {
        true => (load(input)?, None),
        false => load(input)?.with_training()?,
    };
    let cannot = |why: &str| Err(WeightsError::Convert { path: input.to_owned(), why: why.to_owned() });
    let wanted: Vec<&str> = weights
        .tensors()
        .map(|(name, ..)| name)
        .filter(|name| !(options.weights_only && first_part(name) == "adam"))
        .collect();
    if !wanted.iter().any(|name| MODELS.contains(&first_part(name))) {
        return Err(weights.no_model("model"));
    }
    if let Some((name, found)) = weights.unreadable().find(|(name, _)| MODELS.contains(&first_part(name))) {
        return Err(WeightsError::Type { path: input.to_owned(), name: name.to_owned(), found: found.to_owned() });
    }
    let mut converted = Converted { training: state.is_some(), ..Converted::default() };
    converted.left_out.extend(weights.keys_of_no_model().map(str::to_owned));
    match format {
        Format::Safetensors => to_safetensors(&weights, state.as_ref(), output, options, &wanted)?,
        Format::PyTorch => {
            weights.refuse_later()?;
            let known = |name: &&&str| MODELS.contains(&first_part(name)) || first_part(name) == "adam";
            if let Some(name) = wanted.iter().find(|name| !known(name)) {
                return cannot(&format!("`{}` is of a model that official files do not have", names::shortened(name)));
            }
            if state.is_none() && wanted.iter().any(|name| first_part(name) == "adam") {
                return cannot(
                    "it has an optimiser's moments, but no record of the run; convert it with --weights-only",
                );
            }
            to_pytorch(&weights, state.as_ref(), output, &wanted)?;
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

/// Runs a writer whose tensors come from another file: an error of that file is not one of the output.
fn reading(output: &Path, write: impl FnOnce(&mut Option<WeightsError>) -> io::Result<()>) -> Result<(), WeightsError> {
    let mut failed = None;
    match (write(&mut failed), failed) {
        (_, Some(error)) => Err(error),
        (Err(source), None) => Err(WeightsError::Write { path: output.to_owned(), source }),
        (Ok(()), None) => Ok(()),
    }
}

fn to_safetensors(
    weights: &Weights,
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
    metadata.extend(options.metadata.clone());
    let described = |name| Some(Written { name, shape: weights.shape(name)?, element: weights.element(name)? });
    let tensors: Vec<Written<'_>> = wanted.iter().copied().filter_map(described).collect();
    reading(output, |failed| {
        safetensors::write(output, &tensors, &metadata, |number, out| {
            let name = tensors.get(number).map_or("", |tensor| tensor.name);
            out.write_all(&copied(weights, name, failed)?)
        })
    })
}

/// A tensor's bytes, or its error put aside.
fn copied(weights: &Weights, name: &str, failed: &mut Option<WeightsError>) -> io::Result<Vec<u8>> {
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
}

impl<'a> Storages<'a> {
    fn add(&mut self, shape: &[usize], element: Element, source: Source<'a>) -> Node {
        self.described.push(Described { shape: shape.to_vec(), element });
        self.sources.push(source);
        Node::Tensor(self.sources.len() - 1)
    }

    fn tensor(&mut self, weights: &Weights, name: &'a str) -> Option<Node> {
        let (shape, element) = (weights.shape(name)?.to_vec(), weights.element(name)?);
        Some(self.add(&shape, element, Source::Tensor(name)))
    }
}

fn to_pytorch(
    weights: &Weights,
    state: Option<&TrainingState>,
    output: &Path,
    wanted: &[&str],
) -> Result<(), WeightsError> {
    let mut storages = Storages::default();
    let mut root = Vec::new();
    for (model, key, prefix) in OFFICIAL {
        let mut inside: Vec<&str> =
            wanted.iter().filter_map(|name| name.strip_prefix(model)?.strip_prefix('.')).collect();
        if inside.is_empty() {
            continue;
        }
        order::sort(&mut inside);
        let full: BTreeMap<&str, &str> =
            wanted.iter().filter_map(|name| Some((name.strip_prefix(model)?.strip_prefix('.')?, *name))).collect();
        let items = inside.into_iter().filter_map(|name| {
            let node = storages.tensor(weights, full.get(name).copied()?)?;
            Some((Plain::Text(format!("{prefix}{name}")), node))
        });
        root.push((key, Node::Dict(items.collect())));
    }
    if let Some(state) = state {
        let at = root.iter().position(|(key, _)| *key == "target_encoder").unwrap_or(root.len());
        root.insert(at, ("opt", optimiser(weights, state, wanted, &mut storages)?));
        for (key, value) in &state.others {
            root.push((key.as_str(), Node::Plain(value.clone())));
        }
    }
    let root = Node::dict(root);
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
        order::sort(&mut names);
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
