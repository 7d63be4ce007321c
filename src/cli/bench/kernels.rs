//! `vjepa bench kernels`: the CPU's kernels under every instruction set that this machine has, or a device's beside the
//! library's.

use super::super::CliError;
use super::super::device::DeviceArg;
use super::show;
use crate::cli::whole::whole;
use std::process::{Command, Stdio};
use vjepa_lab::bench::{DeviceKernel, KernelTable, device_kernels, kernel_speeds};
use vjepa_runtime::plan::InstructionSet;

#[derive(clap::Args)]
pub(super) struct KernelArgs {
    /// Runs per kernel; the fastest counts
    #[arg(long, default_value_t = 12, value_parser = whole::<usize>(1..))]
    rounds: usize,
    /// With a GPU: its kernels, each in turn with the library's operations that it replaces
    #[command(flatten)]
    device: DeviceArg,
    /// On a GPU: small tensors, for devices that compute on the CPU
    #[arg(long)]
    small: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One process per instruction set, since a process has only one; only that of `VJEPA_SIMD` if it is set.
pub(super) fn run(args: &KernelArgs) -> Result<(), CliError> {
    let device = args.device.open()?;
    if !device.is_cpu() {
        return print(args, &device_kernels(device, args.rounds, args.small)?);
    }
    if args.small {
        return Err("--small is for GPUs: add --device, or leave it out".into());
    }
    let tables = if std::env::var_os("VJEPA_SIMD").is_some_and(|cap| !cap.is_empty()) {
        vec![kernel_speeds(args.rounds)?]
    } else {
        InstructionSet::available().into_iter().map(|set| under(set, args.rounds)).collect::<Result<_, _>>()?
    };
    if args.json {
        println!("{}", serde_json::to_string(&tables)?);
        return Ok(());
    }
    for set in InstructionSet::ALL.into_iter().filter(|set| !InstructionSet::available().contains(set)) {
        eprintln!("not measured: {set}, which this processor or build lacks");
    }
    for table in &tables {
        println!("{}", show::kernels(table));
    }
    Ok(())
}

fn print(args: &KernelArgs, kernels: &[DeviceKernel]) -> Result<(), CliError> {
    if args.json {
        println!("{}", serde_json::to_string(kernels)?);
    } else {
        print!("{}", show::device_kernels(kernels));
    }
    Ok(())
}

fn under(set: InstructionSet, rounds: usize) -> Result<KernelTable, CliError> {
    let output = Command::new(std::env::current_exe()?)
        .args(["bench", "kernels", "--json", "--rounds", &rounds.to_string()])
        .env("VJEPA_SIMD", set.name())
        .stderr(Stdio::inherit())
        .output()?;
    let tables: Vec<KernelTable> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let table = tables.into_iter().next();
    Ok(table.ok_or_else(|| format!("the process for {set} failed ({}); its output is above", output.status))?)
}
