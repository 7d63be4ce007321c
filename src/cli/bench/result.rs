//! A comparison as JSON and in words.

use vjepa_lab::bench::{Comparison, What, paths};
use vjepa_programs::Precision;
use vjepa_recipe::config::Config;
use vjepa_runtime::cores;
use vjepa_runtime::plan::{Device, InstructionSet};

use super::{CliError, Common, show};

pub(super) fn json_of(
    common: &Common,
    device: Device,
    precision: Precision,
    what: What,
    config: &Config,
    result: &Comparison,
) -> Result<serde_json::Value, CliError> {
    let sizes = config.model.sizes()?;
    Ok(serde_json::json!({
        "what": what, "width": sizes.embed_dim, "depth": sizes.depth, "heads": sizes.num_heads,
        "frames": config.data.num_frames, "size": config.data.crop_size, "batch": config.data.batch_size,
        "device": device.to_string(), "precision": precision.to_string(), "version": env!("CARGO_PKG_VERSION"),
        "threads": common.threads.or_else(cores), "simd": paths(),
        "result": result,
    }))
}

pub(super) fn print_result(
    what: What,
    config: &Config,
    precision: Precision,
    device: Device,
    result: &Comparison,
) -> Result<(), CliError> {
    let sizes = config.model.sizes()?;
    let (frames, side, batch) = (config.data.num_frames, config.data.crop_size, config.data.batch_size);
    let name = match what {
        What::Step => "training step",
        What::Encoder => "encoder",
    };
    println!(
        "{name}: width {}, depth {}, heads {}; {frames}x{side}x{side}, batch {batch}; {} rounds, {precision} on {device}",
        sizes.embed_dim, sizes.depth, sizes.num_heads, result.rounds
    );
    print!("{}", show::comparison(result));
    if device.is_cpu() {
        println!("{}", instruction_sets()?);
    }
    Ok(())
}

/// The instruction sets that kernels and products used. A cap applies to our kernels only.
fn instruction_sets() -> Result<String, CliError> {
    let (kernels, products) = (InstructionSet::chosen()?, InstructionSet::of_products());
    let line = format!(
        "instruction sets: kernels {kernels}, matrix products {products}; the processor has {}",
        InstructionSet::best_of_processor()
    );
    if kernels >= products {
        return Ok(line);
    }
    let whole = if products == InstructionSet::Avx512 && kernels == InstructionSet::Avx2 {
        "; to measure everything at avx2, build with --no-default-features"
    } else {
        ""
    };
    Ok(format!("{line}\nVJEPA_SIMD caps the kernels, not the matrix products{whole}"))
}
