//! Paths that were given: which flag's they are, and what to do where they lead to nothing.

use std::path::Path;

use super::CliError;
use vjepa_data::DataError;
use vjepa_data::shards::{is_pattern, split_path};
use vjepa_data::storage::is_url;

/// Refuses a path of `flag` that leads to nothing on this machine; what lies elsewhere, or in a shard, is looked for when it is
/// read.
pub(super) fn there(flag: &str, path: &Path) -> Result<(), CliError> {
    let looked_for = is_url(path) || is_pattern(path) || split_path(path).is_some();
    match path.try_exists() {
        Ok(false) if !looked_for => Err(format!("{flag} {}: no such file or folder", path.display()).into()),
        _ => Ok(()),
    }
}

/// [`there`] for those of several flags that were given.
pub(super) fn all_there(given: &[(&str, Option<&Path>)]) -> Result<(), CliError> {
    given.iter().filter_map(|(flag, path)| Some((flag, (*path)?))).try_for_each(|(flag, path)| there(flag, path))
}

/// An error about the data of a configuration, with what to write there.
pub(super) fn of_config(error: DataError) -> CliError {
    match &error {
        DataError::Absent(_) => {
            let instead = "name your own (in a configuration, or with --set data.datasets='[/data/clips]')";
            format!("{error}; {instead}").into()
        }
        DataError::NoVideos { pictures: true, .. } => {
            format!("{error}; data.folders_hold says whether pictures are frames or images").into()
        }
        _ => error.into(),
    }
}
