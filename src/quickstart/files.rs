//! The labelled texture clips carried in the program: 128 real H.264 and VP9 files.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::cli::CliError;

static CLIPS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/assets/textures");

/// Writes the clips to `folder` and returns them with their texture labels.
pub(super) fn unpack(folder: &Path) -> Result<Vec<(PathBuf, usize)>, CliError> {
    let at = |path: &Path, error: std::io::Error| format!("cannot write {}: {error}", path.display());
    std::fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
    for file in CLIPS.files() {
        let path = folder.join(file.path());
        std::fs::write(&path, file.contents()).map_err(|error| at(&path, error))?;
    }
    let list = folder.join("labels.csv");
    let videos = crate::data::read_videos(&list)?;
    let labelled = videos.into_iter().filter_map(|video| {
        let label = video.label.and_then(|label| usize::try_from(label).ok())?;
        Some((video.path, label))
    });
    Ok(labelled.collect())
}
