//! `--device`, the same for every command that runs plans.

use super::CliError;
use vjepa_runtime::plan::Device;

/// Where to run.
#[derive(clap::Args)]
pub(super) struct DeviceArg {
    /// Device: cpu, or cuda:N in builds with the feature `cuda` (experimental)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
}

impl DeviceArg {
    /// The device, which is there.
    pub(super) fn open(&self) -> Result<Device, CliError> {
        Device::open(&self.device).map_err(|error| format!("--device {}: {error}", self.device).into())
    }
}
