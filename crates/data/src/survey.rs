//! A survey of a data set before it is used: how many videos it has, how many of them cannot be read, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use vjepa_video::VideoError;

use super::decode::SMALLEST_FILE;
use super::frames::is_picture;
use super::list::{VideoEntry, VideoList};
use super::media::Opener;
use super::shards::split_path;
use super::storage::is_url;

/// Videos of a data set that are opened to see whether they can be read: their tables, not their pictures. Of a longer list
/// as many are, spread evenly.
const OPENED: usize = 1024;
/// Those of shards and object stores.
const OPENED_WHOLE: usize = 32;

/// Some videos or files with something in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What they are.
    pub what: String,
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: PathBuf,
}

/// The survey of one data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The list or folder.
    pub path: PathBuf,
    /// Videos that it lists, or that are found in it.
    pub videos: usize,
    /// Of these, those that were opened to look.
    pub opened: usize,
    /// Of these, those that cannot be read, most frequent reason first.
    pub unreadable: Vec<Reason>,
    /// Files of a folder that are not read as videos.
    pub left_out: Vec<Reason>,
    /// How a list was read where it is not written as the official code's.
    pub notes: Vec<String>,
}

impl Survey {
    /// Looks at a data set.
    pub fn of(list: &VideoList) -> Self {
        Self::with(list, Opener::shared())
    }

    /// As [`Survey::of`], with the opener that the run will use.
    pub fn with(list: &VideoList, opener: &Opener) -> Self {
        // To look into a shard or an object is to read all of the sample.
        let whole = |entry: &VideoEntry| is_url(&entry.path) || split_path(&entry.path).is_some();
        let most = if list.entries.first().is_some_and(whole) { OPENED_WHOLE } else { OPENED };
        let step = list.entries.len().div_ceil(most).max(1);
        let chosen: Vec<&VideoEntry> = list.entries.iter().step_by(step).collect();
        let faults: Vec<Option<String>> = chosen.par_iter().map(|entry| fault(&entry.path, opener)).collect();
        let mut groups: BTreeMap<String, (usize, PathBuf)> = BTreeMap::new();
        for (entry, fault) in chosen.iter().zip(faults) {
            if let Some(what) = fault {
                groups.entry(what).or_insert_with(|| (0, entry.path.clone())).0 += 1;
            }
        }
        Self {
            path: list.path.clone(),
            videos: list.entries.len(),
            opened: chosen.len(),
            unreadable: reasons(groups),
            left_out: reasons(list.left_out.clone()),
            notes: list.notes.clone(),
        }
    }
}

/// Counted files, the most frequent reason first, equally frequent ones by name.
pub(crate) fn reasons(groups: BTreeMap<String, (usize, PathBuf)>) -> Vec<Reason> {
    let mut reasons: Vec<Reason> =
        groups.into_iter().map(|(what, (count, first))| Reason { what, count, first }).collect();
    reasons.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.what.cmp(&b.what)));
    reasons
}

/// Why a video cannot be read, in words that other videos share; none for one that can be opened.
fn fault(path: &Path, opener: &Opener) -> Option<String> {
    if split_path(path).is_none() && !is_url(path) {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some("not found".into()),
            Err(error) => return Some(format!("not readable ({})", error.kind())),
            Ok(meta) if meta.is_file() && meta.len() < SMALLEST_FILE && !is_picture(path) => {
                return Some("under 1 KiB, which the official loader skips, too".into());
            }
            Ok(_) => {}
        }
    }
    let error = opener.open(path).err()?;
    let Some(video) = error.video() else { return Some(format!("not usable (one {error})")) };
    Some(match video {
        VideoError::UnsupportedCodec { codec, .. } => format!("{codec}, which is not decoded"),
        VideoError::NotAVideo { .. } => "not a video".into(),
        VideoError::AudioOnly { .. } => "without a video track".into(),
        VideoError::Truncated { .. } => "cut off".into(),
        VideoError::Corrupt { .. } | VideoError::Panicked { .. } => "damaged".into(),
        VideoError::TooLarge { .. } => "with pictures that are too large".into(),
        VideoError::Missing { .. } => "not found".into(),
        VideoError::Io { source, .. } => format!("not readable ({})", source.kind()),
        _ => "not readable".into(),
    })
}

/// Reasons of a line, at most.
const SHOWN: usize = 6;

/// `"mixed: 4 videos; 24 files left out: 24 .avi (...)"`, for a person.
impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = |reasons: &[Reason]| reasons.iter().map(|reason| reason.count).sum::<usize>();
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let list = |f: &mut fmt::Formatter<'_>, reasons: &[Reason]| {
            for (index, Reason { what, count, .. }) in reasons.iter().take(SHOWN).enumerate() {
                write!(f, "{} {count} {what}", if index == 0 { ":" } else { "," })?;
            }
            if reasons.len() > SHOWN { write!(f, ", and others") } else { Ok(()) }
        };
        write!(f, "{}: {}", self.path.display(), plural(self.videos, "video"))?;
        if let Some(first) = self.unreadable.first() {
            let bad = total(&self.unreadable);
            match self.opened {
                opened if opened < self.videos => write!(f, "; of {opened} opened, {bad} cannot be used")?,
                _ => write!(f, ", of which {bad} cannot be used")?,
            }
            list(f, &self.unreadable)?;
            write!(f, " (the first: {})", first.first.display())?;
        }
        if !self.left_out.is_empty() {
            write!(f, "; {} left out", plural(total(&self.left_out), "file"))?;
            list(f, &self.left_out)?;
        }
        Ok(())
    }
}
