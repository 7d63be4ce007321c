//! What evaluations would cost: arithmetic and memory of the graphs that they run, and hours at a speed. Nothing is run.

mod assumed;
mod bill;
mod flags;
pub(super) mod textures;

pub(super) use assumed::{Assumed, Count, here};
pub(super) use bill::Bill;
pub(super) use flags::{DryRun, positive};

use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::{Plan, Report};
use vjepa_eval::features::FrozenEncoder;
use vjepa_graphs::{EncoderConfig, Probe};
use vjepa_programs as compile;
use vjepa_programs::TrainOptions;
use vjepa_runtime::plan::Device;

use super::CliError;

/// Samples that a trained probe classifies at once.
const CLASSIFIED: usize = 64;

/// One run of a graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Once {
    /// Arithmetic for each of the things that are computed together.
    pub flops: f64,
    /// Peak memory in bytes, weights included.
    pub memory: u64,
    /// Bytes of the weights, and of moments where it trains.
    pub weights: u64,
}

impl Once {
    /// Of a graph at some sizes, by which `each` things are computed.
    pub fn of(graph: &Graph, sizes: &[(&str, usize)], each: usize) -> Result<Self, CliError> {
        let graph = Device::default().lower(graph)?;
        let sizes = sizes.iter().map(|(symbol, size)| ((*symbol).to_owned(), *size)).collect();
        let report = Report::new(&graph, &Plan::new(&graph)?, &sizes)?;
        let weights = 4 * report.parameters; // f32
        Ok(Self { flops: report.total.flops as f64 / each.max(1) as f64, memory: report.memory.peak, weights })
    }

    /// Of a frozen encoder, for each clip.
    pub fn encoder(encoder: &EncoderConfig) -> Result<Self, CliError> {
        let graph = match encoder.out_layers {
            None => compile::encoder(encoder, "encoder.")?,
            Some(_) => compile::joined_layers(encoder, "encoder.")?,
        };
        Self::of(&compile::optimised(&graph)?, &[("B", FrozenEncoder::BATCH)], FrozenEncoder::BATCH)
    }

    /// Of a step of a probe on `rows` rows of so many tokens.
    pub fn step(probe: &Probe, [rows, tokens]: [usize; 2]) -> Result<Self, CliError> {
        Self::of(&compile::probe_step(probe, TrainOptions::default())?, &[("B", rows), ("N", tokens)], 1)
    }

    /// Of a trained probe, for each row of so many tokens.
    pub fn classifying(probe: &Probe, tokens: usize) -> Result<Self, CliError> {
        let graph = compile::optimised(&compile::probe(probe, false)?)?;
        Self::of(&graph, &[("B", CLASSIFIED), ("N", tokens)], CLASSIFIED)
    }
}
