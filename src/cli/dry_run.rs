//! `vjepa train --dry-run`: what a run would do and need, without doing it.

use serde_json::json;

use super::CliError;
use super::graph::options;
use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::plan::{Plan, PlanError, Report};
use vjepa_data::{DataSets, Survey};
use vjepa_programs::{MaskSizes, Passes, drawn_sizes, gradients_with, objective, step_with, update};
use vjepa_recipe::config::Config;
use vjepa_runtime::available_memory;
use vjepa_runtime::plan::Device;

/// What a run takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Optimiser steps; not known where an epoch is a pass over data that is not here.
    pub steps: Option<u64>,
    batch: usize,
    groups: u64,
    /// Of a group of clips, with masks of average size.
    flops: u64,
    /// Values that are trained or averaged.
    parameters: u64,
    /// Peak memory in bytes with the largest masks, weights and optimiser included.
    memory: u64,
}

impl Cost {
    /// Compiles the step of a run over `clips` clips.
    pub fn of(config: &Config, clips: Option<u64>, passes: &mut Passes, device: Device) -> Result<Self, CliError> {
        let (batch, groups) = (config.data.batch_size, config.optimization.groups());
        let videos = groups.saturating_mul(batch as u64);
        let steps = config.optimization.plan(clips.map(|all| all / videos.max(1)));
        // Without the data only the length of an epoch can be missing.
        let steps = if clips.is_some() { Some(steps?.steps) } else { steps.ok().map(|plan| plan.steps) };
        let graphs = graphs(config, passes, device)?;
        let Some(group) = graphs.first() else { return Err("the step has no graph".into()) };
        let mean = Report::new(group, &Plan::new(group)?, &drawn_sizes(config, MaskSizes::Mean)?)?;
        let memory = memory(&graphs, &drawn_sizes(config, MaskSizes::Largest)?)?;
        let (flops, parameters) = (mean.total.flops, mean.parameters);
        Ok(Self { steps, batch, groups, flops, parameters, memory })
    }

    /// Hours of the whole run at a speed in TFLOP/s.
    pub fn hours(&self, speed: f64) -> Option<f64> {
        let steps = self.steps? as f64 * self.groups as f64;
        Some(steps * self.flops as f64 / (speed * 1e12) / 3600.0)
    }

    /// For one line: steps, memory, arithmetic, hours.
    pub fn in_words(&self, speed: f64) -> String {
        let steps = self.steps.map_or("steps unknown without the data".into(), |steps| format!("{steps} steps"));
        let hours = self.hours(speed).map_or(String::new(), |hours| format!(", {hours:.2} h at {speed} TFLOP/s"));
        let group = format!(
            "{:.2} GB and {:.1} GFLOP for {} clips",
            self.memory as f64 / 1e9,
            self.flops as f64 / 1e9,
            self.batch
        );
        format!("{steps} of {} x {} clips, {group}{hours}", self.groups, self.batch)
    }
}

/// Compiles the step and prints its size, its memory for the largest masks, and the length of the run.
pub(super) fn run(
    config: &Config,
    sets: &DataSets,
    data: &[Survey],
    passes: &mut Passes,
    device: Device,
    as_json: bool,
) -> Result<(), CliError> {
    let source = sets.source(&config.data, &config.data_aug)?;
    let cost = Cost::of(config, source.len(), passes, device)?;
    let Cost { batch, groups, memory: needs, flops, parameters, .. } = cost;
    let steps =
        config.optimization.plan(source.len().map(|all| all / groups.saturating_mul(batch as u64).max(1)))?.steps;
    // Only the CPU's free memory is known here.
    let free = available_memory().filter(|_| device.is_cpu());
    let fits = free.map(|free| needs <= free);
    if as_json {
        let summary = json!({
            "dry_run": true, "steps": steps, "batch": batch, "groups": groups, "clips": source.len(),
            "flops": flops, "parameters": parameters, "peak_memory": needs, "free_memory": free,
            "fits": fits, "data": data,
        });
        println!("{summary}");
        return Ok(());
    }
    let each = if groups == 1 { format!("{batch} clips") } else { format!("{groups} groups of {batch} clips") };
    println!("run         {steps} steps of {each}; checkpoints in {}", folder(config));
    println!(
        "group       {:.1} GFLOP with masks of average size; {:.1} M values trained or averaged",
        flops as f64 / 1e9,
        parameters as f64 / 1e6
    );
    let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let needed = format!("needs {} with the largest masks, weights and optimiser included", gigabytes(needs));
    match (free, fits) {
        (Some(free), Some(false)) => println!(
            "memory      {needed}, but {} are free: lower data.batch_size, or recompute activations with \
             --memory-budget {:.0}MB",
            gigabytes(free),
            free as f64 * 0.8 / 1e6
        ),
        (Some(free), _) => println!("memory      {needed}; {} are free", gigabytes(free)),
        (None, _) => println!("memory      {needed}"),
    }
    println!("nothing was trained or written (--dry-run)");
    Ok(())
}

/// What a step runs on the device: one graph, or where gradients are added up one per group and another at its end.
fn graphs(config: &Config, passes: &mut Passes, device: Device) -> Result<Vec<Graph>, CliError> {
    let (objective, options) = (objective(config)?, options(config)?);
    let graphs = if config.optimization.adds_up() {
        let gradients = gradients_with(&objective, options, passes)?;
        let update = update(&objective, options, &gradients)?;
        vec![gradients, update]
    } else {
        vec![step_with(&objective, options, passes)?]
    };
    graphs.iter().map(|graph| Ok(device.lower(graph)?)).collect()
}

/// The most that any of the graphs takes, beside the parameters that only others have: those are held all the time.
fn memory(graphs: &[Graph], sizes: &Sizes) -> Result<u64, PlanError> {
    let mut most = 0;
    for graph in graphs {
        let own = Plan::new(graph)?.memory(graph, sizes)?.peak;
        let others = graphs.iter().flat_map(|other| other.params.iter().map(move |id| (other, *id)));
        let absent = others.filter(|(other, id)| other.source_name(*id).is_some_and(|name| graph.find(name).is_none()));
        let elements = absent.map(|(other, id)| {
            let ty = other.ty(id);
            ty.elements().eval(sizes).unwrap_or(0) * ty.dtype.bytes()
        });
        most = most.max(own.saturating_add(elements.sum::<usize>() as u64));
    }
    Ok(most)
}

fn folder(config: &Config) -> &str {
    config.logging.folder.as_deref().unwrap_or("no folder yet: set logging.folder")
}
