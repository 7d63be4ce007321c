//! Passes: functions from graph to graph that keep what it computes.
//!
//! A pass leaves the graph it is given as it is: it returns a new one with a list of changes and their reasons, or nothing.
//! A pipeline is a plain vector of passes ([`Pipeline::standard`]) that run in order; [`Pipeline::stopping_at`] cuts it
//! short, which finds the pass behind a miscompile by bisection.
//!
//! A training step goes through [`Pipeline::forward`] before it is differentiated (token selection sinks only while no
//! backward node reads the values in between, and rows stacked in the forward pass are stacked in the backward pass), and
//! through [`Pipeline::training`] as a whole.

mod absorb_casts;
mod autocast;
mod clean_up;
mod constants;
mod cse;
mod dead_code;
mod decompose;
mod fuse_accumulate;
mod fuse_adamw_ema;
mod fuse_bias_gelu;
mod fuse_gelu;
mod fuse_token_l1;
mod group_adamw;
mod keep_sums;
mod merge_pads;
mod merge_rows;
mod overlap_sums;
mod pack_attention;
mod pad_tokens;
mod recompute;
mod reduce_sums;
mod registry;
mod rewrite;
mod sink_tokens;

pub use absorb_casts::AbsorbCasts;
pub use autocast::Autocast;
pub use clean_up::CleanUp;
pub use constants::FoldConstants;
pub use cse::{CommonScalars, CommonSubexpressions};
pub use dead_code::DeadCode;
pub use decompose::Decompose;
pub use fuse_accumulate::FuseAccumulate;
pub use fuse_adamw_ema::FuseAdamWEma;
pub use fuse_bias_gelu::FuseBiasGelu;
pub use fuse_gelu::FuseGelu;
pub use fuse_token_l1::FuseTokenL1;
pub use group_adamw::GroupAdamW;
pub use keep_sums::KeepSums;
pub use merge_pads::MergePads;
pub use merge_rows::MergeRows;
pub use overlap_sums::OverlapSums;
pub use pack_attention::PackAttention;
pub use pad_tokens::{PadTokens, REAL};
pub use recompute::{Recompute, Recomputed};
pub use reduce_sums::ReduceSums;
pub use registry::{Spec, SpecError, all};
pub use sink_tokens::SinkTokens;

use crate::ir::{DType, Graph, GraphError};
use crate::verify::{VerifyError, verify};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A function from graph to graph that keeps inputs, parameters, outputs, updates and what they compute.
pub trait Pass {
    /// Name on the command line and in filetests, `clean-up`.
    fn name(&self) -> &'static str;

    /// The changed graph, or `None` when there is nothing to do.
    ///
    /// # Errors
    /// [`GraphError`] when the graph is ill formed or the pass built something ill typed (a bug).
    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError>;
}

/// Result of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The new graph.
    pub graph: Graph,
    /// One sentence per change.
    pub changes: Vec<String>,
}

/// A pipeline that cannot be run to its end.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PassError {
    /// A pass failed.
    #[error("pass `{pass}`: {source}")]
    Failed {
        /// The pass.
        pass: &'static str,
        /// Why.
        source: GraphError,
    },
    /// A pass broke the graph.
    #[error("after pass `{pass}`: {source}")]
    Broken {
        /// The pass.
        pass: &'static str,
        /// What is wrong with the graph now.
        source: VerifyError,
    },
    /// The graph was wrong before the first pass.
    #[error(transparent)]
    Input(#[from] VerifyError),
    /// [`Pipeline::stopping_at`] named a pass that is not in the list.
    #[error("there is no pass `{name}`; the passes are {known}")]
    Unknown {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
}

/// The result of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimised {
    /// The graph after the last pass.
    pub graph: Graph,
    /// `(pass, what it changed)`, for passes that changed something.
    pub log: Vec<(&'static str, Vec<String>)>,
}

/// A pass that has run, for [`Pipeline::run_observed`].
pub struct PassRun<'a> {
    /// Its label in the pipeline, `dead-code.2`.
    pub label: &'a str,
    /// Wall time of the pass alone.
    pub time: Duration,
    /// The graph it was given.
    pub before: &'a Graph,
    /// The graph it made; the same where it changed nothing.
    pub after: &'a Graph,
    /// What it changed, one sentence each.
    pub changes: &'a [String],
}

/// Passes in the order they run.
pub struct Pipeline {
    passes: Vec<Box<dyn Pass>>,
    stop_at: Option<String>,
    verify: bool,
}

impl Pipeline {
    /// The passes for every graph.
    pub fn standard() -> Self {
        Self::new(vec![
            Box::new(CleanUp),
            Box::new(FoldConstants),
            Box::new(DeadCode),
            // Before common subexpressions: tokens sink only through what nothing else reads, and the mask pairs, which
            // embed the same clip, each embed only their own tokens.
            Box::new(SinkTokens),
            Box::new(CommonSubexpressions),
            Box::new(MergePads),
            Box::new(DeadCode),
            Box::new(CleanUp),
            Box::new(CommonSubexpressions),
            Box::new(FuseAdamWEma),
            Box::new(DeadCode),
        ])
    }

