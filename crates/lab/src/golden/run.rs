//! Running compiled graphs on tensors of the golden data.

use std::collections::BTreeMap;

use super::check::{Check, GoldenError, Limit};
use super::sampled::Compare;
use vjepa_compiler::ir::{Def, Graph};
use vjepa_programs as compile;
use vjepa_programs::Precision;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};
use vjepa_weights::{TensorFile, TensorFileError};

/// Forward activations: relative L2 and largest difference.
pub(super) const FORWARD: Limit = Limit::Both { rel_l2: 1e-5, max_abs: 1e-4 };

/// Named results of a run.
pub(super) type Outputs = BTreeMap<String, HostTensor>;

/// The device that compiled graphs run on, and their arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Execution {
    /// Where.
    pub device: Device,
    /// The precision of products.
    pub precision: Precision,
    /// What the lengths of mask lists are rounded up to a multiple of, in steps that have them.
    pub mask_buckets: Option<usize>,
}

impl Execution {
    /// Plans a forward graph, after the passes every graph goes through.
    pub(super) fn plan(self, graph: &Graph) -> Result<DeviceExecutor, GoldenError> {
        let graph = compile::optimised(graph).map_err(GoldenError::Compile)?;
        self.plan_step(graph)
    }

    /// Plans a step, which has been through the passes.
    pub(super) fn plan_step(self, graph: Graph) -> Result<DeviceExecutor, GoldenError> {
        let graph = self.precision.apply(graph).map_err(GoldenError::Compile)?;
        Ok(self.device.plan(&graph)?)
    }

    /// An empty store.
    pub(super) fn params(self) -> DeviceParams {
        self.device.params()
    }
}

/// Plans a graph and runs it once.
pub(super) fn run_once(
    execution: Execution,
    graph: &Graph,
    params: &mut DeviceParams,
    inputs: Vec<(&str, HostTensor)>,
) -> Result<Outputs, GoldenError> {
    Ok(execution.plan(graph)?.run(params, inputs)?)
}

/// Runs a step once, its lists of masks padded where it takes such.
pub(super) fn run_step(
    step: &mut DeviceExecutor,
    params: &mut DeviceParams,
    inputs: Vec<(&str, HostTensor)>,
) -> Result<Outputs, GoldenError> {
    let (names, tensors): (Vec<String>, Vec<HostTensor>) = compile::padded(step.graph(), inputs).into_iter().unzip();
    Ok(step.run(params, names.iter().map(String::as_str).zip(tensors).collect())?)
}

/// The values of one result.
pub(super) fn values(outputs: &Outputs, name: &str) -> Result<Vec<f32>, GoldenError> {
    outputs.get(name).map(|tensor| tensor.floats().to_vec()).ok_or_else(|| GoldenError::Missing(name.to_owned()))
}

/// One scalar result.
pub(super) fn scalar(outputs: &Outputs, name: &str) -> Result<f64, GoldenError> {
    let first = outputs.get(name).and_then(|tensor| tensor.floats().first().copied());
    first.map(f64::from).ok_or_else(|| GoldenError::Missing(name.to_owned()))
}

/// Puts the tensors whose names start with `from` into a store, with `to` in its place.
pub(super) fn load(params: &mut DeviceParams, tensors: &TensorFile, from: &str, to: &str) -> Result<(), GoldenError> {
    for name in tensors.names() {
        if let Some(rest) = name.strip_prefix(from) {
            params.set(&format!("{to}{rest}"), float(tensors, name)?);
        }
    }
    Ok(())
}

/// Sets every parameter of a graph that the store does not have yet to zeros: the optimiser's moments.
pub(super) fn zero_moments(params: &mut DeviceParams, graph: &Graph) {
    for id in &graph.params {
        let value = graph.value(*id);
        let Def::Param(name) = &value.def else { continue };
        if name.starts_with("adam.") {
            let sizes = value.ty.shape.iter().filter_map(|dim| dim.as_const().and_then(|n| usize::try_from(n).ok()));
            let shape: Vec<usize> = sizes.collect();
            let data = vec![0.0; shape.iter().product()];
            params.set(name, HostTensor::F32 { shape, data });
        }
    }
}

