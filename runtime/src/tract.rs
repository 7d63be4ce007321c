//! tract: one optimised plan for each batch size, since a symbolic batch costs a fifth of the speed.

use crate::clips::{Feed, NamedOutput};
use crate::error::SessionError;
use crate::files::Tree;
use crate::onnx::{OnnxFile, TensorInfo};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

mod operators;

/// Plans kept: each holds the weights in the layout its kernels want.
const MOST_PLANS: usize = 4;
/// Largest number of threads that is tried.
const MOST_THREADS: usize = 256;

type Plan = Arc<TypedRunnableModel>;

/// A model loaded by tract.
pub(crate) struct Model {
    path: PathBuf,
    model: InferenceModel,
    /// The threads, and the process they are in.
    executor: Mutex<(u32, Executor)>,
    threads: usize,
    /// By the shapes of the inputs; most recently used last.
    plans: Mutex<Vec<(Vec<Vec<usize>>, Plan)>>,
}

impl Model {
    pub fn open(file: &OnnxFile, threads: Option<usize>) -> Result<Self, SessionError> {
        let model = guarded(|| parse(file)).map_err(|reason| load_error(&file.path, reason))?;
        let model = model.map_err(|lacking| SessionError::Load {
            runtime: "tract",
            path: file.path.clone(),
            reason: lacking,
            lacks_operators: true,
        })?;
        let threads = threads.unwrap_or(1).clamp(1, MOST_THREADS);
        let executor = executor(threads).map_err(|reason| load_error(&file.path, reason))?;
        let executor = Mutex::new((std::process::id(), executor));
        let model = Self { path: file.path.clone(), model, executor, threads, plans: Mutex::default() };
        // A model that cannot be optimised fails here, not at the first clip.
        if let Some(shapes) = single(&file.inputs) {
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            model.plan(&shapes).map_err(|reason| load_error(&file.path, reason))?;
        }
        Ok(model)
    }

    pub fn describe(&self) -> String {
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        format!("tract ({threads})")
    }

    pub fn run(&self, feeds: &[Feed<'_>], outputs: &[TensorInfo]) -> Result<Vec<NamedOutput>, SessionError> {
        let run_error = |reason| SessionError::Run { runtime: "tract", reason };
        let executor = self.executor().map_err(run_error)?;
        let shapes: TVec<&[usize]> = feeds.iter().map(|feed| feed.shape).collect();
        let plan = self.plan(&shapes).map_err(|reason| load_error(&self.path, reason))?;
        let results = guarded(|| {
            let tensor = |feed: &Feed<'_>| Ok(Tensor::from_shape(feed.shape, feed.data)?.into_tvalue());
            let inputs: TVec<TValue> = feeds.iter().map(tensor).collect::<TractResult<_>>()?;
            multithread_tract_scope(executor, || plan.run(inputs))
        });
        let results = results.map_err(run_error)?;
        let named = outputs.iter().zip(results.iter()).map(|(info, value)| {
            let data = guarded(|| Ok(value.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()));
            let data = data.map_err(run_error)?;
            Ok(NamedOutput { name: info.name.clone(), shape: value.shape().to_vec(), data })
        });
        named.collect()
    }

    /// The threads. A child of the process that started them gets some of its own.
    fn executor(&self) -> Result<Executor, String> {
        let mut kept = self.executor.lock().unwrap_or_else(PoisonError::into_inner);
        let here = std::process::id();
        if kept.0 != here {
            let own = executor(self.threads)?;
            // Dropped, the parent's would wake threads that are not here, with locks that may be theirs.
            std::mem::forget(std::mem::replace(&mut *kept, (here, own)));
        }
        Ok(kept.1.clone())
    }

    /// The plan for inputs of these shapes.
    fn plan(&self, shapes: &[&[usize]]) -> Result<Plan, String> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = plans.iter().position(|(known, _)| known == shapes) {
            let entry = plans.remove(found);
            let plan = entry.1.clone();
            plans.push(entry);
            return Ok(plan);
        }
        let build = || {
            let mut model = self.model.clone();
            for (input, shape) in shapes.iter().enumerate() {
                model = model.with_input_fact(input, f32::fact(*shape).into())?;
            }
            model.into_optimized()?.into_runnable()
        };
        // Without an executor tract takes a lock of the whole process for each operator that it computes beforehand.
        let plan = guarded(|| multithread_tract_scope(Executor::SingleThread, build))?;
        if plans.len() >= MOST_PLANS {
            plans.remove(0);
        }
        plans.push((shapes.iter().map(|shape| shape.to_vec()).collect(), plan.clone()));
        Ok(plan)
    }
}

