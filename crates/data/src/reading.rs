//! Reads data sets of every kind: lists, folders of videos, frames or pictures, shards, single files, here and on object stores.

use std::path::{Path, PathBuf};

use vjepa_recipe::config::{DataConfig, FoldersHold};
use vjepa_recipe::text;

use crate::dialect::{EXTENSIONS, extension};
use crate::frames::is_picture;
use crate::list::{VideoEntry, VideoList, fail, read_local, resolve};
use crate::media::Opener;
use crate::shards;
use crate::source::DataError;
use crate::storage::is_url;
use crate::walk::{is_hidden, walk};

/// How data sets are read.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// What folders are taken to hold.
    pub folders_hold: FoldersHold,
    /// What opens lists and indices.
    pub opener: &'a Opener,
    /// Endings of files that folders are searched for.
    pub endings: &'a [&'a str],
}

impl Default for Reading<'static> {
    fn default() -> Self {
        Self { folders_hold: FoldersHold::Videos, opener: Opener::shared(), endings: EXTENSIONS }
    }
}

/// The opener that a configuration asks for.
///
/// # Errors
/// [`DataError::Setup`] for a cache that cannot be used.
pub fn opener_of(data: &DataConfig) -> Result<Opener, DataError> {
    let opener = Opener::default().with_frame_rate(data.frame_rate).with_official_sizes(data.filter_long_videos);
    #[cfg(feature = "cloud")]
    {
        let store = crate::storage::CloudStore::default();
        let Some(folder) = &data.cache_folder else { return Ok(opener.with_store(std::sync::Arc::new(store))) };
        // Validation keeps the product in range.
        let limit = (data.cache_gib * f64::from(1 << 30)) as u64;
        let cached = crate::storage::Cached::new(store, Path::new(folder), limit);
        let cached = cached.map_err(|error| DataError::Setup(format!("`data.cache_folder`: {error}")))?;
        Ok(opener.with_store(std::sync::Arc::new(cached)))
    }
    #[cfg(not(feature = "cloud"))]
    match &data.cache_folder {
        None => Ok(opener),
        Some(_) => Err(DataError::Setup(
            "`data.cache_folder` keeps what is read from object stores, which this program does not read: leave it out, or \
             build with `--features cloud`"
                .into(),
        )),
    }
}

impl Reading<'_> {
    /// Reads one data set.
    ///
    /// # Errors
    /// [`DataError::List`] naming the data set, the line where there is one, and what is wrong; [`DataError::Absent`] and
    /// [`DataError::NoVideos`] where there is nothing to read.
    pub fn read(&self, dataset: &Path) -> Result<VideoList, DataError> {
        let named = |why: String| fail(dataset, why);
        if let Some(shards) = shards::find(dataset, self.opener).map_err(named)? {
            return shards::read(dataset, &shards, self.opener).map_err(named);
        }
        if is_url(dataset) {
            return self.remote(dataset).map_err(named);
        }
        let single =
            is_picture(dataset) || extension(dataset).is_some_and(|ending| self.endings.contains(&ending.as_str()));
        match self.folders_hold {
            _ if single && dataset.is_file() => Ok(of_paths(dataset, vec![dataset.into()])),
            FoldersHold::Frames if dataset.is_dir() => frame_folders(dataset).map_err(named),
            FoldersHold::Images if dataset.is_dir() => pictures(dataset).map_err(named),
            FoldersHold::Videos | FoldersHold::Frames | FoldersHold::Images => read_local(dataset, self.endings),
        }
    }

    /// A list or a folder of an object store.
    fn remote(&self, dataset: &Path) -> Result<VideoList, String> {
        match extension(dataset).as_deref() {
            Some("csv" | "txt") => {
                let bytes = self.opener.read_all(dataset).map_err(|error| error.to_string())?;
                let read = text::decode(&bytes).map_err(|error| error.to_string())?;
                let mut list = resolve(&read, dataset.parent().unwrap_or(Path::new("")))?;
                list.path = dataset.into();
                match list.entries.is_empty() {
                    true => Err("holds no videos: it has no line".into()),
                    false => Ok(list),
                }
            }
            Some(ending) if self.endings.contains(&ending) || is_picture(dataset) => {
                Ok(of_paths(dataset, vec![dataset.into()]))
            }
            _ => {
                let all = self.opener.list(dataset).map_err(|error| error.to_string())?;
                self.listed(dataset, all)
            }
        }
    }

    fn listed(&self, dataset: &Path, all: Vec<PathBuf>) -> Result<VideoList, String> {
        // As in folders of this machine.
        let within = |path: &Path| path.strip_prefix(dataset).map(Path::to_path_buf).unwrap_or_default();
        let shown = |path: &PathBuf| !within(path).ancestors().filter(|part| part.parent().is_some()).any(is_hidden);
        let all: Vec<PathBuf> = all.into_iter().filter(shown).collect();
        let of_kind: Vec<PathBuf> = match self.folders_hold {
            FoldersHold::Videos => {
                let shards: Vec<PathBuf> = all.iter().filter(|path| shards::is_shard(path)).cloned().collect();
                if !shards.is_empty() {
                    return shards::read(dataset, &shards, self.opener);
                }
                let video =
                    |path: &PathBuf| extension(path).is_some_and(|ending| self.endings.contains(&ending.as_str()));
                all.into_iter().filter(video).collect()
            }
            FoldersHold::Images => all.into_iter().filter(|path| is_picture(path)).collect(),
            FoldersHold::Frames => {
                return Err(
                    "is on an object store, where frame folders are not read: pack them with `vjepa data pack`".into(),
                );
            }
        };
        match of_kind.is_empty() {
            true => Err(format!("holds nothing that is read (shards, or files of {})", self.endings.join(", "))),
            false => Ok(of_paths(dataset, of_kind)),
        }
    }
}

fn of_paths(dataset: &Path, paths: Vec<PathBuf>) -> VideoList {
    let entries = paths.into_iter().map(|path| VideoEntry { path, label: None }).collect();
    VideoList::of(dataset, entries)
}

/// The folders at any depth that hold pictures.
fn frame_folders(dataset: &Path) -> Result<VideoList, String> {
    let mut found = Vec::new();
    walk(dataset, &mut |folder, held| {
        if held.files.iter().any(|path| is_picture(path)) {
            found.push(folder.to_path_buf());
        }
    })?;
    found.sort();
    match found.is_empty() {
        true => Err("holds no folder of numbered pictures (.jpg, .jpeg or .png)".into()),
        false => Ok(of_paths(dataset, found)),
    }
}

/// The pictures at any depth.
fn pictures(dataset: &Path) -> Result<VideoList, String> {
    let mut found = Vec::new();
    walk(dataset, &mut |_, held| found.extend(held.files.into_iter().filter(|path| is_picture(path))))?;
    found.sort();
    match found.is_empty() {
        true => Err("holds no pictures (.jpg, .jpeg or .png)".into()),
        false => Ok(of_paths(dataset, found)),
    }
}
