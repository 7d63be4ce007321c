//! Passes: functions from graph to graph that keep what it computes.
//!
//! A pass never changes a graph under its caller's feet: it returns a new one with a list of what was changed and why, or
//! nothing. The list of passes is a plain vector ([`Pipeline::standard`]) read top to bottom;
//! [`Pipeline::stopping_at`] cuts it, which finds the pass behind a miscompile by bisection.
//!
//! Run the pipeline on the forward graph before differentiating (tokens sink only while no backward node reads the
//! values in between), and again on the whole step.

mod clean_up;
mod constants;
mod cse;
mod dead_code;
mod decompose;
mod fuse_accumulate;
mod fuse_adamw_ema;
mod merge_pads;
mod recompute;
mod rewrite;
mod sink_tokens;

pub use clean_up::CleanUp;
pub use constants::FoldConstants;
pub use cse::CommonSubexpressions;
pub use dead_code::DeadCode;
pub use decompose::Decompose;
pub use fuse_accumulate::FuseAccumulate;
pub use fuse_adamw_ema::FuseAdamWEma;
pub use merge_pads::MergePads;
pub use recompute::{Recompute, Recomputed};
pub use sink_tokens::SinkTokens;

use crate::ir::{Graph, GraphError};
use crate::verify::{VerifyError, verify};

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

/// What a pass made.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The new graph.
    pub graph: Graph,
    /// One sentence for each change.
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

/// Passes in the order they run.
pub struct Pipeline {
    passes: Vec<Box<dyn Pass>>,
    stop_at: Option<String>,
    verify: bool,
}

impl Pipeline {
    /// What every graph goes through.
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

    /// What a training step goes through after [`Pipeline::standard`]: fusions that only pay in a backward part, then, since
    /// common subexpressions would undo it, what is computed again.
    pub fn training(loss: &str, recompute: Option<Recomputed>) -> Self {
        let mut passes: Vec<Box<dyn Pass>> = vec![Box::new(FuseAccumulate), Box::new(DeadCode)];
        if let Some(what) = recompute {
            passes.push(Box::new(Recompute { output: loss.to_owned(), what }));
        }
        Self::new(passes)
    }

    /// These passes, verifying only the graph that goes in.
    pub fn new(passes: Vec<Box<dyn Pass>>) -> Self {
        Self { passes, stop_at: None, verify: cfg!(test) }
    }

    /// Stops after the first pass of this name.
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

    /// Runs the passes on `graph`.
    ///
    /// # Errors
    /// [`PassError`] when the graph does not verify, a pass fails or breaks the graph, or the pass to stop at is unknown.
    pub fn run(&self, graph: &Graph) -> Result<Optimised, PassError> {
        if let Some(name) = self.stop_at.as_deref().filter(|name| !self.names().contains(name)) {
            return Err(PassError::Unknown { name: name.to_owned(), known: self.names().join(", ") });
        }
        verify(graph)?;
        let mut optimised = Optimised { graph: graph.clone(), log: Vec::new() };
        for pass in &self.passes {
            let name = pass.name();
            let changed = pass.run(&optimised.graph).map_err(|source| PassError::Failed { pass: name, source })?;
            if let Some(changed) = changed {
                if self.verify {
                    verify(&changed.graph).map_err(|source| PassError::Broken { pass: name, source })?;
                }
                optimised.graph = changed.graph;
                optimised.log.push((name, changed.changes));
            }
            if self.stop_at.as_deref() == Some(name) {
                break;
            }
        }
        Ok(optimised)
    }
}

/// The pass of that name.
pub fn named(name: &str) -> Option<Box<dyn Pass>> {
    let all: Vec<Box<dyn Pass>> = vec![
        Box::new(CleanUp),
        Box::new(FoldConstants),
        Box::new(CommonSubexpressions),
        Box::new(DeadCode),
        Box::new(SinkTokens),
        Box::new(MergePads),
        Box::new(FuseAdamWEma),
        Box::new(FuseAccumulate),
        Box::new(Recompute { output: "loss".to_owned(), what: Recomputed::Elementwise }),
        Box::new(Decompose::all()),
    ];
    all.into_iter().find(|pass| pass.name() == name)
}

#[cfg(test)]
mod tests;
