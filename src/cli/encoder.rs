//! The frozen encoder of a command, and its flags.

use std::path::PathBuf;

use super::CliError;
use super::device::DeviceArg;
use vjepa_eval::protocols::videos::{OpenEncoder, open_encoder};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::Device;

/// An encoder of a checkpoint.
#[derive(clap::Args)]
pub(super) struct Encoder {
    /// Checkpoint of vjepa or of the official code (.safetensors, .pt, .pth.tar), or a Hugging Face folder
    #[arg(long, value_name = "FILE")]
    pub(super) checkpoint: PathBuf,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    #[command(flatten)]
    pub(super) device: DeviceArg,
}

impl Encoder {
    /// The configuration, where one was given.
    pub(super) fn config(&self) -> Result<Option<Config>, CliError> {
        Ok(self.config.as_deref().map(|path| Config::from_file(path, &self.sets)).transpose()?)
    }

    /// The files that say what it is.
    pub(super) fn inputs(&self) -> Vec<PathBuf> {
        let mut files = vjepa_weights::files_of(&self.checkpoint);
        files.extend(self.config.clone());
        files
    }

    /// Opens it on the device.
    pub(super) fn open(&self) -> Result<OpenEncoder, CliError> {
        self.open_on(self.device.open()?)
    }

    /// Opens it on a rank's device.
    pub(super) fn open_on(&self, device: Device) -> Result<OpenEncoder, CliError> {
        Ok(open_encoder(device, &self.checkpoint, self.config()?.as_ref())?)
    }
}
