//! Where an export writes: what it must not write over, its folder, its report, and what is removed again.

use std::path::{Path, PathBuf};

use vjepa_export::Written;

use super::{Export, Origin};
use crate::DeployError;

impl Export<'_> {
    /// Nothing that is read may be written over: not one of `written` is the checkpoint, the probe or a calibration clip.
    pub(super) fn spares(&self, written: &[&Path]) -> Result<(), DeployError> {
        let checkpoint = match self.origin {
            Origin::Checkpoint(path) => Some(path),
            Origin::Drawn(_) => None,
        };
        let read = checkpoint.into_iter().chain(self.probe).chain(self.form.calibration.iter().map(PathBuf::as_path));
        for read in read {
            // What is not there yet is no input.
            let same =
                |written: &&&Path| matches!((written.canonicalize(), read.canonicalize()), (Ok(a), Ok(b)) if a == b);
            if let Some(same) = written.iter().find(same) {
                let (is, out) = (same.display(), self.out.display());
                return Err(format!("--out {out} would write over {is}, which is read; give another --out").into());
            }
        }
        Ok(())
    }
}

/// Makes the folder that a file will lie in.
pub(super) fn make_folder_of(path: &Path) -> Result<(), DeployError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    Ok(std::fs::create_dir_all(folder)
        .map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?)
}

/// Where the report on a model lies.
pub(super) fn report_of(model: &Path) -> PathBuf {
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    model.with_file_name(format!("{name}.accuracy.json"))
}

/// A model that was not shown to do what the plan does is not left lying about.
pub(super) fn refuse(written: &Written, place: &Path, error: &DeployError) -> DeployError {
    for file in std::iter::once(&written.model).chain(&written.data) {
        let _ = std::fs::remove_file(file);
    }
    format!("{} was removed, since it was not shown to agree with the plan: {error}", place.display()).into()
}
