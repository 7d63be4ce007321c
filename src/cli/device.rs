//! `--device`, the same for every command that runs plans.

use super::CliError;
use super::whole::whole;
use std::sync::Once;
use std::time::Duration;
use vjepa_collective::{Alone, Collective};
use vjepa_runtime::plan::{Device, gpus};

/// Where to run.
#[derive(clap::Args)]
pub(super) struct DeviceArg {
    /// Device: cpu; cuda:N or wgpu:N in builds with these features (experimental); `vjepa doctor` lists them
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
}

impl DeviceArg {
    /// The device, which is there. Which GPU that is, or what stands in for one, is said on stderr.
    pub(super) fn open(&self) -> Result<Device, CliError> {
        let device = self.find()?;
        say(device);
        Ok(device)
    }

    fn find(&self) -> Result<Device, CliError> {
        Device::open(&self.device).map_err(|error| format!("--device {}: {error}", self.device).into())
    }
}

/// Says which GPU a device is, once.
fn say(device: Device) {
    static SAID: Once = Once::new();
    let (name, gpus) = (device.to_string(), gpus(device.kind()).unwrap_or_default());
    if let Some((_, about)) = gpus.iter().find(|(own, _)| *own == name) {
        SAID.call_once(|| eprintln!("note: {name} is {about}"));
    }
}

/// How ranks of a command find and wait for one another.
#[derive(clap::Args)]
pub(super) struct RankArgs {
    /// With several processes: how long to wait for one of them, in seconds, before stopping the job and naming it
    /// (docs/scaling.md)
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = whole::<u64>(1..))]
    rank_timeout: u64,
}

/// How long a rank leaves the word to rank 0, which has probably met the same error.
const AFTER_RANK_0: Duration = Duration::from_secs(3);

impl RankArgs {
    /// Runs a command as one of the ranks that a launcher has started, or alone. An error ends the job of all ranks, unless it
    /// is one that all of them return, as `shared` tells. Rank 0 says which GPU is its own.
    pub(super) fn run(
        &self,
        device: &DeviceArg,
        shared: impl Fn(&CliError) -> bool,
        command: impl FnOnce(Device, &dyn Collective) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let (ranks, device) = ranks(device.find()?, Duration::from_secs(self.rank_timeout))?;
        if ranks.rank() == 0 {
            say(device);
        }
        let outcome = command(device, ranks.as_ref());
        if let Err(error) = &outcome
            && ranks.world() > 1
            && !shared(error)
        {
            // The others wait for this rank: they are told by ending the job.
            // In one piece, or the launcher's own words come between.
            let said = match ranks.rank() {
                0 => format!("error: {error}\n"),
                rank => {
                    std::thread::sleep(AFTER_RANK_0);
                    format!("error: rank {rank}: {error}\n")
                }
            };
            eprint!("{said}");
            ranks.abort(1);
        }
        outcome
    }
}

/// The ranks that train on devices of this kind together, and the device of this one: GPUs are counted off on each machine.
/// This process alone where no launcher says otherwise.
fn ranks(device: Device, limit: Duration) -> Result<(Box<dyn Collective>, Device), CliError> {
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
