//! Finds the files that annotations name without a path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::AnnotationError;
use crate::dialect::{EXTENSIONS, extension, is_read, unread};
use crate::survey::{Reason, reasons};
use crate::walk::walk;

/// The videos of a folder and all its sub-folders, by name without the ending.
#[derive(Debug, Clone, Default)]
pub struct FileIndex {
    folder: PathBuf,
    names: BTreeMap<String, Vec<PathBuf>>,
    /// Names as they are if letters were all small, for file systems and lists that differ in case.
    folded: BTreeMap<String, String>,
}

impl FileIndex {
    /// Searches a folder.
    ///
    /// # Errors
    /// [`AnnotationError::File`] for folders that cannot be read, or hold no videos at all.
    pub fn of(folder: &Path) -> Result<Self, AnnotationError> {
        let mut index = Self { folder: folder.into(), ..Self::default() };
        walk(folder, &mut |_, held| held.files.into_iter().for_each(|path| index.add(path)))
            .map_err(|why| AnnotationError::file(folder, format!("cannot be read: {why}")))?;
        if index.names.is_empty() {
            let why = format!("holds no videos (of {}): give the folder that the clips lie in", EXTENSIONS.join(", "));
            return Err(AnnotationError::file(folder, why));
        }
        for (name, paths) in &mut index.names {
            paths.sort();
            index.folded.entry(name.to_lowercase()).or_insert_with(|| name.clone());
        }
        Ok(index)
    }

    fn add(&mut self, path: PathBuf) {
        let video = extension(&path).is_some_and(|ext| is_read(&ext) || unread(&ext).is_some());
        if let (true, Some(name)) = (video, path.file_stem().and_then(|name| name.to_str())) {
            self.names.entry(name.to_owned()).or_default().push(path);
        }
    }

    /// The file of a name, of several with that name the one in a folder called `parent`.
    fn find(&self, name: &str, parent: Option<&str>) -> Option<&Path> {
        let paths = self.names.get(name).or_else(|| self.names.get(self.folded.get(&name.to_lowercase())?))?;
        let readable = |path: &&PathBuf| extension(path).is_some_and(|ext| is_read(&ext));
        let within = |path: &&PathBuf| {
            let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            parent.is_some() && folder == parent
        };
        let readable: Vec<&PathBuf> = match paths.iter().filter(readable).collect::<Vec<_>>() {
            none if none.is_empty() => paths.iter().collect(),
            some => some,
        };
        readable.iter().copied().find(within).or_else(|| readable.first().copied()).map(PathBuf::as_path)
    }
}

/// What annotations name and cannot be found, by reason.
#[derive(Debug)]
pub(super) struct Missing<'a> {
    index: &'a FileIndex,
    reasons: BTreeMap<String, (usize, PathBuf)>,
}

impl<'a> Missing<'a> {
    pub fn of(index: &'a FileIndex) -> Self {
        Self { index, reasons: BTreeMap::new() }
    }

    pub fn count(&mut self, what: impl Into<String>, first: impl Into<PathBuf>) {
        self.reasons.entry(what.into()).or_insert_with(|| (0, first.into())).0 += 1;
    }

    /// The first file of these names that exists and is read; counts the sample as missing if there is none.
    pub fn find(&mut self, names: &[&str], parent: Option<&str>) -> Option<PathBuf> {
        let found = names.iter().find_map(|name| self.index.find(name, parent));
        match found {
            Some(path) => match extension(path).and_then(|ext| Some((unread(&ext)?, ext))) {
                Some((remedy, ext)) => {
                    self.count(format!(".{ext}, which is not read: {remedy}"), path);
                    None
                }
                None => Some(path.into()),
            },
            None => {
                let name = names.first().copied().unwrap_or_default();
                self.count(format!("have no file in {}", self.index.folder.display()), name);
                None
            }
        }
    }

    /// Most frequent first.
    pub fn reasons(self) -> Vec<Reason> {
        reasons(self.reasons)
    }
}
