//! HMDB51.

use std::path::{Path, PathBuf};

use super::error::{AnnotationError, lines, read};
use super::files::{FileIndex, Missing};
use super::listing::Listing;
use crate::list::VideoEntry;

/// Which part of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HmdbPart {
    /// 70 clips of each class, marked 1.
    Train,
    /// 30 clips of each class, marked 2.
    Test,
}

/// Reads the folder of `<class>_test_splitN.txt` (`video.avi 1`; 1 is for training, 2 for testing, 0 for neither) for split
/// `split`. Classes are the sorted names. Clips are looked for in `videos` by name, first in a folder named like the class,
/// with any ending that is read: the set comes as .avi.
///
/// # Errors
/// [`AnnotationError`] for a folder without such files, lines of another form, and marks other than 0, 1 and 2.
pub fn hmdb51(splits: &Path, split: u32, part: HmdbPart, videos: &FileIndex) -> Result<Listing, AnnotationError> {
    let fail = |error: std::io::Error| AnnotationError::file(splits, format!("cannot be read: {error}"));
    let ending = format!("_test_split{split}.txt");
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(splits).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let class = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(&ending));
        if let Some(class) = class.filter(|class| !class.starts_with('.')) {
            files.push((class.to_owned(), path.clone()));
        }
    }
    if files.is_empty() {
        let why =
            format!("holds no file named `<class>{ending}`: give the folder of split files, and a split from 1 to 3");
        return Err(AnnotationError::file(splits, why));
    }
    files.sort();
    let mut missing = Missing::of(videos);
    let classes = files.iter().map(|(class, _)| class.clone()).collect();
    let mut listing = Listing { path: splits.into(), classes, ..Listing::default() };
    for ((class, file), label) in files.iter().zip(0..) {
        let text = read(file)?;
        for (line, text) in lines(&text) {
            let marked =
                text.rsplit_once([' ', '\t']).and_then(|(name, mark)| Some((name.trim(), mark.parse::<u32>().ok()?)));
            let (name, mark) = match marked {
                Some((name, mark @ 0..=2)) => (name, mark),
                _ => {
                    let why = format!("must be `video.avi N` with N 0, 1 or 2, got `{text}`: correct the line");
                    return Err(AnnotationError::line(file, line, why));
                }
            };
            let name = name.rsplit_once('.').map_or(name, |(name, _)| name);
            match (mark, part) {
                (0, _) => missing.count(format!("marked 0, in neither part of split {split}"), name),
                (1, HmdbPart::Train) | (2, HmdbPart::Test) => {
                    if let Some(path) = missing.find(&[name], Some(class)) {
                        listing.entries.push(VideoEntry { path, label: Some(label) });
                    }
                }
                _ => missing.count("belong to the other part of the split", name),
            }
        }
    }
    listing.missing = missing.reasons();
    Ok(listing)
}
