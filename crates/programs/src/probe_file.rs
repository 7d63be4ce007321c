//! Probe files: a classifier's weights under `probe.*` and its description in the metadata.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vjepa_graphs::{BlocksOn, EncoderConfig, ProbeConfig, TunedHead};
use vjepa_recipe::finetune::Pooling;

use crate::Probe;
use vjepa_weights::{Shapes, Tensors, Weights, WeightsError, load, shortened};

/// Metadata key of the description.
pub const PROBE_KEY: &str = "vjepa_probe";

/// The kind of a classifier that was trained with its encoder.
const TUNED: &str = "fine-tuned";

const POOLER: &str = "probe.pooler";
const CROSS: &str = "probe.pooler.cross_attention_block";
/// The most blocks to look for.
const MOST_BLOCKS: usize = 4096;

/// The description of a probe, as JSON in the metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// `attentive`, `linear`, or `fine-tuned` together with the encoder in the same file.
    pub kind: String,
    /// Number of classes.
    pub classes: usize,
    /// Names of the classes; may be empty.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Width of the features it reads.
    pub embed_dim: usize,
    /// Attention heads (attentive).
    #[serde(default)]
    pub num_heads: Option<usize>,
    /// Blocks (attentive).
    #[serde(default)]
    pub depth: Option<usize>,
    /// What the self-attention blocks work on (attentive); absent for the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_on: Option<BlocksOn>,
    /// Epsilon of the layer norms (attentive); absent for the official 1e-5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// How tokens become one vector (fine-tuned).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Blocks of the encoder, from 0, whose tokens it reads, those of one after those of the other; absent for the last alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
}

impl ProbeRecord {
    /// The description of a probe; what is as in V-JEPA's probes is left out.
    pub fn of(probe: &Probe, labels: &[String]) -> Self {
        let plain =
            |kind: &str, classes, embed_dim| Self { labels: labels.to_vec(), ..Self::plain(kind, classes, embed_dim) };
        match probe {
            Probe::Linear { embed_dim, num_classes } => plain("linear", *num_classes, *embed_dim),
            Probe::Tuned(head) => {
                Self { pooling: Some(head.pooling), ..plain(TUNED, head.num_classes, head.embed_dim) }
            }
            Probe::Attentive(config) => {
                let usual = ProbeConfig::sized(config.embed_dim, config.num_heads, config.num_classes);
                Self {
                    num_heads: Some(config.num_heads),
                    depth: Some(config.depth),
                    blocks_on: (config.blocks_on != usual.blocks_on).then_some(config.blocks_on),
                    eps: (config.eps != usual.eps).then_some(config.eps),
                    ..plain("attentive", config.num_classes, config.embed_dim)
                }
            }
        }
    }

    /// What every probe has.
    fn plain(kind: &str, classes: usize, embed_dim: usize) -> Self {
        Self {
            kind: kind.to_owned(),
            classes,
            labels: Vec::new(),
            embed_dim,
            num_heads: None,
            depth: None,
            blocks_on: None,
            eps: None,
            pooling: None,
            layers: None,
        }
    }

    /// That of a file; none of one that has none.
    fn read(weights: &Weights) -> Result<Option<Self>, WeightsError> {
        let bad = |error: serde_json::Error| WeightsError::Record {
            path: weights.path().to_owned(),
            what: "probe description",
            why: shortened(&error.to_string()),
        };
        weights.metadata().get(PROBE_KEY).map(|text| serde_json::from_str(text)).transpose().map_err(bad)
    }
}

/// A probe read from a file.
#[derive(Clone, Debug)]
pub struct ProbeFile {
    /// Its kind and sizes.
    pub probe: Probe,
    /// Names of the classes: as many as classes, or none.
    pub labels: Vec<String>,
    /// Blocks of the encoder whose tokens it reads, joined; the last alone where the file names none.
    pub layers: Option<Vec<usize>>,
    /// Its weights, `probe.*`.
    pub tensors: Tensors,
}

