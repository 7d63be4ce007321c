//! Requests for exports, and their results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_export::{ExternalData, OnnxOptions, Precision, Target, WeightRange, Written};
use vjepa_programs::{DeployedHead, Model, ProbeFile};
use vjepa_recipe::config::Config;
use vjepa_runtime::ClipViews;

use crate::accuracy::AccuracyReport;
use crate::parity::Parity;

/// Where the encoder comes from.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// A weights file.
    Checkpoint(&'a Path),
    /// Weights drawn from a seed, of the configured sizes.
    Drawn(u64),
}

/// The form of the model.
#[derive(Clone, Debug)]
pub struct Form {
    pub target: Target,
    pub precision: Precision,
    /// Range of 8-bit weights; the target's default when not given.
    pub int8_range: Option<WeightRange>,
    pub opset: i64,
    /// Batch size; dynamic when not given.
    pub batch: Option<usize>,
    /// The head; the probe where there is one, else all tokens, when not given.
    pub head: Option<DeployedHead>,
    /// Which of the probe's file, from 0, where that holds several.
    pub probe_number: usize,
    /// Clips and views of a prediction.
    pub clip_views: ClipViews,
    /// Another clip size than the weights were trained on.
    pub frames: Option<usize>,
    /// Height and width.
    pub resolution: Option<[usize; 2]>,
    /// Blocks whose outputs are wanted.
    pub out_layers: Option<Vec<usize>>,
    pub external: ExternalData,
    /// Clips that a low-precision model is evaluated on; generated ones when empty.
    pub calibration: Vec<PathBuf>,
    pub min_agreement: f64,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            target: Target::default(),
            precision: Precision::default(),
            int8_range: None,
            opset: OnnxOptions::default().opset,
            batch: None,
            head: None,
            probe_number: 0,
            clip_views: ClipViews::SINGLE,
            frames: None,
            resolution: None,
            out_layers: None,
            external: ExternalData::default(),
            calibration: Vec::new(),
            min_agreement: 0.99,
        }
    }
}

impl Form {
    /// Range of the 8-bit weights, for a form that has them.
    pub(crate) fn weight_range(&self) -> Option<WeightRange> {
        matches!(self.precision, Precision::Int8Dynamic | Precision::Int8Static)
            .then(|| self.int8_range.unwrap_or(OnnxOptions::new(self.target, self.precision).int8.range))
    }
}

/// A request for an export.
pub struct Export<'a> {
    pub origin: Origin<'a>,
    pub probe: Option<&'a Path>,
    pub config: Option<&'a Config>,
    pub out: &'a Path,
    /// The path that the user gave: `out`, or the folder that the model becomes a part of.
    pub shown_as: &'a Path,
    pub verify: bool,
    pub ort_lib: Option<PathBuf>,
    pub form: Form,
}

/// The result of an export.
pub struct Exported {
    pub written: Written,
    pub nodes: usize,
    pub metadata: BTreeMap<String, String>,
    pub parity: Vec<(&'static str, Parity)>,
    /// The accuracy of a low-precision model, and where its report is.
    pub accuracy: Option<(AccuracyReport, PathBuf)>,
    pub model: Model,
    pub probe: Option<ProbeFile>,
}
