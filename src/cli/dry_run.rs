//! `vjepa train --dry-run`: what a run would do and need, without doing it.

use serde_json::json;

use super::CliError;
use vjepa_compiler::plan::{Plan, Report};
use vjepa_data::{Survey, open_source};
use vjepa_programs::{MaskSizes, Passes, Precision, TrainOptions, mask_sizes, objective, step_with};
use vjepa_recipe::config::Config;
use vjepa_runtime::available_memory;
use vjepa_runtime::plan::Device;

/// Compiles the step and prints its size, its memory for the largest masks, and the length of the run.
pub(super) fn run(
    config: &Config,
    data: &[Survey],
    passes: &mut Passes,
    device: Device,
    as_json: bool,
) -> Result<(), CliError> {
    let source = open_source(&config.data, &config.data_aug)?;
    let (batch, groups) = (config.data.batch_size, config.optimization.groups());
    let clips = groups.saturating_mul(batch as u64);
    let plan = config.optimization.plan(source.len().map(|videos| videos / clips.max(1)))?;
    let masks = config.masks()?;
    let sizes = |which| mask_sizes(masks.as_ref(), config.meta.seed, batch, which);
    let (betas, eps) = (config.optimization.betas, config.optimization.eps);
    let precision =
        Precision::of(config.meta.dtype).ok_or("`meta.dtype: float16` is not supported; use bfloat16 or float32")?;
    let options = TrainOptions { betas, eps, precision, ..TrainOptions::default() };
    let graph = device.lower(&step_with(&objective(config)?, options, passes)?)?;
    let steps = Plan::new(&graph)?;
    let mean = Report::new(&graph, &steps, &sizes(MaskSizes::Mean)?)?;
    let largest = Report::new(&graph, &steps, &sizes(MaskSizes::Largest)?)?;
    let needs = largest.memory.peak;
    // Only the CPU's free memory is known here.
    let free = available_memory().filter(|_| device.is_cpu());
    let fits = free.map(|free| needs <= free);
    if as_json {
        let summary = json!({
            "dry_run": true, "steps": plan.steps, "batch": batch, "groups": groups, "clips": source.len(), "flops": mean.total.flops,
            "parameters": mean.parameters, "peak_memory": needs, "free_memory": free, "fits": fits, "data": data,
        });
        println!("{summary}");
        return Ok(());
    }
    let each = if groups == 1 { format!("{batch} clips") } else { format!("{groups} groups of {batch} clips") };
    println!("run         {} steps of {each}; checkpoints in {}", plan.steps, folder(config));
    println!(
        "group       {:.1} GFLOP with masks of average size; {:.1} M values trained or averaged",
        mean.total.flops as f64 / 1e9,
        mean.parameters as f64 / 1e6
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

fn folder(config: &Config) -> &str {
    config.logging.folder.as_deref().unwrap_or("no folder yet: set logging.folder")
}
