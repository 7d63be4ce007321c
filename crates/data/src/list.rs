//! Lists of videos: the official CSV, or the videos of a folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::source::DataError;

/// File name endings of the videos that a folder is searched for.
pub const EXTENSIONS: [&str; 5] = ["mp4", "webm", "mov", "m4v", "mkv"];

/// A video and its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoEntry {
    /// The file.
    pub path: PathBuf,
    /// Its label; none for a folder, or a list without labels.
    pub label: Option<i64>,
}

/// Reads one data set: a `.csv` or `.txt` list, or a folder.
///
/// A list has a line for each video, "path label" with a space, comma or tab between (the last one counts, so paths may
/// hold spaces). Relative paths are relative to the list's folder. Blank lines are skipped, and so is a first line
/// "path label". A folder is searched with all its sub-folders for files ending in [`EXTENSIONS`], in sorted order.
///
/// # Errors
/// [`DataError::List`] naming the file, the line and what is wrong; an empty list or folder is an error, too.
pub fn read_videos(dataset: &Path) -> Result<Vec<VideoEntry>, DataError> {
    let fail = |why: String| DataError::List(format!("data set {}: {why}", dataset.display()));
    let meta = std::fs::metadata(dataset).map_err(|error| fail(format!("cannot be opened: {error}")))?;
    let entries = if meta.is_dir() {
        let mut found = Vec::new();
        search(dataset, &mut found, &mut HashSet::new(), 0).map_err(fail)?;
        found.sort();
        found.into_iter().map(|path| VideoEntry { path, label: None }).collect()
    } else {
        if !matches!(extension(dataset).as_deref(), Some("csv" | "txt")) {
            return Err(fail("must be a folder of videos or a .csv of \"path label\" lines".into()));
        }
        let text = std::fs::read(dataset).map_err(|error| fail(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(text).map_err(|_| fail("is not UTF-8 text".into()))?;
        parse(&text, dataset.parent().unwrap_or(Path::new(""))).map_err(fail)?
    };
    if entries.is_empty() {
        return Err(fail(format!("holds no videos (of {})", EXTENSIONS.join(", "))));
    }
    Ok(entries)
}

fn extension(path: &Path) -> Option<String> {
    path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase)
}

fn is_video(path: &Path) -> bool {
    extension(path).is_some_and(|ext| EXTENSIONS.contains(&ext.as_str()))
}

/// Folders deeper than this are a loop of links.
const MAX_DEPTH: usize = 64;

fn search(folder: &Path, found: &mut Vec<PathBuf>, visited: &mut HashSet<PathBuf>, depth: usize) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    // Links to folders are followed, but no folder is entered twice.
    if depth > MAX_DEPTH || !visited.insert(folder.canonicalize().map_err(fail)?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        // A dangling link is no video; a video that cannot be opened later is counted as bad then.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.is_dir() {
            search(&path, found, visited, depth + 1)?;
        } else if is_video(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn parse(text: &str, folder: &Path) -> Result<Vec<VideoEntry>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let split = line.rsplit_once([' ', ',', '\t']).map(|(path, label)| (path.trim(), label.trim()));
        let (path, label) = match split {
            Some((path, label)) => match label.parse::<i64>() {
                Ok(label) if !path.is_empty() => (path, Some(label)),
                _ if number == 0 && label.trim_matches('"').eq_ignore_ascii_case("label") => continue,
                _ if is_video(Path::new(line)) => (line, None),
                _ => {
                    let number = number + 1;
                    return Err(format!("line {number} must be \"path label\" with a whole number as label"));
                }
            },
            None => (line, None),
        };
        let path = path.strip_prefix('"').and_then(|p| p.strip_suffix('"')).unwrap_or(path);
        entries.push(VideoEntry { path: folder.join(path), label });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(String, Option<i64>)> {
        let entries = parse(text, Path::new("/data")).unwrap();
        entries.into_iter().map(|e| (e.path.display().to_string(), e.label)).collect()
    }

    #[test]
    fn separators_spaces_quotes_and_headers() {
        let own = |path: &str, label| (path.to_owned(), label);
        assert_eq!(paths("a.mp4 3\n\n/b/c.webm 12\r\n"), [own("/data/a.mp4", Some(3)), own("/b/c.webm", Some(12))]);
        assert_eq!(paths("my clip.mp4 0"), [own("/data/my clip.mp4", Some(0))]);
        assert_eq!(paths("path,label\n\"a,b.mp4\",-1"), [own("/data/a,b.mp4", Some(-1))]);
        assert_eq!(paths("\u{feff}a.mp4\t7"), [own("/data/a.mp4", Some(7))]);
        assert_eq!(paths("a.mp4\nmy clip.mp4"), [own("/data/a.mp4", None), own("/data/my clip.mp4", None)]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert!(parse("a.mp4 1\nb.mp4 cat", Path::new("")).unwrap_err().starts_with("line 2 must be"));
    }

    #[test]
    fn folders_are_searched_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["b/z.MP4", "a.webm", "notes.txt", "b/c.mkv"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        let found = read_videos(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|e| e.path.strip_prefix(folder.path()).unwrap().to_path_buf()).collect();
        assert_eq!(names, [Path::new("a.webm"), Path::new("b/c.mkv"), Path::new("b/z.MP4")]);
    }

    #[test]
    fn what_is_no_data_set_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let say = |path: &Path| read_videos(path).unwrap_err().to_string();
        assert!(say(&folder.path().join("missing.csv")).contains("cannot be opened"));
        assert!(say(folder.path()).contains("holds no videos"));
        let odd = folder.path().join("data.npy");
        std::fs::write(&odd, "x").unwrap();
        assert!(say(&odd).contains("must be a folder"));
        let binary = folder.path().join("data.csv");
        std::fs::write(&binary, [0xFF, 0xFE, 0x00]).unwrap();
        assert!(say(&binary).contains("UTF-8"));
    }
}
