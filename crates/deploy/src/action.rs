//! A V-JEPA 2-AC model as two ONNX files: the encoder of single frames, and the predictor of next frames from actions.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use vjepa_compiler::ir::{DType, Graph};
use vjepa_export::{OnnxOptions, Precision, WeightSource, Written, to_onnx};
use vjepa_graphs::ACTION_WIDTH;
use vjepa_programs::frozen::{Frozen, planned};
use vjepa_programs::{self as programs, ActionModel};
use vjepa_recipe::counter::noise;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::{self as weights, Weights};

use crate::accuracy::outputs;
use crate::parity::{self, Candidate, Parity, clips_for};
use crate::paths::refuse;
use crate::{DeployError, Export, Origin};

/// Frames of a sequence where none are asked for: those the released model was trained on.
const FRAMES: usize = 8;

/// The two files.
pub struct ActionExported {
    /// What they are of.
    pub model: ActionModel,
    /// `clip f32[B, 3, T, H, W]` to `tokens f32[B, T·N, D]`.
    pub encoder: Written,
    /// `tokens`, `states f32[B, T, 7]` and `actions f32[B, T, 7]` to `next_tokens f32[B, T·N, D]`.
    pub predictor: Written,
    /// The encoder's results on every runtime, against the plan's.
    pub encoder_parity: Vec<(&'static str, Parity)>,
    /// The predictor's.
    pub predictor_parity: Vec<(&'static str, Parity)>,
}

/// The file's tensors under the names of the graphs.
struct Stored {
    weights: Weights,
    entry: &'static str,
}

impl Stored {
    fn name(&self, name: &str) -> String {
        match name.strip_prefix("encoder.") {
            Some(rest) => format!("{}.{rest}", self.entry),
            None => name.to_owned(),
        }
    }
}

impl WeightSource for Stored {
    fn describe(&self, name: &str) -> Option<(DType, Vec<usize>)> {
        Some((DType::F32, self.weights.shape(&self.name(name))?.to_vec()))
    }

    fn read(&self, name: &str) -> io::Result<Cow<'_, [f32]>> {
        let (_, values) = self.weights.get(&self.name(name)).map_err(io::Error::other)?;
        Ok(Cow::Owned(values))
    }
}

/// Writes `encoder.onnx` and `predictor.onnx` into the folder `request.out`, and runs both as [`crate::export`] does.
///
/// # Errors
/// [`DeployError`] for a file of another model, a precision other than f32, or results that differ from the plan's: the file whose
/// they are is then removed.
pub fn write(request: &Export<'_>) -> Result<ActionExported, DeployError> {
    let form = &request.form;
    if form.precision != Precision::F32 {
        return Err("V-JEPA 2-AC is exported in f32 alone; leave --precision out".into());
    }
    if request.probe.is_some() || form.head.is_some() || form.out_layers.is_some() {
        return Err("V-JEPA 2-AC has no probe and no head; leave --probe, --head and --out-layers out".into());
    }
    let Origin::Checkpoint(path) = request.origin else {
        return Err("give the file of a V-JEPA 2-AC model with --checkpoint".into());
    };
    let [encoder, predictor] = ["encoder.onnx", "predictor.onnx"].map(|name| request.out.join(name));
    request.spares(&[&encoder, &predictor])?;
    let weights = weights::load(path)?;
    let model = programs::action_model(&weights, request.config, form.frames.unwrap_or(FRAMES))?;
    let stored = Stored { weights, entry: model.entry };
    let mut options = OnnxOptions::new(form.target, form.precision);
    (options.opset, options.batch, options.external_data) = (form.opset, form.batch, form.external);
    options.check()?;
    std::fs::create_dir_all(request.out).map_err(|error| format!("{}: {error}", request.out.display()))?;
    let frames = programs::optimised(&programs::frame_tokens(&model.encoder, model.predictor.frames)?)?;
    let actions = programs::optimised(&programs::action_predictor(&model.predictor)?)?;
    let encoder = one(&frames, &stored, &options, &encoder)?;
    let predictor = one(&actions, &stored, &options, &predictor)?;
    let (encoder_parity, predictor_parity) = (Vec::new(), Vec::new());
    let mut exported = ActionExported { model, encoder, predictor, encoder_parity, predictor_parity };
    if request.verify {
        let checked = encoder_agrees(request, &exported, frames, &stored);
        exported.encoder_parity = checked.map_err(|error| refuse(&exported.encoder, request.shown_as, &error))?;
        let checked = predictor_agrees(request, &exported, &actions, &stored);
        exported.predictor_parity = checked.map_err(|error| refuse(&exported.predictor, request.shown_as, &error))?;
    }
    Ok(exported)
}

fn one(graph: &Graph, stored: &Stored, options: &OnnxOptions, path: &Path) -> Result<Written, DeployError> {
    Ok(to_onnx(graph, stored, options)?.write(path)?)
}

fn parameters(graph: &Graph) -> usize {
    let counts = graph.params.iter().filter_map(|id| graph.ty(*id).elements().as_const());
    counts.map(|count| usize::try_from(count).unwrap_or(0)).sum()
}

fn encoder_agrees(
    request: &Export<'_>,
    exported: &ActionExported,
    graph: Graph,
    stored: &Stored,
) -> Result<Vec<(&'static str, Parity)>, DeployError> {
    let ActionModel { encoder, predictor, .. } = &exported.model;
    let clip = [encoder.channels, predictor.frames, encoder.height, encoder.width];
    let parameters = parameters(&graph);
    let mut plan = Frozen::of_graph(graph, clip, |name| Ok(stored.read(name)?.into_owned()))?;
    let form = &request.form;
    parity::verify(&mut plan, &exported.encoder.model, request.ort_lib.as_ref(), parameters, form.target, form.batch)
}

fn predictor_agrees(
    request: &Export<'_>,
    exported: &ActionExported,
    graph: &Graph,
    stored: &Stored,
) -> Result<Vec<(&'static str, Parity)>, DeployError> {
    let (predictor, form) = (&exported.model.predictor, &request.form);
    let count = clips_for(parameters(graph), form.batch);
    let tensor = |name: &'static str, shape: [usize; 3]| {
        (name, HostTensor::F32 { data: noise(shape.iter().product()), shape: shape.to_vec() })
    };
    let inputs = [
        tensor("tokens", [count, predictor.frames * predictor.patches(), predictor.encoder_dim]),
        tensor("states", [count, predictor.frames, ACTION_WIDTH]),
        tensor("actions", [count, predictor.frames, ACTION_WIDTH]),
    ];
    let (mut executor, mut params) = planned(graph, |name| Ok(stored.read(name)?.into_owned()))?;
    let expected = outputs(executor.run(&mut params, inputs.to_vec())?);
    let (path, ort_lib, target) = (&exported.predictor.model, request.ort_lib.as_ref(), form.target);
    Candidate { path, ort_lib, target, count, may_be_lacked: false }.verify_named(&inputs, &expected)
}
