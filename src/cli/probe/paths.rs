//! The paths of `vjepa probe`: inputs are there, and outputs are none of them.

use std::path::PathBuf;

use super::{Args, report::spare_by_results};
use crate::cli::CliError;
use crate::cli::frozen::Setup;
use crate::cli::given::all_there;
use crate::cli::visualize::written_as;
use vjepa_runtime::files;

impl Args {
    /// Refuses inputs that are not there, an output in the place of an input, and a probe by another name than probes are read
    /// by.
    pub(super) fn check_paths(&self, setup: &Setup) -> Result<(), CliError> {
        let given = [
            ("--data", self.data.as_deref()),
            ("--val", self.val.as_deref()),
            ("--names", self.names.as_deref()),
            ("--features", self.features.as_deref()),
            ("--val-features", self.val_features.as_deref()),
        ];
        all_there(&given)?;
        written_as(&self.out, &["safetensors"])?;
        let mut read = setup.inputs(&self.encoder);
        read.extend(given.into_iter().filter_map(|(_, path)| path.map(Into::into)));
        files::spare("--out", &self.out, &[&self.out], read.iter().map(PathBuf::as_path))?;
        spare_by_results(self.results.as_deref(), &read)
    }
}
