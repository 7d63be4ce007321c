//! Which passes run on a graph, and measurements of each.
//!
//! A forward graph goes through the passes once. A training step goes through them twice: its forward graph before it is
//! differentiated, and the whole step. [`StopAfter`] ends the sequence anywhere, to find the pass behind a miscompile by
//! bisection: every prefix computes the same.

use super::{CompileError, Precision};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};
use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::passes::{PassError, Pipeline, Recomputed};
use vjepa_compiler::plan::{OpTotals, Plan};
use vjepa_compiler::verify::verify;

/// The output of a training step that is minimised.
const LOSS: &str = "loss";

/// The last pass that runs, written `none`, `PASS` or `forward/PASS` with a label of [`Pipeline::labels`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopAfter {
    /// No pass runs at all.
    Nothing,
    /// The forward graph's passes end here; none runs on the step.
    Forward(String),
    /// The step's passes end here; all run on its forward graph. On a graph without gradients, like [`StopAfter::Forward`].
    Whole(String),
}

impl FromStr for StopAfter {
    type Err = PassError;

    fn from_str(text: &str) -> Result<Self, PassError> {
        let (label, stop) = match text.strip_prefix("forward/") {
            _ if text == "none" => return Ok(Self::Nothing),
            Some(label) => (label, Self::Forward(label.to_owned())),
            None => (text, Self::Whole(text.to_owned())),
        };
        let labels = match &stop {
            Self::Forward(_) => Pipeline::forward().labels(),
            _ => Pipeline::training(LOSS, Some(Recomputed::Elementwise), true).labels(),
        };
        if labels.iter().any(|known| known == label) {
            Ok(stop)
        } else {
            Err(PassError::Unknown { name: label.to_owned(), known: format!("none, {}", labels.join(", ")) })
        }
    }
}

impl fmt::Display for StopAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "none"),
            Self::Forward(label) => write!(f, "forward/{label}"),
            Self::Whole(label) => write!(f, "{label}"),
        }
    }
}

/// One stage of compiling a graph: tracing, a pass, differentiation, ...
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// `trace`, `forward/clean-up`, `grad`, `optimizer`, `clean-up`, ...
    pub name: String,
    /// Wall time, without the measurements.
    pub time: Duration,
    /// Nodes before and after.
    pub nodes: [usize; 2],
    /// Changes made by a pass; 0 for other stages.
    pub changes: usize,
    /// Arithmetic and traffic before and after, if there are sizes to measure them at.
    pub cost: Option<[OpTotals; 2]>,
}

/// How graphs are optimised. The default runs every pass.
#[derive(Clone, Debug, Default)]
pub struct Passes {
    /// Where the passes end; `None` runs them all.
    pub stop_after: Option<StopAfter>,
    /// Whether the verifier runs after every pass.
    pub verify: bool,
    /// Sizes to measure costs at; `None` measures none.
    pub sizes: Option<Sizes>,
    /// The memory budget of a step in bytes, and the sizes it applies to: values that do not fit are recomputed instead of
    /// kept.
    pub memory: Option<(u64, Sizes)>,
    /// The stages so far.
    pub stages: Vec<Stage>,
}

impl Passes {
    /// No pass runs.
    pub fn none() -> Self {
        Self { stop_after: Some(StopAfter::Nothing), ..Self::default() }
    }

    /// Runs the passes on a graph that is not differentiated.
    ///
    /// # Errors
    /// [`CompileError::Pass`].
    pub fn run(&mut self, graph: Graph) -> Result<Graph, CompileError> {
        match self.stop_after.clone() {
            Some(StopAfter::Nothing) => self.skipped(graph),
            None => self.pipeline(Pipeline::standard(), graph, "", None),
            Some(StopAfter::Forward(label) | StopAfter::Whole(label)) => {
                self.pipeline(Pipeline::standard(), graph, "", Some(&label))
            }
        }
    }

    /// Runs the passes on the forward graph of a step.
    pub(super) fn forward(&mut self, graph: Graph) -> Result<Graph, CompileError> {
        match self.stop_after.clone() {
            Some(StopAfter::Nothing) => self.skipped(graph),
            Some(StopAfter::Forward(label)) => self.pipeline(Pipeline::forward(), graph, "forward/", Some(&label)),
            None | Some(StopAfter::Whole(_)) => self.pipeline(Pipeline::forward(), graph, "forward/", None),
        }
    }

