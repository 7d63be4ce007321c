//! A folder of videos as a list.

use std::path::{Path, PathBuf};

use super::super::dialect::{extension, short, unread};
use super::super::source::DataError;
use super::super::walk::walk;
use super::{LeftOut, VideoEntry, VideoList, fail};

/// What is said of pictures in a folder of videos.
const PICTURES: &str = " (pictures)";

pub(super) fn read_folder(folder: &Path, endings: &[&str]) -> Result<VideoList, DataError> {
    let mut list = VideoList { path: folder.into(), ..VideoList::default() };
    let (mut found, left_out) = (Vec::new(), &mut list.left_out);
    walk(folder, &mut |_, held| {
        for path in held.files {
            match passed_over(&path, endings) {
                None => found.push(path),
                Some(what) => leave_out(left_out, what, path),
            }
        }
        for path in held.hidden {
            if let Some(what) = hidden(&path, endings) {
                leave_out(left_out, what, path);
            }
        }
    })
    .map_err(|why| fail(folder, why))?;
    found.sort();
    if found.is_empty() {
        let held: Vec<String> = list.left_out.iter().map(|(what, (count, _))| format!("{count} {what}")).collect();
        let pictures = list.left_out.keys().any(|what| what.ends_with(PICTURES));
        return Err(DataError::NoVideos { folder: folder.into(), endings: endings.join(", "), held, pictures });
    }
    list.entries = found.into_iter().map(|path| VideoEntry { path, label: None }).collect();
    Ok(list)
}

fn leave_out(left_out: &mut LeftOut, what: String, path: PathBuf) {
    let group = left_out.entry(what).or_insert_with(|| (0, path.clone()));
    group.0 += 1;
    // Folders are shown before those in them, which is not the order of whole paths.
    if path < group.1 {
        group.1 = path;
    }
}

/// Why a file is not read as a video; none for one that is.
fn passed_over(path: &Path, endings: &[&str]) -> Option<String> {
    // A video that cannot be opened later is counted as bad then.
    if std::fs::metadata(path).is_err() {
        return Some("links that lead nowhere".into());
    }
    let ext = extension(path).unwrap_or_default();
    match ext.as_str() {
        ext if endings.contains(&ext) => None,
        "jpg" | "jpeg" | "png" | "bmp" | "webp" | "tif" | "tiff" => Some(format!(".{ext}{PICTURES}")),
        "" => Some("without a file name ending".into()),
        ext => Some(match unread(ext) {
            Some(remedy) => format!(".{ext} (not a container that is read: {remedy})"),
            None => format!(".{}", short(ext)),
        }),
    }
}

/// What is said of a hidden name; nothing of those that no one takes for a video.
fn hidden(path: &Path, endings: &[&str]) -> Option<String> {
    if path.is_dir() {
        return Some("hidden folders".into());
    }
    extension(path).filter(|ext| endings.contains(&ext.as_str())).map(|ext| format!("hidden .{ext}"))
}
