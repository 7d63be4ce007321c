//! The labelled texture clips carried in the program: 128 real H.264 and VP9 files.

use std::io::Write;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use super::QuickstartError;
use vjepa_runtime::write_atomically;

static CLIPS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/assets/textures");

/// Writes the clips to `folder` and returns them with their texture labels.
pub(super) fn unpack(folder: &Path) -> Result<Vec<(PathBuf, usize)>, QuickstartError> {
    let at = |path: &Path, error: std::io::Error| format!("cannot write {}: {error}", path.display());
    for file in CLIPS.files() {
        let path = folder.join(file.path());
        write_atomically(&path, |out| out.write_all(file.contents())).map_err(|error| at(&path, error))?;
    }
    let list = folder.join("labels.csv");
    let videos = vjepa_data::read_videos(&list)?;
    let labelled = videos.into_iter().filter_map(|video| {
        let label = video.label.and_then(|label| usize::try_from(label).ok())?;
        Some((video.path, label))
    });
    Ok(labelled.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_of_an_earlier_quickstart_are_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let [clip, old] = ["t0_d0_s0.mp4", "old.mp4"].map(|name| folder.path().join("videos").join(name));
        assert_eq!(unpack(&folder.path().join("videos")).unwrap().len(), 128);
        std::fs::write(&clip, "old").unwrap();
        std::fs::hard_link(&clip, &old).unwrap();
        unpack(&folder.path().join("videos")).unwrap();
        assert!(std::fs::metadata(&clip).unwrap().len() > 3);
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "old");
    }
}