/// A stored tensor as floats.
pub(super) fn float(tensors: &TensorFile, name: &str) -> Result<HostTensor, GoldenError> {
    Ok(HostTensor::F32 { shape: tensors.shape(name)?.to_vec(), data: tensors.f32(name)? })
}

/// A stored mask as indices of `tokens` tokens.
pub(super) fn index(tensors: &TensorFile, name: &str, tokens: usize) -> Result<HostTensor, GoldenError> {
    let in_range = |i: i64| i32::try_from(i).ok().filter(|i| usize::try_from(*i).is_ok_and(|i| i < tokens));
    let data: Option<Vec<i32>> = tensors.i64(name)?.into_iter().map(in_range).collect();
    let Some(data) = data else {
        let why = format!("`{name}` has an index outside the {tokens} tokens of a clip");
        return Err(GoldenError::Config { path: tensors.path().into(), why });
    };
    Ok(HostTensor::I32 { shape: tensors.shape(name)?.to_vec(), data })
}

/// Names of stored tensors that start with `prefix`, without it; a sampled tensor counts once.
pub(super) fn stored<'a>(tensors: &'a TensorFile, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    tensors.names().filter_map(move |name| {
        let name = name.strip_prefix(prefix)?;
        match name.split_once('#') {
            Some((name, "val")) => Some(name),
            Some(_) => None,
            None => Some(name),
        }
    })
}

/// Elements of a parameter whose gradient is not zero by the model's algebra. A constant added to all keys changes no
/// softmax, so the bias of the keys gets only rounding errors, which no two programs share.
pub(super) fn has_gradient(name: &str, len: usize) -> impl Fn(usize) -> bool {
    let keys = if name.ends_with("qkv.bias") {
        len / 3..len / 3 * 2
    } else if name.ends_with("kv.bias") {
        0..len / 2
    } else {
        0..0
    };
    move |index| !keys.contains(&index)
}

/// Compares the elements of a stored tensor, whole or sampled, that `keep` holds for.
pub(super) fn compare_kept(
    tensors: &TensorFile,
    name: &str,
    got: &[f32],
    limit: Limit,
    keep: impl Fn(usize) -> bool,
) -> Result<Check, TensorFileError> {
    if (0..got.len()).all(&keep) {
        return tensors.compare(name, got, limit);
    }
    let sampled = !tensors.contains(name);
    let want = tensors.f32(&if sampled { format!("{name}#val") } else { name.to_owned() })?;
    let indices: Vec<usize> = match sampled {
        true => tensors.i64(&format!("{name}#idx"))?.into_iter().filter_map(|i| usize::try_from(i).ok()).collect(),
        false => (0..want.len()).collect(),
    };
    if indices.len() != want.len() || indices.iter().any(|&i| i >= got.len()) || (!sampled && got.len() != want.len()) {
        return Ok(Check::mismatch(name, got.len(), want.len(), limit));
    }
    let kept = || indices.iter().zip(&want).filter(|(index, _)| keep(**index));
    let got: Vec<f32> = kept().map(|(&index, _)| got[index]).collect();
    let want: Vec<f32> = kept().map(|(_, &value)| value).collect();
    Ok(Check::compare(name, &got, &want, limit))
}

/// L2 norm of a stored tensor, whole or sampled.
pub(super) fn norm(tensors: &TensorFile, name: &str) -> Result<f64, TensorFileError> {
    if tensors.contains(name) {
        return Ok(tensors.f64(name)?.iter().map(|x| x * x).sum::<f64>().sqrt());
    }
    Ok(tensors.f64(&format!("{name}#stat"))?.first().copied().unwrap_or(f64::NAN))
}
