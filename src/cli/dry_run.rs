//! `vjepa train --dry-run`: what a run would do and need, without doing it.

use serde_json::json;

use super::CliError;
use super::cost::Once;
use super::fit::Remedies;
use super::graph::options;
use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::plan::{Plan, PlanError, Report};
use vjepa_data::{DataSets, Survey};
use vjepa_programs::{
    MaskSizes, Passes, TrainOptions, Variant, drawn_sizes, gradients_with, objective, step_with, update, update_of,
    variants,
};
use vjepa_recipe::config::{Config, SampleKind};
use vjepa_runtime::available_memory;
use vjepa_runtime::plan::Device;

/// What a run takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Optimiser steps; not known where an epoch is a pass over data that is not here.
    pub steps: Option<u64>,
    batch: usize,
    groups: u64,
    /// Of a group, with masks of average size; of groups of several kinds of samples, their mean.
    flops: u64,
    /// Values that are trained or averaged.
    parameters: u64,
    /// Peak memory in bytes with the largest masks, weights and optimiser included.
    memory: u64,
}

impl Cost {
    /// Compiles the step of a run over `clips` clips.
    pub fn of(config: &Config, clips: Option<u64>, passes: &mut Passes, device: Device) -> Result<Self, CliError> {
        Self::of_graphs(config, clips, &graphs(config, passes, device)?)
    }

    fn of_graphs(config: &Config, clips: Option<u64>, graphs: &[Measured]) -> Result<Self, CliError> {
        let (batch, groups) = (config.data.batch_size, config.optimization.groups());
        let videos = groups.saturating_mul(batch as u64);
        let steps = config.optimization.plan(clips.map(|all| all / videos.max(1)));
        // Without the data only the length of an epoch can be missing.
        let steps = if clips.is_some() { Some(steps?.steps) } else { steps.ok().map(|plan| plan.steps) };
        let (mut flops, mut parameters) = (0.0, 0);
        for Measured { graph, mean, share, .. } in graphs.iter().filter(|measured| measured.share > 0.0) {
            let report = Report::new(graph, &Plan::new(graph)?, mean)?;
            flops += share * report.total.flops as f64;
            parameters = parameters.max(report.parameters);
        }
        let memory = memory(graphs, None)?;
        Ok(Self { steps, batch, groups, flops: flops as u64, parameters, memory })
    }

    /// Hours of the whole run at a speed in TFLOP/s.
    pub fn hours(&self, speed: f64) -> Option<f64> {
        Some(self.whole()? / (speed * 1e12) / 3600.0)
    }

    /// What one group of a step takes.
    pub fn once(&self) -> Once {
        Once { flops: self.flops as f64, memory: self.memory, weights: 4 * self.parameters }
    }

    /// Arithmetic of the whole run.
    pub fn whole(&self) -> Option<f64> {
        Some(self.steps? as f64 * self.groups as f64 * self.flops as f64)
    }

