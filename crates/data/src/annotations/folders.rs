//! Videos found by where they lie: a folder, a pattern, one folder per class.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::AnnotationError;
use super::image_folder::image_folder;
use super::listing::Listing;
use crate::dialect::{EXTENSIONS, extension, is_read, unread};
use crate::list::VideoEntry;
use crate::media::Opener;
use crate::shards::expand;
use crate::survey::{Reason, reasons};
use crate::walk::{is_hidden, walk};

/// The videos of a folder at any depth, sorted, without labels.
///
/// # Errors
/// [`AnnotationError::File`] for a folder that cannot be read or holds no videos.
pub fn folder(folder: &Path) -> Result<Listing, AnnotationError> {
    let mut left_out = Reasons::default();
    let videos = videos(folder, &mut left_out)?;
    if videos.is_empty() {
        return Err(no_videos(folder));
    }
    let entries = videos.into_iter().map(|path| VideoEntry { path, label: None }).collect();
    Ok(Listing { path: folder.into(), entries, missing: left_out.list(), ..Listing::default() })
}

/// The files that a pattern with `*`, `?` or `[0-9]` names (`**` for folders at any depth), sorted, without labels.
///
/// # Errors
/// [`AnnotationError::File`] for a pattern that is none, or that no video has.
pub fn glob(pattern: &Path) -> Result<Listing, AnnotationError> {
    let found = expand(pattern, Opener::shared()).map_err(|why| AnnotationError::file(pattern, why))?;
    let mut left_out = Reasons::default();
    let entries: Vec<VideoEntry> =
        found.into_iter().filter(|path| left_out.keeps(path)).map(|path| VideoEntry { path, label: None }).collect();
    match entries.is_empty() {
        true => Err(no_videos(pattern)),
        false => Ok(Listing { path: pattern.into(), entries, missing: left_out.list(), ..Listing::default() }),
    }
}

/// One folder per class: its label is its place among the sorted names, its videos lie at any depth in it. Where no folder
/// holds a video, pictures are taken, as [`image_folder`] does.
///
/// # Errors
/// [`AnnotationError::File`] for a folder without class folders, and for a class folder without videos.
pub fn class_folders(folder: &Path) -> Result<Listing, AnnotationError> {
    let fail = |error: std::io::Error| AnnotationError::file(folder, format!("cannot be read: {error}"));
    let mut classes: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() && !is_hidden(&path) {
            classes.push(path);
        }
    }
    classes.sort();
    if classes.is_empty() {
        let why = "holds no class folders: give the folder whose folders are the classes";
        return Err(AnnotationError::file(folder, why));
    }
    let mut left_out = Reasons::default();
    let mut listing = Listing { path: folder.into(), ..Listing::default() };
    let mut empty = Vec::new();
    for (class, label) in classes.iter().zip(0..) {
        let videos = videos(class, &mut left_out)?;
        if videos.is_empty() {
            empty.push(class);
        }
        listing.entries.extend(videos.into_iter().map(|path| VideoEntry { path, label: Some(label) }));
        listing.classes.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    match empty.first() {
        Some(_) if listing.entries.is_empty() => image_folder(folder),
        Some(first) => {
            let why = "is a class folder without videos: fill it, or remove it if it is not a class";
            Err(AnnotationError::file(first, why))
        }
        None => {
            listing.missing = left_out.list();
            Ok(listing)
        }
    }
}

/// Files that are not read, by what they are.
#[derive(Default)]
struct Reasons(BTreeMap<String, (usize, PathBuf)>);

impl Reasons {
    /// True for a video that is read; counts any other file.
    fn keeps(&mut self, path: &Path) -> bool {
        let what = match extension(path).unwrap_or_default().as_str() {
            ending if is_read(ending) => return true,
            ending => match unread(ending) {
                Some(remedy) => format!(".{ending}, which is not read: {remedy}"),
                None => "not videos".into(),
            },
        };
        self.0.entry(what).or_insert_with(|| (0, path.into())).0 += 1;
        false
    }

    /// Most frequent first.
    fn list(self) -> Vec<Reason> {
        reasons(self.0)
    }
}

fn videos(folder: &Path, left_out: &mut Reasons) -> Result<Vec<PathBuf>, AnnotationError> {
    let mut found = Vec::new();
    walk(folder, &mut |_, held| found.extend(held.files.into_iter().filter(|path| left_out.keeps(path))))
        .map_err(|why| AnnotationError::file(folder, format!("cannot be read: {why}")))?;
    found.sort();
    Ok(found)
}

fn no_videos(path: &Path) -> AnnotationError {
    AnnotationError::file(
        path,
        format!("holds no videos (of {}): give the folder that they lie in", EXTENSIONS.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_patterns_and_classes_become_lists() {
        let root = tempfile::tempdir().unwrap();
        for name in ["run/b/2.mp4", "run/1.webm", "jump/3.mp4", "jump/notes.txt", ".git/4.mp4"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let names = |listing: &Listing| -> Vec<(String, Option<i64>)> {
            let own = |e: &VideoEntry| (e.path.strip_prefix(root.path()).unwrap().display().to_string(), e.label);
            listing.entries.iter().map(own).collect()
        };
        let all = folder(root.path()).unwrap();
        assert_eq!(
            names(&all),
            [("jump/3.mp4".into(), None), ("run/1.webm".into(), None), ("run/b/2.mp4".into(), None)]
        );
        assert_eq!(all.left_out(), 1);
        let classes = class_folders(root.path()).unwrap();
        assert_eq!(classes.classes, ["jump", "run"]);
        assert_eq!(names(&classes)[2], ("run/b/2.mp4".to_owned(), Some(1)));
        assert_eq!(
            names(&glob(&root.path().join("**/*.mp4")).unwrap()).len(),
            2 + 1,
            "a pattern finds hidden folders, too"
        );
        assert!(glob(&root.path().join("*.avi")).is_err());
        std::fs::create_dir(root.path().join("sit")).unwrap();
        assert!(class_folders(root.path()).unwrap_err().to_string().contains("class folder without videos"));
        assert!(class_folders(&root.path().join("run/b")).unwrap_err().to_string().contains("no class folders"));
    }
}
