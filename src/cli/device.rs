//! `--device`, the same for every command that runs plans.

use super::CliError;
use std::time::Duration;
use vjepa_collective::{Alone, Collective};
use vjepa_runtime::plan::Device;

/// Where to run.
#[derive(clap::Args)]
pub(super) struct DeviceArg {
    /// Device: cpu; cuda:N or wgpu:N in builds with these features (experimental); `vjepa doctor` lists them
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
}

impl DeviceArg {
    /// The device, which is there.
    pub(super) fn open(&self) -> Result<Device, CliError> {
        Device::open(&self.device).map_err(|error| format!("--device {}: {error}", self.device).into())
    }
}

/// The ranks that train on devices of this kind together, and the device of this one: GPUs are counted off on each machine.
/// This process alone where no launcher says otherwise.
pub(super) fn ranks(device: Device, limit: Duration) -> Result<(Box<dyn Collective>, Device), CliError> {
    if device.is_cpu() {
        return Ok((vjepa_collective::on_cpus(limit)?, device));
    }
    match vjepa_collective::on_gpus(limit)? {
        Some((ranks, local)) if device.kind() == "cuda" => Ok((ranks, Device::open(&format!("cuda:{local}"))?)),
        Some(_) => {
            Err(format!("several processes train together on CPUs or with --device cuda, not on {device}").into())
        }
        None => Ok((Box::new(Alone), device)),
    }
}