    /// Runs the passes on a whole step. Cut before `autocast`, a step of bf16 computes in f32.
    pub(super) fn whole(
        &mut self,
        graph: Graph,
        recompute: Option<Recomputed>,
        precision: Precision,
    ) -> Result<Graph, CompileError> {
        let Some((budget, sizes)) = self.memory.clone() else { return self.recomputing(graph, recompute, precision) };
        let mut least = u64::MAX;
        for what in [None, Some(Recomputed::Elementwise), Some(Recomputed::Blocks)] {
            let done = self.stages.len();
            let step = self.recomputing(graph.clone(), what, precision)?;
            let peak = Plan::new(&step).and_then(|plan| plan.memory(&step, &sizes))?.peak;
            if peak <= budget {
                return Ok(step);
            }
            least = least.min(peak);
            self.stages.truncate(done);
        }
        Err(CompileError::Memory { budget, least })
    }

    fn recomputing(
        &mut self,
        graph: Graph,
        recompute: Option<Recomputed>,
        precision: Precision,
    ) -> Result<Graph, CompileError> {
        let narrow = match precision {
            Precision::F32 => false,
            Precision::Bf16 => true,
            Precision::F16 => return Err(CompileError::Unscaled),
        };
        let pipeline = Pipeline::training(LOSS, recompute, narrow);
        match self.stop_after.clone() {
            Some(StopAfter::Nothing | StopAfter::Forward(_)) => self.skipped(graph),
            Some(StopAfter::Whole(label)) => self.pipeline(pipeline, graph, "", Some(&label)),
            None => self.pipeline(pipeline, graph, "", None),
        }
    }

    /// Runs the passes that let ranks share a step on the half that adds gradients up. Where passes are cut, sums do not overlap.
    pub(super) fn ranks(&mut self, graph: Graph, bucket: usize, overlap: bool) -> Result<Graph, CompileError> {
        let pipeline = Pipeline::ranks(bucket, overlap && self.stop_after.is_none());
        self.pipeline(pipeline, graph, "ranks/", None)
    }

    /// Runs passes with so many bytes of the memory budget taken by what is not in the graph.
    pub(super) fn beside<T>(&mut self, bytes: u64, run: impl FnOnce(&mut Self) -> T) -> T {
        let whole = self.memory.clone();
        if let Some((budget, _)) = &mut self.memory {
            *budget = budget.saturating_sub(bytes);
        }
        let result = run(self);
        self.memory = whole;
        result
    }

    fn skipped(&self, graph: Graph) -> Result<Graph, CompileError> {
        if self.verify {
            verify(&graph).map_err(PassError::from)?;
        }
        Ok(graph)
    }

    fn pipeline(
        &mut self,
        pipeline: Pipeline,
        graph: Graph,
        prefix: &str,
        stop: Option<&str>,
    ) -> Result<Graph, CompileError> {
        let mut pipeline = pipeline.with_verify(self.verify);
        if let Some(label) = stop {
            pipeline = pipeline.stopping_at(label);
        }
        let mut stages = Vec::new();
        let optimised = pipeline.run_observed(&graph, &mut |run| {
            let cost = [run.before, run.after].map(|graph| self.cost(graph));
            stages.push(Stage {
                name: format!("{prefix}{}", run.label),
                time: run.time,
                nodes: [run.before.nodes.len(), run.after.nodes.len()],
                changes: run.changes.len(),
                cost: both(cost),
            });
        })?;
        self.stages.append(&mut stages);
        Ok(optimised.graph)
    }

    /// Changes a graph by something other than a pass, and records it as the stage `name`.
    ///
    /// # Errors
    /// Whatever `make` fails with.
    pub fn stage<T, E>(
        &mut self,
        name: &str,
        graph: &mut Graph,
        make: impl FnOnce(&mut Graph) -> Result<T, E>,
    ) -> Result<T, E> {
        let (before, cost) = (graph.nodes.len(), self.cost(graph));
        let began = Instant::now();
        let made = make(graph)?;
        let time = began.elapsed();
        let cost = both([cost, self.cost(graph)]);
        self.stages.push(Stage { name: name.to_owned(), time, nodes: [before, graph.nodes.len()], changes: 0, cost });
        Ok(made)
    }

    fn cost(&self, graph: &Graph) -> Option<OpTotals> {
        self.sizes.as_ref().and_then(|sizes| OpTotals::of(graph, sizes).ok())
    }
}

fn both(cost: [Option<OpTotals>; 2]) -> Option<[OpTotals; 2]> {
    match cost {
        [Some(before), Some(after)] => Some([before, after]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_parsed_and_printed_and_unknown_passes_named() {
        for text in ["none", "cse", "forward/sink-tokens", "dead-code.2"] {
            assert_eq!(text.parse::<StopAfter>().unwrap().to_string(), text);
        }
        for text in ["inline", "forward/inline"] {
            let error = text.parse::<StopAfter>().unwrap_err().to_string();
            assert!(error.starts_with("there is no pass `inline`; the passes are none, clean-up, "), "{error}");
        }
    }
}
