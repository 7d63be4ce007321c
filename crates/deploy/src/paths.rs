//! The paths of an export: what it must not overwrite, its folder, its report, and what is removed after a failure.

use std::path::{Path, PathBuf};

use vjepa_export::Written;
use vjepa_runtime::files::{self, Overwrites};

use super::{Export, Origin};
use crate::DeployError;

impl Export<'_> {
    /// Refuses to overwrite an input: not one of `written` is of the checkpoint, the probe or a calibration clip.
    pub(super) fn spares(&self, written: &[impl AsRef<Path>]) -> Result<(), Overwrites> {
        let checkpoint = match self.origin {
            Origin::Checkpoint(path) => vjepa_weights::files_of(path),
            Origin::Drawn(_) => Vec::new(),
        };
        let read = checkpoint.iter().chain(&self.form.calibration).map(PathBuf::as_path).chain(self.probe);
        files::spare("--out", self.out, written, read)
    }
}

/// Makes the folder of a file.
pub(super) fn make_folder_of(path: &Path) -> Result<(), DeployError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    Ok(std::fs::create_dir_all(folder)
        .map_err(|error| format!("cannot create the folder {}: {error}", folder.display()))?)
}

/// Path of the report on a model.
pub(super) fn report_of(model: &Path) -> PathBuf {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    model.with_file_name(format!("{name}.accuracy.json"))
}

/// Removes a model that was not shown to agree with the plan.
pub(super) fn refuse(written: &Written, path: &Path, error: &DeployError) -> DeployError {
    for file in std::iter::once(&written.model).chain(&written.data) {
        let _ = std::fs::remove_file(file);
    }
    format!("{} was removed because it was not verified to agree with the plan: {error}", path.display()).into()
}
