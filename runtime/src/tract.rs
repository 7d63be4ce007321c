//! tract: one optimised plan for each batch size, since a symbolic batch costs a fifth of the speed.

use crate::onnx::{OnnxFile, TensorInfo};
use crate::session::{Feed, NamedOutput, SessionError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

/// Plans kept: each holds the weights in the layout its kernels want.
const MOST_PLANS: usize = 4;
/// Largest number of threads that is tried.
const MOST_THREADS: usize = 256;

type Plan = Arc<TypedRunnableModel>;

/// A model loaded by tract.
pub(crate) struct Model {
    path: PathBuf,
    model: InferenceModel,
    executor: Executor,
    threads: usize,
    /// Most recently used last.
    plans: Mutex<Vec<(Vec<usize>, Plan)>>,
}

impl Model {
    pub fn open(file: &OnnxFile, threads: Option<usize>) -> Result<Self, SessionError> {
        let model = guarded(|| parse(file)).map_err(|reason| load_error(&file.path, reason))?;
        let threads = threads.unwrap_or(1).clamp(1, MOST_THREADS);
        let executor = match threads {
            1 => Executor::SingleThread,
            // tract panics where threads cannot be had.
            _ => guarded(|| Ok(Executor::multithread(threads))).map_err(|reason| load_error(&file.path, reason))?,
        };
        let model = Self { path: file.path.clone(), model, executor, threads, plans: Mutex::default() };
        // A model that cannot be optimised is told now, not at the first clip.
        if let Some(shape) = single_clip(&file.inputs) {
            model.plan(&shape).map_err(|reason| load_error(&file.path, reason))?;
        }
        Ok(model)
    }

    pub fn describe(&self) -> String {
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        format!("tract ({threads})")
    }

    pub fn run(&self, feed: Feed<'_>, outputs: &[TensorInfo]) -> Result<Vec<NamedOutput>, SessionError> {
        let plan = self.plan(feed.shape).map_err(|reason| load_error(&self.path, reason))?;
        let results = guarded(|| {
            let clip = Tensor::from_shape(feed.shape, feed.data)?;
            multithread_tract_scope(self.executor.clone(), || plan.run(tvec!(clip.into_tvalue())))
        });
        let run_error = |reason| SessionError::Run { runtime: "tract", reason };
        let results = results.map_err(run_error)?;
        let named = outputs.iter().zip(results.iter()).map(|(info, value)| {
            let data = guarded(|| Ok(value.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()));
            let data = data.map_err(run_error)?;
            Ok(NamedOutput { name: info.name.clone(), shape: value.shape().to_vec(), data })
        });
        named.collect()
    }

    /// The plan for clips of this shape.
    fn plan(&self, shape: &[usize]) -> Result<Plan, String> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = plans.iter().position(|(known, _)| known == shape) {
            let entry = plans.remove(found);
            let plan = entry.1.clone();
            plans.push(entry);
            return Ok(plan);
        }
        let plan = guarded(|| {
            let model = self.model.clone().with_input_fact(0, f32::fact(shape).into())?;
            model.into_optimized()?.into_runnable()
        })?;
        if plans.len() >= MOST_PLANS {
            plans.remove(0);
        }
        plans.push((shape.to_vec(), plan.clone()));
        Ok(plan)
    }
}

fn parse(file: &OnnxFile) -> TractResult<InferenceModel> {
    use tract_onnx::tract_hir::internal::bail;
    let proto = <ModelProto as prost::Message>::decode(file.bytes.clone())?;
    let folder = file.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or(Some("."), |folder| folder.to_str());
    let parsed = tract_onnx::onnx().parse(&proto, folder)?;
    if !parsed.unresolved_inputs.is_empty() {
        bail!("nothing computes {}", parsed.unresolved_inputs.join(", "));
    }
    Ok(parsed.model)
}

/// The shape of one clip, when everything but the batch is fixed.
fn single_clip(inputs: &[TensorInfo]) -> Option<Vec<usize>> {
    let [input] = inputs else { return None };
    let batch = input.shape.first()?.size().unwrap_or(1);
    Some([&[batch], input.row()?.as_slice()].concat())
}

fn load_error(path: &std::path::Path, reason: String) -> SessionError {
    SessionError::Load { runtime: "tract", path: path.to_owned(), reason }
}

/// Runs tract's code on a foreign model: its panics become errors.
fn guarded<R>(f: impl FnOnce() -> TractResult<R>) -> Result<R, String> {
    crate::quiet::caught(f)
        .map_err(|panic| format!("it does not understand the model ({panic})"))?
        .map_err(|error| format!("{error:#}"))
}
