//! Decodes every file once: what each is, and the first thing that is wrong with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::journal::{Journal, Line};
use crate::list::VideoList;
use crate::media::Opener;

/// One file, scanned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scanned {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its codec; empty where it cannot be opened, as the following are 0.
    pub codec: String,
    /// Width as displayed, in pixels.
    pub width: usize,
    /// Height as displayed.
    pub height: usize,
    /// Average frames per second; 0 where unknown.
    pub fps: f64,
    /// Frames shown.
    pub frames: usize,
    /// Seconds.
    pub duration: f64,
    /// Pictures at the beginning that cannot be decoded and are not counted.
    pub left_out: usize,
    /// The first frame that cannot be decoded; none where all can, or none can.
    pub bad_frame: Option<usize>,
    /// What is wrong first; none for a good file.
    pub fault: Option<String>,
}

impl Line for Scanned {
    fn path(&self) -> &Path {
        &self.path
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Scans the files of a list in parallel; `journal` has what an earlier run found. The results are in the order
/// of the list's entries. `progress` is called with each file that was decoded now.
///
/// # Errors
/// One sentence, where the journal cannot be written, or the files lie where nothing can be reached.
pub fn scan(
    list: &VideoList,
    journal: &Journal<Scanned>,
    opener: &Opener,
    progress: &(dyn Fn(&Scanned) + Sync),
) -> Result<Vec<Scanned>, String> {
    let one = |entry: &crate::list::VideoEntry| {
        let bytes = opener.size(&entry.path).unwrap_or(0);
        if let Some(known) = journal.get(&entry.path, bytes) {
            return Ok(known.clone());
        }
        let scanned = scan_one(&entry.path, bytes, opener)?;
        journal.add(&scanned)?;
        progress(&scanned);
        Ok(scanned)
    };
    list.entries.par_iter().map(one).collect()
}

fn scan_one(path: &Path, bytes: u64, opener: &Opener) -> Result<Scanned, String> {
    let mut scanned = Scanned {
        path: path.into(),
        bytes,
        codec: String::new(),
        width: 0,
        height: 0,
        fps: 0.0,
        frames: 0,
        duration: 0.0,
        left_out: 0,
        bad_frame: None,
        fault: None,
    };
    let mut media = match opener.open(path) {
        Ok(media) => media,
        // A store that cannot be reached says nothing of the file.
        Err(error) if error.is_storage() => return Err(format!("{}: {error}", path.display())),
        Err(error) => {
            scanned.fault = Some(error.reason(path));
            return Ok(scanned);
        }
    };
    let info = media.info();
    (scanned.codec, scanned.width, scanned.height) = (info.codec.to_string(), info.width(), info.height());
    (scanned.fps, scanned.frames, scanned.duration) = (info.average_fps(), info.frames, info.duration);
    scanned.left_out = info.left_out;
    if let Some((frame, why)) = media.first_fault() {
        (scanned.bad_frame, scanned.fault) = (frame, Some(why));
    }
    Ok(scanned)
}

/// What a scan found, in lines of `what` and `how many`: codecs, sizes, rates, lengths, faults. For a table.
pub fn table(scanned: &[Scanned]) -> Vec<[String; 2]> {
    let mut groups: BTreeMap<(u8, String), usize> = BTreeMap::new();
    let mut count = |order: u8, what: String| *groups.entry((order, what)).or_insert(0) += 1;
    let (mut frames, mut seconds, mut bytes) = (0u64, 0.0, 0u64);
    for one in scanned {
        (frames, seconds, bytes) = (frames + one.frames as u64, seconds + one.duration, bytes + one.bytes);
        match &one.fault {
            Some(why) => count(4, format!("bad: {}", vjepa_recipe::text::short(why, 80))),
            None => count(0, "good".into()),
        }
        if !one.codec.is_empty() {
            count(1, one.codec.clone());
            count(2, format!("short side {}", band(one.width.min(one.height), &[128, 256, 360, 480, 720, 1080])));
            count(3, format!("{:.0} frames per second", one.fps));
        }
    }
    let mut lines: Vec<[String; 2]> = groups.into_iter().map(|((_, what), count)| [what, count.to_string()]).collect();
    lines.push(["frames".into(), frames.to_string()]);
    lines.push(["hours".into(), format!("{:.2}", seconds / 3600.0)]);
    lines.push(["GiB".into(), format!("{:.2}", bytes as f64 / f64::from(1 << 30))]);
    lines
}

fn band(value: usize, ends: &[usize]) -> String {
    match ends.iter().find(|&&end| value <= end) {
        Some(end) => format!("up to {end}"),
        None => format!("above {}", ends.last().copied().unwrap_or_default()),
    }
}
