//! `--probe-number`: which of the probes of one file.

use std::path::Path;

use super::CliError;
use vjepa_weights::WeightsError;

/// Which probe of a file.
#[derive(clap::Args)]
pub(super) struct ProbeNumber {
    /// Which probe of an official file, which holds one probe per learning rate, from 0 [default: the first]
    #[arg(long, value_name = "N")]
    probe_number: Option<usize>,
}

impl ProbeNumber {
    /// Whether one was named.
    pub(super) fn given(&self) -> bool {
        self.probe_number.is_some()
    }

    /// The number of the probe that is taken of a file, 0 without a file. Where several are there and none was named, rank 0 says
    /// so (`tells`).
    pub(super) fn of(&self, path: Option<&Path>, tells: bool) -> Result<usize, CliError> {
        let Some(path) = path else {
            return match self.probe_number {
                Some(_) => Err("--probe-number is for a file of probes, and there is none: leave it out".into()),
                None => Ok(0),
            };
        };
        let file = vjepa_weights::load(path).map_err(not_a_probe)?;
        let held = file.probes();
        if held > 1 && tells && self.probe_number.is_none() {
            let path = path.display();
            eprintln!("note: {path} holds {held} probes, of which number 0 is taken: --probe-number N takes another");
        }
        let number = self.probe_number.unwrap_or(0);
        file.choosing_probe(number)?;
        Ok(number)
    }
}

/// Says of a file that cannot be read as a probe which one was wanted.
pub(super) fn not_a_probe(error: WeightsError) -> CliError {
    match &error {
        WeightsError::Read { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
            format!("--probe {}: no such file", path.display()).into()
        }
        WeightsError::OtherKind { path, kind } => {
            format!("{} is {kind}, not a probe; give the file written by `vjepa probe`", path.display()).into()
        }
        _ => error.into(),
    }
}
