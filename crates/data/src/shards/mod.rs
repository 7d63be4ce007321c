//! Shards: samples packed into tar files in WebDataset form, each with an index beside it.
//!
//! A sample in a shard has a path like any other: `/data/train-000000.tar/00000007_clip.mp4`. So lists may name samples of
//! shards, bad ones are reported by name, and whatever reads a video by its path reads one from a shard. The index says where
//! it lies, so that any sample can be had at once and a sample stays a function of its key.

mod archive;
mod index;
mod measure;
mod names;
mod pack;
mod transcode;

use std::io::Write;
use std::path::{Path, PathBuf};

pub use archive::{Indexed, index_archive};
pub use index::{HEADER, INDEX_ENDING, MOST_INDEX_BYTES, Member, ShardIndex, check_header};
pub use measure::clips_per_second;
pub use names::{expand, is_pattern};
pub use pack::{PackPlan, PackReport, Packed, pack};
pub use transcode::Transcode;

use rayon::prelude::*;

use crate::dialect::extension;
use crate::list::{VideoEntry, VideoList};
use crate::media::Opener;
use crate::storage::is_url;

/// True for a path that ends in `.tar`.
pub fn is_shard(path: &Path) -> bool {
    extension(path).as_deref() == Some("tar")
}

/// The shard and the member that a path names; none for any other path.
pub fn split_path(path: &Path) -> Option<(&Path, &str)> {
    let shard = path.ancestors().skip(1).filter(|part| is_shard(part)).last()?;
    // A folder may be called so, too.
    if !is_url(shard) && shard.is_dir() {
        return None;
    }
    Some((shard, path.strip_prefix(shard).ok()?.to_str()?))
}

/// The index of a shard: its own name and one more ending.
pub fn index_path(shard: &Path) -> PathBuf {
    let mut name = shard.as_os_str().to_owned();
    name.push(".");
    name.push(INDEX_ENDING);
    name.into()
}

/// Indexes a tar file of this machine and writes the index beside it.
///
/// # Errors
/// One sentence that names the file.
pub fn index_shard(shard: &Path) -> Result<Indexed, String> {
    let named = |why: String| format!("{}: {why}", shard.display());
    let file = std::fs::File::open(shard).map_err(|error| named(format!("cannot be opened: {error}")))?;
    let bytes = file.metadata().map_err(|error| named(format!("cannot be read: {error}")))?.len();
    let indexed = index_archive(std::io::BufReader::new(file), bytes).map_err(named)?;
    write_index(shard, &indexed.index)?;
    Ok(indexed)
}

fn write_index(shard: &Path, index: &ShardIndex) -> Result<(), String> {
    let path = index_path(shard);
    vjepa_runtime::write_atomically(&path, |file| file.write_all(index.to_text().as_bytes()))
        .map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}

/// True for a folder of this machine with shards in it, which is read as these shards.
pub fn holds_shards(folder: &Path) -> bool {
    folder.is_dir() && in_folder(folder).is_ok_and(|shards| !shards.is_empty())
}

/// Refuses a file that stands for another or is packed, as [`vjepa_weights::refuse_foreign`] does; shards are archives by
/// intention.
///
/// # Errors
/// One sentence with the remedy.
pub fn refuse_foreign(dataset: &Path) -> Result<(), String> {
    if is_shard(dataset) { Ok(()) } else { vjepa_weights::refuse_foreign(dataset) }
}

/// The shards that lie in a folder itself, sorted by name.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("cannot be read: {error}"))?;
    let mut shards: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_shard(path)).collect();
    shards.retain(|path| path.is_file());
    shards.sort();
    Ok(shards)
}

/// The shards that a data set names: one, several by a pattern, or those of a folder. None where it names something else.
///
/// # Errors
/// What is wrong, to follow the data set's name.
pub(crate) fn find(dataset: &Path, opener: &Opener) -> Result<Option<Vec<PathBuf>>, String> {
    if is_pattern(dataset) {
        let shards = expand(dataset, opener)?;
        return match shards.iter().find(|path| !is_shard(path)) {
            None => Ok(Some(shards)),
            Some(other) => Err(format!("is a pattern of shards, but {} does not end in .tar", other.display())),
        };
    }
    if is_shard(dataset) && (is_url(dataset) || !dataset.is_dir()) {
        return Ok(Some(vec![dataset.to_path_buf()]));
    }
    if is_url(dataset) || !dataset.is_dir() {
        return Ok(None);
    }
    let shards = in_folder(dataset)?;
    Ok((!shards.is_empty()).then_some(shards))
}

/// The samples of these shards, shard after shard in the order of the archive.
///
/// # Errors
/// One sentence about the first shard that cannot be used.
pub(crate) fn read(dataset: &Path, shards: &[PathBuf], opener: &Opener) -> Result<VideoList, String> {
    let mut list = VideoList::of(dataset, Vec::new());
    // Several at a time: on an object store each takes a while. What is wrong is still told of the first.
    let indices: Vec<_> = shards.par_iter().map(|shard| opener.index(shard)).collect();
    for (shard, index) in shards.iter().zip(indices) {
        let index = index.map_err(|error| format!("shard {}: {error}", shard.display()))?;
        let entry = |member: &Member| VideoEntry { path: shard.join(&member.name), label: member.label };
        list.entries.extend(index.members().iter().map(entry));
    }
    let unlabelled = list.entries.iter().filter(|entry| entry.label.is_none()).count();
    if unlabelled > 0 && unlabelled < list.entries.len() {
        list.notes.push(format!("{unlabelled} of its {} samples have no label", list.entries.len()));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_the_shard() {
        let split =
            |path| split_path(Path::new(path)).map(|(shard, name)| (shard.display().to_string(), name.to_owned()));
        assert_eq!(split("/d/a.tar/b/c.mp4"), Some(("/d/a.tar".into(), "b/c.mp4".into())));
        assert_eq!(split("s3://bucket/x/a.tar/c.mp4"), Some(("s3://bucket/x/a.tar".into(), "c.mp4".into())));
        assert_eq!(split("/d/a.tar"), None);
        assert_eq!(split("/d/c.mp4"), None);
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a.tar");
        std::fs::create_dir(&odd).unwrap();
        assert_eq!(split_path(&odd.join("c.mp4")), None);
        assert_eq!(index_path(Path::new("s3://b/a.tar")), Path::new("s3://b/a.tar.index"));
    }
}
