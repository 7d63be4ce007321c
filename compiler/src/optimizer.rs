//! From gradients to a training step: clipping, AdamW and moving averages appended to the graph as parameter updates.
//!
//! Nothing here knows a model: which parameters decay, which are clipped together and which follow which is the caller's.

use crate::ir::{Def, Graph, GraphError, TensorType, ValueId};
use crate::ops::{Binary, Op, Unary};

/// Parameters whose gradients are clipped together by their global norm.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipGroup {
    /// Names the output `grad_norm.<name>`.
    pub name: String,
    /// The parameters.
    pub params: Vec<ValueId>,
    /// Whose norm it is, where that is not just the parameters' gradients: those of parameters that other processes update are
    /// among them. The order decides the norm's last bits.
    pub norm_of: Option<Vec<ValueId>>,
}

/// Settings of [`append_optimizer`].
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSpec {
    /// `(parameter, its gradient)` of everything that is trained.
    pub gradients: Vec<(ValueId, ValueId)>,
    /// The trained parameters that weight decay applies to.
    pub decay: Vec<ValueId>,
    /// Factors on the learning rate; 1 for a parameter that is not listed.
    pub rates: Vec<(ValueId, f64)>,
    /// Groups clipped by global norm; a parameter is in at most one.
    pub clip: Vec<ClipGroup>,
    /// `(target, source)`: the target parameter becomes `momentum·target + (1 − momentum)·source`, the source taken after
    /// its own update.
    pub ema: Vec<(ValueId, ValueId)>,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The gradients are sums, of which the input `share f32[]` makes means.
    pub shared: bool,
}

impl Default for TrainSpec {
    /// Nothing trained, with PyTorch's defaults: betas 0.9 and 0.999, eps 1e-8.
    fn default() -> Self {
        Self {
            gradients: Vec::new(),
            decay: Vec::new(),
            rates: Vec::new(),
            clip: Vec::new(),
            ema: Vec::new(),
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            shared: false,
        }
    }
}

/// Added to the norm before dividing by it, as PyTorch's `clip_grad_norm_` does.
const NORM_EPS: f64 = 1e-6;

/// Appends AdamW (PyTorch's order of operations) for every trained parameter, and the moving averages.
///
/// Added to the graph:
/// - `f32[]` inputs `lr`, `wd` and the bias corrections `c1 = 1 − beta1^t`, `c2 = 1 − beta2^t` (t counts from 1); `max_norm`
///   when there are clip groups (`inf` leaves gradients as they are); `momentum` when there are averages;
/// - parameters `adam.m.<name>` and `adam.v.<name>`, zero before the first step;
/// - the input `share` where gradients are [sums](TrainSpec::shared); it goes into the factor that clips, so that no pass over
///   the gradients is spent on it;
/// - outputs `grad_norm.<group>`, the norm of the (mean) gradient before clipping;
/// - updates of the parameters, their moments and the targets.
///
/// # Errors
/// [`GraphError`] when a name is taken, a gradient does not fit its parameter, or a parameter is listed twice.
pub fn append_optimizer(graph: &mut Graph, spec: &TrainSpec) -> Result<(), GraphError> {
    let scalar = || TensorType::f32([]);
    let rates = [
        graph.input("lr", scalar())?,
        graph.input("wd", scalar())?,
        graph.input("c1", scalar())?,
        graph.input("c2", scalar())?,
    ];
    let share = if spec.shared { Some(graph.input("share", scalar())?) } else { None };
    let unclipped = match share {
        Some(share) => share,
        None => graph.full(1.0, scalar())?,
    };
    let no_decay = graph.full(0.0, scalar())?;
    let mut clip_scales = Vec::new();
    if !spec.clip.is_empty() {
        let max_norm = graph.input("max_norm", scalar())?;
        for group in &spec.clip {
            let scale = clip_scale(graph, spec, group, max_norm, share)?;
            clip_scales.extend(group.params.iter().map(|param| (*param, scale)));
        }
    }
    let mut trained = Vec::new();
    let mut scaled: Vec<(f64, ValueId)> = Vec::new();
    for (param, gradient) in &spec.gradients {
        let [lr, wd, c1, c2] = rates;
        let factor = spec.rates.iter().find(|(id, _)| id == param).map_or(1.0, |(_, factor)| *factor);
        let lr = scaled_rate(graph, lr, factor, &mut scaled)?;
        let clip = clip_scales.iter().find(|(id, _)| id == param).map_or(unclipped, |(_, scale)| *scale);
        let decay = if spec.decay.contains(param) { wd } else { no_decay };
        let new = adamw(graph, spec, (*param, *gradient), [lr, decay, c1, c2, clip])?;
        trained.push((*param, new));
    }
    if !spec.ema.is_empty() {
        let momentum = graph.input("momentum", scalar())?;
        for (target, source) in &spec.ema {
            let new = trained.iter().find(|(param, _)| param == source).map_or(*source, |(_, new)| *new);
            let average = graph.push1(Op::Ema, &[*target, new, momentum])?;
            graph.update(*target, average)?;
        }
    }
    Ok(())
}