fn executor(threads: usize) -> Result<Executor, String> {
    match threads {
        1 => Ok(Executor::SingleThread),
        // tract panics where threads cannot be had.
        _ => guarded(|| Ok(Executor::multithread(threads))),
    }
}

/// The model, or which operators of it tract lacks.
fn parse(file: &OnnxFile) -> TractResult<Result<InferenceModel, String>> {
    use tract_onnx::tract_hir::internal::bail;
    let mut proto = <ModelProto as prost::Message>::decode(file.bytes.clone())?;
    take_in_linked(&mut proto, file)?;
    let folder = file.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.map_or(Some("."), |folder| folder.to_str());
    // Shapes that another tool inferred say nothing new, and what they call the batch is not what this run's clips make of
    // it: tract would not get the two together.
    let onnx = tract_onnx::onnx().with_ignore_value_info(true);
    if let Some(graph) = &proto.graph
        && let Some(lacking) = operators::lacking(graph, &onnx.op_register)
    {
        return Ok(Err(lacking));
    }
    let parsed = onnx.parse(&proto, folder)?;
    if !parsed.unresolved_inputs.is_empty() {
        bail!("nothing computes {}", parsed.unresolved_inputs.join(", "));
    }
    Ok(Ok(parsed.model))
}

/// Takes external data in that a link leads to elsewhere in the model's tree: tract opens none outside its folder.
fn take_in_linked(proto: &mut ModelProto, file: &OnnxFile) -> TractResult<()> {
    let Some(graph) = proto.graph.as_mut().filter(|_| !file.external.is_empty()) else { return Ok(()) };
    let tree = Tree::of(&file.path)?;
    let folder = file.path.with_file_name("").canonicalize().or_else(|_| std::path::Path::new(".").canonicalize())?;
    for tensor in &mut graph.initializer {
        let get = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let Some(Ok((target, about))) = get("location").map(|name| tree.file(name)) else { continue };
        if target.starts_with(&folder) {
            continue;
        }
        let number = |key: &str| get(key).map(|text| text.parse::<u64>()).transpose();
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(about.len().saturating_sub(offset));
        let mut data = std::fs::File::open(target)?;
        data.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        data.take(length).read_to_end(&mut bytes)?;
        tensor.raw_data = bytes;
        tensor.external_data.clear();
        tensor.data_location = None;
    }
    Ok(())
}

/// The shape of each input for one clip, when everything but their first sizes is fixed.
fn single(inputs: &[TensorInfo]) -> Option<Vec<Vec<usize>>> {
    let shape = |input: &TensorInfo| {
        let batch = input.shape.first()?.size().unwrap_or(1);
        Some([&[batch], input.row()?.as_slice()].concat())
    };
    inputs.iter().map(shape).collect()
}

fn load_error(path: &std::path::Path, reason: String) -> SessionError {
    SessionError::Load { runtime: "tract", path: path.to_owned(), reason, lacks_operators: false }
}

/// Runs tract's code on a foreign model: its panics become errors.
fn guarded<R>(f: impl FnOnce() -> TractResult<R>) -> Result<R, String> {
    crate::quiet::caught(f)
        .map_err(|panic| format!("it does not understand the model ({})", crate::quiet::shortened(&panic)))?
        .map_err(|error| crate::quiet::shortened(&format!("{error:#}")))
}