/// Which probe of a file, and what the file does not say of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeChoice {
    /// Its number among several, as V-JEPA 2's evaluations write them, from 0.
    pub number: usize,
    /// Its attention heads, where the file does not say their number and is of no released size.
    pub heads: Option<usize>,
}

/// Blocks of the encoder that a probe of ours reads: [`ProbeFile::layers`] without its weights; none of an official file.
///
/// # Errors
/// [`WeightsError`]: a file that cannot be read, an inconsistent description.
pub fn probe_layers(path: &Path) -> Result<Option<Vec<usize>>, WeightsError> {
    Ok(ProbeRecord::read(&load(path)?)?.and_then(|record| record.layers))
}

/// Reads a probe that `vjepa probe` wrote, strictly.
///
/// # Errors
/// [`WeightsError`]: a file that is not a probe, an inconsistent description, weights that do not fit it.
pub fn load_probe(path: &Path) -> Result<ProbeFile, WeightsError> {
    probe_of(&load(path)?)
}

/// [`load_probe`] of an open file.
pub(crate) fn probe_of(weights: &Weights) -> Result<ProbeFile, WeightsError> {
    read(weights, None, None)
}

/// Like [`load_probe`], but also accepts a classifier of the official evaluation (`classifier.module.pooler.*`, or one of its
/// `classifiers`). Attention heads that neither the file nor its size says are those that `choice` names, else the encoder's;
/// where the file says their number, `choice` must name the same or none.
///
/// # Errors
/// As [`load_probe`]; [`WeightsError::Sizes`] for another number of heads than the file's, [`WeightsError::ProbeNumber`] for a number
/// that none of its probes has.
pub fn load_probe_for(path: &Path, encoder: &EncoderConfig, choice: ProbeChoice) -> Result<ProbeFile, WeightsError> {
    read(&load(path)?.choosing_probe(choice.number)?, Some(encoder), choice.heads)
}

fn read(weights: &Weights, encoder: Option<&EncoderConfig>, heads: Option<usize>) -> Result<ProbeFile, WeightsError> {
    let record = match (ProbeRecord::read(weights)?, encoder) {
        (Some(record), _) => record,
        (None, Some(encoder)) if weights.has("probe") => official(weights, encoder, heads)?,
        _ => {
            let wanted = "probe (no `vjepa_probe` in its metadata and no official `classifier`)";
            return Err(weights.no_model(wanted));
        }
    };
    if let (Some(given), Some(own)) = (heads, record.num_heads.filter(|own| heads != Some(*own))) {
        let why = format!("its probe has {own} attention heads, not {given}: leave the number out");
        return Err(WeightsError::Sizes { path: weights.path().to_owned(), why });
    }
    let (probe, shapes) = described(weights, &record)?;
    let tensors = weights.take("probe", "probe", shapes)?;
    Ok(ProbeFile { probe, labels: record.labels, layers: record.layers, tensors })
}

/// Describes a classifier of the official evaluation from its shapes.
fn official(weights: &Weights, encoder: &EncoderConfig, heads: Option<usize>) -> Result<ProbeRecord, WeightsError> {
    let path = || weights.path().to_owned();
    let pooler = weights.shape(&format!("{POOLER}.query_tokens"));
    // V-JEPA 2's pooler lacks the projection that V-JEPA 1 stores and never applies; its blocks act on the features.
    let projected =
        ["xattn.proj", "proj"].iter().any(|name| weights.shape(&format!("{CROSS}.{name}.weight")).is_some());
    if pooler.is_some() && !projected {
        return on_features(weights, heads);
    }
    let Some(&[classes, embed_dim]) = weights.shape("probe.linear.weight") else {
        let why = "a classifier needs `linear.weight` of shape [classes, width]".to_owned();
        return Err(WeightsError::Malformed { path: path(), why });
    };
    let blocks = |i: &usize| weights.shape(&format!("{POOLER}.blocks.{i}.norm1.weight")).is_some();
    let (kind, num_heads, depth) = match pooler {
        Some(_) => (
            "attentive",
            Some(heads.unwrap_or(encoder.num_heads)),
            Some(1 + (0..MOST_BLOCKS).take_while(blocks).count()),
        ),
        None => ("linear", None, None),
    };
    Ok(ProbeRecord { num_heads, depth, ..ProbeRecord::plain(kind, classes, embed_dim) })
}