/// The learning rate times a factor; every factor is applied once.
fn scaled_rate(
    graph: &mut Graph,
    lr: ValueId,
    factor: f64,
    scaled: &mut Vec<(f64, ValueId)>,
) -> Result<ValueId, GraphError> {
    if factor == 1.0 {
        return Ok(lr);
    }
    if let Some((_, known)) = scaled.iter().find(|(of, _)| *of == factor) {
        return Ok(*known);
    }
    let rate = graph.mul_scalar(lr, factor)?;
    scaled.push((factor, rate));
    Ok(rate)
}

/// Appends one parameter's step and returns its new value.
fn adamw(
    graph: &mut Graph,
    spec: &TrainSpec,
    (param, gradient): (ValueId, ValueId),
    [lr, wd, c1, c2, clip]: [ValueId; 5],
) -> Result<ValueId, GraphError> {
    let name = param_name(graph, param)?;
    let ty = graph.ty(param).clone();
    let m = graph.param(&format!("adam.m.{name}"), ty.clone())?;
    let v = graph.param(&format!("adam.v.{name}"), ty)?;
    let op = Op::AdamW { beta1: spec.beta1, beta2: spec.beta2, eps: spec.eps };
    let results = graph.push(op, &[param, gradient, m, v, lr, wd, c1, c2, clip])?;
    for (old, new) in [param, m, v].into_iter().zip(&results) {
        graph.update(old, *new)?;
    }
    results.first().copied().ok_or_else(|| GraphError::Other("adamw has no result".to_owned()))
}

/// Appends the global norm of a group's gradients as an output, and `min(1, max_norm / (norm + 1e-6))`; with a `share`, both
/// are of sums times it.
fn clip_scale(
    graph: &mut Graph,
    spec: &TrainSpec,
    group: &ClipGroup,
    max_norm: ValueId,
    share: Option<ValueId>,
) -> Result<ValueId, GraphError> {
    let mut gradients = Vec::with_capacity(group.params.len());
    for param in &group.params {
        let Some((_, gradient)) = spec.gradients.iter().find(|(id, _)| id == param) else {
            let name = param_name(graph, *param)?;
            return Err(GraphError::Other(format!("`{name}` is in clip group `{}` but is not trained", group.name)));
        };
        gradients.push(*gradient);
    }
    let total = match group.norm_of.as_deref().unwrap_or(&gradients) {
        [] => graph.full(0.0, TensorType::f32([]))?,
        gradients => graph.push1(Op::SquaredNorm, gradients)?,
    };
    let mut norm = graph.unary(Unary::Sqrt, total)?;
    if let Some(share) = share {
        norm = graph.mul(norm, share)?;
    }
    graph.output(&format!("grad_norm.{}", group.name), norm);
    let shifted = graph.add_scalar(norm, NORM_EPS)?;
    let ratio = graph.div(max_norm, shifted)?;
    let one = graph.full(1.0, TensorType::f32([]))?;
    let scale = graph.binary(Binary::Min, ratio, one)?;
    match share {
        Some(share) => graph.mul(scale, share),
        None => Ok(scale),
    }
}

fn param_name(graph: &Graph, id: ValueId) -> Result<String, GraphError> {
    match graph.values.get(id.0).map(|value| &value.def) {
        Some(Def::Param(name)) => Ok(name.clone()),
        Some(_) => Err(GraphError::Other(format!("%{} is trained but is not a parameter", id.0))),
        None => Err(GraphError::UnknownValue(id.0)),
    }
}

#[cfg(test)]
mod tests;