    /// The passes for the forward graph of a training step before it is differentiated: [`Pipeline::standard`], and those
    /// that pay off only with a backward pass.
    pub fn forward() -> Self {
        let mut passes = Self::standard().passes;
        let more: [Box<dyn Pass>; 9] = [
            // Again: a value with two readers has one now if tokens were selected from both.
            Box::new(SinkTokens),
            Box::new(CommonSubexpressions),
            Box::new(DeadCode),
            // After selections have sunk: none moves through stacked rows.
            Box::new(MergeRows),
            Box::new(CleanUp),
            Box::new(DeadCode),
            Box::new(PackAttention),
            Box::new(CleanUp),
            Box::new(DeadCode),
        ];
        passes.extend(more);
        Self::new(passes)
    }

    /// The passes for a differentiated training step: [`Pipeline::standard`], [`Autocast`] where products are to be `narrow`
    /// (bf16), fusions that pay off only in a backward pass, and recomputation last, since common-subexpression elimination
    /// would undo it. `loss` is the output that the forward part computes.
    pub fn training(loss: &str, recompute: Option<Recomputed>, narrow: bool) -> Self {
        let mut passes = Self::standard().passes;
        if narrow {
            // Before products are fused with sums, which stay f32, and before recomputation, which covers casts.
            passes.push(Box::new(Autocast { to: DType::BF16 }));
        }
        passes.push(Box::new(FuseAccumulate));
        passes.push(Box::new(DeadCode));
        if let Some(what) = recompute {
            passes.push(Box::new(Recompute { output: loss.to_owned(), what }));
        }
        // A recomputed GELU is computed together with its gradient.
        passes.push(Box::new(FuseGelu));
        Self::new(passes)
    }

    /// What pays off only on a device with memory and kernels of its own, after all other passes: fewer values in memory, fewer
    /// launches.
    pub fn device() -> Self {
        let passes: Vec<Box<dyn Pass>> = vec![
            Box::new(KeepSums),
            Box::new(FuseBiasGelu),
            Box::new(AbsorbCasts),
            Box::new(FuseTokenL1),
            Box::new(GroupAdamW),
            Box::new(DeadCode),
        ];
        Self::new(passes)
    }

    /// What lets ranks share a step, for the half that adds gradients up, after all other passes: sums over ranks in buckets of
    /// `limit` elements, and with `overlap` those on their way while the rest is computed.
    pub fn ranks(limit: usize, overlap: bool) -> Self {
        let mut passes: Vec<Box<dyn Pass>> = vec![Box::new(ReduceSums { limit })];
        if overlap {
            passes.push(Box::new(OverlapSums));
        }
        Self::new(passes)
    }

    /// These passes; the verifier runs on the input graph only.
    pub fn new(passes: Vec<Box<dyn Pass>>) -> Self {
        Self { passes, stop_at: None, verify: cfg!(test) }
    }

    /// Stops after the pass with this label; see [`Pipeline::labels`].
    #[must_use]
    pub fn stopping_at(mut self, name: &str) -> Self {
        self.stop_at = Some(name.to_owned());
        self
    }

    /// Whether the verifier runs after every pass.
    #[must_use]
    pub fn with_verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Names of the passes, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.passes.iter().map(|pass| pass.name()).collect()
    }

    /// The label of each pass, in order: its name, with a number from the second pass of that name on, `dead-code.2`.
    pub fn labels(&self) -> Vec<String> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let label = |name| {
            let count = seen.entry(name).or_default();
            *count += 1;
            if *count == 1 { name.to_owned() } else { format!("{name}.{count}") }
        };
        self.names().into_iter().map(label).collect()
    }

    /// Runs the passes on `graph`.
    ///
    /// # Errors
    /// [`PassError`] when the graph does not verify, a pass fails or breaks the graph, or the pass to stop at is unknown.
    pub fn run(&self, graph: &Graph) -> Result<Optimised, PassError> {
        self.run_observed(graph, &mut |_| {})
    }

    /// As [`Pipeline::run`]; `observe` is called after every pass.
    ///
    /// # Errors
    /// As [`Pipeline::run`].
    pub fn run_observed(&self, graph: &Graph, observe: &mut dyn FnMut(PassRun<'_>)) -> Result<Optimised, PassError> {
        let labels = self.labels();
        if let Some(name) = self.stop_at.as_ref().filter(|name| !labels.contains(name)) {
            return Err(PassError::Unknown { name: name.clone(), known: labels.join(", ") });
        }
        verify(graph)?;
        let mut optimised = Optimised { graph: graph.clone(), log: Vec::new() };
        for (pass, label) in self.passes.iter().zip(&labels) {
            let name = pass.name();
            let began = Instant::now();
            let changed = pass.run(&optimised.graph).map_err(|source| PassError::Failed { pass: name, source })?;
            let time = began.elapsed();
            let before = &optimised.graph;
            match changed {
                Some(Changed { graph: after, changes }) => {
                    if self.verify {
                        verify(&after).map_err(|source| PassError::Broken { pass: name, source })?;
                    }
                    observe(PassRun { label, time, before, after: &after, changes: &changes });
                    optimised.graph = after;
                    optimised.log.push((name, changes));
                }
                None => observe(PassRun { label, time, before, after: before, changes: &[] }),
            }
            if self.stop_at.as_ref() == Some(label) {
                break;
            }
        }
        Ok(optimised)
    }
}

#[cfg(test)]
mod tests;