    /// For machines.
    pub fn json(&self, speed: f64) -> serde_json::Value {
        json!({
            "steps": self.steps, "batch": self.batch, "groups": self.groups, "flops": self.whole(),
            "peak_memory": self.memory, "hours": self.hours(speed),
        })
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
    let graphs = graphs(config, passes, device)?;
    let cost = Cost::of_graphs(config, source.len(), &graphs)?;
    let Cost { batch, groups, memory: needs, flops, parameters, .. } = cost;
    let steps =
        config.optimization.plan(source.len().map(|all| all / groups.saturating_mul(batch as u64).max(1)))?.steps;
    let free = if device.is_cpu() { available_memory() } else { device.unused() };
    let fits = free.map(|free| needs <= free);
    let remedies = match free.filter(|free| needs > *free) {
        Some(free) => Some(remedies(config, &graphs, passes, device, free)?),
        None => None,
    };
    if as_json {
        let summary = json!({
            "dry_run": true, "steps": steps, "batch": batch, "groups": groups, "clips": source.len(),
            "step_of": config.kinds()?.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "flops": flops, "parameters": parameters, "peak_memory": needs, "free_memory": free,
            "fits": fits, "fits_with": remedies.map(Remedies::json), "data": data,
        });
        println!("{summary}");
        return Ok(());
    }
    let each = match (config.is_mixed(), groups) {
        (true, _) => kinds(config)?,
        (false, 1) => format!("{batch} clips"),
        (false, _) => format!("{groups} groups of {batch} clips"),
    };
    println!("run         {steps} steps of {each}; checkpoints in {}", folder(config));
    println!(
        "group       {:.1} GFLOP with masks of average size; {:.1} M values trained or averaged",
        flops as f64 / 1e9,
        parameters as f64 / 1e6
    );
    let gigabytes = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    let needed = format!("needs {} with the largest masks, weights and optimiser included", gigabytes(needs));
    match (free, remedies) {
        (Some(free), Some(remedies)) => {
            println!("memory      {needed}, but {} are free; {remedies}", gigabytes(free));
        }
        (Some(free), None) => println!("memory      {needed}; {} are free", gigabytes(free)),
        (None, _) => println!("memory      {needed}"),
    }
    println!("nothing was trained or written (--dry-run)");
    Ok(())
}

/// What would make the step fit.
fn remedies(
    config: &Config,
    compiled: &[Measured],
    passes: &Passes,
    device: Device,
    free: u64,
) -> Result<Remedies, CliError> {
    let batch = config.data.batch_size;
    let peak = |clips: usize| Ok(memory(compiled, Some((clips, batch)))?);
    let compile = |budget: u64| {
        let memory_budget = Some((budget, drawn_sizes(config, MaskSizes::Largest)?));
        let mut passes = Passes { memory: memory_budget, stages: Vec::new(), ..passes.clone() };
        Ok(memory(&graphs(config, &mut passes, device)?, None)?)
    };
    Remedies::search(free, batch, peak, compile)
}

/// What a step is made of, in words.
pub(super) fn kinds(config: &Config) -> Result<String, CliError> {
    let kinds: Vec<String> = config.kinds()?.iter().map(ToString::to_string).collect();
    Ok(kinds.join(" and "))
}

/// A graph that a step runs, and at which sizes.
struct Measured {
    graph: Graph,
    mean: Sizes,
    largest: Sizes,
    /// How often it runs for each group of the step; 0 for what runs once at the end.
    share: f64,
}

/// What a step runs on the device: one graph, or where gradients are added up one per group, or one for each kind of samples,
/// and another at its end.
fn graphs(config: &Config, passes: &mut Passes, device: Device) -> Result<Vec<Measured>, CliError> {
    let (objective, options) = (objective(config)?, options(config)?);
    let sizes = |which| drawn_sizes(config, which);
    let (mean, largest) = (sizes(MaskSizes::Mean)?, sizes(MaskSizes::Largest)?);
    let mut measured = Vec::new();
    if config.is_mixed() {
        mixed(config, (options, passes), &mut measured)?;
        let gradients: Vec<&Graph> = measured.iter().map(|measured| &measured.graph).collect();
        let graph = update_of(&objective, options, &gradients, &|_| true)?;
        measured.push(Measured { graph, mean, largest, share: 0.0 });
    } else if config.adds_up() {
        let gradients = gradients_with(&objective, options, passes)?;
        let graph = update(&objective, options, &gradients)?;
        measured.push(Measured { graph: gradients, mean: mean.clone(), largest: largest.clone(), share: 1.0 });
        measured.push(Measured { graph, mean, largest, share: 0.0 });
    } else {
        measured.push(Measured { graph: step_with(&objective, options, passes)?, mean, largest, share: 1.0 });
    }
    for one in &mut measured {
        one.graph = device.lower(&one.graph)?;
    }
    Ok(measured)
}

/// The gradient graphs of a step of several kinds of samples.
fn mixed(
    config: &Config,
    (options, passes): (TrainOptions, &mut Passes),
    measured: &mut Vec<Measured>,
) -> Result<(), CliError> {
    let options = TrainOptions { weighted: config.data.lengths().len() > 1, ..options };
    let kinds = config.kinds()?;
    for variant in variants(config)? {
        let mut passes = passes.clone();
        let largest = variant.sizes(config, MaskSizes::Largest)?;
        if let Some((_, sizes)) = &mut passes.memory {
            sizes.clone_from(&largest);
        }
        let part = part_of_group(config, &variant);
        // Of the groups of a step those of its kind; of a length, as the bucket that it is where all lengths are there.
        let first_bucket = config.data.lengths().iter().position(|frames| *frames == variant.frames).unwrap_or(0);
        let usual = variant.images || variant.bucket == first_bucket;
        let own = kinds.iter().filter(|kind| kind.images == variant.images).map(SampleKind::count).sum::<u64>();
        let share = if usual { own as f64 / config.optimization.groups() as f64 } else { 0.0 };
        let samples = ((variant.batch as f64 * part).round() as usize).max(1);
        let mean = Variant { batch: samples, ..variant.clone() }.sizes(config, MaskSizes::Mean)?;
        let graph = gradients_with(&variant.objective, options, &mut passes)?;
        measured.push(Measured { graph, mean, largest, share });
    }
    Ok(())
}

/// The part of a group's samples that a variant has on average, by the weights of the data sets, which count alike where they
/// have none.
fn part_of_group(config: &Config, variant: &Variant) -> f64 {
    let (Some(lengths), false) = (&config.data.dataset_fpcs, variant.images) else { return 1.0 };
    let weights = config.data.datasets_weights.clone().unwrap_or_else(|| vec![1.0; lengths.len()]);
    let of = |own: bool| {
        let pairs = lengths.iter().zip(&weights).filter(|(frames, _)| !own || **frames == variant.frames);
        pairs.map(|(_, weight)| *weight).sum::<f64>()
    };
    of(true) / of(false).max(f64::MIN_POSITIVE)
}

/// The most that any of the graphs takes, beside the parameters that only others have: those are held all the time. With
/// `clips` as many of the samples as so many of the configured ones are.
fn memory(graphs: &[Measured], clips: Option<(usize, usize)>) -> Result<u64, PlanError> {
    let mut most = 0;
    for Measured { graph, largest, .. } in graphs {
        let mut largest = largest.clone();
        if let (Some((clips, batch)), Some(samples)) = (clips, largest.get_mut("B")) {
            *samples = (*samples * clips).div_ceil(batch.max(1));
        }
        let largest = &largest;
        let own = Plan::new(graph)?.memory(graph, largest)?.peak;
        // Several others may have the same.
        let mut absent = std::collections::BTreeMap::new();
        for other in graphs.iter().map(|other| &other.graph) {
            let named = other.params.iter().filter_map(|id| Some((other.source_name(*id)?, other.ty(*id))));
            absent.extend(named.filter(|(name, _)| graph.find(name).is_none()));
        }
        let bytes = absent.values().map(|ty| ty.elements().eval(largest).unwrap_or(0) * ty.dtype.bytes());
        most = most.max(own.saturating_add(bytes.sum::<usize>() as u64));
    }
    Ok(most)
}

fn folder(config: &Config) -> &str {
    config.logging.folder.as_deref().unwrap_or("no folder yet: set logging.folder")
}