/// Describes a probe of V-JEPA 2's evaluation, or a classifier of Hugging Face, whose blocks work on the features.
fn on_features(weights: &Weights, heads: Option<usize>) -> Result<ProbeRecord, WeightsError> {
    let path = || weights.path().to_owned();
    let layout = weights.model_file(None)?.and_then(|file| file.probe);
    let layout = layout.ok_or_else(|| weights.no_model("probe"))?;
    let [(_, classes)] = layout.heads[..] else {
        return Err(WeightsError::Heads { path: path(), heads: layout.heads.len() });
    };
    let num_heads = layout.num_heads.or(heads).ok_or_else(|| {
        let why = format!(
            "the number of attention heads of its probe, {} wide, is not known: name it (`eval --probe-heads`)",
            layout.embed_dim
        );
        WeightsError::Sizes { path: path(), why }
    })?;
    let config = ProbeConfig {
        depth: 1 + layout.blocks.unwrap_or(0),
        complete_block: layout.complete,
        blocks_on: BlocksOn::Features,
        eps: layout.layer_norm_eps,
        ..ProbeConfig::sized(layout.embed_dim, num_heads, classes)
    };
    Ok(ProbeRecord::of(&Probe::Attentive(config), &layout.labels))
}

/// The probe of a description, and the shapes of its weights.
fn described(weights: &Weights, record: &ProbeRecord) -> Result<(Probe, Shapes), WeightsError> {
    let bad = |why: String| WeightsError::Record { path: weights.path().to_owned(), what: "probe description", why };
    if !record.labels.is_empty() && record.labels.len() != record.classes {
        return Err(bad(format!("it names {} labels for {} classes", record.labels.len(), record.classes)));
    }
    let required = |value: Option<usize>, key: &str| value.ok_or_else(|| bad(format!("`{key}` is missing")));
    let dim = record.embed_dim;
    match record.kind.as_str() {
        "linear" => {
            let shapes = vec![
                ("linear.weight".to_owned(), vec![record.classes, dim]),
                ("linear.bias".to_owned(), vec![record.classes]),
            ];
            Ok((Probe::Linear { embed_dim: dim, num_classes: record.classes }, shapes))
        }
        "attentive" => {
            let hidden = weights.shape(&format!("{CROSS}.mlp.fc1.weight")).and_then(<[usize]>::first).copied();
            let plain = ProbeConfig::sized(dim, required(record.num_heads, "num_heads")?, record.classes);
            let config = ProbeConfig {
                blocks_on: record.blocks_on.unwrap_or(plain.blocks_on),
                eps: record.eps.unwrap_or(plain.eps),
                mlp_ratio: hidden.map_or(4.0, |hidden| hidden as f64 / dim.max(1) as f64),
                depth: required(record.depth, "depth")?,
                complete_block: weights.shape(&format!("{CROSS}.norm1.weight")).is_some(),
                ..plain
            };
            config
                .validate()
                .map_err(|error| WeightsError::Config { path: weights.path().to_owned(), error: error.to_string() })?;
            let shapes = config.parameter_shapes();
            Ok((Probe::Attentive(config), shapes))
        }
        TUNED => {
            let pooling = record.pooling.ok_or_else(|| bad("`pooling` is missing".to_owned()))?;
            let head = TunedHead { embed_dim: dim, num_classes: record.classes, pooling };
            let shapes = head.parameter_shapes();
            Ok((Probe::Tuned(head), shapes))
        }
        other => Err(bad(format!("the kind `{}` is not `attentive`, `linear` or `fine-tuned`", shortened(other)))),
    }
}
